package chunk

import (
	"encoding/binary"
	"fmt"
)

const (
	fanoutLog = 7
	// Fanout is the number of children of a node: 4 KiB of IDs.
	Fanout = 1 << fanoutLog
	// MaxNode is the greatest length of an encoded node, in bytes.
	MaxNode = nodeHeader + Fanout*(IDSize+countSize)

	// idsFormat is that of the nodes right above blocks, and was once that of all; countsFormat has the number of
	// blocks below each child as well.
	idsFormat    = 1
	countsFormat = 2
	nodeHeader   = 3 // format, height, count
	countSize    = 6
	maxHeight    = 7
)

// node is a decoded node. Its children past the last that is no hole are zero.
type node struct {
	child [Fanout]ID
	data  [Fanout]int64 // how many blocks below each are no holes
}

// encode appends n as a node of the given height to dst. n has a child.
func (n *node) encode(dst []byte, height uint8) []byte {
	count := n.count()
	format := byte(countsFormat)
	if height == 1 {
		format = idsFormat
	}
	dst = append(dst, format, height, byte(count))
	for i := range count {
		dst = append(dst, n.child[i][:]...)
	}
	if format == countsFormat {
		for i := range count {
			var b [8]byte
			binary.BigEndian.PutUint64(b[:], uint64(n.data[i]))
			dst = append(dst, b[8-countSize:]...)
		}
	}
	return dst
}

// count returns the number of children up to the last that is no hole.
func (n *node) count() int {
	count := Fanout
	for count > 0 && n.child[count-1].IsZero() {
		count--
	}
	return count
}

// sum returns how many blocks below n are no holes.
func (n *node) sum() (data int64) {
	for _, d := range n.data {
		data += d
	}
	return data
}

// checkNode returns the bytes of the children's IDs of an encoded node of the given height, which may hold the given
// number of blocks, and those of their counts, if it has them.
func checkNode(b []byte, height uint8, blocks int64) (ids, counts []byte, err error) {
	if len(b) < nodeHeader+IDSize || len(b) > MaxNode {
		return nil, nil, fmt.Errorf("%w: a node of %d bytes", ErrMalformed, len(b))
	}
	each := IDSize
	if b[0] == countsFormat {
		each += countSize
	}
	if b[0] != idsFormat && (b[0] != countsFormat || height == 1) {
		return nil, nil, fmt.Errorf("%w: node format %d in height %d", ErrMalformed, b[0], height)
	}
	if b[1] != height || height == 0 || height > maxHeight {
		return nil, nil, fmt.Errorf("%w: a node of height %d in place of %d", ErrMalformed, b[1], height)
	}
	n := int(b[2])
	if len(b) != nodeHeader+n*each || n > Fanout {
		return nil, nil, fmt.Errorf("%w: a node of %d bytes with %d children", ErrMalformed, len(b), n)
	}
	if blocks <= int64(n-1)*span(height-1) {
		return nil, nil, fmt.Errorf("%w: a node that reaches past the end", ErrMalformed)
	}
	ids = b[nodeHeader:][:n*IDSize]
	if ID(ids[len(ids)-IDSize:]).IsZero() {
		return nil, nil, fmt.Errorf("%w: a node that ends in a hole", ErrMalformed)
	}
	return ids, b[nodeHeader+n*IDSize:], nil
}

func decodeNode(b []byte, height uint8, blocks int64) (*node, error) {
	ids, counts, err := checkNode(b, height, blocks)
	if err != nil {
		return nil, err
	}
	var n node
	for i := range len(ids) / IDSize {
		n.child[i] = ID(ids[i*IDSize:])
		most := min(span(height-1), blocks-int64(i)*span(height-1))
		switch {
		case n.child[i].IsZero():
		case len(counts) == 0:
			n.data[i] = most // of what an older program wrote it is not known
		default:
			var b [8]byte
			copy(b[8-countSize:], counts[i*countSize:][:countSize])
			// A wrong count is no reason not to read a file.
			n.data[i] = min(max(1, int64(binary.BigEndian.Uint64(b[:]))), most)
		}
	}
	return &n, nil
}
