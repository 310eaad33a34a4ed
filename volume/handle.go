package volume

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/foreverfs/forever/namespace"
)

// syncFlags are the flags of open(2) that make every write durable.
const syncFlags = syscall.O_SYNC | syscall.O_DSYNC

// Handle is an open regular file.
type Handle struct {
	v      *Volume
	in     *inode
	flags  int
	keep   bool
	ahead  readAhead
	id     uint64      // among handles of this volume
	locked atomic.Bool // somebody tried to lock through it
	once   sync.Once
}

// Open opens a regular file. flags are those of open(2); O_TRUNC is honoured.
func (v *Volume) Open(ctx context.Context, ino uint64, flags int) (*Handle, error) {
	in, err := v.acquire(ino)
	if err != nil {
		return nil, err
	}
	v.observe(ctx, in)
	h, err := v.openInode(ctx, in, flags)
	if err != nil {
		v.release(in)
	}
	return h, err
}

// openInode makes a handle that takes over the caller's pin.
func (v *Volume) openInode(ctx context.Context, in *inode, flags int) (*Handle, error) {
	if changing(flags) {
		if err := v.writable(); err != nil {
			return nil, err
		}
	}
	n, err := v.node(in)
	if err != nil {
		return nil, err
	}
	switch n.Kind {
	case namespace.KindFile:
	case namespace.KindDir:
		return nil, namespace.ErrIsDir
	default:
		return nil, ErrBadHandle
	}
	if changing(flags) && in.closedAt() != 0 {
		// What was closed is a version of its own, unless it cannot be stored: then it is still in the journal.
		if err := v.settleHere(ctx, in); err != nil {
			v.log.Warn("cannot seal what was closed before somebody writes to it again", "inode", in.ino, "error", err)
		}
	}
	if flags&syscall.O_TRUNC != 0 {
		if err := v.truncate(ctx, in, 0); err != nil {
			return nil, err
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := v.load(in); err != nil {
		return nil, err
	}
	h := &Handle{v: v, in: in, flags: flags, id: v.handles.Add(1)}
	v.mu.Lock()
	in.opens++
	if h.writes() {
		in.writers++
	}
	h.keep = v.cachedNow(in)
	v.mu.Unlock()
	return h, nil
}

// writes reports whether a handle is one for writing.
func (h *Handle) writes() bool { return h.flags&syscall.O_ACCMODE != syscall.O_RDONLY }

// changing reports whether flags of open(2) are for writing, or cut the file.
func changing(flags int) bool { return flags&(syscall.O_ACCMODE|syscall.O_TRUNC) != syscall.O_RDONLY }

// OpenForWriting reports whether somebody has a file open for writing.
func (v *Volume) OpenForWriting(ino uint64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	in := v.inodes[ino]
	return in != nil && in.writers > 0
}

// KeepCache reports whether the kernel's pages of the file are still right.
func (h *Handle) KeepCache() bool { return h.keep }

// Ino returns the inode number of the open file.
func (h *Handle) Ino() uint64 { return h.in.ino }

// Local reports whether n bytes at off can be read without waiting for the network.
func (h *Handle) Local(off, n int64) bool { return h.v.isLocal(h.in, off, n) }

// Read fills p from off with one state of the file. It returns fewer than
// len(p) bytes only at the end of the file.
func (h *Handle) Read(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, ErrInvalid
	}
	scattered := h.readAhead(off, int64(len(p)))
	n, err := h.v.readAt(ctx, h.in, p, off, scattered)
	if err != nil {
		return 0, fmt.Errorf("read inode %d at %d: %w", h.in.ino, off, err)
	}
	return n, nil
}

// mayChange returns why nothing may be changed through a handle.
func (h *Handle) mayChange() error {
	if !h.writes() {
		return ErrBadHandle
	}
	return h.v.growable()
}

// Write writes p at off; all of it or an error. It copies p.
func (h *Handle) Write(ctx context.Context, p []byte, off int64) (int, error) {
	if err := h.mayChange(); err != nil {
		return 0, err
	}
	return h.write(ctx, p, off, false)
}

// Append is Write to the end of the file, for O_APPEND. off is where the kernel takes that to be; where another mount has made
// the file longer or shorter since, the kernel is told to forget what it has of it.
func (h *Handle) Append(ctx context.Context, p []byte, off int64) (int, error) {
	if err := h.mayChange(); err != nil {
		return 0, err
	}
	return h.write(ctx, p, off, h.in.strayed.Load())
}

// WriteBack is Write of what the kernel has taken from a mapping: nobody hears of an error now, and the kernel would not try again. So it is
// taken also while the disk has no room, as long as there is memory, and stays there, for Fsync and Flush to fail, until there is some.
func (h *Handle) WriteBack(ctx context.Context, p []byte, off int64) (int, error) {
	if !h.writes() {
		return 0, ErrBadHandle
	}
	if err := h.v.writable(); err != nil {
		return 0, err
	}
	if h.v.leftForUse(false) != nil {
		h.in.roomless.Store(true)
	}
	return h.write(ctx, p, off, false)
}

func (h *Handle) write(ctx context.Context, p []byte, off int64, atEnd bool) (int, error) {
	at, err := h.v.write(ctx, h.in, p, off, atEnd)
	if err != nil {
		return 0, fmt.Errorf("write inode %d at %d: %w", h.in.ino, off, err)
	}
	if at != off {
		if n := h.v.toNotify(); n != nil {
			n.InvalidateContent(h.in.ino)
		}
	}
	if h.flags&syncFlags != 0 {
		if err := h.v.fsync(ctx, h.in); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// Flush seals and stores what was written and has the content published soon; connected mounts that watch the file have
// it on return. What is journalled it leaves for soon after, and what cannot be sealed now it journals. It fails if the
// store is full, or what was written can be put nowhere; it waits for no flush of the disk. It belongs to every close(2). Of a handle that
// nothing was written through it only gives up locks: what others write is not for its program to hear of.
func (h *Handle) Flush(ctx context.Context) error {
	if h.locked.Load() {
		h.v.leaving.closed(h)
	}
	if !changing(h.flags) {
		return nil
	}
	err := h.v.flushClosed(ctx, h.in)
	if err == nil {
		err = h.v.announceContent(ctx, h.in)
	}
	if err != nil {
		return fmt.Errorf("flush inode %d: %w", h.in.ino, err)
	}
	return nil
}

// Fsync makes the file durable on this device.
func (h *Handle) Fsync(ctx context.Context) error {
	if err := h.v.fsync(ctx, h.in); err != nil {
		return fmt.Errorf("fsync inode %d: %w", h.in.ino, err)
	}
	return nil
}

// Release ends the handle. It may be called twice.
func (h *Handle) Release() {
	h.once.Do(func() {
		v, in := h.v, h.in
		h.unlockAll()
		v.mu.Lock()
		in.opens--
		if h.writes() {
			in.writers--
		}
		lost := v.lost(in)
		v.mu.Unlock()
		if lost {
			v.letGo(in)
			return
		}
		v.release(in)
	})
}

// changedHere reports whether a file has content that is not in the tree.
func (v *Volume) changedHere(in *inode) bool {
	in.mu.RLock()
	defer in.mu.RUnlock()
	return in.changed
}

// letGo lets go of content that no name leads to any more, unless somebody holds the file, and of the caller's pin. If a
// seal is under way it does so after that, and does not wait.
func (v *Volume) letGo(in *inode) {
	if in.fold.TryLock() {
		v.discardOrphan(in)
		return
	}
	later := func() {
		in.fold.Lock()
		v.discardOrphan(in)
	}
	if !v.spawn(later) { // after Close there is nobody to wait for
		later()
	}
}

// discardOrphan is letGo with in.fold held, which it unlocks.
func (v *Volume) discardOrphan(in *inode) {
	defer v.release(in)
	defer in.fold.Unlock()
	gone, err := v.orphan(in)
	if err != nil {
		v.log.Warn("cannot look up a closed file", "inode", in.ino, "error", err)
	}
	if gone {
		in.mu.Lock()
		in.withdraw()
		in.mu.Unlock()
	}
}
