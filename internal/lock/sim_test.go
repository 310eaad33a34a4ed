package lock

import (
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestSimulation lets processes on two to five mounts lock, write and unlock beside a
// network that does its worst, links that others take the place of, and mounts that crash and freeze. Locks exclude each other
// between mounts that are connected, nobody relies on consent that is gone, what was
// written under a lock is seen under the next, nobody waits for nobody, and everybody gets on in the end.
// LOCK_SEED=n replays one run and shows it; LOCK_SEEDS=n runs that many.
func TestSimulation(t *testing.T) {
	if s := os.Getenv("LOCK_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(seed)
		w.trace = func(line string) { t.Log(line) }
		if err := w.run(); err != nil {
			t.Fatal(err)
		}
		return
	}
	seeds := uint64(10_000)
	if testing.Short() {
		seeds = 500
	}
	if os.Getenv("FOREVER_ACCEPT") == "full" {
		seeds = 100_000
	}
	if s := os.Getenv("LOCK_SEEDS"); s != "" {
		seeds, _ = strconv.ParseUint(s, 10, 64)
	}
	first := uint64(time.Now().UnixNano())
	t.Logf("seeds %d to %d", first, first+seeds-1)
	var next atomic.Uint64
	var total tally
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for n := next.Add(1) - 1; n < seeds && !t.Failed(); n = next.Add(1) - 1 {
				w := newWorld(first + n)
				if err := w.run(); err != nil {
					t.Errorf("seed %d: %v", first+n, err)
				}
				mu.Lock()
				total.add(&w.tally)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%+v", total)
	if !t.Failed() && seeds >= 100 {
		total.expect(t)
	}
}

// tally counts what happened, so that a simulation in which nothing happens shows.
type tally struct {
	Granted, Refused, Circles, Interrupted, Waited, Weakened, TooMany, Undone, Excluding, Seen, Breaks, Replaced, Silences, Crashes, Freezes int
	Longest                                                                                                                                  time.Duration
}

func (a *tally) add(b *tally) {
	a.Granted += b.Granted
	a.Refused += b.Refused
	a.Circles += b.Circles
	a.Interrupted += b.Interrupted
	a.Waited += b.Waited
	a.Undone += b.Undone
	a.TooMany += b.TooMany
	a.Weakened += b.Weakened
	a.Excluding += b.Excluding
	a.Seen += b.Seen
	a.Breaks += b.Breaks
	a.Replaced += b.Replaced
	a.Silences += b.Silences
	a.Crashes += b.Crashes
	a.Freezes += b.Freezes
	a.Longest = max(a.Longest, b.Longest)
}

func (a *tally) expect(t *testing.T) {
	for what, n := range map[string]int{
		"granted": a.Granted, "refused": a.Refused, "interrupted": a.Interrupted, "waited": a.Waited, "weakened": a.Weakened, "too many": a.TooMany, "undone": a.Undone,
		"excluding": a.Excluding, "seen": a.Seen, "breaks": a.Breaks, "replaced": a.Replaced, "silences": a.Silences, "crashes": a.Crashes, "freezes": a.Freezes,
	} {
		if n == 0 {
			t.Errorf("nothing was %s", what)
		}
	}
}

// count notes how a request ended, and that it did not take too long to be refused.
func (w *world) count(p *process, d Done) {
	took := w.t - p.since
	if took > 0 {
		w.Waited++
	}
	switch d.Result {
	case Granted:
		w.Granted++
	case Refused:
		w.Refused++
	case Deadlock:
		w.Circles++
	case Interrupted:
		w.Interrupted++
	case TooMany:
		w.TooMany++
		if w.maxLocks == 0 {
			w.fail("too many locks")
		}
	}
	w.Longest = max(w.Longest, took)
	if d.Result == Refused && took > 2500*time.Millisecond && p.m.troubled < p.since {
		w.fail("mount %d: refused after %v", p.m.i, took)
	}
}

func newWorld(seed uint64) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 7)), links: map[[2]int]*link{}}
	if w.chance(0.2) {
		w.maxLocks = 2 // so that what is shown is more than what is locked
	}
	n := 2 + w.rng.IntN(4)
	for i := range n {
		w.mounts = append(w.mounts, &mount{
			w: w, i: i, rate: 0.98 + 0.04*w.rng.Float64(), offset: w.between(0, 100*time.Second), troubled: -time.Hour,
		})
	}
	return w
}

const (
	rough = 3 * time.Second  // trouble ends
	end   = 16 * time.Second // everybody is done
)

func (w *world) run() error {
	for _, m := range w.mounts {
		m.start()
		w.startProcesses(m)
	}
	for i := range w.mounts {
		for j := range i {
			if w.chance(0.9) {
				w.connect(w.link(i, j))
			}
		}
	}
	if w.chance(0.8) {
		w.in(w.between(0, 2*time.Second), w.trouble)
	}
	if w.chance(0.5) {
		w.in(w.between(0, 2*time.Second), w.replaceSome)
	}
	w.in(rough, w.heal)
	for w.err == nil && w.events.Len() > 0 && w.t < end && !w.idle() {
		e := w.pop()
		w.t = e.at
		e.fn()
	}
	for _, m := range w.mounts {
		for _, p := range m.ops {
			w.fail("mount %d process %x: asked at %v and still waits", m.i, p.owner>>48, p.since)
		}
	}
	return w.err
}

// idle reports whether trouble is over and everybody is done; now and then, since it takes a while.
func (w *world) idle() bool {
	w.looks++
	if !w.calm || w.looks%64 != 0 {
		return false
	}
	for _, m := range w.mounts {
		if m.machine == nil || m.frozen || len(m.ops) > 0 {
			return false
		}
		for _, p := range m.byOwner {
			if !p.over {
				return false
			}
		}
	}
	return true
}

// trouble does something bad, and again later.
func (w *world) trouble() {
	if w.calm {
		return
	}
	m := w.mounts[w.rng.IntN(len(w.mounts))]
	o := w.mounts[(m.i+1+w.rng.IntN(len(w.mounts)-1))%len(w.mounts)]
	l := w.link(m.i, o.i)
	switch k := w.rng.IntN(10); {
	case k < 3 && l.up:
		w.disconnect(l)
	case k < 5 && !l.up:
		w.connect(l)
	case k < 7 && l.up && !l.silent:
		w.Silences++
		w.say("link %v silent", l.ends)
		l.silent = true
		number := l.number
		w.in(w.between(0, 2*time.Second), func() {
			l.known = w.t
			if l.number == number {
				l.silent = false
				l.resume()
			}
		})
	case k < 8 && m.machine != nil:
		m.crash()
	case k < 9 && m.machine != nil && !m.frozen:
		m.freeze(w.between(0, 1500*time.Millisecond))
	}
	w.in(w.between(20*time.Millisecond, 900*time.Millisecond), w.trouble)
}

// heal ends all trouble: everybody is connected from now on.
func (w *world) heal() {
	w.calm = true
	w.in(2*time.Second, w.checkWaits)
	for i := range w.mounts {
		for j := range i {
			w.keep(w.link(i, j))
		}
	}
}

// keep connects a link whenever it is down.
func (w *world) keep(l *link) {
	w.connect(l)
	if w.t < end-8*time.Second {
		w.in(200*time.Millisecond, func() { w.keep(l) })
	}
}
