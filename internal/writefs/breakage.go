package writefs

import (
	"sync"
	"time"
)

// Breakage is that something has ended for good, and why.
type Breakage struct {
	once sync.Once
	err  error         // set before done is closed
	done chan struct{} // closed when it has ended
	jobs chan func()   // to goroutines that have awaited something and may again
}

// awaiterIdle is how long such a goroutine stays.
const awaiterIdle = 100 * time.Millisecond

// NewBreakage returns one that has not happened.
func NewBreakage() Breakage { return Breakage{done: make(chan struct{}), jobs: make(chan func())} }

// Set ends it; only the first reason counts. It returns that.
func (b *Breakage) Set(err error) error {
	b.once.Do(func() {
		b.err = err
		close(b.done)
	})
	return b.err
}

// Done is closed when it has ended.
func (b *Breakage) Done() <-chan struct{} { return b.done }

// Get returns why it has ended, or nil.
func (b *Breakage) Get() error {
	select {
	case <-b.done:
		return b.err
	default:
		return nil
	}
}

// Await returns what fn does, or why it ended meanwhile. A goroutine that has just done such work does it, if one waits: its stack has
// grown as needed.
func (b *Breakage) Await(fn func() error) error {
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

// work does a job, and what Await has to do until there is no more for a while.
func (b *Breakage) work(job func()) {
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
