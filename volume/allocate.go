package volume

import (
	"context"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/chunk"
)

// Allocate is fallocate(2). The modes are none, which makes the file at least off + n
// bytes long; keeping the size, which does nothing more than ask whether there is room on
// the disk, as nothing is reserved; punching a hole; and zeroing a range, which makes a
// hole too, as holes cost nothing. Other modes are ErrNotSupported.
//
// Holes of whole blocks cost the paths to their edges and a flush of what is dirty in the file.
func (h *Handle) Allocate(ctx context.Context, off, n int64, mode uint32) error {
	if err := h.mayChange(); err != nil {
		return err
	}
	if off < 0 || n <= 0 {
		return ErrInvalid
	}
	if off > MaxFileSize-n {
		return ErrTooLarge
	}
	var err error
	switch keep := mode&unix.FALLOC_FL_KEEP_SIZE != 0; mode &^ unix.FALLOC_FL_KEEP_SIZE {
	case 0:
		err = h.v.reserve(h.in, off, off+n, keep)
	case unix.FALLOC_FL_PUNCH_HOLE:
		if !keep {
			return ErrNotSupported
		}
		err = h.v.zero(ctx, h.in, off, off+n, true)
	case unix.FALLOC_FL_ZERO_RANGE:
		err = h.v.zero(ctx, h.in, off, off+n, keep)
	default:
		return ErrNotSupported
	}
	if err == nil && h.flags&syncFlags != 0 {
		err = h.v.fsync(ctx, h.in)
	}
	if err != nil {
		return fmt.Errorf("allocate %d bytes at %d of inode %d: %w", n, off, h.in.ino, err)
	}
	return nil
}

// reserve lengthens a file to end, unless it keeps its size.
func (v *Volume) reserve(in *inode, off, end int64, keep bool) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := v.load(in); err != nil {
		return err
	}
	if err := v.haveSpace(end - max(off, in.size)); err != nil {
		return err
	}
	v.touched(in)
	if !keep {
		in.size = max(in.size, end)
	}
	return nil
}

// haveSpace returns ENOSPC if the disk plainly has no room for n more bytes.
func (v *Volume) haveSpace(n int64) error {
	if n <= 0 || v.cfg.DiskUsage == nil {
		return nil
	}
	if _, free, err := v.cfg.DiskUsage(); err == nil && free < uint64(n) {
		return syscall.ENOSPC
	}
	return nil
}

// zero makes zeros of the bytes from off to end, and lengthens the file to end unless it keeps its size.
func (v *Volume) zero(ctx context.Context, in *inode, off, end int64, keep bool) error {
	var holes [2]int64 // the whole blocks, in bytes
	punch := func(old chunk.Version) (chunk.Version, error) {
		to := min(end, old.Size)
		holes = [2]int64{to, to}
		bs := old.BlockSize()
		if bs == 0 || len(old.Inline) > 0 || off >= to {
			return old, nil
		}
		first, last := (off+bs-1)/bs, to/bs
		if to == old.Size { // the last block goes whole
			last = old.Blocks()
		}
		if first >= last {
			return old, nil
		}
		holes = [2]int64{first * bs, min(last*bs, to)}
		return chunk.Splice(ctx, nodeIO{v}, old, old.Size, first, chunk.Version{BlockLog: old.BlockLog}, 0, last-first)
	}
	lay := func() {
		to := min(end, in.size)
		for _, s := range []span{{off, holes[0]}, {holes[1], to}} {
			if s.off < s.end {
				v.lay(in, make([]byte, s.end-s.off), s.off)
			}
		}
		if !keep {
			in.size = max(in.size, end)
		}
	}
	if err := v.room(ctx, in); err != nil {
		return err
	}
	in.mu.Lock()
	if err := v.load(in); err != nil {
		in.mu.Unlock()
		return err
	}
	if min(end, in.size)-off >= v.blockSize(in) {
		in.mu.Unlock()
		return v.rebuild(ctx, in, punch, lay)
	}
	defer in.mu.Unlock()
	v.touched(in)
	holes = [2]int64{min(end, in.size), min(end, in.size)}
	lay()
	return nil
}
