package replica

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/internal/lease"
)

// Mount is what leases need of the mounted volume. Its methods are called from
// several goroutines, and done from any.
type Mount interface {
	// Publish puts everything that was reported as done into the mount's log, and
	// returns how many batches that has. With vector it also returns how many
	// batches of every log are applied.
	Publish(ctx context.Context, vector bool) (seq uint64, applied map[AuthorID]uint64, err error)
	// Forget has the kernel forget everything, and then calls done. It does not wait.
	Forget(done func())
	// ForgetDirs has the kernel forget what it knows of directories and then calls
	// done with those that it was left to keep; with force that is none. It does not wait.
	ForgetDirs(dirs [][16]byte, force bool, done func(kept [][16]byte))
}

// LeaseConfig says what Leases are made of.
type LeaseConfig struct {
	Author AuthorID // of this mount's log
	Mount  Mount
	// Applied is what was applied when the mount began, by author.
	Applied map[AuthorID]uint64
	// Patience is how long others are waited for, at most; 0 means 500 ms.
	Patience time.Duration
}

// Leases keep this mount in step with those of connected devices: close-to-open.
// They are a lease.Machine with a clock, connections and a mount. All methods are
// safe for concurrent use.
type Leases struct {
	r     *Replica
	mount Mount

	idle atomic.Bool   // nobody is connected
	kick chan struct{} // the next Tick is due earlier than was thought

	leaving atomic.Bool

	mu      sync.Mutex
	machine *lease.Machine
	closed  bool
	alarm   time.Duration // when the next Tick is due
	lastOp  lease.Op
	waits   map[lease.Op]chan struct{}
	links   map[DeviceID]*leaseLink
	since   map[DeviceID]inStep
}

// inStep is whether a device's mount is connected, and since when.
type inStep struct {
	yes   bool
	since time.Time
}

// Keep makes the leases of this device's mount. It is called once, before Serve.
func (r *Replica) Keep(cfg LeaseConfig) *Leases {
	if cfg.Patience == 0 {
		cfg.Patience = 500 * time.Millisecond
	}
	l := &Leases{
		r: r, mount: cfg.Mount, kick: make(chan struct{}, 1), waits: map[lease.Op]chan struct{}{},
		links: map[DeviceID]*leaseLink{}, since: map[DeviceID]inStep{},
	}
	mc := lease.Config{Self: cfg.Author, Patience: cfg.Patience}
	if len(r.Devices()) > 1 { // this device's last life may have ended a moment ago
		mc.Bound = leaseClock() + cfg.Patience
	}
	l.machine = lease.New(mc)
	for a, n := range cfg.Applied {
		l.step(lease.Applied{Position: lease.Position{Log: a, Seq: n}})
	}
	l.step(lease.Tick{})
	r.leases = l
	return l
}

// leaseClock is a clock that goes on while the machine sleeps: a lease that ran out
// meanwhile must not seem alive on waking.
func leaseClock() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // every Linux that runs FUSE has it
	}
	return time.Duration(ts.Nano())
}

// step lets an event happen and does what follows from it.
func (l *Leases) step(e lease.Event) error {
	l.mu.Lock()
	effects, err := l.stepLocked(e)
	l.mu.Unlock()
	l.carryOut(effects)
	return err
}

// stepLocked is step without the doing; mu is held.
func (l *Leases) stepLocked(e lease.Event) ([]lease.Effect, error) {
	if l.closed {
		return nil, nil
	}
	effects, err := l.machine.Step(leaseClock(), e)
	l.idle.Store(l.machine.Idle())
	l.note()
	if at := l.machine.Deadline(); at < l.alarm {
		l.alarm = at
		wake(l.kick)
	}
	return effects, err
}

// note keeps since when devices are connected or not; mu is held.
func (l *Leases) note() {
	for id := range l.links {
		now := l.machine.Connected(lease.Peer(id))
		if s, known := l.since[id]; known && s.yes == now {
			continue
		}
		l.since[id] = inStep{now, l.r.cfg.Now()}
		l.r.log.Debug("mounts in step", "device", id, "yes", now)
	}
}

// carryOut does what the machine wants; mu is not held.
func (l *Leases) carryOut(effects []lease.Effect) {
	for _, f := range effects {
		switch f := f.(type) {
		case lease.Send:
			l.mu.Lock()
			link := l.links[DeviceID(f.Peer)]
			l.mu.Unlock()
			if link != nil {
				wake(link.wake)
			}
		case lease.Done:
			l.mu.Lock()
			ch := l.waits[f.Op]
			delete(l.waits, f.Op)
			l.mu.Unlock()
			if ch != nil {
				close(ch)
			}
		case lease.Publish:
			l.publish(f.Vector)
		case lease.Flush:
			l.aside(func() { l.mount.Forget(func() { _ = l.step(lease.Flushed(f)) }) })
		case lease.Drop:
			l.aside(func() {
				l.mount.ForgetDirs(f.Dirs, f.Force, func(kept [][16]byte) {
					_ = l.step(lease.Dropped{Token: f.Token, Kept: kept})
				})
			})
		}
	}
}

// aside does what may take a moment beside whoever let the machine want it: a
// request, or the clock that keeps leases alive.
func (l *Leases) aside(fn func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.r.spawn(fn)
	}
}

// publish has all that is done published, as often as that takes.
func (l *Leases) publish(vector bool) {
	l.aside(func() {
		for {
			seq, applied, err := l.mount.Publish(l.r.closing, vector)
			if err == nil {
				e := lease.Published{Seq: seq}
				for a, n := range applied {
					e.Vector = append(e.Vector, lease.Position{Log: a, Seq: n})
				}
				_ = l.step(e)
				return
			}
			if l.r.closing.Err() != nil {
				return
			}
			l.r.log.Warn("cannot publish what was done; connected mounts wait for it", "error", err)
			if !sleep(l.r.closing, 100*time.Millisecond) {
				return
			}
		}
	})
}

// run ticks until ctx ends.
func (l *Leases) run(ctx context.Context) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			_ = l.step(lease.Tick{})
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
func (l *Leases) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.idle.Store(true)
	for op, ch := range l.waits {
		delete(l.waits, op)
		close(ch)
	}
}

// leavePatience is how long connected devices may take to be told that a mount leaves.
const leavePatience = 200 * time.Millisecond

// Leave gives up all leases, so that nobody waits for this mount any more, and has the others told. Call
// it when the mount is gone, some time before Close.
func (l *Leases) Leave() {
	l.leaving.Store(true)
	_ = l.step(lease.Leave{})
	l.mu.Lock()
	links := slices.Collect(maps.Values(l.links))
	l.mu.Unlock()
	late := time.After(leavePatience)
	for _, link := range links {
		select {
		case <-link.left:
		case <-late:
			return
		}
	}
}

// Applied says that an author's batches are applied up to seq and that the kernel has been told.
func (l *Leases) Applied(author AuthorID, seq uint64) {
	_ = l.step(lease.Applied{Position: lease.Position{Log: author, Seq: seq}})
}

// state returns whether a device's mount is connected and since when.
func (l *Leases) state(id DeviceID) (MountState, time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, known := l.since[id]
	switch {
	case !known:
		return MountUnknown, time.Time{}
	case s.yes:
		return MountConnected, s.since
	}
	return MountDisconnected, s.since
}
