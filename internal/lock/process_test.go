package lock

import (
	"slices"
	"time"
)

// process locks, writes and unlocks on one mount, again and again.
type process struct {
	m      *mount
	life   int
	owner  uint64
	since  time.Duration // of the request under way
	held   []Lock        // when it was made, in its file
	req    *Acquire
	asked  bool // a request is under way
	over   bool
	expect []expectation
	more   bool          // it asks with a lock held
	keeps  bool          // it keeps what it has weakened, for those who wait to come by
	clear  time.Duration // since when nobody has held up the request; 0: somebody does
}

const simFiles = 3

func (w *world) startProcesses(m *mount) {
	for range 1 + w.rng.IntN(2) {
		p := &process{m: m, life: m.life, owner: w.rng.Uint64()}
		m.byOwner[p.owner] = p
		w.in(w.between(0, 300*time.Millisecond), func() { m.do(p.next) })
	}
}

func (p *process) alive() bool { return p.m.life == p.life && p.m.machine != nil }

// next makes the process ask for something.
func (p *process) next() {
	w := p.m.w
	if !p.alive() || w.calm && p.over {
		return
	}
	e := Acquire{File: File{byte(w.rng.IntN(simFiles))}, Wait: w.chance(0.7), Test: w.chance(0.05), Drop: w.chance(0.5)}
	e.Owner, e.Handle, e.PID = p.owner, p.owner, uint32(p.owner)
	e.Exclusive = w.chance(0.7)
	e.Process = w.chance(0.8)
	e.End = 1<<63 - 1
	if e.File[0] == 0 { // record locks; the other files see flock only
		e.Start = uint64(w.rng.IntN(20))
		e.End = e.Start + uint64(w.rng.IntN(10))
	} else {
		e.Class, e.Process = Flock, false
	}
	p.ask(e)
}

// weaken makes the lock a shared one, perhaps of a longer range.
func (p *process) weaken() {
	w := p.m.w
	e := *p.req
	e.Exclusive, e.Wait = false, true
	if e.Class == Record && w.chance(0.5) {
		e.End += uint64(w.rng.IntN(5))
	}
	if w.calm && !w.kept {
		w.kept, p.keeps = true, true
	}
	w.Weakened++
	p.ask(e)
}

func (p *process) ask(e Acquire) {
	w := p.m.w
	if p.m.machine.files[e.File] != nil && !p.m.machine.Alone() { // it may give up, or weaken, what it has
		e.Seq = p.m.publish(e.File)
		p.released(e.File)
	}
	p.m.lastOp++
	e.Op = p.m.lastOp
	p.m.ops[e.Op] = p
	p.req, p.since, p.asked, p.clear, p.held = &e, w.t, true, 0, p.holds(e.File)
	w.say("mount %d process %x asks for %x %v wait %v", p.m.i, p.owner>>48, e.File[0], e.Lock, e.Wait)
	p.m.step(e)
	patience := w.between(0, 300*time.Millisecond)
	if p.more { // whoever holds locks and wants others may wait in a circle that nobody sees
		patience = time.Second
	}
	if p.asked && (p.more || w.chance(0.05)) {
		p.cancelIn(patience)
	}
}

// cancelIn ends the request after a while, if it still waits then.
func (p *process) cancelIn(d time.Duration) {
	w, op := p.m.w, p.req.Op
	w.in(d, func() {
		p.m.do(func() {
			if !p.alive() || !p.asked || p.req.Op != op {
				return
			}
			if slices.ContainsFunc(p.m.machine.settled, func(r *request) bool { return r.Op == op }) {
				w.Undone++
			}
			p.m.step(Cancel{op})
		})
	})
}

// done is told how a request ended.
func (p *process) done(d Done) {
	w, m := p.m.w, p.m
	p.asked = false
	w.say("mount %d process %x: %v", m.i, p.owner>>48, d.Result)
	w.count(p, d)
	if d.Result != Granted && p.req.Class == Record && !slices.Equal(p.holds(p.req.File), p.held) {
		w.fail("mount %d process %x: %v, and holds %v instead of %v", m.i, p.owner>>48, d.Result, p.holds(p.req.File), p.held)
	}
	if d.Result == Granted && !p.req.Test {
		w.checkSeen(p)
		hold := w.between(0, 60*time.Millisecond)
		if p.keeps {
			hold = 4 * time.Second
		}
		w.in(hold, func() { m.do(p.work) })
		return
	}
	w.in(w.between(time.Millisecond, 100*time.Millisecond), func() {
		m.do(func() {
			if p.alive() {
				p.unlockAll()
			}
		})
	})
}

// holds returns what the process has locked in a file.
func (p *process) holds(f File) []Lock {
	x := p.m.machine.files[f]
	if x == nil {
		return nil
	}
	return x.held.part(&Held{Owner: p.owner, Lock: Lock{Class: Record, End: 1<<63 - 1}}).shown(100)
}

// work writes, and unlocks unless it wants more.
func (p *process) work() {
	w, m := p.m.w, p.m
	if !p.alive() {
		return
	}
	if p.req.Exclusive {
		m.dirty = append(m.dirty, entry{file: p.req.File, lock: p.req.Lock, proc: p})
	}
	if p.more = p.req.Exclusive && w.chance(0.2); p.more {
		p.weaken()
		return
	}
	if p.more = !w.calm && w.chance(0.3); p.more {
		p.next()
		return
	}
	p.unlockAll()
}

func (p *process) unlockAll() {
	w, m := p.m.w, p.m
	p.more, p.keeps = false, false
	for f := range byte(simFiles) {
		p.unlock(File{f})
	}
	w.in(w.between(11*time.Millisecond, 70*time.Millisecond), func() { m.do(p.next) }) // when it is unlocked
	p.over = w.calm
}

func (p *process) unlock(f File) {
	w, m := p.m.w, p.m
	x := m.machine.files[f]
	if x == nil || !x.held.holds(p.owner, Record) && !x.held.holds(p.owner, Flock) {
		return
	}
	release := func(seq uint64) {
		p.released(f)
		m.step(Release{File: f, Held: Held{Handle: p.owner}, ByHandle: true, Seq: seq})
	}
	if m.machine.Alone() {
		release(0)
		return
	}
	life := m.life
	w.in(w.between(0, 10*time.Millisecond), func() {
		m.do(func() {
			if m.life == life {
				release(m.publish(f))
			}
		})
	})
}

// released notes that what the process wrote is to be seen by whoever may lock it.
func (p *process) released(f File) {
	for _, list := range [][]entry{p.m.log, p.m.dirty} {
		for i := range list {
			if e := &list[i]; e.file == f && e.proc == p {
				e.released = true
			}
		}
	}
}

// consents reports whether m may rely on o's consent to a file at this moment.
func (m *mount) consents(o *mount, f File) bool {
	x, p := m.machine.files[f], m.machine.byID[o.peer()]
	if x == nil || p == nil || p.mine == 0 || !p.on || m.clock() >= p.until {
		return false
	}
	s := x.share(p)
	return s != nil && s.have && o.machine != nil && p.log == o.logName(o.life)
}

// checkGrants looks at locks that have just been set on m.
func (w *world) checkGrant(m *mount, f File, h *Held) {
	w.expectSeen(m.byOwner[h.Owner], f)
	if w.chance(0.1) { // perhaps before what others wrote is there
		m.byOwner[h.Owner].cancelIn(0)
	}
	for _, o := range w.mounts {
		if o == m || o.machine == nil {
			continue
		}
		if o.consents(m, f) {
			w.fail("mount %d locks file %d although mount %d has its consent", m.i, f[0], o.i)
		}
		relies := m.consents(o, f)
		if !relies && !w.connected(m, o) {
			continue
		}
		w.Excluding++
		if x := o.machine.files[f]; x != nil {
			for i := range x.held {
				if x.held[i].clashes(&h.Lock) {
					w.fail("mount %d locks %v of file %d; mount %d holds %v (relying %v)", m.i, h.Lock, f[0], o.i, x.held[i].Lock, relies)
				}
			}
		}
	}
}

// expectation is how much of a mount's log a process must see.
type expectation struct {
	o   *mount
	log Log
	n   uint64
}

// expectSeen notes what a process that is given a lock must see: what the others wrote under
// theirs and unlocked.
func (w *world) expectSeen(p *process, f File) {
	p.expect = nil
	for _, o := range w.mounts {
		if o == p.m || o.machine == nil || !p.m.consents(o, f) || !w.connected(p.m, o) {
			continue
		}
		for i := range o.log {
			if e := &o.log[i]; e.file == f && e.released && e.lock.overlaps(&p.req.Lock) {
				p.expect = append(p.expect, expectation{o, o.logName(o.life), uint64(i + 1)})
			}
		}
		for i := range o.dirty {
			if e := &o.dirty[i]; e.file == f && e.released && e.lock.overlaps(&p.req.Lock) {
				w.fail("mount %d kept to itself what was unlocked, and mount %d has a lock now", o.i, p.m.i)
			}
		}
	}
}

// checkSeen expects it to be seen, unless the mounts have parted meanwhile.
func (w *world) checkSeen(p *process) {
	defer func() { p.expect = nil }()
	for _, x := range p.expect {
		w.Seen++
		if w.connected(p.m, x.o) && p.m.applied[x.log] < x.n {
			w.fail("mount %d does not see what mount %d wrote under a lock", p.m.i, x.o.i)
		}
	}
}

// checkWaits expects nobody to wait for long, now that nothing goes wrong, when nobody is in the way.
func (w *world) checkWaits() {
	for _, m := range w.mounts {
		for _, p := range m.ops {
			switch {
			case w.heldUp(p):
				p.clear = 0
			case p.clear == 0:
				p.clear = w.t
			case w.t-p.clear > 2*time.Second:
				w.fail("mount %d process %x: asked at %v, waits since %v for nobody", m.i, p.owner>>48, p.since, p.clear)
			}
		}
	}
	w.in(50*time.Millisecond, w.checkWaits)
}

// heldUp reports whether somebody holds, or shows, a lock that excludes what p asks for.
func (w *world) heldUp(p *process) bool {
	for _, o := range w.mounts {
		if o.machine == nil {
			return true // it may come back with any
		}
		if x := o.machine.files[p.req.File]; x != nil {
			_, held := x.held.blocker(&p.req.Held)
			shown := x.held.shown(o.machine.cfg.MaxLocks)
			if held || o != p.m && slices.ContainsFunc(shown, func(l Lock) bool { return l.clashes(&p.req.Lock) }) {
				return true
			}
		}
	}
	return false
}
