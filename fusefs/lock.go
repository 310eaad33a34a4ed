package fusefs

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/volume"
)

// lockOptions has the kernel ask for every lock on a file, if the volume keeps them. If not, the
// kernel keeps its own, which is right for one mount. Locks on directories it
// keeps in any case.
func lockOptions(v *volume.Volume) []fuse.MountOption {
	if !v.Locking() {
		return nil
	}
	return []fuse.MountOption{fuse.LockingFlock(), fuse.LockingPOSIX()}
}

func (c *call) lock(r *fuse.LockRequest, mode volume.LockMode) error {
	f := c.s.files.get(r.Handle)
	if f == nil {
		return syscall.EBADF
	}
	l := lockOf(r.LockOwner, &r.Lock, r.LockFlags)
	l.Process = mode == volume.LockWait && !l.Flock && waitsAsProcess(r.Header.Pid)
	if err := f.Lock(c.ctx, l, mode); err != nil {
		return err
	}
	// What was written elsewhere under the lock before is here; pages of the time
	// before may still be in the kernel.
	if err := c.s.notes.pagesDropped(c.s.ctx, f.Ino()); err != nil {
		return err
	}
	return c.ok(r.Respond)
}

func (c *call) unlock(r *fuse.UnlockRequest) error {
	f := c.s.files.get(r.Handle)
	if f == nil {
		return syscall.EBADF
	}
	if err := f.Unlock(c.ctx, lockOf(r.LockOwner, &r.Lock, r.LockFlags)); err != nil {
		return err
	}
	return c.ok(r.Respond)
}

func (c *call) queryLock(r *fuse.QueryLockRequest) error {
	f := c.s.files.get(r.Handle)
	if f == nil {
		return syscall.EBADF
	}
	other, err := f.TestLock(c.ctx, lockOf(r.LockOwner, &r.Lock, r.LockFlags))
	resp := fuse.QueryLockResponse{Lock: fuse.FileLock{Type: fuse.LockUnlock}}
	switch {
	case errors.Is(err, volume.ErrLocked):
		resp.Lock = fuse.FileLock{Start: other.Start, End: other.End, Type: fuse.LockRead, PID: int32(other.PID)}
		if other.Exclusive {
			resp.Lock.Type = fuse.LockWrite
		}
	case err != nil:
		return err
	}
	return c.ok(func() { r.Respond(&resp) })
}

func lockOf(owner fuse.LockOwner, l *fuse.FileLock, flags fuse.LockFlags) volume.Lock {
	return volume.Lock{
		Flock: flags&fuse.LockFlock != 0, Exclusive: l.Type == fuse.LockWrite,
		Start: l.Start, End: l.End, Owner: uint64(owner), PID: uint32(l.PID),
	}
}

// waitsAsProcess reports whether a thread waits for a lock of its process and not of an
// open file description. The kernel does not say; the thread's system call does. If that cannot be
// read, it counts as no.
func waitsAsProcess(thread uint32) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", thread))
	if err != nil {
		return false
	}
	f := strings.Fields(string(line)) // number, arguments in hexadecimal, ...
	return len(f) > 2 && f[0] == strconv.Itoa(unix.SYS_FCNTL) && f[2] == fmt.Sprintf("%#x", unix.F_SETLKW)
}
