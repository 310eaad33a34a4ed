package fusefs

import (
	"sync"
	"time"
)

// pages has the kernel drop what it has of files whose content changed elsewhere. That waits, file by file, for
// requests under way that fill or write these pages, and they may wait for the network. So no file waits for another.
type pages struct {
	// drop has the kernel do it. busy reports whether a request is under way that
	// holds pages of a file. Both are set by start.
	drop func(ino uint64)
	busy func(ino uint64) bool

	wg sync.WaitGroup

	mu      sync.Mutex
	asked   map[uint64]*drop // not begun
	begun   map[uint64]*drop
	queue   []uint64 // of those asked for, what has not begun already for an earlier change
	running int      // goroutines, without those that are stuck
	stuck   int
	started bool
	stopped bool
}

// drop is one dropping of the pages of a file. Whoever asks while it waits to begin shares it.
type drop struct {
	ino   uint64
	since time.Time     // it was asked for, or begun
	over  chan struct{} // closed when it is
	stuck bool
}

const (
	// dropsAtOnce is how many files the kernel is asked to drop pages of at the same time.
	dropsAtOnce = 16
	// stuckAfter is when a drop does not count among these any more: it waits for a request, others need not.
	stuckAfter = 20 * time.Millisecond
	// maxStuck is how many may be. Each takes a thread, as does each program whose read they wait for.
	maxStuck = 1000

	// settlePatience is how long the word that a change has arrived is held back until the pages of files are
	// dropped; a writer on another mount waits for it. It is short beside the patience of leases.
	settlePatience = 50 * time.Millisecond
	// busyPatience is the same for a file with a request under way: long enough for one that
	// is answered from this disk. One that waits for the network delays nobody.
	busyPatience = 10 * time.Millisecond
)

func newPages() *pages {
	return &pages{asked: map[uint64]*drop{}, begun: map[uint64]*drop{}}
}

// start lets the drops begin, also those asked for before.
func (p *pages) start(drop func(ino uint64), busy func(ino uint64) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop, p.busy = drop, busy
	p.started = true
	for range p.queue {
		p.runLocked()
	}
}

// stop forgets what has not begun, and waits for the rest: the kernel must have gone.
func (p *pages) stop() {
	p.mu.Lock()
	p.stopped, p.queue = true, nil
	for ino, d := range p.asked {
		delete(p.asked, ino)
		close(d.over)
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// ask has the pages of a file dropped soon.
func (p *pages) ask(ino uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped || p.asked[ino] != nil {
		return
	}
	p.asked[ino] = &drop{ino: ino, since: time.Now(), over: make(chan struct{})}
	if p.begun[ino] == nil {
		p.queue = append(p.queue, ino)
		p.runLocked()
	}
}

// runLocked sees to it that somebody takes care of one more file; p.mu is held.
func (p *pages) runLocked() {
	if p.started && !p.stopped && len(p.queue) > 0 && p.running < dropsAtOnce {
		p.running++
		p.wg.Go(p.run)
	}
}

// run drops pages until there is nothing more to do.
func (p *pages) run() {
	for d := p.next(); d != nil; d = p.next() {
		late := time.AfterFunc(stuckAfter, func() { p.tooLong(d) })
		p.drop(d.ino)
		late.Stop()
		if stuck := p.done(d); stuck {
			return
		}
	}
}

// next begins the drop that has waited longest. If there is none, it ends the goroutine's count.
func (p *pages) next() *drop {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		p.queue = nil
		p.running--
		return nil
	}
	ino := p.queue[0]
	p.queue = p.queue[1:]
	d := p.asked[ino]
	delete(p.asked, ino)
	p.begun[ino] = d
	d.since = time.Now()
	return d
}

// tooLong lets another goroutine take the place of one that is stuck.
func (p *pages) tooLong(d *drop) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.begun[d.ino] != d || p.stuck == maxStuck {
		return
	}
	d.stuck = true
	p.stuck++
	p.running--
	p.runLocked()
}

// done ends a drop, and lets one begin that was asked for meanwhile. It reports whether another goroutine has
// taken the place of this one.
func (p *pages) done(d *drop) (stuck bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.begun, d.ino)
	close(d.over)
	if p.asked[d.ino] != nil {
		p.queue = append(p.queue, d.ino)
	}
	if d.stuck {
		p.stuck--
		p.runLocked()
	}
	return d.stuck
}

// last returns the drop after which the kernel has no page of a file of the time before, or nil if it has none now.
func (p *pages) last(ino uint64) *drop {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := p.asked[ino]; d != nil {
		return d
	}
	return p.begun[ino]
}

// dropped calls done when what was asked for of a file is over. It does not wait.
func (p *pages) dropped(ino uint64, done func()) {
	if d := p.last(ino); d == nil || !p.spawn(func() { <-d.over; done() }) {
		done()
	}
}

// settling returns the drops that a writer on another mount is to wait for: not what has not moved for long, which
// is waiting for a request. Those of files that are not open are among them, for the length that goes with the pages.
func (p *pages) settling() (list []*drop) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fresh := time.Now().Add(-settlePatience)
	for _, drops := range []map[uint64]*drop{p.begun, p.asked} {
		for _, d := range drops {
			if p.started && d.since.After(fresh) {
				list = append(list, d)
			}
		}
	}
	return list
}

// settle calls done when the drops of a list are over, or have been waited for long enough. It does not wait itself.
func (p *pages) settle(list []*drop, done func()) {
	if len(list) == 0 || !p.spawn(func() { p.await(list); done() }) {
		done()
	}
}

// await waits for drops, but for none that takes too long.
func (p *pages) await(list []*drop) {
	now := time.Now()
	for _, d := range list {
		if !d.overBy(now.Add(busyPatience)) && !p.busy(d.ino) {
			d.overBy(now.Add(settlePatience))
		}
	}
}

// overBy waits for the end of a drop until a deadline, and reports whether it came.
func (d *drop) overBy(deadline time.Time) bool {
	select {
	case <-d.over:
		return true
	default:
	}
	t := time.NewTimer(time.Until(deadline))
	defer t.Stop()
	select {
	case <-d.over:
		return true
	case <-t.C:
		return false
	}
}

// spawn runs fn, unless all is over already.
func (p *pages) spawn(fn func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return false
	}
	p.wg.Go(fn)
	return true
}
