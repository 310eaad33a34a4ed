package kv

import (
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/go-hclog"

	"github.com/foreverfs/forever/internal/writefs"
)

// Pebble ends the process when it cannot write its log or its manifest, be it for a full disk, and when it cannot
// write a table it tries again without a pause. So it is not told: whatever write fails breaks the state, and the goroutine
// that wanted it waits for ever. Nothing is written after a failure; reads go on; who waits for an update or a flush gets the
// error; and the owner is told, who ends in order. The files stay open and locked while the process lives: another one may open the
// state again. A scratch state, which nobody opens again, is closed all the same: see scratchFS.

// breakage is that something has ended for good, and why.
type breakage struct {
	once sync.Once
	err  error         // set before done is closed
	done chan struct{} // closed when it has ended
	jobs chan func()   // to goroutines that have awaited something and may again
}

// awaiterIdle is how long such a goroutine stays.
const awaiterIdle = 100 * time.Millisecond

func newBreakage() breakage { return breakage{done: make(chan struct{}), jobs: make(chan func())} }

// set ends it; only the first reason counts. It returns that.
func (b *breakage) set(err error) error {
	b.once.Do(func() {
		b.err = fmt.Errorf("write to the state: %w", err)
		close(b.done)
	})
	return b.err
}

// get returns why it has ended, or nil.
func (b *breakage) get() error {
	select {
	case <-b.done:
		return b.err
	default:
		return nil
	}
}

// await returns what fn does, or why it ended meanwhile. A goroutine that has just done such work does it, if one waits: its stack has
// grown as needed.
func (b *breakage) await(fn func() error) error {
	done := make(chan error, 1)
	job := func() { done <- fn() }
	select {
	case b.jobs <- job:
	default:
		go b.work(job)
	}
	select {
	case err := <-done:
		return err
	case <-b.done:
		return b.err
	}
}

// work does a job, and what await has to do until there is no more for a while.
func (b *breakage) work(job func()) {
	idle := time.NewTimer(awaiterIdle)
	defer idle.Stop()
	for {
		job()
		idle.Reset(awaiterIdle)
		select {
		case job = <-b.jobs:
		case <-idle.C:
			return
		}
	}
}

// Broken is closed when the state takes no more updates: every Update and Sync from then on fails with why.
func (p *Pebble) Broken() <-chan struct{} { return p.broken.done }

// Err returns why the state takes no more updates, or nil.
func (p *Pebble) Err() error { return p.broken.get() }

// failed breaks the state for an error of its disk, and returns only if there is none, while it is being opened, or of a scratch state.
func (p *Pebble) failed(err error) error {
	if !p.opened.Load() || !writefs.Failed(err) {
		return err
	}
	_ = p.broken.set(err)
	if !p.scratch {
		p.park(err)
	}
	return err
}

// dropped reports whether what is in the state is of no use any more.
func (p *Pebble) dropped() bool { return p.scratch && p.Err() != nil }

// park ends all that waits for the goroutine, and does not return.
func (p *Pebble) park(err error) {
	_ = p.stuck.set(err)
	select {}
}

// watchedLogger passes pebble's messages on, and has it break the state instead of ending the process.
type watchedLogger struct {
	log hclog.Logger
	p   *Pebble
}

var _ pebble.Logger = watchedLogger{}

// Infof implements pebble.Logger. It is of use to who debugs only: pebble tells what logs it finds at each start.
func (l watchedLogger) Infof(format string, args ...any) {
	if l.log.IsDebug() {
		l.log.Debug(fmt.Sprintf(format, args...))
	}
}

// Errorf implements pebble.Logger.
func (l watchedLogger) Errorf(format string, args ...any) {
	if !l.p.dropped() {
		l.log.Error(fmt.Sprintf(format, args...))
	}
}

// Fatalf implements pebble.Logger. Pebble requires that it does not return.
func (l watchedLogger) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	for _, a := range args {
		if cause, ok := a.(error); ok { // errors.Is shall find it
			err = cause
		}
	}
	if _ = l.p.failed(err); l.p.Err() != nil {
		l.p.park(err)
	}
	panic(err) // which open recovers
}
