package casstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/hashtree"
)

const (
	// maxPartGroups is how many groups a part may touch: whoever wants more reads the whole chunk.
	maxPartGroups = 2
	// PartHead is how many bytes from the beginning of a chunk come with a part.
	PartHead = 64
)

// partBuf is memory for what Part reads.
type partBuf struct{ front, groups []byte }

var partBufs = sync.Pool{New: func() any { return new(partBuf) }}

// Part calls fn with the bytes of chunk id from off to off+n, with the first PartHead bytes of the chunk, both verified by the
// hashes of the chunk's groups without reading the rest of it, and with the length of the chunk. The
// bytes are valid until fn returns. ErrWhole says that this part can't be read by itself: the chunk is to be read whole,
// and so it is after any other error, which Get will explain.
func (s *Store) Part(ctx context.Context, id chunk.ID, off, n int, fn func(part, head []byte, size int) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l, err := s.locate(id)
	if err != nil {
		return err
	}
	first, last := off/hashtree.GroupSize, (off+n-1)/hashtree.GroupSize
	if !l.grouped || off < 0 || n <= 0 || n > l.size || off > l.size-n || last-first >= maxPartGroups || l.size <= hashtree.GroupSize {
		return fmt.Errorf("read a part of chunk %v: %w", id, ErrWhole)
	}
	buf := partBufs.Get().(*partBuf)
	defer partBufs.Put(buf)
	read, err := s.readPart(buf, id, l, first, min((last+1)*hashtree.GroupSize, l.size))
	if err != nil {
		return fmt.Errorf("read a part of chunk %v: %w", id, err)
	}
	if !read.belongsTo(id) {
		return fmt.Errorf("part of a chunk in pack %d at %d: %w", l.pack, l.off, ErrDamaged)
	}
	return fn(read.groups[off-first*hashtree.GroupSize:][:n], read.front.head(), l.size)
}

// front is what a part of a chunk is verified and opened with: the hashes of the chunk's groups, and its first PartHead bytes.
type front []byte

func (f front) hashes() []byte { return f[:len(f)-PartHead] }
func (f front) head() []byte   { return f[len(f)-PartHead:] }

// partRead is what Part reads of a chunk.
type partRead struct {
	front  front
	begin  []byte // the first group, where the head of front is to be verified by it
	groups []byte // those with the part
	first  int    // the number of the first of them
}

// belongsTo reports whether everything is of the chunk id.
func (r partRead) belongsTo(id chunk.ID) bool {
	hashes := r.front.hashes()
	return hashtree.Root(hashes) == id && fits(hashes, r.groups, r.first) && fits(hashes, r.begin, 0)
}

// readPart reads the groups of the chunk id, which lies at l, from the group first to an offset, and its front: from the index, or from
// the pack if the index does not have it. The result lies in buf.
func (s *Store) readPart(buf *partBuf, id chunk.ID, l loc, first, to int) (r partRead, err error) {
	p, err := s.packs.acquire(l.pack)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.packs.release(p)) }()
	buf.front, err = s.idx.front(buf.front[:0], id)
	if errors.Is(err, ErrNotFound) {
		return readApart(buf, p, l, first, to)
	}
	if _, hashes := l.hashes(); err == nil && len(buf.front) != hashes+PartHead {
		err = fmt.Errorf("front of %d bytes: %w", len(buf.front), ErrIndex)
	}
	if err != nil {
		return r, err
	}
	from := first * hashtree.GroupSize
	groups, err := s.packs.readAround(p, &buf.groups, l.chunk()+int64(from), to-from)
	return partRead{front: buf.front, groups: groups, first: first}, err
}

// readApart is readPart with the front from the pack, verified by the first group.
func readApart(buf *partBuf, p *pack, l loc, first, to int) (r partRead, err error) {
	off, hashes := l.hashes()
	begin := hashes + hashtree.GroupSize
	from := first * hashtree.GroupSize
	// What is between is not worth a read of its own.
	apart := max(0, from-hashtree.GroupSize)
	need := hashes + to - apart
	b := slices.Grow(buf.groups[:0], need)[:need]
	buf.groups = b
	r = partRead{front: b[:hashes+PartHead], groups: b[hashes+from-apart:], first: first}
	if first > 0 {
		r.begin = b[hashes:begin]
	}
	if apart == 0 {
		return r, readFull(p, b, off)
	}
	// The disk is to be at both at a time. It is a hint: pebble gives an error even where there was none.
	_ = p.file.Prefetch(off, int64(begin))
	if err = readFull(p, r.groups, l.chunk()+int64(from)); err != nil {
		return r, err
	}
	return r, readFull(p, b[:begin], off)
}

// frontOf reads the front of the chunk id at l for the index, where it only saves reading: none if it does not lie there as it should. Its
// head is not verified: the caller has just verified or written it.
func (s *Store) frontOf(id chunk.ID, l loc) front {
	if !l.grouped {
		return nil
	}
	off, hashes := l.hashes()
	f := make(front, hashes+PartHead)
	if n, err := s.readAt(l.pack, f, off); err != nil || n < len(f) || hashtree.Root(f.hashes()) != id {
		return nil
	}
	return f
}

// readFull fills b from a pack.
func readFull(p *pack, b []byte, off int64) error {
	if _, err := p.file.ReadAt(b, off); errors.Is(err, io.EOF) {
		return fmt.Errorf("pack %d is cut short: %w", p.number, ErrDamaged)
	} else if err != nil {
		return fmt.Errorf("read pack %d at %d: %w", p.number, off, err)
	}
	return nil
}

// fits reports whether groups from first on have the hashes that they should have.
func fits(hashes, groups []byte, first int) bool {
	for i := first; len(groups) > 0; i++ {
		n := min(len(groups), hashtree.GroupSize)
		if hashtree.Hash(groups[:n], i) != [hashtree.HashSize]byte(hashes[i*hashtree.HashSize:]) {
			return false
		}
		groups = groups[n:]
	}
	return true
}
