package replica

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/foreverfs/forever/internal/lock"
)

// LockMount is what locks need of the mounted volume.
type LockMount interface {
	// PublishFile puts what was written into a file into the mount's log, and returns
	// how many batches that has. It is called from several goroutines.
	PublishFile(ctx context.Context, file [16]byte) (seq uint64, err error)
	// DropPages calls done when the kernel has no page of a file from before what is applied. It does not wait.
	DropPages(file [16]byte, done func())
}

// LockConfig says what Locks are made of.
type LockConfig struct {
	Author AuthorID // of this mount's log
	Mount  LockMount
	// Applied is what was applied when the mount began, by author.
	Applied map[AuthorID]uint64
	// Patience is how long others are waited for that do not answer; 0 means 500 ms.
	Patience time.Duration
}

// Locks are the file locks of this mount and, as far as they matter here, of
// connected ones. They are a lock.Machine with a clock, connections and a mount. All methods
// are safe for concurrent use.
type Locks struct {
	r     *Replica
	mount LockMount

	alone atomic.Bool
	kick  chan struct{} // the next Tick is due earlier than was thought

	mu      sync.Mutex
	machine *lock.Machine
	closed  bool
	alarm   time.Duration // when the next Tick is due
	lastOp  lock.Op
	waits   map[lock.Op]chan lock.Done // of capacity 1
	links   map[DeviceID]*lockLink
}

// KeepLocks makes the locks of this device's mount. It is called once, before Serve.
func (r *Replica) KeepLocks(cfg LockConfig) *Locks {
	if cfg.Patience == 0 {
		cfg.Patience = 500 * time.Millisecond
	}
	l := &Locks{
		r: r, mount: cfg.Mount, kick: make(chan struct{}, 1), waits: map[lock.Op]chan lock.Done{}, links: map[DeviceID]*lockLink{},
	}
	mc := lock.Config{Self: lock.Peer(r.self), Log: cfg.Author, Patience: cfg.Patience}
	if len(r.Devices()) > 1 { // this device's last life may have ended a moment ago
		mc.Bound = leaseClock() + cfg.Patience
	}
	l.machine = lock.New(mc)
	for a, n := range cfg.Applied {
		l.step(lock.Applied{Position: lock.Position{Log: a, Seq: n}})
	}
	l.step(lock.Tick{})
	r.locks = l
	return l
}

// step lets an event happen and does what follows from it.
func (l *Locks) step(e lock.Event) {
	l.mu.Lock()
	effects, err := l.stepLocked(e)
	l.mu.Unlock()
	if err != nil { // only messages break rules
		l.r.log.Error("locks", "error", err)
	}
	l.carryOut(effects)
}

// stepLocked is step without the doing; mu is held.
func (l *Locks) stepLocked(e lock.Event) ([]lock.Effect, error) {
	if l.closed {
		return nil, nil
	}
	effects, err := l.machine.Step(leaseClock(), e)
	l.alone.Store(l.machine.Alone())
	if at := l.machine.Deadline(); at < l.alarm {
		l.alarm = at
		wake(l.kick)
	}
	return effects, err
}

// carryOut does what the machine wants; mu is not held.
func (l *Locks) carryOut(effects []lock.Effect) {
	for _, f := range effects {
		switch f := f.(type) {
		case lock.Send:
			l.mu.Lock()
			link := l.links[DeviceID(f.Peer)]
			l.mu.Unlock()
			if link != nil {
				wake(link.wake)
			}
		case lock.Done:
			l.mu.Lock()
			ch := l.waits[f.Op]
			delete(l.waits, f.Op)
			l.mu.Unlock()
			if ch != nil {
				ch <- f
			}
		case lock.Publish:
			l.publish(f)
		case lock.Drop:
			l.mount.DropPages(f.File, func() { l.step(lock.Dropped{Op: f.Op}) })
		}
	}
}

// publish has a file published beside whoever let the machine want it, as often as that takes.
func (l *Locks) publish(f lock.Publish) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.r.spawn(func() {
		for {
			seq, err := l.mount.PublishFile(l.r.closing, f.File)
			if err == nil {
				l.step(lock.Published{Token: f.Token, Seq: seq})
				return
			}
			if l.r.closing.Err() != nil {
				return
			}
			l.r.log.Warn("cannot publish a file that another mount wants to lock", "error", err)
			if !sleep(l.r.closing, 100*time.Millisecond) {
				return
			}
		}
	})
}

// run ticks until ctx ends.
func (l *Locks) run(ctx context.Context) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			l.step(lock.Tick{})
		case <-l.kick:
		case <-ctx.Done():
			return
		}
		l.mu.Lock()
		l.alarm = l.machine.Deadline()
		wait := l.alarm - leaseClock()
		l.mu.Unlock()
		t.Reset(max(wait, 0))
	}
}

// end lets everybody go who waits; nothing happens afterwards.
func (l *Locks) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.alone.Store(true)
	for op, ch := range l.waits {
		delete(l.waits, op)
		close(ch)
	}
}

// Alone reports that no other mount is there which could know, or ask for, what is
// locked here: what was written under a lock need not be published to unlock.
func (l *Locks) Alone() bool { return l.alone.Load() }

// Applied says that an author's batches are applied up to seq and that the kernel has been told.
func (l *Locks) Applied(author AuthorID, seq uint64) {
	l.step(lock.Applied{Position: lock.Position{Log: author, Seq: seq}})
}

// Acquire asks for a lock, or tests for one, and waits as long as e says; e.Op and e.Drop do not count. When ctx
// ends it gives up, unless the lock is there at that moment. It returns ErrClosed after Close.
func (l *Locks) Acquire(ctx context.Context, e lock.Acquire) (lock.Done, error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return lock.Done{}, ErrClosed
	}
	l.lastOp++
	e.Op, e.Drop = l.lastOp, true
	ch := make(chan lock.Done, 1)
	l.waits[e.Op] = ch
	effects, _ := l.stepLocked(e)
	l.mu.Unlock()
	l.carryOut(effects)
	select {
	case d, ok := <-ch:
		return d, closedUnless(ok)
	case <-ctx.Done():
	}
	l.step(lock.Cancel{Op: e.Op})
	d, ok := <-ch
	return d, closedUnless(ok)
}

func closedUnless(ok bool) error {
	if ok {
		return nil
	}
	return ErrClosed
}

// Release unlocks. It does not wait. It fails with lock.ErrTooMany if too many locks would be left.
func (l *Locks) Release(e lock.Release) error {
	l.mu.Lock()
	effects, err := l.stepLocked(e)
	l.mu.Unlock()
	l.carryOut(effects)
	return err
}

// Holds reports whether an owner holds any lock of a class on a file.
func (l *Locks) Holds(file lock.File, owner uint64, class lock.Class) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.machine.Holds(file, owner, class)
}
