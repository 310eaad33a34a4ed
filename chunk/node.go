package chunk

import "fmt"

const (
	fanoutLog = 7
	// Fanout is the number of children of a node: 4 KiB of IDs.
	Fanout = 1 << fanoutLog
	// MaxNode is the greatest length of an encoded node, in bytes.
	MaxNode = nodeHeader + Fanout*IDSize

	nodeFormat = 1
	nodeHeader = 3 // format, height, count
	maxHeight  = 7
)

// node is a decoded node: its children, of which those past the last that is no
// hole are zero.
type node [Fanout]ID

// encode appends n as a node of the given height to dst. n has a child.
func (n *node) encode(dst []byte, height uint8) []byte {
	count := n.count()
	dst = append(dst, nodeFormat, height, byte(count))
	for i := range count {
		dst = append(dst, n[i][:]...)
	}
	return dst
}

// count returns the number of children up to the last that is no hole.
func (n *node) count() int {
	count := Fanout
	for count > 0 && n[count-1].IsZero() {
		count--
	}
	return count
}

// checkNode returns the children's bytes of an encoded node of the given height,
// which may hold the given number of blocks.
func checkNode(b []byte, height uint8, blocks int64) ([]byte, error) {
	if len(b) < nodeHeader+IDSize || len(b) > MaxNode {
		return nil, fmt.Errorf("%w: a node of %d bytes", ErrMalformed, len(b))
	}
	if b[0] != nodeFormat {
		return nil, fmt.Errorf("%w: node format %d", ErrMalformed, b[0])
	}
	if b[1] != height || height == 0 || height > maxHeight {
		return nil, fmt.Errorf("%w: a node of height %d in place of %d", ErrMalformed, b[1], height)
	}
	children := b[nodeHeader:]
	if len(children) != int(b[2])*IDSize {
		return nil, fmt.Errorf("%w: %d bytes for %d children", ErrMalformed, len(children), b[2])
	}
	if blocks <= int64(b[2]-1)*span(height-1) {
		return nil, fmt.Errorf("%w: a node that reaches past the end", ErrMalformed)
	}
	if ID(children[len(children)-IDSize:]).IsZero() {
		return nil, fmt.Errorf("%w: a node that ends in a hole", ErrMalformed)
	}
	return children, nil
}

func decodeNode(b []byte, height uint8, blocks int64) (*node, error) {
	children, err := checkNode(b, height, blocks)
	if err != nil {
		return nil, err
	}
	var n node
	for i := range len(children) / IDSize {
		n[i] = ID(children[i*IDSize:])
	}
	return &n, nil
}
