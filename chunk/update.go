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
	old, err := u.lower(ctx, subtree{v.Root, v.Height}, next.Height)
	if err != nil {
		return Version{}, err
	}
	next.Root, err = u.update(ctx, old, next.Height, 0, order)
	return next, err
}

// subtree is a root of some height.
type subtree struct {
	id     ID
	height uint8
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
	for ; old.height > want; old.height-- {
		if old.id.IsZero() {
			continue
		}
		n, err := load(ctx, u.io, old.id, old.height, u.oldEnd)
		if err != nil {
			return old, err
		}
		old.id = n[0]
	}
	return old, nil
}

// update returns the root of height h whose first block is base, made from old,
// which is of that height, or lower and holds the first blocks of a tree that
// grows. order lists the changes below this root.
func (u *updater) update(ctx context.Context, old subtree, h uint8, base int64, order []int64) (ID, error) {
	if base >= u.end {
		return ID{}, nil
	}
	cut := !old.id.IsZero() && u.end < u.oldEnd && base+span(h) > u.end
	if len(order) == 0 && (old.id.IsZero() || !cut && old.height == h) {
		return old.id, nil
	}
	if h == 0 {
		if len(order) > 0 {
			return u.changes[base], nil
		}
		return old.id, nil
	}
	was, err := u.children(ctx, old, h, base)
	if err != nil {
		return ID{}, err
	}
	n := *was
	for i := range n {
		first := base + int64(i)*span(h-1)
		mine, _ := slices.BinarySearch(order, first+span(h-1))
		child := subtree{n[i], h - 1}
		if i == 0 && old.height < h {
			child = old
		}
		if n[i], err = u.update(ctx, child, h-1, first, order[:mine]); err != nil {
			return ID{}, err
		}
		order = order[mine:]
	}
	if old.height == h && n == *was {
		return old.id, nil
	}
	return save(ctx, u.io, &n, h)
}

// children returns the children of old as those of a node of height h, none if old
// is lower.
func (u *updater) children(ctx context.Context, old subtree, h uint8, base int64) (*node, error) {
	if old.id.IsZero() || old.height < h {
		return new(node), nil
	}
	return load(ctx, u.io, old.id, h, u.oldEnd-base)
}

// save stores a node and returns its ID; one without children is a hole.
func save(ctx context.Context, io NodeIO, n *node, h uint8) (ID, error) {
	if n.count() == 0 {
		return ID{}, nil
	}
	id, err := io.SaveNode(ctx, n.encode(make([]byte, 0, MaxNode), h))
	if err != nil {
		return ID{}, fmt.Errorf("save node: %w", err)
	}
	return id, nil
}
