package lease

import (
	"container/list"
	"time"
)

// watched is a directory that this mount watches at its peers.
type watched struct {
	Dir
	used    time.Duration
	leaving bool // the kernel is made to forget it
	holds   []hold
	place   *list.Element
}

// hold is how a directory is watched at one peer.
type hold struct {
	term   uint64 // of our lease; another is void
	state  watchState
	number uint64 // of the Ask that was sent last; 0: none yet
	need   uint64 // of the peer's log, before it counts
}

type watchState uint8

const (
	watchNone watchState = iota
	watchAsked
	watchGranted
	watchImplied // we made it, so the peer knows
)

// at returns how d is watched at p in its present term.
func (d *watched) at(p *peer) *hold {
	for len(d.holds) <= p.index {
		d.holds = append(d.holds, hold{})
	}
	h := &d.holds[p.index]
	if h.term != p.hold.term {
		*h = hold{term: p.hold.term}
	}
	return h
}

// granted takes the answer to an Ask, if it was not given back and asked for anew meanwhile.
func (d *watched) granted(p *peer, number, upto uint64) {
	if h := d.at(p); h.state == watchAsked && h.number == number {
		h.state, h.need = watchGranted, upto
	}
}

// implied reports whether p knows without a word that we watch d.
func (m *Machine) implied(p *peer, d *Dir) bool {
	return d.Maker == m.cfg.Self && d.At > p.hold.mark
}

// watch sees to it that d is watched at every peer whose term is on.
func (m *Machine) watch(d *Dir) {
	w := m.dirs[d.ID]
	if w == nil {
		w = &watched{Dir: *d}
		m.dirs[d.ID] = w
		w.place = m.recent.PushFront(w)
		if len(m.dirs) == 1 {
			m.sweepAt = m.now + m.cfg.Idle/4
		}
	}
	m.use(w)
	for _, p := range m.peers {
		if p.hold.state != holdOn {
			continue
		}
		h := w.at(p)
		if h.state != watchNone {
			continue
		}
		if m.implied(p, d) {
			h.state = watchImplied
			continue
		}
		h.state = watchAsked
		p.hold.news = append(p.hold.news, news{*d, false})
		m.say(p)
	}
}

// use notes that w is of use, so it is not given back after all.
func (m *Machine) use(w *watched) {
	w.used, w.leaving = m.now, false
	m.recent.MoveToFront(w.place)
}

// current reports whether what is known of d here is all that p has done in it.
func (m *Machine) current(p *peer, d *Dir) bool {
	if p.hold.state != holdOn {
		return m.now >= p.awaited
	}
	w := m.dirs[d.ID]
	if w == nil || m.now >= p.hold.until { // it has ended, which the next Step finds out
		return false
	}
	h := w.at(p)
	switch h.state {
	case watchImplied:
		return true
	case watchGranted:
		return m.applied[p.log] >= h.need
	}
	return false
}

// Current reports whether a read of directories need not wait, and notes that they are used. If not,
// Observe is the event to come.
func (m *Machine) Current(now time.Duration, dirs []Dir) bool {
	m.now = max(m.now, now)
	for i := range dirs {
		for _, p := range m.peers {
			if !m.current(p, &dirs[i]) {
				return false
			}
		}
	}
	for i := range dirs {
		if w := m.dirs[dirs[i].ID]; w != nil {
			m.use(w)
		}
	}
	return true
}

// Covered reports whether the kernel may keep what it is told of directories, and
// of files in at least one of them: it will be told of every change. That holds until
// the next Flush or Drop.
func (m *Machine) Covered(dirs []Dir) bool {
	for i := range dirs {
		if !m.covered(&dirs[i]) {
			return false
		}
	}
	return len(dirs) > 0 || m.Idle()
}

func (m *Machine) covered(d *Dir) bool {
	w := m.dirs[d.ID]
	for _, p := range m.peers {
		switch {
		case p.hold.state == holdFlushing, p.hold.state != holdOn && m.now < p.awaited:
			return false
		case p.hold.state == holdOn && (w == nil || w.leaving || !m.current(p, d)):
			return false
		}
	}
	return true
}

// dropping is what is being given back.
type dropping struct {
	token uint64
	dirs  [][16]byte
}

// sweep gives back what is too much or was not used for long.
func (m *Machine) sweep() {
	if len(m.dirs) > m.cfg.hard() { // giving back takes too long: begin anew
		for _, p := range m.peers {
			m.leave(p)
		}
		m.dirs, m.recent, m.drop = map[[16]byte]*watched{}, list.New(), nil
		return
	}
	if m.drop != nil || len(m.dirs) == 0 {
		return
	}
	switch {
	case len(m.dirs) > m.cfg.MaxDirs:
		m.giveBack(m.now, true, len(m.dirs)-m.cfg.MaxDirs*3/4)
	case m.now >= m.sweepAt:
		m.giveBack(m.now-m.cfg.Idle, false, len(m.dirs))
	default:
		return
	}
	m.sweepAt = m.now + m.cfg.Idle/4
}

// giveBack begins to give back up to n directories last used before a time.
func (m *Machine) giveBack(before time.Duration, force bool, n int) {
	var ids [][16]byte
	for e := m.recent.Back(); e != nil && len(ids) < n; e = e.Prev() {
		w := e.Value.(*watched)
		if w.used > before {
			break
		}
		if m.waitsFor(w) {
			continue
		}
		w.leaving = true
		ids = append(ids, w.ID)
	}
	if len(ids) == 0 {
		return
	}
	m.token++
	m.drop = &dropping{m.token, ids}
	m.emit(Drop{m.token, ids, force})
}

// waitsFor reports whether an answer about w is under way.
func (m *Machine) waitsFor(w *watched) bool {
	for _, p := range m.peers {
		if p.hold.state == holdOn && w.at(p).state == watchAsked {
			return true
		}
	}
	return false
}

func (e Dropped) step(m *Machine) error {
	if m.drop == nil || m.drop.token != e.Token {
		return nil
	}
	ids := m.drop.dirs
	m.drop = nil
	kept := make(map[[16]byte]bool, len(e.Kept))
	for _, id := range e.Kept {
		kept[id] = true
	}
	marks := make([]uint64, len(m.peers))
	for _, id := range ids {
		w := m.dirs[id]
		switch {
		case w == nil || !w.leaving: // used meanwhile
		case kept[id]:
			m.use(w)
		default:
			m.forget(w, marks)
		}
	}
	for i, mark := range marks {
		m.raise(m.peers[i], mark)
	}
	return nil
}

// forget ends the watching of w; marks gets how far marks must rise for that.
func (m *Machine) forget(w *watched, marks []uint64) {
	for i, p := range m.peers {
		if p.hold.state != holdOn {
			continue
		}
		switch w.at(p).state {
		case watchGranted:
			p.hold.news = append(p.hold.news, news{w.Dir, true})
			m.say(p)
		case watchImplied:
			marks[i] = max(marks[i], w.At)
		}
	}
	m.recent.Remove(w.place)
	delete(m.dirs, w.ID)
}

// raise gives back at p what we made up to mark. What of it is still used is asked
// for in the same message, so that it is watched without a gap.
func (m *Machine) raise(p *peer, mark uint64) {
	if mark <= p.hold.mark {
		return
	}
	p.hold.mark = mark
	for e := m.recent.Front(); e != nil; e = e.Next() {
		w := e.Value.(*watched)
		if h := w.at(p); h.state == watchImplied && w.At <= mark {
			h.state = watchGranted
			p.hold.news = append(p.hold.news, news{w.Dir, false})
		}
	}
	m.say(p)
}
