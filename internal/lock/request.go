package lock

import (
	"slices"
	"time"
)

// request is an Acquire under way.
type request struct {
	Acquire
	file   *file
	stamp  Stamp
	number uint64
	since  time.Duration
	fresh  bool // to be decided, or decided anew
	needs  []need
	asked  bool  // for Drop
	before table // once it is granted: what its owner held in its range
}

// need is how much of a peer's log is to be applied before a request is done.
type need struct {
	peer *peer
	log  Log
	seq  uint64
}

func (e Acquire) step(m *Machine) error {
	m.clock++
	m.seq = max(m.seq, e.Seq)
	m.asked++
	r := &request{Acquire: e, stamp: m.clock, number: m.asked, since: m.now, fresh: true}
	m.byOp[e.Op] = r
	f := m.file(e.File)
	r.file = f
	if !m.admit(f) {
		m.finish(r, TooMany, Held{})
		return nil
	}
	covered := f.held.covers(&e.Held)
	r.fresh = !m.unfinished(f, r)
	switch {
	case !e.Test && len(f.held) >= m.cfg.MaxLocks:
		m.finish(r, TooMany, Held{})
		return nil
	case covered && r.fresh: // less than before, or the same
		if !e.Test {
			f.held = f.held.with(e.Held)
			m.lessened(f)
		}
		m.finish(r, Granted, Held{})
		m.settle(f)
		m.finishSettled()
		return nil
	}
	if !e.Test && e.Class == Flock && !covered { // flock(2) gives up the old lock before it waits for another
		_, _ = m.unlock(f, &Release{Held: e.Held}) // a whole file leaves no pieces
	}
	f.waits = append(f.waits, r)
	m.busied(f)
	m.settle(f)
	m.finishSettled()
	return nil
}

func (e Release) step(m *Machine) error {
	m.seq = max(m.seq, e.Seq)
	f := m.files[e.File]
	if f == nil {
		return nil
	}
	changed, err := m.unlock(f, &e)
	if changed {
		m.settle(f)
		m.finishSettled()
	}
	return err
}

// unlock lets go of what e says, unless too much would be left, and reports whether that is anything.
// A request that is given up does not bring it back.
func (m *Machine) unlock(f *file, e *Release) (changed bool, err error) {
	held, changed := e.from(f.held)
	switch {
	case !changed:
		return false, nil
	case m.tooMany(held) && len(held) > len(f.held):
		return false, ErrTooMany
	}
	f.held, f.used = held, m.now
	for _, r := range m.settled {
		if r.file == f {
			r.before, _ = e.from(r.before)
		}
	}
	m.lessened(f)
	return true, nil
}

// from returns t without what is unlocked, and whether that makes a difference.
func (e *Release) from(t table) (table, bool) {
	if !e.ByHandle {
		return t.without(&e.Held)
	}
	left := slices.DeleteFunc(slices.Clone(t), func(h Held) bool { return h.Handle == e.Handle })
	return left, len(left) < len(t)
}

// tooMany reports whether a file has more locks than even those may make it who have one already.
func (m *Machine) tooMany(held table) bool { return len(held) > 2*m.cfg.MaxLocks }

// lessened lets those go on who waited for a lock that is gone.
func (m *Machine) lessened(f *file) {
	f.stir(m)
	m.show(f)
}

func (e Cancel) step(m *Machine) error {
	if r := m.byOp[e.Op]; r != nil {
		m.abandon(r, Interrupted, Held{})
	}
	return nil
}

func (e Dropped) step(m *Machine) error {
	if r := m.byOp[e.Op]; r != nil {
		r.Drop = false
		m.finishSettled()
	}
	return nil
}

// abandon ends a request without its lock. If that is granted already, its owner holds again what it
// held before: at no time was that more than it holds now, so nobody is in the way.
func (m *Machine) abandon(r *request, res Result, blocker Held) {
	f := r.file
	m.finish(r, res, blocker)
	if i := slices.Index(m.settled, r); i >= 0 {
		m.settled = slices.Delete(m.settled, i, i+1)
		f.held, _ = f.held.without(&r.Held)
		for _, h := range r.before {
			f.held = f.held.with(h)
		}
		m.lessened(f)
	}
	f.resume(r)
	m.settle(f)
	m.finishSettled()
}

// finish ends a request.
func (m *Machine) finish(r *request, res Result, blocker Held) {
	delete(m.byOp, r.Op)
	if r.file != nil {
		if i := slices.Index(r.file.waits, r); i >= 0 {
			r.file.waits = slices.Delete(r.file.waits, i, i+1)
		}
	}
	m.emit(Done{r.Op, res, blocker})
}

// stir has requests decided anew that nothing known holds up.
func (f *file) stir(m *Machine) {
	for _, r := range f.waits {
		if !r.fresh && !m.unfinished(f, r) {
			if _, held := f.blocker(m, r); !held {
				r.fresh = true
			}
		}
	}
}

// unfinished reports whether an earlier request of r's owner has set a lock in r's range and is not
// done. r waits for its end, since it may still be given up.
func (m *Machine) unfinished(f *file, r *request) bool {
	return !r.Test && slices.ContainsFunc(m.settled, func(o *request) bool {
		return o.file == f && o.Owner == r.Owner && o.overlaps(&r.Lock)
	})
}

// resume has requests decided that waited for the end of r.
func (f *file) resume(r *request) {
	for _, o := range f.waits {
		if o.Owner == r.Owner && o.overlaps(&r.Lock) {
			o.fresh = true
		}
	}
}

// blocker returns what is known to hold up a request: of several locks the one that starts first, as whoever
// asks for one after the other goes on behind it.
func (f *file) blocker(m *Machine, r *request) (first Held, found bool) {
	first, found = f.held.blocker(&r.Held)
	for _, p := range m.peers {
		s := f.share(p)
		if s == nil || !m.counts(p) {
			continue
		}
		for i := range s.theirs {
			if o := &s.theirs[i]; o.clashes(&r.Lock) && (!found || o.Start < first.Start) {
				first, found = Held{Lock: *o}, true
			}
		}
	}
	return first, found
}

// evaluate decides requests; everybody who counts has consented.
func (m *Machine) evaluate(f *file) {
	f.used = m.now
	for _, r := range slices.Clone(f.waits) {
		if r.fresh = r.fresh && !m.unfinished(f, r); !r.fresh {
			continue
		}
		blocker, held := f.blocker(m, r)
		if r.fresh = held && !r.Wait && f.doubt(m, r); r.fresh {
			continue
		}
		switch {
		case r.Test && held:
			m.finish(r, Refused, blocker)
		case r.Test:
			m.finish(r, Granted, Held{})
		case !held && m.tooMany(f.held.with(r.Held)):
			m.finish(r, TooMany, Held{})
		case !held:
			m.grant(f, r)
		case !r.Wait:
			m.finish(r, Refused, blocker)
		case r.Process && m.circle(r):
			m.finish(r, Deadlock, blocker)
		}
	}
}

// doubt reports whether a request that is about to be refused may not have to be: a lock
// of a peer keeps it up, and what is known of that is older than the request. It was perhaps unlocked
// before, and the word is on its way. Then that peer is asked anew.
func (f *file) doubt(m *Machine, r *request) (doubt bool) {
	if _, held := f.held.blocker(&r.Held); held && !r.Test { // a test is to name the peer's if that starts first
		return false
	}
	for _, p := range m.peers {
		s := f.share(p)
		if s == nil || !m.counts(p) || s.known >= r.number {
			continue
		}
		if slices.ContainsFunc(s.theirs, func(l Lock) bool { return l.clashes(&r.Lock) }) {
			s.have, doubt = false, true
		}
	}
	return doubt
}

// grant sets the lock. The request is done when what others wrote is applied. Until then it may be
// given up, so what its owner held and it would weaken stays as strong.
func (m *Machine) grant(f *file, r *request) {
	if m.granting != nil {
		m.granting(f.id, &r.Held)
	}
	r.before = f.held.part(&r.Held)
	f.held = f.held.with(r.Held)
	for _, h := range r.before {
		if h.Exclusive && !r.Exclusive {
			f.held = f.held.with(h)
		}
	}
	i := slices.Index(f.waits, r)
	f.waits = slices.Delete(f.waits, i, i+1)
	for _, p := range m.peers {
		if m.counts(p) && p.need > m.applied[p.log] {
			r.needs = append(r.needs, need{p, p.log, p.need})
		}
	}
	m.settled = append(m.settled, r)
}

// finishSettled ends granted requests that have what others wrote. A peer that does
// not count any more is not waited for.
func (m *Machine) finishSettled() {
	for i := slices.IndexFunc(m.settled, m.seen); i >= 0; i = slices.IndexFunc(m.settled, m.seen) {
		r := m.settled[i]
		m.settled = slices.Delete(m.settled, i, i+1)
		m.complete(r)
	}
}

// seen reports whether what others wrote is applied, and what the kernel had before is dropped.
func (m *Machine) seen(r *request) bool {
	r.needs = slices.DeleteFunc(r.needs, func(n need) bool {
		return m.applied[n.log] >= n.seq || !m.counts(n.peer) || n.peer.log != n.log
	})
	if len(r.needs) == 0 && r.Drop && !r.asked {
		r.asked = true
		m.emit(Drop{r.Op, r.Acquire.File})
	}
	return len(r.needs) == 0 && !r.Drop
}

// complete ends a request that has its lock. Where that is weaker than the one before, others may
// go on now.
func (m *Machine) complete(r *request) {
	f := r.file
	m.finish(r, Granted, Held{})
	weaker := false
	for _, h := range r.before {
		if h.Exclusive && !r.Exclusive {
			h.Exclusive, h.Handle, h.PID, weaker = false, r.Handle, r.PID, true
			f.held = f.held.with(h)
		}
	}
	if weaker {
		m.lessened(f)
	}
	f.resume(r)
	m.settle(f)
}

// circle reports whether r's owner would wait for itself: for owners that wait, in any
// file, for what it holds.
func (m *Machine) circle(r *request) bool {
	seen := map[*request]bool{}
	var reaches func(o *request) bool
	reaches = func(o *request) bool {
		seen[o] = true
		for i := range o.file.held {
			h := &o.file.held[i]
			if h.Owner == o.Owner || !h.clashes(&o.Lock) {
				continue
			}
			if h.Owner == r.Owner {
				return true
			}
			for _, f := range m.busy {
				for _, next := range f.waits {
					if next.Process && next.Owner == h.Owner && next.Class == Record && !seen[next] && reaches(next) {
						return true
					}
				}
			}
		}
		return false
	}
	return reaches(r)
}
