package chunk

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// Update returns the version that v becomes when it has size bytes and the given
// blocks, by index, are others; a zero ID makes a hole. Blocks past the new end
// are dropped. New nodes are saved as they are made, children first; v stays what
// it was and shares what did not change.
//
// v must not be inline, must have a block size, and no change may lie past the
// new end; anything else is ErrMalformed. Errors of io come wrapped.
//
// What the last block holds past a new end in its middle is not Update's to know:
// whoever cuts within a block changes that block.
func Update(ctx context.Context, io NodeIO, v Version, size int64, changes map[int64]ID) (Version, error) {
	if err := v.Check(); err != nil {
		return Version{}, err
	}
	next := Version{Size: size, BlockLog: v.BlockLog}
	if len(v.Inline) > 0 || v.BlockLog == 0 || size < 0 {
		return Version{}, fmt.Errorf("%w: update to size %d of a version with %d inline bytes, block size 2^%d",
			ErrMalformed, size, len(v.Inline), v.BlockLog)
	}
	next.Height = heightFor(next.Blocks())
	u := updater{io: io, changes: changes, end: next.Blocks(), oldEnd: v.Blocks()}
	order := slices.Sorted(maps.Keys(changes))
	if n := len(order); n > 0 && (order[0] < 0 || order[n-1] >= u.end) {
		return Version{}, fmt.Errorf("%w: change of blocks %d to %d of %d", ErrMalformed, order[0], order[n-1], u.end)
	}
	old, err := u.lower(ctx, v.root(), next.Height)
	if err != nil {
		return Version{}, err
	}
	root, err := u.update(ctx, old, next.Height, 0, order)
	next.setData(root)
	return next, err
}

// updater rewrites the paths to changed blocks.
type updater struct {
	io      NodeIO
	changes map[int64]ID
	end     int64 // number of blocks of the new version
	oldEnd  int64 // and of the old one
}

// lower goes down the first children while old is higher than wanted: all else is
// past the new end.
func (u *updater) lower(ctx context.Context, old subtree, want uint8) (subtree, error) {
	for old.height > want {
		if old.id.IsZero() {
			old.height--
			continue
		}
		n, err := load(ctx, u.io, old.id, old.height, u.oldEnd)
		if err != nil {
			return old, err
		}
		old = n.below(0, old.height)
	}
	return old, nil
}

// update returns the root of height h whose first block is base, made from old,
// which is of that height, or lower and holds the first blocks of a tree that
// grows. order lists the changes below this root.
func (u *updater) update(ctx context.Context, old subtree, h uint8, base int64, order []int64) (subtree, error) {
	if base >= u.end {
		return subtree{height: h}, nil
	}
	cut := !old.id.IsZero() && u.end < u.oldEnd && base+span(h) > u.end
	if len(order) == 0 && (old.id.IsZero() || !cut && old.height == h) {
		old.height = h
		return old, nil
	}
	if h == 0 {
		if len(order) > 0 {
			return leaf(u.changes[base]), nil
		}
		return old, nil
	}
	was, err := u.children(ctx, old, h, base)
	if err != nil {
		return subtree{}, err
	}
	n := *was
	for i := range Fanout {
		first := base + int64(i)*span(h-1)
		mine, _ := slices.BinarySearch(order, first+span(h-1))
		child := n.below(i, h)
		if i == 0 && old.height < h {
			child = old
		}
		if child, err = u.update(ctx, child, h-1, first, order[:mine]); err != nil {
			return subtree{}, err
		}
		n.set(i, child)
		order = order[mine:]
	}
	if old.height == h && n == *was {
		return subtree{old.id, h, n.sum()}, nil // old's count may be of a program that did not count
	}
	return save(ctx, u.io, &n, h)
}

// leaf returns a block as a subtree.
func leaf(id ID) subtree {
	if id.IsZero() {
		return subtree{}
	}
	return subtree{id: id, data: 1}
}

// children returns the children of old as those of a node of height h, none if old
// is lower.
func (u *updater) children(ctx context.Context, old subtree, h uint8, base int64) (*node, error) {
	if old.id.IsZero() || old.height < h {
		return new(node), nil
	}
	return load(ctx, u.io, old.id, h, u.oldEnd-base)
}

// save stores a node and returns it as a subtree; one without children is a hole.
func save(ctx context.Context, io NodeIO, n *node, h uint8) (subtree, error) {
	if n.count() == 0 {
		return subtree{height: h}, nil
	}
	id, err := io.SaveNode(ctx, n.encode(make([]byte, 0, MaxNode), h))
	if err != nil {
		return subtree{}, fmt.Errorf("save node: %w", err)
	}
	return subtree{id, h, n.sum()}, nil
}
