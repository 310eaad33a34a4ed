package chunk

import (
	"context"
	"errors"
	"fmt"
)

// Splice returns the version that v becomes when it has size bytes, not fewer than
// before, and its n blocks from at on are those of src from block from on. Blocks
// that src does not have are holes: with an empty src the range becomes one. Neither v
// nor src changes; where both begin at a multiple of a node's blocks, nodes are shared
// whole, so that a range costs O(log size), and else a node per [Fanout] blocks. Holes cost nothing anywhere.
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
	root, err := s.build(ctx, next.Height, 0)
	next.setData(root)
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
func (s *splicer) build(ctx context.Context, h uint8, base int64) (subtree, error) {
	if err := ctx.Err(); err != nil {
		return subtree{}, err
	}
	if base >= s.end {
		return subtree{height: h}, nil
	}
	stop := min(base+span(h), s.end)
	if stop <= s.at || base >= s.at+s.n {
		return s.subtree(ctx, s.v, h, base)
	}
	if there := base - s.at + s.from; base >= s.at && stop <= s.at+s.n {
		if there%span(h) == 0 && s.fits(h, there, stop-base) {
			return s.subtree(ctx, s.src, h, there)
		}
		if hole, err := s.hole(ctx, there, stop-base); hole || err != nil {
			return subtree{height: h}, err
		}
	}
	var n node
	for i := range Fanout {
		child, err := s.build(ctx, h-1, base+int64(i)*span(h-1))
		if err != nil {
			return subtree{}, err
		}
		n.set(i, child)
	}
	return save(ctx, s.io, &n, h)
}

// fits reports whether src has no more than count blocks below the root of height h at base.
func (s *splicer) fits(h uint8, base, count int64) bool {
	return count == span(h) || s.src.Blocks() <= base+count
}

// errFound ends a search.
var errFound = errors.New("found")

// hole reports whether src has none of count blocks from base on.
func (s *splicer) hole(ctx context.Context, base, count int64) (bool, error) {
	err := Blocks(ctx, s.io, s.src, base, base+count, func(int64, ID) error { return errFound })
	if errors.Is(err, errFound) {
		return false, nil
	}
	return err == nil, err
}

// subtree returns the root of height h whose first block is block base of v.
func (s *splicer) subtree(ctx context.Context, v Version, h uint8, base int64) (subtree, error) {
	t, room := v.root(), v.Blocks()
	if base >= room {
		return subtree{height: h}, nil
	}
	for t.height > h && !t.id.IsZero() {
		n, err := load(ctx, s.io, t.id, t.height, room)
		if err != nil {
			return subtree{}, err
		}
		slot := base / span(t.height-1)
		base, room = base-slot*span(t.height-1), room-slot*span(t.height-1)
		t = n.below(int(slot), t.height)
	}
	for at := v.Height + 1; at <= h && !t.id.IsZero(); at++ { // the tree grows
		var n node
		n.set(0, t)
		var err error
		if t, err = save(ctx, s.io, &n, at); err != nil {
			return subtree{}, err
		}
	}
	return t, nil
}
