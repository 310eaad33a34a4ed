package lock

import (
	"slices"
	"testing"
	"time"
)

// pair is two machines that hear each other at once. What they write is applied at the other
// when the test says so.
type pair struct {
	t       *testing.T
	now     time.Duration
	m       [2]*Machine
	seq     [2]uint64 // of each one's log
	busy    bool      // nothing is published
	keeps   bool      // the kernel of machine 0 does not drop pages for now
	kept    []Dropped // what it has not answered
	op      Op
	events  []func()
	results map[Op]Done
}

func newPair(t *testing.T, cfg Config) *pair {
	t.Helper()
	p := &pair{t: t, results: map[Op]Done{}}
	for i := range p.m {
		cfg.Self, cfg.Log = p.peer(i), Log{byte(i + 1)}
		p.m[i] = New(cfg)
	}
	for i := range p.m {
		p.later(i, LinkUp{p.peer(1 - i)})
	}
	p.run()
	return p
}

func (p *pair) peer(i int) Peer { return Peer{byte(i + 1)} }

// step lets an event happen on one machine, and all that follows on both.
func (p *pair) step(i int, e Event) {
	p.t.Helper()
	p.later(i, e)
	p.run()
}

func (p *pair) later(i int, e Event) {
	p.events = append(p.events, func() {
		p.t.Helper()
		p.handle(i, e)
	})
}

func (p *pair) run() {
	p.t.Helper()
	for len(p.events) > 0 {
		next := p.events[0]
		p.events = p.events[1:]
		next()
	}
}

func (p *pair) handle(i int, e Event) {
	p.t.Helper()
	effects, err := p.m[i].Step(p.now, e)
	if err != nil {
		p.t.Fatalf("machine %d: %v", i, err)
	}
	p.carryOut(i, effects)
}

func (p *pair) carryOut(i int, effects []Effect) {
	for _, f := range effects {
		switch f := f.(type) {
		case Done:
			p.results[f.Op] = f
		case Publish:
			if !p.busy {
				p.later(i, Published{f.Token, p.seq[i]})
			}
		case Drop:
			if p.keeps && i == 0 {
				p.kept = append(p.kept, Dropped{f.Op})
			} else {
				p.later(i, Dropped{f.Op})
			}
		case Send:
			for msg, ok := p.m[i].Poll(p.now, f.Peer); ok; msg, ok = p.m[i].Poll(p.now, f.Peer) {
				p.later(1-i, Receive{p.peer(i), msg})
			}
		}
	}
}

// pass lets time pass in steps shorter than a session may be silent.
func (p *pair) pass(d time.Duration) {
	p.t.Helper()
	for until := p.now + d; p.now < until; {
		p.now = min(until, p.now+20*time.Millisecond)
		for i := range p.m {
			p.later(i, Tick{})
		}
		p.run()
	}
}

// acquire has an owner ask for a lock on file 0.
func (p *pair) acquire(i int, owner uint64, l Lock, wait bool) Op {
	p.t.Helper()
	p.op++
	p.step(i, Acquire{Op: p.op, Wait: wait, Drop: true, Held: Held{Owner: owner, Lock: l}})
	return p.op
}

func (p *pair) release(i int, owner, start, end uint64) {
	p.t.Helper()
	p.step(i, Release{Held: Held{Owner: owner, Lock: Lock{Start: start, End: end}}, Seq: p.seq[i]})
}

func (p *pair) expect(op Op, want Result) {
	p.t.Helper()
	if d, ok := p.results[op]; !ok || d.Result != want {
		p.t.Fatalf("request %d: done %v, %v, want %v", op, ok, d.Result, want)
	}
}

func (p *pair) expectWaiting(op Op) {
	p.t.Helper()
	if d, ok := p.results[op]; ok {
		p.t.Fatalf("request %d ended: %v", op, d.Result)
	}
}

func sharedLock(start, end uint64) Lock    { return Lock{Start: start, End: end} }
func exclusiveLock(start, end uint64) Lock { return Lock{Exclusive: true, Start: start, End: end} }

// TestWeakerLetsOthersOn has an owner turn its exclusive lock into a shared one, for which others
// on either mount have been waiting: of the same range, or as part of a longer one.
func TestWeakerLetsOthersOn(t *testing.T) {
	for _, end := range []uint64{9, 19} {
		for waiter := range 2 {
			p := newPair(t, Config{})
			p.expect(p.acquire(0, 1, exclusiveLock(0, 9), true), Granted)
			waits := p.acquire(waiter, 2, sharedLock(0, 9), true)
			p.expectWaiting(waits)
			p.expect(p.acquire(0, 1, sharedLock(0, end), true), Granted)
			p.expect(waits, Granted)
		}
	}
}

// TestWeakerLetsOthersOnAlone is the same without another mount.
func TestWeakerLetsOthersOnAlone(t *testing.T) {
	for _, end := range []uint64{9, 19} {
		a := newAlone(t, Config{})
		a.expect(a.ask(0, 1, 0, 9, false), Granted)
		a.step(Acquire{Op: 100, Wait: true, Held: Held{Owner: 2, Lock: sharedLock(0, 9)}})
		a.expect(100)
		a.step(Acquire{Op: 101, Wait: true, Held: Held{Owner: 1, Lock: sharedLock(0, end)}})
		a.expect(100, Granted)
		a.expect(101, Granted)
	}
}

// TestMoreThanIsShown has an owner unlock here and there, until there are more ranges than a peer
// takes: it is shown fewer and longer ones, and whoever cannot have its lock for that gets it later.
func TestMoreThanIsShown(t *testing.T) {
	p := newPair(t, Config{MaxLocks: 4})
	p.expect(p.acquire(0, 1, exclusiveLock(0, 99), true), Granted)
	early := p.acquire(1, 2, exclusiveLock(9, 9), true)
	for _, at := range []uint64{1, 3, 5, 7, 9} {
		p.release(0, 1, at, at)
	}
	p.expect(early, Granted)
	for at, want := range map[uint64]Result{0: Refused, 2: Refused, 8: Refused, 50: Refused, 7: Granted, 100: Granted} {
		p.expect(p.acquire(1, 3, sharedLock(at, at), false), want)
	}
	late := p.acquire(1, 3, sharedLock(0, 9), true)
	p.release(1, 2, 0, 99)
	p.release(0, 1, 0, 99)
	p.expect(late, Granted)
}

// TestShownOnce expects that of what a slow link has not taken yet only the last counts.
func TestShownOnce(t *testing.T) {
	p := newPair(t, Config{})
	p.expect(p.acquire(0, 1, exclusiveLock(0, 99), true), Granted)
	p.expectWaiting(p.acquire(1, 2, exclusiveLock(0, 99), true))
	for at := range uint64(50) {
		if _, err := p.m[0].Step(p.now, Release{Held: Held{Owner: 1, Lock: Lock{Start: at * 2, End: at * 2}}}); err != nil {
			t.Fatal(err)
		}
	}
	msg, ok := p.m[0].Poll(p.now, p.peer(1))
	if !ok || len(msg.Items) != 1 || len(msg.Items[0].Locks) != 50 {
		t.Fatalf("%d items", len(msg.Items))
	}
}

// behind has machine 1 write what is not applied on machine 0 yet, which knows of it.
func (p *pair) behind() {
	p.t.Helper()
	p.seq[1]++
	p.op++
	p.step(0, Acquire{Op: p.op, File: File{1}, Held: Held{Owner: 99}, Test: true})
	p.op++
	p.step(1, Acquire{Op: p.op, File: File{1}, Held: Held{Owner: 99}, Test: true})
	p.op++
	p.step(0, Acquire{Op: p.op, File: File{1}, Held: Held{Owner: 99}, Test: true})
	if got := p.m[0].peers[0].need; got != p.seq[1] {
		p.t.Fatalf("%d of the other's log are needed, want %d", got, p.seq[1])
	}
}

func (p *pair) apply() {
	p.t.Helper()
	p.step(0, Applied{Position{Log{2}, p.seq[1]}})
}

// expectHeld expects all that is locked on machine 0 in file 0.
func (p *pair) expectHeld(want ...Lock) {
	p.t.Helper()
	if got := p.m[0].files[File{}].held.shown(100); !slices.Equal(got, want) {
		p.t.Fatalf("%v is locked, want %v", got, want)
	}
}

// TestGivenUpBeforeItIsApplied has a request end that has its lock, but not yet what the other mount wrote: by
// an interrupt, or because it was not to wait. Then its owner holds what it held before, and
// others go on.
func TestGivenUpBeforeItIsApplied(t *testing.T) {
	before := []Lock{{}, sharedLock(5, 14), exclusiveLock(5, 14)}
	for _, had := range before {
		for _, asked := range []Lock{exclusiveLock(0, 19), sharedLock(0, 19)} {
			for _, wait := range []bool{true, false} {
				p := newPair(t, Config{})
				want := []Lock{}
				if had.End > 0 {
					want = append(want, had)
					p.expect(p.acquire(0, 1, had, true), Granted)
				}
				p.behind()
				op := p.acquire(0, 1, asked, wait)
				other := p.acquire(1, 2, exclusiveLock(0, 4), true)
				shares := p.acquire(1, 3, sharedLock(8, 9), true)
				p.expectWaiting(op)
				p.expectWaiting(other)
				p.expectGivenUp(op, wait)
				p.expectHeld(want...)
				p.expect(other, Granted)
				if had.Exclusive {
					p.expectWaiting(shares)
				} else {
					p.expect(shares, Granted)
				}
				p.apply()
				p.expectHeld(want...)
			}
		}
	}
}

// expectGivenUp sees a request of the first mount that waits end at an interrupt, and a try by itself.
func (p *pair) expectGivenUp(op Op, wait bool) {
	p.t.Helper()
	if wait {
		p.pass(time.Minute)
		p.expectWaiting(op)
		p.step(0, Cancel{op})
		p.expect(op, Interrupted)
	} else {
		p.pass(3 * time.Second)
		p.expect(op, Refused)
	}
}

// TestGivenUpBeforePagesAreDropped has a request end that has its lock, and what the other mount wrote, but not yet
// dropped the pages from before.
func TestGivenUpBeforePagesAreDropped(t *testing.T) {
	for _, wait := range []bool{true, false} {
		p := newPair(t, Config{})
		p.expect(p.acquire(0, 1, sharedLock(5, 14), true), Granted)
		p.keeps = true
		op := p.acquire(0, 1, exclusiveLock(0, 19), wait)
		other := p.acquire(1, 2, sharedLock(0, 9), true)
		p.expectWaiting(op)
		p.expectWaiting(other)
		p.expectGivenUp(op, wait)
		p.expectHeld(sharedLock(5, 14))
		p.pass(time.Second)
		p.expect(other, Granted)
		for _, late := range p.kept {
			p.step(0, late)
		}
		p.expectHeld(sharedLock(5, 14))
	}
}

// TestDoneOnceDropped expects a request to end when the pages are gone, which it asks for once.
func TestDoneOnceDropped(t *testing.T) {
	p := newPair(t, Config{})
	p.keeps = true
	op := p.acquire(0, 1, exclusiveLock(0, 9), false)
	p.pass(time.Second)
	p.expectWaiting(op)
	if len(p.kept) != 1 {
		t.Fatalf("asked %d times", len(p.kept))
	}
	p.step(0, p.kept[0])
	p.expect(op, Granted)
}

// TestWeakerOnceItIsApplied expects an exclusive lock to stay one until the request for a weaker one
// is done.
func TestWeakerOnceItIsApplied(t *testing.T) {
	p := newPair(t, Config{})
	p.expect(p.acquire(0, 1, exclusiveLock(5, 14), true), Granted)
	p.behind()
	op := p.acquire(0, 1, sharedLock(0, 19), true)
	shares := p.acquire(1, 2, sharedLock(8, 9), true)
	here := p.acquire(0, 3, sharedLock(8, 9), true)
	p.expectWaiting(op)
	p.expectWaiting(shares)
	p.release(0, 1, 12, 14)
	p.apply()
	p.expect(op, Granted)
	p.expect(shares, Granted)
	p.expect(here, Granted)
	p.expectHeld(sharedLock(0, 11), sharedLock(15, 19))
}

// TestOneAfterTheOther has two threads of a process ask for the same, while what the other mount
// wrote is not applied: neither has its lock before it is, and the one's end is not the other's.
func TestOneAfterTheOther(t *testing.T) {
	for _, class := range []Class{Record, Flock} {
		l := Lock{Class: class, Exclusive: true, End: 9}
		p := newPair(t, Config{})
		p.behind()
		first, second := p.acquire(0, 1, l, true), p.acquire(0, 1, l, true)
		p.expectWaiting(first)
		p.expectWaiting(second)
		p.step(0, Cancel{first})
		p.expect(first, Interrupted)
		p.expectWaiting(second)
		p.expectHeld(l)
		third := p.acquire(0, 1, l, true)
		p.apply()
		p.expect(second, Granted)
		p.expect(third, Granted)
		p.expectHeld(l)
	}
}

// TestUnansweredTest asks who holds a lock, and the other mount does not say in time: somebody there may
// hold all of it.
func TestUnansweredTest(t *testing.T) {
	p := newPair(t, Config{})
	p.busy = true
	want := exclusiveLock(3, 7)
	p.step(0, Acquire{Op: 1, Test: true, Held: Held{Owner: 1, PID: 5, Lock: sharedLock(3, 7)}})
	p.expectWaiting(1)
	p.pass(3 * time.Second)
	p.expect(1, Refused)
	if got := p.results[1].Blocker; got != (Held{Lock: want}) {
		t.Errorf("%+v is in the way, want %+v", got, want)
	}
}

// TestFirstBlockerIsNamed asks, on either mount, who holds a lock where several do.
func TestFirstBlockerIsNamed(t *testing.T) {
	p := newPair(t, Config{})
	p.expect(p.acquire(0, 1, exclusiveLock(30, 49), false), Granted)
	p.expect(p.acquire(0, 1, sharedLock(20, 29), false), Granted)
	p.expect(p.acquire(1, 2, sharedLock(10, 15), false), Granted)
	p.expect(p.acquire(1, 2, sharedLock(60, 69), false), Granted)
	for _, c := range []struct {
		asked, want Lock
		here        [2]bool // whether the mount has a name for the holder
	}{
		{exclusiveLock(25, 74), sharedLock(20, 29), [2]bool{true, false}},
		{exclusiveLock(0, 74), sharedLock(10, 15), [2]bool{false, true}},
		{exclusiveLock(16, 74), sharedLock(20, 29), [2]bool{true, false}},
		{exclusiveLock(50, 74), sharedLock(60, 69), [2]bool{false, true}},
		{sharedLock(0, 74), exclusiveLock(30, 49), [2]bool{true, false}},
	} {
		for i, here := range c.here {
			p.op++
			p.step(i, Acquire{Op: p.op, Test: true, Held: Held{Owner: 3, Lock: c.asked}})
			p.expect(p.op, Refused)
			if got := p.results[p.op].Blocker; got.Lock != c.want || (got.Owner != 0) != here {
				t.Errorf("mount %d, %+v: %+v is in the way, want %+v", i, c.asked, got, c.want)
			}
		}
	}
}

// TestUnlockedBlockerIsNotNamed asks while the word is on its way that a lock of the other mount is gone: one held here
// is in the way, too, so the answer is certain but for whose.
func TestUnlockedBlockerIsNotNamed(t *testing.T) {
	p := newPair(t, Config{})
	p.expect(p.acquire(1, 2, sharedLock(10, 15), false), Granted)
	p.expect(p.acquire(0, 1, sharedLock(20, 29), false), Granted)
	effects, err := p.m[1].Step(p.now, Release{Held: Held{Owner: 2, Lock: sharedLock(10, 15)}, Seq: p.seq[1]})
	if err != nil {
		t.Fatal(err)
	}
	p.later(0, Acquire{Op: 9, Test: true, Held: Held{Owner: 3, Lock: exclusiveLock(0, 74)}})
	p.carryOut(1, effects)
	p.run()
	p.expect(9, Refused)
	if got := p.results[9].Blocker; got.Lock != sharedLock(20, 29) {
		t.Errorf("%+v is in the way", got)
	}
}

// TestRefusedOnceItsTurnComes has a request that is not to wait for locks wait for an earlier one of its owner
// only.
func TestRefusedOnceItsTurnComes(t *testing.T) {
	for _, ends := range []func(p *pair, first Op){
		func(p *pair, _ Op) { p.apply() },
		func(p *pair, first Op) { p.step(0, Cancel{first}) },
	} {
		p := newPair(t, Config{})
		p.expect(p.acquire(1, 2, sharedLock(15, 15), true), Granted)
		p.behind()
		first := p.acquire(0, 1, exclusiveLock(0, 9), true)
		second := p.acquire(0, 1, exclusiveLock(0, 19), false)
		p.expectWaiting(first)
		p.expectWaiting(second)
		ends(p, first)
		p.expect(second, Refused)
	}
}
