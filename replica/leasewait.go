package replica

import (
	"context"

	"github.com/foreverfs/forever/internal/lease"
)

// Alone reports that no other mount is connected or about to be: there is nothing to
// wait for, and the kernel may keep everything.
func (l *Leases) Alone() bool { return l.idle.Load() }

// Observe returns when everything that connected mounts have reported as done in some directories
// is applied here, or when they are not connected any more, or when ctx
// ends. From then on they wait with what they do there until it is applied here. If
// it has to wait it calls before first.
func (l *Leases) Observe(ctx context.Context, dirs []lease.Dir, before func()) {
	if l.Alone() || len(dirs) == 0 {
		return
	}
	l.mu.Lock()
	if l.closed || l.machine.Current(leaseClock(), dirs) {
		l.mu.Unlock()
		return
	}
	l.await(ctx, before, func(op lease.Op) lease.Event { return lease.Observe{Op: op, Dirs: dirs} })
}

// Covered reports whether the kernel may keep what it is told of directories and of
// files in them: it is made to forget it when it changes.
func (l *Leases) Covered(dirs []lease.Dir) bool {
	if l.Alone() {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed || l.machine.Covered(dirs)
}

// Watched reports whether a connected mount is to apply a change in directories
// before it is reported as done: see Await.
func (l *Leases) Watched(dirs []lease.Dir) bool {
	if l.Alone() {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.closed && l.machine.Watched(leaseClock(), dirs)
}

// Await returns when all connected mounts that watch some directories have
// applied this mount's batches up to seq, or are not connected any more, or when
// ctx ends. If it has to wait it calls before first.
func (l *Leases) Await(ctx context.Context, seq uint64, dirs []lease.Dir, before func()) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.await(ctx, before, func(op lease.Op) lease.Event { return lease.Write{Op: op, Seq: seq, Dirs: dirs} })
}

// await lets an operation begin and waits until it is done; mu is held, and given back.
func (l *Leases) await(ctx context.Context, before func(), event func(lease.Op) lease.Event) {
	l.lastOp++
	op := l.lastOp
	done := make(chan struct{})
	l.waits[op] = done
	effects, _ := l.stepLocked(event(op))
	l.mu.Unlock()
	l.carryOut(effects)
	select {
	case <-done:
		return
	default:
	}
	before()
	select {
	case <-done:
	case <-ctx.Done():
		l.mu.Lock()
		delete(l.waits, op)
		l.mu.Unlock()
		_ = l.step(lease.Cancel{Op: op})
	}
}
