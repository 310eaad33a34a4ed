package volume

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/foreverfs/forever/namespace"
)

// Why a lock is not given.
var (
	// ErrLocked says that somebody else holds a lock that excludes the one asked for.
	ErrLocked = errors.New("volume: locked by somebody else")
	// ErrDeadlock says that the owner would wait for itself.
	ErrDeadlock = errors.New("volume: waiting for the lock would never end")
	// ErrTooManyLocks says that no more locks are kept.
	ErrTooManyLocks = errors.New("volume: too many locks")
)

// Lock is a lock on a range of a file.
type Lock struct {
	Flock      bool // of flock(2), else of fcntl(2); they have nothing to do with each other
	Exclusive  bool
	Start, End uint64 // both inclusive
	Owner      uint64 // who may not exclude itself
	PID        uint32 // told to whoever asks for the holder; 0: on another mount
	// Process says that the owner is one process, so that a circle of waits can be told.
	Process bool
}

// everything is a whole file.
const everything = math.MaxInt64

// LockMode says what to do if somebody holds a lock that excludes the one asked for.
type LockMode uint8

// The modes.
const (
	LockTry  LockMode = iota // return ErrLocked
	LockWait                 // wait
	LockTest                 // return ErrLocked and the other's lock; set none in any case
)

// Locks keeps the locks of this mount's processes, and minds those on other mounts. Files are
// named by their nodes, handles by numbers.
type Locks interface {
	// Alone reports that no other mount can know, or ask for, what is locked here.
	Alone() bool
	// Acquire asks for a lock. What was written under locks of the owner that it replaces is
	// in this mount's log up to seq. On return everything is applied here that
	// others wrote under theirs, and the kernel has no older page of the file.
	Acquire(ctx context.Context, file namespace.NodeID, handle uint64, l Lock, mode LockMode, seq uint64) (Lock, error)
	// Release unlocks what l's owner holds in l's range. It fails with ErrTooManyLocks, and unlocks
	// nothing, if that would leave too many pieces.
	Release(file namespace.NodeID, l Lock, seq uint64) error
	// ReleaseHandle unlocks what was locked through a handle.
	ReleaseHandle(file namespace.NodeID, handle uint64, seq uint64)
	// Holds reports whether an owner holds any lock of a kind.
	Holds(file namespace.NodeID, owner uint64, flock bool) bool
}

// Locking reports whether locks are kept here; if not, a kernel's own are all there is.
func (v *Volume) Locking() bool { return v.cfg.Locks != nil }

// Lock sets a lock, or has one of the owner's replaced. It fails with ErrLocked,
// ErrDeadlock, ErrTooManyLocks or that of ctx.
func (h *Handle) Lock(ctx context.Context, l Lock, mode LockMode) error {
	_, err := h.lock(ctx, l, mode)
	return err
}

// TestLock returns ErrLocked and the lock that would keep l from being set, if there is one.
func (h *Handle) TestLock(ctx context.Context, l Lock) (Lock, error) { return h.lock(ctx, l, LockTest) }

func (h *Handle) lock(ctx context.Context, l Lock, mode LockMode) (Lock, error) {
	v := h.v
	if v.cfg.Locks == nil {
		return Lock{}, ErrNotSupported
	}
	if l.Start > l.End || l.End > everything {
		return Lock{}, ErrInvalid
	}
	var seq uint64
	if mode != LockTest {
		h.locked.Store(true)
		v.leaving.over(h.id)
		if v.cfg.Locks.Holds(h.in.id, l.Owner, l.Flock) { // it may give up, or weaken, what it has
			var err error
			if seq, err = v.publishLocked(ctx, h.in); err != nil {
				return Lock{}, err
			}
		}
	}
	closed := v.leaving.of(h.in.id)
	other, err := v.cfg.Locks.Acquire(ctx, h.in.id, h.id, l, mode, seq)
	if mode != LockWait && errors.Is(err, ErrLocked) && len(closed) > 0 {
		v.leaving.await(ctx, closed)
		return v.cfg.Locks.Acquire(ctx, h.in.id, h.id, l, mode, seq)
	}
	return other, err
}

// Unlock gives up what l's owner holds in l's range. What was written is published
// first; whatever becomes of that, the lock is gone on return. Only with ErrTooManyLocks, where
// the middle of one is unlocked, it stays as it is.
func (h *Handle) Unlock(ctx context.Context, l Lock) error {
	if h.v.cfg.Locks == nil {
		return ErrNotSupported
	}
	seq, err := h.v.publishLocked(ctx, h.in)
	if err := h.v.cfg.Locks.Release(h.in.id, l, seq); err != nil {
		return err
	}
	if err != nil {
		return fmt.Errorf("publish inode %d to unlock it: %w", h.in.ino, err)
	}
	return nil
}

// UnlockOwner gives up all record locks that an owner holds on the file, as every close(2) does.
func (h *Handle) UnlockOwner(ctx context.Context, owner uint64) {
	if h.v.cfg.Locks == nil || !h.v.cfg.Locks.Holds(h.in.id, owner, false) {
		return
	}
	if err := h.Unlock(ctx, Lock{End: everything, Owner: owner}); err != nil {
		h.v.log.Warn("cannot publish a closed file to those who wait for its lock", "inode", h.in.ino, "error", err)
	}
}

// unlockAll gives up what was locked through the handle, which is about to be gone.
func (h *Handle) unlockAll() {
	if !h.locked.Load() {
		return
	}
	seq, err := h.v.publishLocked(h.v.ctx, h.in)
	if err != nil && h.v.ctx.Err() == nil {
		h.v.log.Warn("cannot publish a closed file to those who wait for its lock", "inode", h.in.ino, "error", err)
	}
	h.v.cfg.Locks.ReleaseHandle(h.in.id, h.id, seq)
	h.v.leaving.over(h.id)
}

// publishLocked has what was written into a file published, unless nobody is there to
// care. The connected mounts that watch the file have it on return.
func (v *Volume) publishLocked(ctx context.Context, in *inode) (uint64, error) {
	if v.cfg.Locks.Alone() {
		return 0, nil
	}
	ctx = context.WithoutCancel(ctx) // unlocking is not interrupted
	seq, err := v.publishInode(ctx, in)
	if err == nil {
		v.announceOf(ctx, in)
	}
	return seq, err
}

// publishInode brings what was written into a file into the tree and the log.
func (v *Volume) publishInode(ctx context.Context, in *inode) (uint64, error) {
	if v.changedHere(in) {
		if err := v.enterNow(ctx, in); err != nil {
			return 0, err
		}
	}
	return v.cutBatch()
}

// enterNow brings what was written into a file into the tree.
func (v *Volume) enterNow(ctx context.Context, in *inode) error {
	return v.sealThen(ctx, in, v.commitReady)
}

// PublishFile puts what was written into a file so far into the log, and returns how
// many batches that has. What cannot be sealed now is left out, as between mounts that cannot reach each other: another mount gets a
// lock without having seen it, and nobody waits for ever. On return the locks of descriptors are gone that were closed before.
func (v *Volume) PublishFile(ctx context.Context, file namespace.NodeID) (uint64, error) {
	v.leaving.await(ctx, v.leaving.of(file))
	in := v.known(file)
	if in == nil { // nothing of it is only here
		return v.cutBatch()
	}
	defer v.release(in)
	seq, err := v.publishInode(ctx, in)
	if err == nil || ctx.Err() != nil {
		return seq, err
	}
	v.log.Warn("another mount may lock a file without having seen what was written to it here: that cannot be sealed yet", "inode", in.ino, "error", err)
	return v.cutBatch()
}
