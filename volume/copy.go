package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/foreverfs/forever/chunk"
)

// maxPlainCopy is how much of one Copy may be copied and not shared, in bytes.
const maxPlainCopy = 4 << 20

// errUnshared says that a range cannot be shared between two files.
var errUnshared = errors.New("volume: blocks that cannot be shared")

// Copy is copy_file_range(2): it copies up to n bytes at from of src to dst, and returns how many
// it did; 0 only at the end of src. What is copied is one state of src. Whole blocks at the same
// place in a block are shared, and the last one of a file, at no cost but that of flushing both files. The rest is copied; after
// a few MiB of that Copy returns, to be called again.
func (v *Volume) Copy(ctx context.Context, src *Handle, from int64, dst *Handle, to, n int64) (int64, error) {
	if err := dst.mayChange(); err != nil {
		return 0, err
	}
	switch {
	case from < 0 || to < 0 || n < 0:
		return 0, ErrInvalid
	case to >= MaxFileSize:
		return 0, ErrTooLarge
	}
	n = min(n, MaxFileSize-min(from, MaxFileSize), MaxFileSize-to)
	if src.in == dst.in && from < to+n && to < from+n {
		return 0, ErrInvalid
	}
	done, err := v.copyRange(ctx, src.in, from, dst.in, to, n)
	if done > 0 { // an error will come again
		err = nil
		if dst.flags&syncFlags != 0 {
			err = v.fsync(ctx, dst.in)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("copy %d bytes of inode %d to inode %d: %w", n, src.in.ino, dst.in.ino, err)
	}
	return done, nil
}

func (v *Volume) copyRange(ctx context.Context, src *inode, from int64, dst *inode, to, n int64) (done int64, err error) {
	const least = 1 << chunk.MinBlockLog
	if n < least && ((from|to)%least != 0 || !v.isStored(src)) { // no block: not worth a flush
		return v.copyPlain(ctx, dst, to, n, func(p []byte) (int, error) { return v.readAt(ctx, src, p, from, false) })
	}
	version, err := v.storedNow(ctx, src)
	if err != nil {
		return 0, err
	}
	n = min(n, version.Size-from)
	for plain := int64(0); done < n && plain < maxPlainCopy; {
		at, left := from+done, n-done
		shared, err := v.share(ctx, version, at, dst, to+done, left)
		if err == nil {
			done += shared
			continue
		}
		if !errors.Is(err, errUnshared) {
			return done, err
		}
		k, err := v.copyPlain(ctx, dst, to+done, plainPart(version, at, to+done, left), func(p []byte) (int, error) {
			return len(p), v.readVersion(ctx, version, p, at)
		})
		if err != nil {
			return done, err
		}
		done, plain = done+k, plain+k
	}
	return done, nil
}

// plainPart returns how many bytes to copy where none can be shared: up to where that may change.
func plainPart(version chunk.Version, from, to, n int64) int64 {
	n = min(n, 1<<20)
	if bs := version.BlockSize(); bs > 0 && from%bs != 0 && (from-to)%bs == 0 {
		n = min(n, bs-from%bs)
	}
	return n
}

// copyPlain writes what read gives.
func (v *Volume) copyPlain(ctx context.Context, dst *inode, to, n int64, read func(p []byte) (int, error)) (int64, error) {
	p := make([]byte, n)
	k, err := read(p)
	if err != nil {
		return 0, err
	}
	return int64(k), v.writeAt(ctx, dst, p[:k], to)
}

// readVersion fills p from off of a version, which reaches so far.
func (v *Volume) readVersion(ctx context.Context, version chunk.Version, p []byte, off int64) error {
	bs := int64(1) << v.blockLogOf(version)
	for len(p) > 0 {
		pc := piece{index: off / bs, off: off % bs, limit: min(bs, version.Size-off/bs*bs)}
		k := min(int64(len(p)), bs-pc.off)
		pc.dst = p[:k]
		if err := v.fill(ctx, version, pc); err != nil {
			return err
		}
		p, off = p[k:], off+k
	}
	return nil
}

// share has dst share the whole blocks of a range of a version, and the last one if both files end with it. It
// returns how many bytes that were; errUnshared if none.
func (v *Volume) share(ctx context.Context, version chunk.Version, from int64, dst *inode, to, n int64) (shared int64, err error) {
	err = v.rebuild(ctx, dst, func(old chunk.Version) (chunk.Version, error) {
		bs := version.BlockSize()
		if bs == 0 || len(version.Inline) > 0 || from%bs != 0 || to%bs != 0 {
			return old, errUnshared
		}
		blocks := n / bs
		if shared = blocks * bs; from+n == version.Size && to+n >= old.Size {
			blocks, shared = (n+bs-1)/bs, n
		}
		if to == 0 && shared >= old.Size { // nothing is left of it
			old = chunk.Version{BlockLog: version.BlockLog}
		}
		if blocks == 0 || len(old.Inline) > 0 || old.BlockLog != version.BlockLog {
			return old, errUnshared
		}
		return chunk.Splice(ctx, nodeIO{v}, old, max(old.Size, to+shared), to/bs, version, from/bs, blocks)
	}, nil)
	return shared, err
}
