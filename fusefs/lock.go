package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"syscall"
	"time"

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
	if err := c.setLock(f, lockOf(r.LockOwner, &r.Lock, r.LockFlags), mode, r.Header.Pid); err != nil {
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

// locker is an open file.
type locker interface {
	Lock(ctx context.Context, l volume.Lock, mode volume.LockMode) error
}

// setLock sets a lock. If it is to wait, a circle of waits can be told only if the thread waits for a lock
// of its process and not of an open file description. The kernel does not say; the thread's
// system call does, as soon as the thread sleeps. Who gets the lock without waiting is
// not kept for that.
func (c *call) setLock(f locker, l volume.Lock, mode volume.LockMode, thread uint32) error {
	if mode == volume.LockWait && !l.Flock {
		asleep := false
		if l.Process, asleep = c.s.waitsAsProcess(thread); !asleep {
			if err := f.Lock(c.ctx, l, volume.LockTry); !errors.Is(err, volume.ErrLocked) {
				return err
			}
			l.Process = c.s.sleepsAsProcess(thread)
		}
	}
	return f.Lock(c.ctx, l, mode)
}

// sleepsAsProcess is waitsAsProcess of a thread that is about to go to sleep. If it takes
// too long for that, it counts as no.
func (s *Server) sleepsAsProcess(thread uint32) bool {
	for range 5 {
		time.Sleep(time.Millisecond)
		if process, asleep := s.waitsAsProcess(thread); asleep {
			return process
		}
	}
	return false
}

// waitsAsProcess reports whether a thread waits for a lock of its process, and whether it is asleep, so
// that this can be told. If its system call cannot be read, it counts as no.
func (s *Server) waitsAsProcess(thread uint32) (process, asleep bool) {
	line, err := s.systemCall(thread)
	if errors.Is(err, fs.ErrPermission) {
		s.unseen.Do(func() {
			s.log.Warn("programs that wait for each other's locks are not told so: their system calls cannot be read", "error", err)
		})
	}
	if err != nil {
		return false, true
	}
	f := strings.Fields(line) // number, arguments in hexadecimal, ...; or that it runs
	if len(f) == 1 && f[0] == "running" {
		return false, false
	}
	return len(f) > 2 && f[0] == strconv.Itoa(unix.SYS_FCNTL) && f[2] == fmt.Sprintf("%#x", unix.F_SETLKW), true
}

// readSystemCall returns what a thread is waiting in; see proc_pid_syscall(5). It takes the right to trace it.
func readSystemCall(thread uint32) (string, error) {
	return readProc(thread, "syscall")
}
