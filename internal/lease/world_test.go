package lease

import (
	"container/heap"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"
)

// vector says how much of each log is applied.
type vector map[Log]uint64

// world is some mounts, what connects them, and time.
type world struct {
	tally
	rng    *rand.Rand
	t      time.Duration
	queue  events
	order  uint64
	mounts []*mount
	links  map[[2]int]*link
	dirs   []*simDir
	lastAt uint64
	quiet  bool // nothing new is begun
	failed error
	trace  func(string)
}

// simDir is a directory of the common tree.
type simDir struct {
	Dir
	made *change                 // nil: always there
	done map[int]map[Log]*change // the last change by each mount's log that was reported as done
}

// change is one op.
type change struct {
	log Log
	seq uint64 // 0: in no log yet
	dir *simDir
}

type event struct {
	at    time.Duration
	order uint64
	fn    func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

func newWorld(seed uint64) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 1)), links: map[[2]int]*link{}}
	for i := range 2 + w.rng.IntN(4) {
		d := &simDir{done: map[int]map[Log]*change{}}
		d.ID[0], d.ID[15] = byte(i), 1
		w.dirs = append(w.dirs, d)
	}
	n := 2
	for n < 5 && w.rng.IntN(3) == 0 {
		n++
	}
	for i := range n {
		m := &mount{w: w, i: i, rate: 0.97 + 0.06*w.rng.Float64(), off: time.Duration(w.rng.Int64N(1e12))}
		w.mounts = append(w.mounts, m)
		m.start()
	}
	for i := range n {
		for j := range i {
			w.connect(w.link(i, j))
		}
	}
	return w
}

func (w *world) fail(format string, args ...any) {
	if w.failed == nil {
		w.failed = fmt.Errorf("at %.1f ms: %w", float64(w.t)/1e6, fmt.Errorf(format, args...))
	}
}

// in has fn happen after a while.
func (w *world) in(d time.Duration, fn func()) {
	w.order++
	heap.Push(&w.queue, event{w.t + d, w.order, fn})
}

// until lets time pass.
func (w *world) until(end time.Duration) {
	for w.failed == nil && len(w.queue) > 0 && w.queue[0].at <= end {
		e := heap.Pop(&w.queue).(event)
		w.t = e.at
		e.fn()
	}
	w.t = end
}

var errBound = errors.New("too long")

func (w *world) run() error {
	for _, m := range w.mounts {
		for range 2 {
			w.in(w.after(50*time.Millisecond, 0, 0), m.user)
		}
	}
	if w.rng.IntN(8) > 0 {
		w.in(w.after(time.Second, 0, 0), w.trouble)
	}
	w.until(time.Duration(1+w.rng.IntN(3)) * time.Second)
	w.quiet = true
	w.heal()
	w.until(w.t + 3*time.Second)
	for _, m := range w.mounts {
		m.checkIdle()
	}
	w.together()
	return w.failed
}

// together expects everybody to be connected with everybody, and to see everything.
func (w *world) together() {
	for end := w.t + 20*time.Second; !w.connected(); w.until(w.t + 500*time.Millisecond) {
		if w.t > end {
			w.fail("not all count each other as connected in the end")
		}
		if w.failed != nil {
			return
		}
	}
	for _, m := range w.mounts {
		m.write(w.dirs[0])
	}
	w.until(w.t + time.Second)
	for _, m := range w.mounts {
		m.read(w.dirs[0])
	}
	w.until(w.t + time.Second)
	for _, m := range w.mounts {
		m.checkIdle()
		if !maps.Equal(m.tree, w.mounts[0].tree) {
			w.fail("%d sees %v, 0 sees %v", m.i, m.tree, w.mounts[0].tree)
		}
	}
}

// connected reports whether all count all others as connected.
func (w *world) connected() bool {
	for _, m := range w.mounts {
		for _, o := range w.mounts {
			if o != m && !m.machine.Connected(o.peer()) {
				return false
			}
		}
	}
	return true
}

// trouble makes some, again and again.
func (w *world) trouble() {
	if w.quiet {
		return
	}
	r := w.rng
	m := w.mounts[r.IntN(len(w.mounts))]
	o := w.mounts[(m.i+1+r.IntN(len(w.mounts)-1))%len(w.mounts)]
	l := w.link(m.i, o.i)
	long := w.after(300*time.Millisecond, 2*time.Second, 0.4)
	switch r.IntN(6) {
	case 0:
		w.Crashes++
		m.crash()
		w.in(long, m.start)
	case 1:
		w.Freezes++
		m.freeze(long)
	case 2: // nothing passes, and nobody is told
		w.say("link %d-%d goes silent for %v", m.i, o.i, long)
		l.silent = true
		w.in(long, func() { l.silent = false; l.resume() })
	case 3:
		w.disconnect(l)
		w.in(long, func() { w.connect(l) })
	case 4:
		w.say("link %d-%d begins anew", m.i, o.i)
		w.connect(l)
	case 5: // one mount is slow to apply
		m.slow = long
		w.in(long, func() { m.slow = 0 })
	}
	w.in(w.after(600*time.Millisecond, 2*time.Second, 0.2), w.trouble)
}

// heal ends all trouble.
func (w *world) heal() {
	w.say("all heals")
	for _, m := range w.mounts {
		m.slow = 0
		m.thaw()
		m.start()
	}
	for i := range w.mounts {
		for j := range i {
			l := w.link(i, j)
			l.silent = false
			l.resume()
			if !l.up {
				w.connect(l)
			}
		}
	}
}
