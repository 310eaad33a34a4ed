package chunk

import (
	"context"
	"fmt"
)

// Splice returns the version that v becomes when it has size bytes, not fewer than
// before, and its n blocks from at on are those of src from block from on. Blocks
// that src does not have are holes: with an empty src the range becomes one. Neither v
// nor src changes; where both begin at a multiple of a node's blocks, nodes are shared
// whole, so that a range costs O(log size), and else a node per [Fanout] blocks.
//
// Neither may be inline, both must have the same block size, and the range must not
// reach past the new end; anything else is ErrMalformed. Errors of io come wrapped.
//
// As with Update, what a last block holds past the end of its version is the caller's to know.
func Splice(ctx context.Context, io NodeIO, v Version, size, at int64, src Version, from, n int64) (Version, error) {
	for _, is := range []Version{v, src} {
		if err := is.Check(); err != nil {
			return Version{}, err
		}
	}
	next := Version{Size: size, BlockLog: v.BlockLog}
	if len(v.Inline) > 0 || len(src.Inline) > 0 || v.BlockLog == 0 || src.BlockLog != v.BlockLog || size < v.Size {
		return Version{}, fmt.Errorf("%w: splice blocks of 2^%d into size %d of a version of blocks of 2^%d", ErrMalformed, src.BlockLog, size, v.BlockLog)
	}
	end := next.Blocks()
	if at < 0 || from < 0 || n < 0 || n > end || at > end-n {
		return Version{}, fmt.Errorf("%w: splice of %d blocks from %d at %d of %d", ErrMalformed, n, from, at, end)
	}
	next.Height = heightFor(end)
	s := splicer{io: io, v: v, src: src, at: at, from: from, n: n, end: end}
	var err error
	next.Root, err = s.build(ctx, next.Height, 0)
	return next, err
}

// splicer makes one version out of two.
type splicer struct {
	io     NodeIO
	v, src Version
	at     int64 // the first block that comes from src
	from   int64 // and which of src's it is
	n      int64 // how many do
	end    int64 // number of blocks of the new version
}

// build returns the root of height h whose first block is base.
func (s *splicer) build(ctx context.Context, h uint8, base int64) (ID, error) {
	if base >= s.end {
		return ID{}, nil
	}
	stop := min(base+span(h), s.end)
	if stop <= s.at || base >= s.at+s.n {
		return s.subtree(ctx, s.v, h, base)
	}
	if there := base - s.at + s.from; base >= s.at && stop <= s.at+s.n && there%span(h) == 0 && s.fits(h, there, stop-base) {
		return s.subtree(ctx, s.src, h, there)
	}
	var n node
	for i := range n {
		var err error
		if n[i], err = s.build(ctx, h-1, base+int64(i)*span(h-1)); err != nil {
			return ID{}, err
		}
	}
	return save(ctx, s.io, &n, h)
}

// fits reports whether src has no more than count blocks below the root of height h at base.
func (s *splicer) fits(h uint8, base, count int64) bool {
	return count == span(h) || s.src.Blocks() <= base+count
}

// subtree returns the root of height h whose first block is block base of v.
func (s *splicer) subtree(ctx context.Context, v Version, h uint8, base int64) (ID, error) {
	id, room := v.Root, v.Blocks()
	if base >= room {
		return ID{}, nil
	}
	for at := v.Height; at > h && !id.IsZero(); at-- {
		n, err := load(ctx, s.io, id, at, room)
		if err != nil {
			return ID{}, err
		}
		slot := base / span(at-1)
		id, base, room = n[slot], base-slot*span(at-1), room-slot*span(at-1)
	}
	for at := v.Height + 1; at <= h; at++ { // the tree grows
		var err error
		if id, err = save(ctx, s.io, &node{id}, at); err != nil {
			return ID{}, err
		}
	}
	return id, nil
}
