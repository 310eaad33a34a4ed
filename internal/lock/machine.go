package lock

import (
	"errors"
	"fmt"
	"math"
	"time"
)

var (
	// ErrInvalid is returned by Step for a message that breaks the rules.
	ErrInvalid = errors.New("lock: invalid message")
	// ErrTooMany is returned by Step for a Release that would make too many locks of one. Nothing is
	// unlocked then.
	ErrTooMany = errors.New("lock: too many locks")
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// Machine is this mount's side of all locks. It is not safe for concurrent use.
type Machine struct {
	cfg     Config
	now     time.Duration
	clock   Stamp
	seq     uint64 // of our log: what was written under locks that are held no more
	asked   uint64 // requests so far
	own     int    // files that were locked here
	applied map[Log]uint64
	peers   []*peer
	byID    map[Peer]*peer
	files   map[File]*file
	list    []*file // the same
	busy    []*file // with requests or questions that are not answered
	byOp    map[Op]*request
	settled []*request // granted; others' writes are not applied yet
	sweepAt time.Duration

	gives map[uint64]give // by token: consent under way
	token uint64
	out   []Effect

	granting func(File, *Held) // for tests: a lock is about to be set
}

// New returns a machine without peers.
func New(cfg Config) *Machine {
	cfg.setDefaults()
	return &Machine{
		cfg: cfg, applied: map[Log]uint64{}, byID: map[Peer]*peer{},
		files: map[File]*file{}, byOp: map[Op]*request{}, gives: map[uint64]give{},
	}
}

// Step lets an event happen and returns what is to be done. now is the time of this
// machine's own clock since any moment; it must never be earlier than before.
func (m *Machine) Step(now time.Duration, e Event) ([]Effect, error) {
	m.now = max(m.now, now)
	m.out = nil
	m.expire()
	err := e.step(m)
	m.sweep()
	for _, p := range m.peers {
		if m.now >= m.beatDue(p) {
			m.say(p)
		}
	}
	return m.out, err
}

func (m *Machine) emit(e Effect) { m.out = append(m.out, e) }

// say has a message sent to p soon.
func (m *Machine) say(p *peer) {
	if p.up && !p.dirty {
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

// Deadline returns when Tick is due at the latest, also if nothing else happens.
func (m *Machine) Deadline() time.Duration {
	at := time.Duration(math.MaxInt64)
	for _, p := range m.peers {
		at = min(at, m.beatDue(p))
		switch {
		case p.mine != 0 && p.on:
			at = min(at, p.until)
		case p.mine != 0:
			at = min(at, p.joinBy)
		}
		if p.promises > 0 {
			at = min(at, p.heard+m.cfg.Patience)
		}
		if p.awaited != 0 {
			at = min(at, p.awaited)
		}
	}
	if len(m.files) > 0 {
		at = min(at, m.sweepAt)
	}
	for _, r := range m.byOp {
		if !r.Wait {
			at = min(at, r.since+m.cfg.Limit)
		}
	}
	if m.now < m.cfg.Bound && len(m.byOp) > 0 {
		at = min(at, m.cfg.Bound)
	}
	return at
}

// Alone reports whether no other mount can know, or ask for, what is locked here.
func (m *Machine) Alone() bool {
	for _, p := range m.peers {
		if p.up || p.promises > 0 {
			return false
		}
	}
	return m.now >= m.cfg.Bound
}

// Holds reports whether an owner holds any lock of a class on a file.
func (m *Machine) Holds(f File, owner uint64, class Class) bool {
	x := m.files[f]
	return x != nil && x.held.holds(owner, class)
}

// expire lets go of what time has taken.
func (m *Machine) expire() {
	for _, p := range m.peers {
		if p.mine != 0 && p.on && m.now >= p.until {
			p.mute = true
			m.endSession(p)
			m.settleAll()
		}
		if p.mine != 0 && !p.on && m.now >= p.joinBy {
			p.mute = true
			m.endSession(p)
			m.settleAll()
		}
		if p.promises > 0 && m.now >= p.heard+m.cfg.Patience {
			m.endPromises(p)
			m.settleAll()
		}
		if p.awaited != 0 && m.now >= p.awaited {
			p.awaited = 0
			m.settleAll()
		}
	}
	m.refuseLate()
}

// refuseLate ends requests that are not to wait, and did so for peers.
func (m *Machine) refuseLate() {
	var late []*request
	note := func(r *request) {
		if !r.Wait && m.now >= r.since+m.cfg.Limit {
			late = append(late, r)
		}
	}
	for _, f := range m.busy {
		for _, r := range f.waits {
			note(r)
		}
	}
	for _, r := range m.settled {
		note(r)
	}
	for _, r := range late {
		if m.byOp[r.Op] == r { // not done by what became of the ones before
			all := Held{Lock: r.Lock} // somebody may hold, for all that is known
			all.Exclusive = true
			m.abandon(r, Refused, all)
		}
	}
}

func (Tick) step(m *Machine) error {
	m.settleAll() // Bound may have passed
	return nil
}

func (e Applied) step(m *Machine) error {
	m.applied[e.Log] = max(m.applied[e.Log], e.Seq)
	m.finishSettled()
	return nil
}
