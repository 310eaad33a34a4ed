package lease

import "time"

// granter is the lease that a peer has from us.
type granter struct {
	term    uint64 // 0: none
	link    uint64 // that it began on
	since   time.Duration
	log     Log // of the holder
	until   time.Duration
	echo    time.Duration // the last Stamp heard in the term
	live    bool          // implied directories count
	on      bool
	revoked bool // it is to end; nothing renews it

	dirs  map[[16]byte]struct{}
	mark  uint64
	acked uint64 // of our log, applied there

	joined  joinState
	need    []Position
	number  uint64 // of the last Ask heard
	publish uint64 // of the last Ask that the Publish under way is for
	told    uint64
	upto    uint64

	refuse uint64 // term to be called revoked
}

// slowness is when a peer whose term was revoked may begin another: it should put that off itself.
type slowness struct {
	until, pause time.Duration
}

// joinState is how far the answer to a Join is.
type joinState uint8

const (
	joinNone joinState = iota
	joinAsked
	joinPublishing
	joinReady // to be said
)

// endGrant ends the promise to p. Nobody waits for it any more.
func (m *Machine) endGrant(p *peer) {
	g := &p.grant
	if g.term != 0 {
		g.refuse = g.term
		m.say(p)
	}
	*g = granter{acked: g.acked, refuse: g.refuse}
}

// revoke tells a peer that cannot keep up that its term ends. It does when the
// peer says that it knows, or must know.
func (m *Machine) revoke(p *peer) {
	g := &p.grant
	if g.term == 0 || g.revoked {
		return
	}
	g.revoked, g.refuse = true, g.term
	if m.now-g.since > steady {
		p.slow.pause = 0
	}
	p.slow.pause = m.cfg.longer(p.slow.pause)
	p.slow.until = m.now + p.slow.pause
	m.say(p)
}

// hearHolder takes what p says as the holder of a lease from us.
func (m *Machine) hearHolder(p *peer, msg *Message) error {
	g := &p.grant
	switch {
	case msg.Term == 0:
		m.dropGrant(p)
		g.acked = max(g.acked, msg.Applied)
		return nil
	case msg.Term == g.term && g.link == p.link:
	case msg.Join && m.now < p.slow.until: // it says so again
		m.dropGrant(p)
		return nil
	case msg.Join && !m.left:
		*g = granter{term: msg.Term, link: p.link, since: m.now, log: p.log, acked: g.acked, refuse: g.refuse,
			joined: joinAsked, dirs: map[[16]byte]struct{}{}}
		m.publish()
	default:
		m.dropGrant(p)
		g.refuse = msg.Term
		m.say(p)
		return nil
	}
	if !g.revoked {
		g.until = m.now + m.cfg.Patience
		g.echo = max(g.echo, msg.Stamp)
	}
	g.acked = max(g.acked, msg.Applied)
	g.live = g.live || msg.Live
	g.on = g.on || msg.On
	if msg.Beat {
		m.say(p)
	}
	return m.hearAsk(p, msg)
}

// dropGrant ends a promise that the holder itself has given up.
func (m *Machine) dropGrant(p *peer) {
	p.grant = granter{acked: p.grant.acked, refuse: p.grant.refuse}
}

// hearAsk takes the directories that p watches or does not watch any more.
func (m *Machine) hearAsk(p *peer, msg *Message) error {
	g := &p.grant
	for _, id := range msg.Drop {
		delete(g.dirs, id)
	}
	for _, id := range msg.Ask {
		g.dirs[id] = struct{}{}
	}
	if len(g.dirs) > m.cfg.hard() {
		return invalid("more than %d directories watched", m.cfg.hard())
	}
	if msg.Number < g.number || msg.Number > g.number+1 || len(msg.Ask) > 0 && msg.Number == g.number {
		return invalid("ask %d after %d", msg.Number, g.number)
	}
	g.mark = max(g.mark, msg.Mark)
	if msg.Number > g.number {
		g.number = msg.Number
		m.publish()
	}
	return nil
}

// watches reports whether p is to hear of changes in d before they are done.
func (p *peer) watches(d *Dir) bool {
	g := &p.grant
	if g.term == 0 {
		return false
	}
	if g.live && d.Maker == g.log && d.At > g.mark {
		return true
	}
	_, ok := g.dirs[d.ID]
	return ok
}

// Watched reports whether a peer watches any of some directories. A change that was made before
// the call, and is in no log yet, is in that which a later Publish asks for.
func (m *Machine) Watched(now time.Duration, dirs []Dir) bool {
	if m.now = max(m.now, now); m.now < m.cfg.Bound {
		return true
	}
	for _, p := range m.peers {
		for i := range dirs {
			if p.watches(&dirs[i]) {
				return true
			}
		}
	}
	return false
}

// publish has all that is done put into the log, for the questions heard so far.
func (m *Machine) publish() {
	if m.publishing {
		m.publishMore = true
		return
	}
	vector := false
	for _, p := range m.peers {
		g := &p.grant
		g.publish = g.number
		if g.joined == joinAsked {
			g.joined, vector = joinPublishing, true
		}
	}
	m.publishing, m.publishMore = true, false
	m.emit(Publish{vector})
}

func (e Published) step(m *Machine) error {
	m.publishing = false
	for _, p := range m.peers {
		g := &p.grant
		if g.term == 0 {
			continue
		}
		if g.publish > g.told {
			g.told, g.upto = g.publish, e.Seq
			m.say(p)
		}
		if g.joined == joinPublishing {
			g.joined, g.need = joinReady, e.Vector
			m.say(p)
		}
	}
	if m.publishMore {
		m.publish()
	}
	return nil
}

// sayGranter fills in what we say as the granter.
func (m *Machine) sayGranter(p *peer, msg *Message) {
	g := &p.grant
	msg.Revoked, g.refuse = g.refuse, 0
	if g.term == 0 || g.revoked || g.link != p.link { // what began on another link is kept, but renewed no more
		return
	}
	msg.Granted, msg.Echo = g.term, g.echo
	if g.joined == joinReady {
		msg.Joined, msg.Need = true, g.need
		g.joined, g.need = joinNone, nil
	}
	msg.Told, msg.Upto = g.told, g.upto
}
