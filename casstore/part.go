package casstore

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// partBufs holds memory for what Part reads.
var partBufs = sync.Pool{New: func() any { return new([]byte) }}

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
	from := first * hashtree.GroupSize
	buf := partBufs.Get().(*[]byte)
	defer partBufs.Put(buf)
	read, err := s.readPart(buf, l, from, min((last+1)*hashtree.GroupSize, l.size))
	if err != nil {
		return fmt.Errorf("read a part of chunk %v: %w", id, err)
	}
	if !read.belongsTo(id, first) {
		return fmt.Errorf("part of a chunk in pack %d at %d: %w", l.pack, l.off, ErrDamaged)
	}
	return fn(read.groups[off-from:][:n], read.begin[:PartHead], l.size)
}

// partRead is what Part reads of a chunk.
type partRead struct {
	hashes []byte // of all groups
	begin  []byte // the first group
	groups []byte // those with the part
}

// belongsTo reports whether everything is of the chunk id, and groups begin with that of the index first.
func (r partRead) belongsTo(id chunk.ID, first int) bool {
	return hashtree.Root(r.hashes) == id && fits(r.hashes, r.groups, first) && (first == 0 || fits(r.hashes, r.begin, 0))
}

// readPart reads the bytes of the chunk at l from one offset to another, which lie between groups. The result lies in
// *buf, which grows as needed.
func (s *Store) readPart(buf *[]byte, l loc, from, to int) (r partRead, err error) {
	p, err := s.packs.acquire(l.pack)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.packs.release(p)) }()
	off, hashes := l.hashes()
	front := hashes + hashtree.GroupSize
	// What is between is not worth a read of its own.
	apart := max(0, from-hashtree.GroupSize)
	if need := hashes + to - apart; cap(*buf) < need {
		*buf = make([]byte, need)
	}
	b := (*buf)[:hashes+to-apart]
	r = partRead{hashes: b[:hashes], begin: b[hashes:front], groups: b[hashes+from-apart:]}
	if apart == 0 {
		return r, readFull(p, b, off)
	}
	// The disk is to be at both at a time. It is a hint: pebble gives an error even where there was none.
	_ = p.file.Prefetch(off, int64(front))
	if err = readFull(p, r.groups, l.chunk()+int64(from)); err != nil {
		return r, err
	}
	return r, readFull(p, b[:front], off)
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
