package node

import (
	"context"
	"errors"

	"github.com/foreverfs/forever/internal/lock"
	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/replica"
	"github.com/foreverfs/forever/volume"
)

// fileLocks brings the volume, which knows files, and the locks, which know peers, together.
type fileLocks struct {
	locks *replica.Locks
	vol   *volume.Volume // set before anything is served
}

var (
	_ volume.Locks      = (*fileLocks)(nil)
	_ replica.LockMount = (*fileLocks)(nil)
)

// shareLocks makes the locks of a mount that begins with what a tree holds.
func shareLocks(repl *replica.Replica, author namespace.AuthorID, tree *namespace.Tree) *fileLocks {
	l := &fileLocks{}
	l.locks = repl.KeepLocks(replica.LockConfig{
		Author: replica.AuthorID(author), Mount: l, Applied: vectorOf(tree.Vector()),
	})
	return l
}

// applied says that a batch is in the tree; it counts once the kernel has been told, too.
func (l *fileLocks) applied(author replica.AuthorID, seq uint64) {
	l.vol.Settled(func() { l.locks.Applied(author, seq) })
}

// PublishFile implements replica.LockMount.
func (l *fileLocks) PublishFile(ctx context.Context, file [16]byte) (uint64, error) {
	return l.vol.PublishFile(ctx, file)
}

// DropPages implements replica.LockMount.
func (l *fileLocks) DropPages(file [16]byte, done func()) { l.vol.Dropped(file, done) }

// Alone implements volume.Locks.
func (l *fileLocks) Alone() bool { return l.locks.Alone() }

// Acquire implements volume.Locks.
func (l *fileLocks) Acquire(
	ctx context.Context, file namespace.NodeID, handle uint64, k volume.Lock, mode volume.LockMode, seq uint64,
) (volume.Lock, error) {
	done, err := l.locks.Acquire(ctx, lock.Acquire{
		File: lock.File(file), Held: held(k, handle), Seq: seq,
		Wait: mode == volume.LockWait, Test: mode == volume.LockTest, Process: k.Process,
	})
	if err != nil {
		return volume.Lock{}, err
	}
	b := done.Blocker
	blocker := volume.Lock{Flock: b.Class == lock.Flock, Exclusive: b.Exclusive, Start: b.Start, End: b.End, PID: b.PID}
	switch done.Result {
	case lock.Granted:
		return volume.Lock{}, nil
	case lock.Deadlock:
		return blocker, volume.ErrDeadlock
	case lock.Interrupted:
		return blocker, context.Canceled
	case lock.TooMany:
		return blocker, volume.ErrTooManyLocks
	}
	return blocker, volume.ErrLocked
}

// Release implements volume.Locks.
func (l *fileLocks) Release(file namespace.NodeID, k volume.Lock, seq uint64) error {
	err := l.locks.Release(lock.Release{File: lock.File(file), Held: held(k, 0), Seq: seq})
	if errors.Is(err, lock.ErrTooMany) {
		return volume.ErrTooManyLocks
	}
	return err
}

// ReleaseHandle implements volume.Locks.
func (l *fileLocks) ReleaseHandle(file namespace.NodeID, handle, seq uint64) {
	_ = l.locks.Release(lock.Release{File: lock.File(file), Held: lock.Held{Handle: handle}, ByHandle: true, Seq: seq}) // leaves fewer
}

// Holds implements volume.Locks.
func (l *fileLocks) Holds(file namespace.NodeID, owner uint64, flock bool) bool {
	return l.locks.Holds(lock.File(file), owner, classOf(flock))
}

func held(k volume.Lock, handle uint64) lock.Held {
	return lock.Held{
		Lock:  lock.Lock{Class: classOf(k.Flock), Exclusive: k.Exclusive, Start: k.Start, End: k.End},
		Owner: k.Owner, Handle: handle, PID: k.PID,
	}
}

func classOf(flock bool) lock.Class {
	if flock {
		return lock.Flock
	}
	return lock.Record
}
