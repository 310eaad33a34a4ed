package lock

import (
	"cmp"
	"slices"
	"time"
)

// file is a file that is locked, wanted or consented to here.
type file struct {
	id     File
	held   table
	waits  []*request // in the order in which they came; not granted ones only
	shares []share    // by peer index
	// stamp is since when the requests that are being decided have been waiting. It stays as
	// it is while a question with it is out, so that all peers judge by the same; 0: none.
	stamp Stamp
	used  time.Duration
	place int  // in Machine.list
	busy  bool // in Machine.busy
	own   bool // counted in Machine.own: somebody here locked it
}

// share is what we and one peer have said to each other about a file.
type share struct {
	// As who locks:
	have   bool   // its consent
	theirs []Lock // what it holds there, when it last said so
	asked  Stamp  // the question that is not answered; 0: none
	number uint64 // of the last request when it was asked
	known  uint64 // of the last request when that was asked which theirs answers

	// As who consents:
	promised   bool   // it has our consent, or will
	interested bool   // it waits for our locks
	owe        Stamp  // its question that is to be answered; 0: none
	giving     uint64 // token: our consent is under way
}

// give is consent that waits for Published.
type give struct {
	file *file
	peer *peer
}

func (m *Machine) file(id File) *file {
	f := m.files[id]
	if f == nil {
		f = &file{id: id}
		if len(m.files) == 0 {
			m.sweepAt = m.now + m.cfg.Idle/4
		}
		m.files[id] = f
		f.place = len(m.list)
		m.list = append(m.list, f)
	}
	f.used = m.now
	return f
}

// forget lets go of a file that there is nothing to know of.
func (m *Machine) forget(f *file) {
	last := m.list[len(m.list)-1]
	m.list[f.place], last.place = last, f.place
	m.list = m.list[:len(m.list)-1]
	delete(m.files, f.id)
}

// admit counts f among the files that are locked here, unless there are too many. What was locked lately
// and is no more makes room at once.
func (m *Machine) admit(f *file) bool {
	if f.own {
		return true
	}
	if m.own >= m.cfg.MaxFiles {
		for _, o := range slices.Clone(m.list) {
			if o.own && len(o.waits) == 0 && len(o.held) == 0 {
				m.giveBack(o)
			}
		}
	}
	if m.own >= m.cfg.MaxFiles {
		return false
	}
	f.own = true
	m.own++
	return true
}

// busied notes that f has something to be settled.
func (m *Machine) busied(f *file) {
	if !f.busy {
		f.busy = true
		m.busy = append(m.busy, f)
	}
}

// share returns f's share with p, or nil if there is none.
func (f *file) share(p *peer) *share {
	if p.index >= len(f.shares) {
		return nil
	}
	return &f.shares[p.index]
}

// at returns f's share with p.
func (f *file) at(p *peer) *share {
	for len(f.shares) <= p.index {
		f.shares = append(f.shares, share{})
	}
	return &f.shares[p.index]
}

// earlier reports whether a has been wanting for longer than b.
func earlier(a Stamp, pa Peer, b Stamp, pb Peer) bool {
	if c := cmp.Compare(a, b); c != 0 {
		return c < 0
	}
	return string(pa[:]) < string(pb[:])
}

// hear takes what p says about a file.
func (m *Machine) hear(p *peer, msg *Message, it *Item) error {
	switch it.Kind {
	case Ask:
		if msg.Mine == 0 || it.Stamp == 0 || it.Stamp > msg.Clock {
			return invalid("question outside of a session")
		}
		f := m.file(it.File)
		s := f.at(p)
		if s.owe == 0 && !s.promised {
			if p.wanted++; p.wanted > 2*m.cfg.MaxFiles {
				return invalid("more than %d files", 2*m.cfg.MaxFiles)
			}
		}
		s.owe = it.Stamp
		m.busied(f)
	case Give, Show:
		if len(it.Locks) > m.cfg.MaxLocks {
			return invalid("more than %d locks", m.cfg.MaxLocks)
		}
		m.hearLocks(p, msg, it)
	case Leave:
		if f := m.files[it.File]; f != nil {
			m.takeBack(p, f.at(p))
			f.at(p).interested = false
		}
	default: // of a later version
	}
	return nil
}

// takeBack notes that p has our consent no more.
func (m *Machine) takeBack(p *peer, s *share) {
	if s.promised {
		s.promised = false
		p.promises--
		if s.owe == 0 {
			p.wanted--
		}
	}
}

func (m *Machine) hearLocks(p *peer, msg *Message, it *Item) {
	p.need = max(p.need, it.Seq)
	f := m.files[it.File]
	if f == nil {
		return
	}
	if p.mine == 0 || msg.Yours != p.mine {
		return // answer to a session before; we may have consented anew meanwhile
	}
	s := f.at(p)
	if it.Kind == Give {
		m.takeBack(p, s)
		s.interested = it.Want
	}
	s.theirs = it.Locks
	switch {
	case it.Kind == Give:
		s.have, s.asked, s.known, f.used = true, 0, s.number, m.now
	case !s.have && s.asked == 0 && len(f.waits) == 0:
		m.tell(p, Item{Kind: Leave, File: f.id})
	}
	f.stir(m)
}

func (m *Machine) tell(p *peer, it Item) {
	p.items = append(p.items, it)
	m.say(p)
}

// settle brings f as far as it goes: questions are answered that can be, then
// consent is asked for what is wanted, and used.
func (m *Machine) settle(f *file) {
	want := f.want()
	if f.stamp == 0 || want == 0 && !f.asking() {
		f.stamp = want
	}
	m.answer(f, want != 0)
	if want != 0 && m.collect(f) {
		m.evaluate(f)
		f.stamp = 0
		if f.want() != 0 { // something is in doubt
			m.settle(f)
			return
		}
		m.answer(f, false)
	}
}

func (m *Machine) settleAll() {
	for _, f := range slices.Clone(m.busy) {
		m.settle(f)
	}
	left := m.busy[:0]
	for _, f := range m.busy {
		if f.busy = len(f.waits) > 0 || f.owing(); f.busy {
			left = append(left, f)
		}
	}
	clear(m.busy[len(left):])
	m.busy = left
	m.finishSettled()
}

// owing reports whether somebody is to be answered.
func (f *file) owing() bool {
	return slices.ContainsFunc(f.shares, func(s share) bool { return s.owe != 0 })
}

// want returns since when the oldest request has been waiting to be decided, or 0.
func (f *file) want() (at Stamp) {
	for _, r := range f.waits {
		if r.fresh && (at == 0 || r.stamp < at) {
			at = r.stamp
		}
	}
	return at
}

// asking reports whether a question is out.
func (f *file) asking() bool {
	return slices.ContainsFunc(f.shares, func(s share) bool { return s.asked != 0 })
}

// answer consents to those who asked and whose turn it is. want says that something is to be
// decided here.
func (m *Machine) answer(f *file, want bool) {
	for _, p := range m.peers {
		s := f.share(p)
		if s == nil || s.owe == 0 || s.giving != 0 {
			continue
		}
		if (want || s.asked != 0) && earlier(f.stamp, m.cfg.Self, s.owe, p.id) {
			continue
		}
		m.token++
		s.owe, s.giving, s.have = 0, m.token, false
		if !s.promised {
			s.promised = true
			p.promises++
		}
		m.gives[m.token] = give{f, p}
		m.emit(Publish{m.token, f.id})
	}
}

func (e Published) step(m *Machine) error {
	g, ok := m.gives[e.Token]
	delete(m.gives, e.Token)
	m.seq = max(m.seq, e.Seq)
	if !ok {
		return nil
	}
	s := g.file.at(g.peer)
	if s.giving != e.Token {
		return nil // the session is over
	}
	s.giving = 0
	m.tell(g.peer, Item{Kind: Give, File: g.file.id, Want: len(g.file.waits) > 0, Seq: m.seq, Locks: g.file.held.shown(m.cfg.MaxLocks)})
	m.settle(g.file)
	return nil
}

// show tells those who may be waiting that less is locked.
func (m *Machine) show(f *file) {
	var locks []Lock
	for _, p := range m.peers {
		s := f.share(p)
		if s == nil || !s.promised && !s.interested || s.giving != 0 || !p.up {
			continue
		}
		if locks == nil {
			locks = f.held.shown(m.cfg.MaxLocks)
		}
		p.tellLess(m, Item{Kind: Show, File: f.id, Seq: m.seq, Locks: locks})
	}
}

// tellLess says what is locked in place of what was to be said of that before, so that a slow link does not
// gather one list after the other.
func (p *peer) tellLess(m *Machine, it Item) {
	for i := len(p.items) - 1; i >= 0; i-- {
		last := &p.items[i]
		if last.File == it.File && last.Kind == Show {
			*last = it
			return
		}
		if last.File == it.File {
			break
		}
	}
	m.tell(p, it)
}

// collect asks for the consent that is missing and reports whether there is none.
func (m *Machine) collect(f *file) bool {
	all := m.now >= m.cfg.Bound
	for _, p := range m.peers {
		if !m.counts(p) {
			continue
		}
		s := f.at(p)
		if s.have && p.mine != 0 && p.on && m.now < p.until {
			continue
		}
		all = false
		if !p.answers() {
			continue // until it does, or need not be minded any more
		}
		if p.mine == 0 {
			m.begin(p)
		}
		if s.asked == 0 && s.giving == 0 {
			s.asked, s.number = f.stamp, m.asked
			m.tell(p, Item{Kind: Ask, File: f.id, Stamp: f.stamp})
		}
	}
	return all
}

// sweep gives back what is not used.
func (m *Machine) sweep() {
	if len(m.files) == 0 || m.now < m.sweepAt {
		return
	}
	m.sweepAt = m.now + m.cfg.Idle/4
	for _, f := range slices.Clone(m.list) {
		if len(f.waits) == 0 && m.now-f.used >= m.cfg.Idle {
			m.giveBack(f)
		}
	}
	for _, p := range m.peers {
		if p.mine != 0 && !m.uses(p) {
			m.endSession(p)
		}
	}
}

func (m *Machine) giveBack(f *file) {
	needed := len(f.held) > 0
	if f.own && !needed {
		f.own = false
		m.own--
	}
	for _, p := range m.peers {
		s := f.share(p)
		if s == nil {
			continue
		}
		if s.have {
			s.have, s.theirs = false, nil
			m.tell(p, Item{Kind: Leave, File: f.id})
		}
		needed = needed || s.asked != 0 || s.promised || s.interested || s.owe != 0 || s.giving != 0
	}
	if !needed {
		m.forget(f)
	}
}

// uses reports whether we have, or ask for, any consent of p's.
func (m *Machine) uses(p *peer) bool {
	for _, f := range m.list {
		if s := f.share(p); s != nil && (s.have || s.asked != 0) || len(f.waits) > 0 {
			return true
		}
	}
	return false
}
