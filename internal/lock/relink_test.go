package lock

import (
	"testing"
	"time"
)

// relink ends the link on both sides, and is about to have another after a while; or in its place.
func (p *pair) relink(pause time.Duration) {
	p.t.Helper()
	for i := range p.m {
		if pause > 0 {
			p.step(i, LinkDown{p.peer(1 - i)})
		}
	}
	p.pass(pause)
	for i := range p.m {
		p.later(i, LinkUp{p.peer(1 - i)})
	}
}

// TestLockOutlivesItsLink has the link of two mounts replaced, or reset and there again within Patience, while
// a lock is held on one side: the other does not get it before it is unlocked.
func TestLockOutlivesItsLink(t *testing.T) {
	for _, pause := range []time.Duration{0, 300 * time.Millisecond} {
		for _, idle := range []bool{false, true} { // neither has a session any more
			p := newPair(t, Config{})
			p.expect(p.acquire(1, 2, exclusiveLock(0, 9), true), Granted)
			var early Op
			if idle {
				p.pass(time.Minute)
			} else {
				early = p.acquire(0, 1, exclusiveLock(0, 9), true)
				p.expectWaiting(early)
			}
			p.relink(pause)
			late := p.acquire(0, 3, exclusiveLock(5, 14), true)
			p.run()
			p.pass(2 * time.Second)
			p.expectWaiting(late)
			if !idle {
				p.expectWaiting(early)
				p.release(1, 2, 0, 9)
				p.expect(early, Granted)
				p.release(0, 1, 0, 9)
			}
			p.release(1, 2, 0, 9)
			p.expect(late, Granted)
		}
	}
}

// TestLockEndsWithItsMount has the link end for good, or the mount come back without its locks.
func TestLockEndsWithItsMount(t *testing.T) {
	for _, back := range []bool{false, true} {
		p := newPair(t, Config{})
		p.expect(p.acquire(1, 2, exclusiveLock(0, 9), true), Granted)
		waits := p.acquire(0, 1, exclusiveLock(0, 9), true)
		try := p.acquire(0, 3, exclusiveLock(0, 9), false)
		p.expect(try, Refused)
		p.step(0, LinkDown{p.peer(1)})
		p.m[1] = New(Config{Self: p.peer(1), Log: Log{9}})
		p.pass(400 * time.Millisecond)
		p.expectWaiting(waits)
		if back {
			p.later(0, LinkUp{p.peer(1)})
			p.later(1, LinkUp{p.peer(0)})
			p.run()
		} else {
			p.pass(120 * time.Millisecond)
		}
		p.expect(waits, Granted)
	}
}

// TestSeenAcrossLinks has a lock granted, but not yet what the other mount wrote under it, when the link
// is replaced.
func TestSeenAcrossLinks(t *testing.T) {
	p := newPair(t, Config{})
	p.behind()
	op := p.acquire(0, 1, exclusiveLock(0, 9), true)
	p.expectWaiting(op)
	p.relink(0)
	p.run()
	p.expectWaiting(op)
	p.apply()
	p.expect(op, Granted)
}
