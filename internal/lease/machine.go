package lease

import (
	"container/list"
	"errors"
	"fmt"
	"math"
	"time"
)

// ErrInvalid is returned by Step for a message that breaks the rules.
var ErrInvalid = errors.New("lease: invalid message")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// Machine is this mount's side of all leases. It is not safe for concurrent use.
type Machine struct {
	cfg     Config
	now     time.Duration
	applied map[Log]uint64
	peers   []*peer
	byID    map[Peer]*peer
	left    bool // Leave was called

	dirs    map[[16]byte]*watched
	recent  *list.List // of *watched, last used first
	drop    *dropping
	sweepAt time.Duration

	waits []*wait

	publishing  bool // Publish is under way
	publishMore bool // and must be repeated
	token       uint64
	out         []Effect
}

// peer is another mount. It is never forgotten: there are as many as devices.
type peer struct {
	id    Peer
	index int
	up    bool
	link  uint64 // counts LinkUp
	log   Log    // zero: not known yet
	hold  holder
	grant granter
	slow  slowness // of its terms
	// awaited is until when it counts although its link has gone, and no other term is on yet.
	awaited time.Duration

	greeted bool          // our first message is out
	dirty   bool          // there is something to say
	said    time.Duration // when something was last said
	beat    time.Duration // when it was last asked to be said back at once
}

// New returns a machine without peers.
func New(cfg Config) *Machine {
	cfg.setDefaults()
	return &Machine{
		cfg: cfg, applied: map[Log]uint64{}, byID: map[Peer]*peer{},
		dirs: map[[16]byte]*watched{}, recent: list.New(),
	}
}

// Step lets an event happen and returns what is to be done. now is the time of this
// machine's own clock since any moment; it must never be earlier than before.
func (m *Machine) Step(now time.Duration, e Event) ([]Effect, error) {
	m.now = max(m.now, now)
	m.out = nil
	m.expire()
	err := e.step(m)
	m.settle()
	return m.out, err
}

func (m *Machine) emit(e Effect) { m.out = append(m.out, e) }

// say has a message sent to p soon.
func (m *Machine) say(p *peer) {
	if p.up && !p.dirty && p.hold.state != holdLost {
		p.dirty = true
		m.emit(Send{p.id})
	}
}

func (m *Machine) peer(id Peer) *peer {
	p := m.byID[id]
	if p == nil {
		p = &peer{id: id, index: len(m.peers)}
		m.byID[id] = p
		m.peers = append(m.peers, p)
	}
	return p
}

// expire lets go of what time has taken.
func (m *Machine) expire() {
	for _, p := range m.peers {
		if p.hold.state > holdJoining && m.now >= p.hold.until {
			m.leave(p)
		}
		if p.grant.term != 0 && m.now >= p.grant.until {
			m.endGrant(p)
		}
	}
}

// settle does what has become possible or due.
func (m *Machine) settle() {
	for _, p := range m.peers {
		m.advance(p)
	}
	m.settleWaits()
	m.sweep()
	for _, p := range m.peers {
		if m.now >= m.beatDue(p) {
			m.say(p)
		}
	}
}

// beatDue returns when something is to be said although there is nothing to say.
func (m *Machine) beatDue(p *peer) time.Duration {
	switch {
	case !p.up || p.dirty || p.hold.state <= holdLost:
		return math.MaxInt64
	case p.hold.state == holdJoining:
		return p.said + 4*m.cfg.Beat
	}
	return p.said + m.cfg.Beat
}

// Deadline returns when Tick is due at the latest, also if nothing else happens.
func (m *Machine) Deadline() time.Duration {
	at := time.Duration(math.MaxInt64)
	for _, p := range m.peers {
		at = min(at, m.beatDue(p))
		switch {
		case p.hold.state > holdJoining:
			at = min(at, p.hold.until)
		case p.hold.state == holdOff && p.up && !m.left:
			at = min(at, p.hold.retry)
		}
		if p.grant.term != 0 {
			at = min(at, p.grant.until)
		}
		if p.awaited > m.now {
			at = min(at, p.awaited)
		}
	}
	for _, w := range m.waits {
		if w.end == 0 {
			at = min(at, w.since+m.cfg.Limit)
		} else if w.end > m.now {
			at = min(at, w.end)
		}
	}
	if m.drop == nil && len(m.dirs) > 0 {
		at = min(at, m.sweepAt)
	}
	if m.now < m.cfg.Bound {
		at = min(at, m.cfg.Bound)
	}
	return at
}

// Idle reports whether no peer is, or is about to be, connected: then nothing has to be
// observed, and nobody watches.
func (m *Machine) Idle() bool {
	if m.now < m.cfg.Bound {
		return false
	}
	for _, p := range m.peers {
		if p.hold.state >= holdFlushing || p.grant.term != 0 || m.now < p.awaited {
			return false
		}
	}
	return true
}

// Connected reports whether this mount and the peer's hold a lease from each other.
func (m *Machine) Connected(id Peer) bool {
	p := m.byID[id]
	return p != nil && p.hold.state == holdOn && p.grant.term != 0 && p.grant.on && !p.grant.revoked
}

func (e LinkUp) step(m *Machine) error {
	p := m.peer(e.Peer)
	m.lose(p)
	p.link++
	p.up, p.greeted, p.dirty, p.log = true, false, false, Log{}
	p.grant.acked = 0 // it may have lost what it said
	p.hold.retry = m.now
	m.say(p)
	return nil
}

func (e LinkDown) step(m *Machine) error {
	p := m.peer(e.Peer)
	m.lose(p)
	p.up, p.dirty = false, false
	return nil
}

func (Tick) step(*Machine) error { return nil }

func (Leave) step(m *Machine) error {
	m.left = true
	for _, p := range m.peers {
		m.leave(p)
		p.awaited = 0
		m.say(p)
	}
	return nil
}

func (e Applied) step(m *Machine) error {
	if e.Seq <= m.applied[e.Log] {
		return nil
	}
	m.applied[e.Log] = e.Seq
	for _, p := range m.peers {
		if p.log == e.Log && p.hold.state > holdLost {
			m.say(p)
		}
	}
	return nil
}

func (e Receive) step(m *Machine) error {
	p := m.peer(e.Peer)
	if !p.up {
		return nil
	}
	msg := &e.Message
	if p.log == (Log{}) {
		if msg.Log == (Log{}) {
			return invalid("no log named")
		}
		p.log = msg.Log
	}
	if err := m.hearHolder(p, msg); err != nil {
		return err
	}
	return m.hearGranter(p, msg)
}

// Poll returns the message that is to be sent to a peer now, if there is one. It must be
// sent, after those before, on the link that is up.
func (m *Machine) Poll(now time.Duration, id Peer) (Message, bool) {
	p := m.byID[id]
	if p == nil || !p.up || !p.dirty {
		return Message{}, false
	}
	m.now = max(m.now, now)
	p.dirty = false
	var msg Message
	if !p.greeted {
		p.greeted = true
		msg.Log = m.cfg.Self
	}
	msg.Applied = m.applied[p.log]
	m.sayHolder(p, &msg)
	m.sayGranter(p, &msg)
	return msg, true
}
