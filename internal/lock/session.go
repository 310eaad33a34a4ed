package lock

import (
	"math"
	"time"
)

// peer is another mount. It is never forgotten: there are as many as devices.
type peer struct {
	id    Peer
	index int
	up    bool
	met   bool // it was heard on the link that is up
	log   Log  // that it writes, by what it said last
	need  uint64
	mute  bool // it did not answer in time, and nothing was heard since
	// awaited is until when it counts although its link has gone: it may be there again in a moment,
	// with the locks that it has.
	awaited time.Duration

	// Our session: what its consent depends on.
	sessions uint64 // so far
	mine     uint64 // 0: none
	on       bool   // it is known there
	until    time.Duration
	joinBy   time.Duration // to be on

	// Its session: what our consent depends on.
	theirs   uint64
	heard    time.Duration // when, on our clock
	echo     time.Duration // and what it said its clock was
	promises int           // files on which it has our consent
	wanted   int           // files on which it has, or asked for, it

	greeted bool
	dirty   bool
	said    time.Duration
	beat    time.Duration // when an answer was last asked for
	items   []Item
}

// counts reports whether nothing is locked here without p's consent.
func (m *Machine) counts(p *peer) bool {
	return p.promises > 0 || p.answers() || m.now < p.awaited
}

// answers reports whether p can be asked.
func (p *peer) answers() bool { return p.up && p.met && !p.mute }

// beatDue returns when something is to be said although there is nothing to say.
func (m *Machine) beatDue(p *peer) time.Duration {
	if !p.up || p.dirty || p.mine == 0 {
		return math.MaxInt64
	}
	return p.said + m.cfg.Beat
}

// begin starts a session with p, in which it can be asked.
func (m *Machine) begin(p *peer) {
	p.sessions++
	p.mine, p.on, p.joinBy = p.sessions, false, m.now+m.cfg.Patience
	m.say(p)
}

// endSession gives up all consent of p.
func (m *Machine) endSession(p *peer) {
	p.mine, p.on = 0, false
	for _, f := range m.list {
		if s := f.share(p); s != nil {
			s.have, s.asked, s.theirs = false, 0, nil
			f.stir(m)
		}
	}
	p.items = only(p.items, Give, Show)
	m.say(p)
}

// endPromises forgets what p was promised, and what it asked for.
func (m *Machine) endPromises(p *peer) {
	p.promises, p.wanted = 0, 0
	for _, f := range m.list {
		if s := f.share(p); s != nil {
			s.promised, s.interested, s.owe, s.giving = false, false, 0, 0
		}
	}
	p.items = only(p.items, Ask, Leave)
}

// only returns the items of two kinds.
func only(list []Item, a, b Kind) []Item {
	var out []Item
	for _, it := range list {
		if it.Kind == a || it.Kind == b {
			out = append(out, it)
		}
	}
	return out
}

func (e LinkUp) step(m *Machine) error {
	p := m.peer(e.Peer)
	m.lose(p)
	p.up, p.met, p.greeted, p.dirty, p.mute = true, false, false, false, false
	m.say(p)
	m.settleAll()
	return nil
}

func (e LinkDown) step(m *Machine) error {
	p := m.peer(e.Peer)
	m.lose(p)
	p.up, p.dirty = false, false
	m.settleAll()
	return nil
}

// lose parts with what a link carried. What p was promised is kept, since it may not
// know yet; what it asked for is not. If p was there until now nothing is decided without it before it is
// heard on another link, and can be asked anew, or Patience is over.
func (m *Machine) lose(p *peer) {
	if p.answers() {
		p.awaited = m.now + m.cfg.Patience
	}
	m.endSession(p)
	p.items = nil
	for _, f := range m.list {
		if s := f.share(p); s != nil {
			s.interested, s.owe, s.giving = false, 0, 0
		}
	}
	p.wanted = p.promises
}

func (e Receive) step(m *Machine) error {
	p := m.peer(e.Peer)
	if !p.up {
		return nil
	}
	msg := &e.Message
	if msg.Clock > math.MaxInt64 {
		return invalid("clock")
	}
	first := !p.met
	if first {
		if msg.Log == (Log{}) {
			return invalid("no log named")
		}
		if msg.Log != p.log {
			p.log, p.need = msg.Log, 0
		}
		p.met, p.awaited = true, 0
	}
	if first || msg.Mine != p.theirs { // what it was promised before it has given up
		m.endPromises(p)
		p.theirs, p.echo = msg.Mine, 0
	}
	p.mute = false
	p.heard, p.echo = m.now, max(p.echo, msg.Time)
	m.clock = max(m.clock, msg.Clock)
	if p.mine != 0 && msg.Yours == p.mine {
		if msg.Echo > m.now {
			return invalid("echo of what was not said")
		}
		p.on = true
		p.until = max(p.until, msg.Echo+m.cfg.Term)
	}
	if msg.Beat {
		m.say(p)
	}
	for i := range msg.Items {
		if err := m.hear(p, msg, &msg.Items[i]); err != nil {
			return err
		}
	}
	m.settleAll()
	return nil
}

// How much is said in one message: so many items, and no further one after so many locks.
const (
	maxItems = 256
	maxLocks = 8192
)

// Poll returns the message that is to be sent to a peer now, if there is one. It must be
// sent, after those before, on the link that is up.
func (m *Machine) Poll(now time.Duration, id Peer) (Message, bool) {
	p := m.byID[id]
	if p == nil || !p.up || !p.dirty {
		return Message{}, false
	}
	m.now = max(m.now, now)
	msg := Message{Mine: p.mine, Yours: p.theirs, Time: m.now, Echo: p.echo, Clock: m.clock}
	if !p.greeted {
		p.greeted = true
		msg.Log = m.cfg.Log
	}
	n := 0
	for locks := 0; n < min(len(p.items), maxItems) && locks < maxLocks; n++ {
		locks += len(p.items[n].Locks)
	}
	msg.Items, p.items = p.items[:n:n], p.items[n:]
	p.dirty = len(p.items) > 0
	p.said = m.now
	half := m.cfg.Beat / 2
	if renewed := p.until - m.cfg.Term; p.mine != 0 && m.now-p.beat >= half && (!p.on || m.now-renewed >= half) {
		msg.Beat, p.beat = true, m.now
	}
	return msg, true
}
