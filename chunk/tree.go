package chunk

import (
	"context"
	"fmt"
)

// NodeIO reads and writes the nodes of block trees, in plaintext. What sealing
// and storing them means is its own business.
type NodeIO interface {
	// LoadNode returns the bytes that were saved under id. They are only read, and
	// only until the next call.
	LoadNode(ctx context.Context, id ID) ([]byte, error)
	// SaveNode stores a node, at most MaxNode bytes, and returns its ID. It must not
	// keep plain.
	SaveNode(ctx context.Context, plain []byte) (ID, error)
}

// Block returns the ID of one block of v. The zero ID means a hole; so do all
// blocks outside of v, and those of an inline version. Errors are those of io,
// wrapped, and ErrMalformed.
func Block(ctx context.Context, io NodeIO, v Version, index int64) (ID, error) {
	if err := v.Check(); err != nil {
		return ID{}, err
	}
	if index < 0 || index >= v.Blocks() {
		return ID{}, nil
	}
	id, room := v.Root, v.Blocks()
	for h := v.Height; h > 0 && !id.IsZero(); h-- {
		b, err := io.LoadNode(ctx, id)
		if err != nil {
			return ID{}, fmt.Errorf("load node %v: %w", id, err)
		}
		children, _, err := checkNode(b, h, room)
		if err != nil {
			return ID{}, fmt.Errorf("read node %v: %w", id, err)
		}
		slot := index / span(h-1)
		if slot*IDSize >= int64(len(children)) {
			return ID{}, nil
		}
		id = ID(children[slot*IDSize:])
		index, room = index-slot*span(h-1), room-slot*span(h-1)
	}
	return id, nil
}

// Siblings returns the IDs of the nodes just above the blocks of v that have a node
// above them in common with that of block index: what reads around there will
// need. There are none in a tree of less than two levels. Errors are those of Block.
func Siblings(ctx context.Context, io NodeIO, v Version, index int64) ([]ID, error) {
	if err := v.Check(); err != nil {
		return nil, err
	}
	if v.Height < 2 || index < 0 || index >= v.Blocks() {
		return nil, nil
	}
	var out []ID
	unit := span(2)
	from := index / unit * unit
	w := walker{io: io, from: from, to: from + unit, end: v.Blocks(), lowest: func(id ID) { out = append(out, id) }}
	return out, w.walk(ctx, v.Root, v.Height, 0)
}

// Blocks calls fn for the blocks of v with from ≤ index < to, in order and
// without the holes. It ends with the first error, of fn, of io or ErrMalformed.
func Blocks(ctx context.Context, io NodeIO, v Version, from, to int64, fn func(index int64, id ID) error) error {
	if err := v.Check(); err != nil {
		return err
	}
	w := walker{io: io, from: max(from, 0), to: min(to, v.Blocks()), end: v.Blocks(), block: fn}
	return w.walk(ctx, v.Root, v.Height, 0)
}

// All calls fn for every chunk of v, blocks and nodes, each node before what is
// below it. A node that stands in several places is visited once; a block's ID
// may be given more than once. It ends with the first error, of fn, of io or
// ErrMalformed. Memory grows with the number of nodes.
func All(ctx context.Context, io NodeIO, v Version, fn func(id ID, isNode bool) error) error {
	if err := v.Check(); err != nil {
		return err
	}
	seen := map[ID]bool{}
	w := walker{
		io: io, to: v.Blocks(), end: v.Blocks(),
		block: func(_ int64, id ID) error { return fn(id, false) },
		node: func(id ID) (bool, error) {
			if seen[id] {
				return false, nil
			}
			seen[id] = true
			return true, fn(id, true)
		},
	}
	return w.walk(ctx, v.Root, v.Height, 0)
}

// walker visits what is there of the blocks from ≤ index < to.
type walker struct {
	io       NodeIO
	from, to int64
	end      int64 // number of blocks of the version
	block    func(index int64, id ID) error
	node     func(id ID) (enter bool, err error) // nil: enter all
	lowest   func(id ID)                         // instead of entering the nodes above the blocks; nil: enter
}

// walk visits the subtree of a height whose first block is base.
func (w *walker) walk(ctx context.Context, id ID, h uint8, base int64) error {
	if id.IsZero() || base >= w.to || base+(span(h)-1) < w.from {
		return nil
	}
	if h == 0 {
		return w.block(base, id)
	}
	if h == 1 && w.lowest != nil {
		w.lowest(id)
		return nil
	}
	if w.node != nil {
		if enter, err := w.node(id); err != nil || !enter {
			return err
		}
	}
	n, err := load(ctx, w.io, id, h, w.end-base)
	if err != nil {
		return err
	}
	for i, child := range n.child {
		if child.IsZero() {
			continue
		}
		if err := w.walk(ctx, child, h-1, base+int64(i)*span(h-1)); err != nil {
			return err
		}
	}
	return nil
}

// subtree is a root of some height, with the number of blocks below it that are no holes.
type subtree struct {
	id     ID
	height uint8
	data   int64
}

// root returns the root of v.
func (v Version) root() subtree { return subtree{v.Root, v.Height, v.Data()} }

// below returns a child of a node of the given height.
func (n *node) below(slot int, height uint8) subtree {
	return subtree{n.child[slot], height - 1, n.data[slot]}
}

// set makes s a child.
func (n *node) set(slot int, s subtree) { n.child[slot], n.data[slot] = s.id, s.data }

// load reads the node id of height h, below which the version has the given number
// of blocks.
func load(ctx context.Context, io NodeIO, id ID, h uint8, blocks int64) (*node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := io.LoadNode(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("load node %v: %w", id, err)
	}
	n, err := decodeNode(b, h, blocks)
	if err != nil {
		return nil, fmt.Errorf("read node %v: %w", id, err)
	}
	return n, nil
}
