package lease

import (
	"maps"
	"slices"
	"time"
)

// mount is a mount: its machine, its tree, its log and its kernel.
type mount struct {
	w       *world
	i       int
	rate    float64 // of its clock
	off     time.Duration
	life    int
	machine *Machine // nil: not running
	log     Log
	frozen  bool
	held    []func() // to be done after a freeze
	slow    time.Duration
	due     time.Duration // of the next Tick, in the time of the world

	linked  map[int]int // mount: number of the connection it knows of
	entries map[Log][]entry
	tree    vector // applied
	told    vector // applied, and the kernel told
	pending []*change
	telling []entry // applied, the kernel not told yet

	kernel  map[*simDir]vector // what it believes of directories
	bonds   map[int]*bond
	changes int // counts what makes answers under way worthless
	ops     map[Op]*op
	lastOp  Op
}

// entry is a batch of a log.
type entry struct {
	log  Log
	seq  uint64
	deps vector
	list []*change
}

// op is a read or write under way.
type op struct {
	since time.Duration // on the mount's clock
	then  func()
}

func (m *mount) peer() Peer         { return Peer{byte(m.i + 1)} }
func (m *mount) now() time.Duration { return m.off + time.Duration(float64(m.w.t)*m.rate) }

// start begins a life with what the one before left on disk.
func (m *mount) start() {
	if m.machine != nil {
		return
	}
	m.life++
	m.w.say("%d starts, life %d", m.i, m.life)
	m.log = Log{byte(m.i + 1), byte(m.life), byte(m.life >> 8)}
	m.machine = New(Config{Self: m.log, MaxDirs: 4, Idle: 800 * time.Millisecond, Bound: m.now() + 500*time.Millisecond})
	m.linked, m.kernel, m.ops, m.bonds = map[int]int{}, map[*simDir]vector{}, map[Op]*op{}, map[int]*bond{}
	if m.tree == nil {
		m.tree, m.entries = vector{}, map[Log][]entry{}
	}
	m.pending, m.telling = nil, nil
	m.told = maps.Clone(m.tree)
	for log, seq := range m.told {
		m.step(Applied{Position{log, seq}})
	}
	m.later(0, m.apply)
	for _, o := range m.w.mounts {
		if o != m && o.machine != nil {
			m.w.connect(m.w.link(m.i, o.i))
		}
	}
}

// crash ends a life; what is in no log is lost.
func (m *mount) crash() {
	if m.machine == nil {
		return
	}
	m.w.say("%d crashes", m.i)
	m.thaw()
	for _, c := range m.pending {
		c.forget()
	}
	for _, o := range m.w.mounts {
		if o != m {
			m.w.disconnect(m.w.link(m.i, o.i))
		}
	}
	m.machine = nil
	m.life++
}

// forget has nobody expect to see a change that a crash took.
func (c *change) forget() {
	for _, by := range c.dir.done {
		if by[c.log] == c {
			delete(by, c.log)
		}
	}
}

// freeze stops the process. Its kernel goes on.
func (m *mount) freeze(d time.Duration) {
	if m.machine == nil || m.frozen {
		return
	}
	m.w.say("%d freezes for %v", m.i, d)
	m.frozen = true
	life := m.life
	m.w.in(d, func() {
		if m.life == life {
			m.thaw()
		}
	})
}

func (m *mount) thaw() {
	m.frozen = false
	held := m.held
	m.held = nil
	for _, fn := range held {
		fn()
	}
}

// do has the process do something, once it runs.
func (m *mount) do(fn func()) {
	if m.frozen {
		m.held = append(m.held, fn)
		return
	}
	if m.machine != nil {
		fn()
	}
}

// later has the process do something after a while, in the same life.
func (m *mount) later(d time.Duration, fn func()) {
	life := m.life
	m.w.in(d, func() {
		if m.life == life {
			m.do(func() {
				if m.life == life {
					fn()
				}
			})
		}
	})
}

// step feeds the machine and carries out what it wants.
func (m *mount) step(e Event) {
	switch e := e.(type) {
	case LinkUp:
		m.parts(e.Peer)
	case LinkDown:
		m.parts(e.Peer)
	}
	defer m.noteBonds()
	effects, err := m.machine.Step(m.now(), e)
	if err != nil {
		m.w.fail("%d: %v of %+v", m.i, err, e)
		return
	}
	for _, f := range effects {
		m.carryOut(f)
	}
	if n := len(m.machine.dirs); n > m.machine.cfg.hard() {
		m.w.fail("%d watches %d directories", m.i, n)
	}
	m.arm()
}

// arm sees to it that Tick comes in time.
func (m *mount) arm() {
	wait := m.machine.Deadline() - m.now()
	if wait > time.Hour {
		return
	}
	at := m.w.t + max(time.Duration(float64(wait)/m.rate)+1, 1)
	if m.due > m.w.t && m.due <= at {
		return
	}
	m.due = at
	m.later(at-m.w.t, func() {
		if m.due <= m.w.t {
			m.step(Tick{})
		}
	})
}

func (m *mount) carryOut(f Effect) {
	switch f := f.(type) {
	case Send:
		m.later(m.w.after(time.Millisecond, 20*time.Millisecond, 0.02), func() { m.poll(m.w.mounts[f.Peer[0]-1]) })
	case Done:
		o := m.ops[f.Op]
		delete(m.ops, f.Op)
		o.then()
	case Publish:
		m.later(m.w.after(2*time.Millisecond, 50*time.Millisecond, 0.05), func() {
			m.cut()
			p := Published{Seq: uint64(len(m.entries[m.log]))}
			if f.Vector {
				for log, seq := range m.tree {
					p.Vector = append(p.Vector, Position{log, seq})
				}
			}
			m.step(p)
		})
	case Flush:
		m.later(m.w.after(2*time.Millisecond, 100*time.Millisecond, 0.1), func() {
			m.changes++
			clear(m.kernel)
			for _, b := range m.bonds {
				b.flushed = true
			}
			m.step(Flushed(f))
		})
	case Drop:
		m.w.Drops++
		m.later(m.w.after(2*time.Millisecond, 300*time.Millisecond, 0.2), func() { m.giveBack(f) })
	}
}

func (m *mount) giveBack(f Drop) {
	var kept [][16]byte
	m.changes++
	for _, id := range f.Dirs {
		if !f.Force && m.w.rng.IntN(2) == 0 {
			kept = append(kept, id)
			continue
		}
		maps.DeleteFunc(m.kernel, func(d *simDir, _ vector) bool { return d.ID == id })
	}
	m.later(m.w.after(time.Millisecond, 20*time.Millisecond, 0.1), func() { m.step(Dropped{f.Token, kept}) })
}

// poll sends what the machine has to say.
func (m *mount) poll(o *mount) {
	msg, ok := m.machine.Poll(m.now(), o.peer())
	if !ok {
		return
	}
	if msg.Mark > 0 {
		m.w.Marks++
	}
	if msg.Revoked > 0 {
		m.w.Lost++
	}
	msg.Need = slices.Clone(msg.Need)
	m.w.link(m.i, o.i).send(m.i, streamLease, func() {
		if g := &o.machine.peer(m.peer()).grant; len(g.dirs) > o.machine.cfg.hard() {
			m.w.fail("%d lets %d watch %d directories", o.i, m.i, len(g.dirs))
		}
		if m.w.trace != nil {
			m.w.say("%d hears %d: %+v", o.i, m.i, msg)
		}
		o.step(Receive{m.peer(), msg})
	})
	m.arm()
}

// cut puts what is done into the log.
func (m *mount) cut() {
	if len(m.pending) == 0 {
		return
	}
	seq := uint64(len(m.entries[m.log]) + 1)
	for _, c := range m.pending {
		c.seq = seq
	}
	m.entries[m.log] = append(m.entries[m.log], entry{m.log, seq, maps.Clone(m.tree), m.pending})
	m.pending = nil
	m.tree[m.log] = seq
	m.told[m.log] = seq
	for _, o := range m.w.mounts {
		m.sendLogs(o)
	}
}

// sendLogs sends all there is, what the other has already included.
func (m *mount) sendLogs(o *mount) {
	if m == o || m.linked[o.i] == 0 {
		return
	}
	var all []entry
	for log, list := range m.entries {
		if have := len(o.entries[log]); have < len(list) { // by looking, not by talking: the rest is no concern here
			all = append(all, list[have:]...)
		}
	}
	if len(all) == 0 {
		return
	}
	slices.SortFunc(all, func(a, b entry) int { // maps have no order
		if c := slices.Compare(a.log[:], b.log[:]); c != 0 {
			return c
		}
		return int(a.seq) - int(b.seq)
	})
	m.w.link(m.i, o.i).send(m.i, streamLog, func() { o.receive(all) })
}

// receive stores batches, passes them on and applies them soon.
func (m *mount) receive(list []entry) {
	fresh := false
	for _, e := range list {
		if have := m.entries[e.log]; uint64(len(have))+1 == e.seq {
			m.entries[e.log] = append(have, e)
			fresh = true
		}
	}
	if !fresh {
		return
	}
	for _, o := range m.w.mounts {
		m.sendLogs(o)
	}
	m.later(m.slow+m.w.after(2*time.Millisecond, 100*time.Millisecond, 0.05), m.apply)
}

// apply applies what can be, and tells the kernel a little later.
func (m *mount) apply() {
	logs := slices.SortedFunc(maps.Keys(m.entries), func(a, b Log) int { return slices.Compare(a[:], b[:]) })
	for progress := true; progress; {
		progress = false
		for _, log := range logs {
			list := m.entries[log]
			n := m.tree[log]
			if log == m.log || n == uint64(len(list)) || !m.has(list[n].deps) {
				continue
			}
			m.tree[log] = n + 1
			m.telling = append(m.telling, list[n])
			progress = true
		}
	}
	m.later(m.w.after(time.Millisecond, 30*time.Millisecond, 0.05), m.tell)
}

func (m *mount) has(deps vector) bool {
	for log, n := range deps {
		if m.tree[log] < n {
			return false
		}
	}
	return true
}

// tell has the kernel forget what was changed, and then says so.
func (m *mount) tell() {
	list := m.telling
	m.telling = nil
	m.changes++
	for _, e := range list {
		for _, c := range e.list {
			delete(m.kernel, c.dir)
		}
	}
	for _, e := range list {
		m.told[e.log] = e.seq
		m.step(Applied{Position{e.log, e.seq}})
	}
}

func (m *mount) checkIdle() {
	for _, o := range m.ops {
		m.w.fail("%d: an operation has waited for %v and nothing will end it", m.i, m.now()-o.since)
	}
}
