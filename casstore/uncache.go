package casstore

import (
	"errors"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/chunk"
)

const (
	// uncacheMax is the longest part of a pack that one Uncache lets go of, in bytes: first and last are
	// chunks that follow each other.
	uncacheMax = 64 << 20
	// uncacheBefore is how far before the first it begins: the kernel lets go of its pages in units of up
	// to 2 MiB, and of whole ones only.
	uncacheBefore = 4 << 20
)

// Uncache tells the kernel that the chunks from first to last, if they lie in that order in one pack,
// were read and need not stay in its page cache. It is a hint: they can be read as before, and nothing that is
// not on the disk yet is let go of.
func (s *Store) Uncache(first, last chunk.ID) error {
	from, err := s.locate(first)
	if err != nil {
		return err
	}
	to, err := s.locate(last)
	if err != nil {
		return err
	}
	n := to.off - from.off
	if from.pack != to.pack || n < 0 || n > uncacheMax {
		return nil
	}
	p, err := s.packs.acquire(to.pack)
	if err != nil {
		return err
	}
	begin := max(0, from.off-uncacheBefore)
	return errors.Join(uncache(p.file, begin, to.off-begin), s.packs.release(p))
}

// uncache tells the kernel to drop n bytes of a file from its page cache, or all from off on if n is 0.
func uncache(f vfs.File, off, n int64) error {
	if fd := f.Fd(); fd != vfs.InvalidFd {
		return unix.Fadvise(int(fd), off, n, unix.FADV_DONTNEED)
	}
	return nil
}
