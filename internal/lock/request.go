package lock

import (
	"slices"
	"time"
)

// request is an Acquire under way.
type request struct {
	Acquire
	file    *file
	stamp   Stamp
	number  uint64
	since   time.Duration
	fresh   bool // to be decided, or decided anew
	granted bool
	needs   []need
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
	switch {
	case !e.Test && len(f.held) >= m.cfg.MaxLocks:
		m.finish(r, TooMany, Held{})
		return nil
	case f.held.covers(&e.Held): // less than before, or the same
		if !e.Test {
			f.held = f.held.with(e.Held)
			m.lessened(f)
		}
		m.finish(r, Granted, Held{})
		m.settle(f)
		m.finishSettled()
		return nil
	}
	if !e.Test && e.Class == Flock { // flock(2) gives up the old lock before it waits for another
		if held, changed := f.held.without(&e.Held); changed {
			f.held = held
			m.lessened(f)
		}
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
	held, changed := f.held, false
	if e.ByHandle {
		held = slices.DeleteFunc(slices.Clone(held), func(h Held) bool { return h.Handle == e.Handle })
		changed = len(held) < len(f.held)
	} else {
		held, changed = held.without(&e.Held)
	}
	if m.tooMany(held) && len(held) > len(f.held) {
		return ErrTooMany
	}
	if changed {
		f.held, f.used = held, m.now
		m.lessened(f)
		m.settle(f)
		m.finishSettled()
	}
	return nil
}

// tooMany reports whether a file has more locks than even those may make it who have one already.
func (m *Machine) tooMany(held table) bool { return len(held) > 2*m.cfg.MaxLocks }

// lessened lets those go on who waited for a lock that is gone.
func (m *Machine) lessened(f *file) {
	f.stir(m)
	m.show(f)
}

func (e Cancel) step(m *Machine) error {
	if r := m.byOp[e.Op]; r != nil && !r.granted {
		m.finish(r, Interrupted, Held{})
		m.settle(r.file)
	}
	return nil
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
		if !r.fresh {
			if _, held := f.blocker(m, r); !held {
				r.fresh = true
			}
		}
	}
}

// blocker returns what is known to hold up a request.
func (f *file) blocker(m *Machine, r *request) (Held, bool) {
	if h, ok := f.held.blocker(&r.Held); ok {
		return h, true
	}
	for _, p := range m.peers {
		s := f.share(p)
		if s == nil || !m.counts(p) {
			continue
		}
		for i := range s.theirs {
			if s.theirs[i].clashes(&r.Lock) {
				return Held{Lock: s.theirs[i]}, true
			}
		}
	}
	return Held{}, false
}

// evaluate decides requests; everybody who counts has consented.
func (m *Machine) evaluate(f *file) {
	f.used = m.now
	for _, r := range slices.Clone(f.waits) {
		if !r.fresh {
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
	if _, held := f.held.blocker(&r.Held); held {
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

// grant sets the lock. The request is done when what others wrote is applied. Where it weakens what
// its owner held, others may go on.
func (m *Machine) grant(f *file, r *request) {
	if m.granting != nil {
		m.granting(f.id, &r.Held)
	}
	weaker := f.held.weakens(&r.Held)
	f.held = f.held.with(r.Held)
	i := slices.Index(f.waits, r)
	f.waits = slices.Delete(f.waits, i, i+1)
	r.granted = true
	for _, p := range m.peers {
		if m.counts(p) && p.need > m.applied[p.log] {
			r.needs = append(r.needs, need{p, p.log, p.need})
		}
	}
	m.settled = append(m.settled, r)
	if weaker {
		m.lessened(f)
	}
}

// finishSettled ends granted requests that have what others wrote. A peer that does
// not count any more is not waited for.
func (m *Machine) finishSettled() {
	left := m.settled[:0]
	for _, r := range m.settled {
		r.needs = slices.DeleteFunc(r.needs, func(n need) bool {
			return m.applied[n.log] >= n.seq || !m.counts(n.peer) || n.peer.log != n.log
		})
		if len(r.needs) > 0 {
			left = append(left, r)
			continue
		}
		m.finish(r, Granted, Held{})
	}
	clear(m.settled[len(left):])
	m.settled = left
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
