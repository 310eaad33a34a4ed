package lock

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"
)

// world is some mounts, their processes and the network between them, in simulated time.
type world struct {
	rng      *rand.Rand
	t        time.Duration
	events   timeline
	order    int
	mounts   []*mount
	links    map[[2]int]*link
	err      error
	trace    func(string)
	looks    int
	maxLocks int  // 0: as many as it takes
	calm     bool // nothing goes wrong any more
	kept     bool // a process keeps a weakened lock, or has
	tally
}

type timer struct {
	at    time.Duration
	order int
	fn    func()
}

type timeline []timer

func (l timeline) Len() int { return len(l) }
func (l timeline) Less(i, j int) bool {
	return l[i].at < l[j].at || l[i].at == l[j].at && l[i].order < l[j].order
}
func (l timeline) Swap(i, j int) { l[i], l[j] = l[j], l[i] }
func (l *timeline) Push(x any)   { *l = append(*l, x.(timer)) }
func (l *timeline) Pop() any {
	old := *l
	x := old[len(old)-1]
	*l = old[:len(old)-1]
	return x
}

func (w *world) in(d time.Duration, fn func()) {
	w.order++
	heap.Push(&w.events, timer{w.t + d, w.order, fn})
}

func (w *world) say(format string, args ...any) {
	if w.trace != nil {
		w.trace(fmt.Sprintf("%12v ", w.t) + fmt.Sprintf(format, args...))
	}
}

func (w *world) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("at %v: %s", w.t, fmt.Sprintf(format, args...))
	}
}

func (w *world) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.rng.Int64N(int64(hi-lo)+1))
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

// mount is a machine with its processes, or nothing while it is down.
type mount struct {
	w        *world
	i        int
	rate     float64 // of its clock
	offset   time.Duration
	life     int
	machine  *Machine
	frozen   bool
	waiting  []func() // until it thaws
	log      []entry  // of this life
	dirty    []entry
	lastOp   Op
	ops      map[Op]*process
	byOwner  map[uint64]*process
	applied  map[Log]uint64
	alarm    time.Duration
	linked   map[int]int
	troubled time.Duration // when it was last frozen or down
}

// entry is something that was written into a file under a lock.
type entry struct {
	file     File
	lock     Lock
	proc     *process
	released bool
}

func (m *mount) peer() Peer { return Peer{byte(m.i + 1)} }

func (m *mount) logName(life int) Log { return Log{byte(m.i + 1), byte(life), byte(life >> 8)} }

func (m *mount) clock() time.Duration {
	return m.offset + time.Duration(float64(m.w.t)*m.rate)
}

// do runs fn when the mount is not frozen.
func (m *mount) do(fn func()) {
	if m.frozen {
		m.waiting = append(m.waiting, fn)
		return
	}
	fn()
}

func (m *mount) start() {
	m.life++
	m.log, m.dirty = nil, nil
	m.byOwner = map[uint64]*process{}
	m.ops, m.applied, m.linked = map[Op]*process{}, map[Log]uint64{}, map[int]int{}
	cfg := Config{Self: m.peer(), Log: m.logName(m.life), Idle: 700 * time.Millisecond, MaxLocks: m.w.maxLocks}
	if m.life > 1 {
		cfg.Bound = m.clock() + 500*time.Millisecond
	}
	m.machine = New(cfg)
	m.alarm = 0
	m.step(Tick{})
}

func (m *mount) crash() {
	m.w.say("mount %d crashes", m.i)
	m.w.Crashes++
	m.machine, m.frozen, m.waiting = nil, false, nil
	m.troubled = m.w.t
	m.life++
	for _, o := range m.w.mounts {
		if o != m && m.w.link(m.i, o.i).up {
			m.w.disconnect(m.w.link(m.i, o.i))
		}
	}
	life := m.life
	m.w.in(m.w.between(0, 1500*time.Millisecond), func() {
		if m.machine == nil && m.life == life {
			m.start()
			m.w.startProcesses(m)
		}
	})
}

func (m *mount) freeze(d time.Duration) {
	m.w.say("mount %d freezes for %v", m.i, d)
	m.w.Freezes++
	m.frozen = true
	life := m.life
	m.w.in(d, func() {
		m.troubled = m.w.t
		if m.life != life {
			return
		}
		m.frozen = false
		list := m.waiting
		m.waiting = nil
		for _, fn := range list {
			m.do(fn)
		}
	})
}

// step lets an event happen and carries out what follows.
func (m *mount) step(e Event) {
	if m.machine == nil {
		return
	}
	m.machine.granting = func(f File, h *Held) { m.w.checkGrant(m, f, h) }
	effects, err := m.machine.Step(m.clock(), e)
	if err != nil {
		m.w.fail("mount %d: %v", m.i, err)
	}
	for _, f := range effects {
		m.carryOut(f)
	}
	if at := m.machine.Deadline(); at != m.alarm {
		m.alarm = at
		if at < 1<<62 {
			life := m.life
			wait := max(0, time.Duration(float64(at-m.clock())/m.rate)+time.Microsecond)
			m.w.in(wait, func() {
				m.do(func() {
					if m.life == life && m.alarm == at {
						m.alarm = -1
						m.step(Tick{})
					}
				})
			})
		}
	}
}

func (m *mount) carryOut(e Effect) {
	life := m.life
	switch e := e.(type) {
	case Send:
		o := m.w.mounts[e.Peer[0]-1]
		m.w.in(m.w.between(0, time.Millisecond), func() {
			m.do(func() {
				if m.life == life {
					m.poll(o)
				}
			})
		})
	case Publish:
		m.w.in(m.w.between(0, 20*time.Millisecond), func() {
			m.do(func() {
				if m.life == life {
					m.step(Published{e.Token, m.publish(e.File)})
				}
			})
		})
	case Drop:
		m.w.in(m.w.between(0, 20*time.Millisecond), func() {
			m.do(func() {
				if m.life == life {
					m.step(Dropped{e.Op})
				}
			})
		})
	case Done:
		p := m.ops[e.Op]
		delete(m.ops, e.Op)
		p.done(e)
	}
}

func (m *mount) poll(o *mount) {
	msg, ok := m.machine.Poll(m.clock(), o.peer())
	if !ok {
		return
	}
	if m.w.trace != nil {
		m.w.say("mount %d to %d: session %d, heard of %d, time %v echo %v beat %v, %v", m.i, o.i, msg.Mine, msg.Yours, msg.Time, msg.Echo, msg.Beat, msg.Items)
	}
	at := m.w.t
	m.w.link(m.i, o.i).send(m.i, func() {
		if m.w.trace != nil {
			m.w.say("mount %d hears what mount %d said at %v", o.i, m.i, at)
		}
		o.step(Receive{m.peer(), msg})
	})
	if len(msg.Items) == maxItems {
		m.poll(o)
	}
}

// publish puts what was written into a file into the log, and sends it.
func (m *mount) publish(f File) uint64 {
	left := m.dirty[:0:0]
	for _, e := range m.dirty {
		if e.file == f {
			m.log = append(m.log, e)
		} else {
			left = append(left, e)
		}
	}
	m.dirty = left
	for _, o := range m.w.mounts {
		if o != m {
			m.w.sendLog(m, o)
		}
	}
	return uint64(len(m.log))
}

// sendLog sends what there is of a log; what was there already does no harm.
func (w *world) sendLog(m, o *mount) {
	if m.machine == nil {
		return
	}
	n, name := uint64(len(m.log)), m.logName(m.life)
	w.link(m.i, o.i).send(m.i, func() {
		life := o.life
		takes := w.between(0, 10*time.Millisecond)
		if !w.calm && w.chance(0.1) {
			takes = w.between(0, 500*time.Millisecond)
		}
		w.in(takes, func() {
			o.do(func() {
				if o.life == life && o.machine != nil && o.applied[name] < n {
					o.applied[name] = n
					o.step(Applied{Position{name, n}})
				}
			})
		})
	})
}

// link is a connection between two mounts, or none.
type link struct {
	w      *world
	ends   [2]int
	up     bool
	silent bool
	number int
	last   [2]time.Duration
	held   []func()
	known  time.Duration // when both ends knew of it and nothing had been wrong
}

func (w *world) link(i, j int) *link {
	key := [2]int{min(i, j), max(i, j)}
	l := w.links[key]
	if l == nil {
		l = &link{w: w, ends: key}
		w.links[key] = l
	}
	return l
}

func (w *world) connect(l *link) {
	a, b := w.mounts[l.ends[0]], w.mounts[l.ends[1]]
	if l.up || a.machine == nil || b.machine == nil {
		return
	}
	l.number++
	l.up, l.silent, l.held, l.last = true, false, nil, [2]time.Duration{}
	l.known = w.t + 300*time.Millisecond
	number := l.number
	for _, pair := range [][2]*mount{{a, b}, {b, a}} {
		m, o := pair[0], pair[1]
		life := m.life
		w.in(w.between(0, 200*time.Millisecond), func() { m.do(func() { l.noted(m, o, number, life) }) })
	}
}

// noted has a mount learn of a connection, if that is still there.
func (l *link) noted(m, o *mount, number, life int) {
	if l.up && l.number == number && m.life == life {
		m.linked[o.i] = number
		m.step(LinkUp{o.peer()})
		l.w.sendLog(m, o)
		l.resume()
	}
}

func (w *world) disconnect(l *link) {
	w.say("link %v breaks", l.ends)
	w.Breaks++
	number := l.number
	l.number++
	l.up, l.held = false, nil
	for side := range 2 {
		m, o := w.mounts[l.ends[side]], w.mounts[l.ends[1-side]]
		life := m.life
		w.in(w.between(0, 1200*time.Millisecond), func() {
			m.do(func() {
				if m.life == life && m.machine != nil && m.linked[o.i] != 0 && m.linked[o.i] <= number {
					m.linked[o.i] = 0
					m.step(LinkDown{o.peer()})
				}
			})
		})
	}
}

// replace has another connection take the place of a link, or the link reset and be there again at once: the
// mounts count as connected throughout.
func (w *world) replace(l *link) {
	w.say("link %v is replaced", l.ends)
	w.Replaced++
	old := l.number
	l.number++
	l.held, l.last = nil, [2]time.Duration{}
	number := l.number
	for side := range 2 {
		m, o := w.mounts[l.ends[side]], w.mounts[l.ends[1-side]]
		life := m.life
		down := w.between(0, 100*time.Millisecond)
		if w.chance(0.5) {
			w.in(down, func() {
				m.do(func() {
					if m.life == life && m.linked[o.i] == old {
						m.linked[o.i] = 0
						m.step(LinkDown{o.peer()})
					}
				})
			})
		}
		w.in(down+w.between(0, 100*time.Millisecond), func() { m.do(func() { l.noted(m, o, number, life) }) })
	}
}

// replaceSome replaces a link, and again later, long enough after that the ends have met.
func (w *world) replaceSome() {
	i := 1 + w.rng.IntN(len(w.mounts)-1)
	if l := w.link(i, w.rng.IntN(i)); l.up && !l.silent {
		w.replace(l)
	}
	if w.t < end-8*time.Second {
		w.in(w.between(300*time.Millisecond, time.Second), w.replaceSome)
	}
}

// send has fn happen at the other end, behind what was sent before.
func (l *link) send(from int, fn func()) {
	side := 0
	if l.ends[1] == from {
		side = 1
	}
	m, to := l.w.mounts[from], l.w.mounts[l.ends[1-side]]
	number := l.number
	if !l.up || m.linked[to.i] != number {
		return
	}
	d := l.w.between(time.Millisecond, 30*time.Millisecond)
	if !l.w.calm && l.w.chance(0.01) {
		d = l.w.between(0, 600*time.Millisecond)
		l.known = max(l.known, l.w.t+d)
	}
	at := max(l.w.t+d, l.last[side])
	l.last[side] = at
	l.w.in(at-l.w.t, func() { l.arrive(number, from, to, fn) })
}

func (l *link) arrive(number, from int, to *mount, fn func()) {
	if number != l.number {
		return
	}
	if l.silent || to.linked[from] != number { // kept until it is known there
		l.held = append(l.held, func() { l.arrive(number, from, to, fn) })
		return
	}
	life := to.life
	to.do(func() {
		if to.life == life && to.linked[from] == number && number == l.number {
			fn()
		}
	})
}

func (l *link) resume() {
	list := l.held
	l.held = nil
	for _, fn := range list {
		fn()
	}
}

// connected reports whether two mounts have been connected without trouble for long
// enough that their locks must exclude each other.
func (w *world) connected(a, b *mount) bool {
	const enough = 2 * time.Second
	l := w.link(a.i, b.i)
	return a.machine != nil && b.machine != nil && !a.frozen && !b.frozen && l.up && !l.silent &&
		w.t-l.known > enough && w.t-a.troubled > enough && w.t-b.troubled > enough
}

func (w *world) pop() timer { return heap.Pop(&w.events).(timer) }
