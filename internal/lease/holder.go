package lease

import "time"

// holdState is how far a term of ours is.
type holdState uint8

const (
	holdOff      holdState = iota
	holdLost               // the link has gone under a term that was on: before the peer hears of that, the kernel is made to forget
	holdJoining            // Join is not answered yet
	holdCatching           // what the granter had is being applied
	holdFlushing           // the kernel is made to forget, and the granter to count us
	holdOn
)

// holder is our lease from one peer.
type holder struct {
	state holdState
	term  uint64
	until time.Duration // when the lease ends; while not off
	since time.Duration // when the term came on

	joined  bool // it was answered, with need
	need    []Position
	flushed bool
	token   uint64 // of the flush
	live    uint64 // number of the Ask that makes the term live; 0: answered
	upto    uint64 // of p's log, to be applied before the term is on

	// retry is when the next term may begin, pause how long that was put off.
	retry, pause time.Duration

	news    []news // to be said
	ask     bool   // an Ask is due, even if it is empty
	number  uint64
	pending []asked // said and not answered
	mark    uint64
}

// news is that a directory is watched from now on, or not any more.
type news struct {
	Dir
	drop bool
}

// asked is an Ask under way.
type asked struct {
	number uint64
	dirs   [][16]byte
}

const (
	// maxPause bounds the time between terms of peers that cannot keep up.
	maxPause = 8 * time.Second
	// steady is how long a term must have been on to say that they can.
	steady = 10 * time.Second
)

// advance brings our lease from p as far as it goes.
func (m *Machine) advance(p *peer) {
	h := &p.hold
	if h.state == holdOff && p.up && !m.left && m.now >= h.retry {
		m.begin(p)
	}
	if h.state == holdJoining && h.joined && m.now < h.until {
		h.state = holdCatching
	}
	if h.state == holdCatching && m.caughtUp(h.need) {
		h.need = nil
		h.state, h.flushed = holdFlushing, false
		m.token++
		h.token = m.token
		h.ask = true
		h.live = h.number + 1
		m.emit(Flush{h.token})
		m.say(p)
	}
	if h.state == holdFlushing && h.flushed && h.live == 0 && m.applied[p.log] >= h.upto {
		h.state, h.since, p.awaited = holdOn, m.now, 0
		m.say(p)
		for _, w := range m.waits { // reads under way are to see what p did as well
			for i := range w.dirs {
				if !w.write {
					m.watch(&w.dirs[i])
				}
			}
		}
	}
}

// begin starts a term.
func (m *Machine) begin(p *peer) {
	h := &p.hold
	*h = holder{state: holdJoining, term: h.term + 1, pause: h.pause}
	m.say(p)
}

// leave ends our term. What was watched is void with it.
func (m *Machine) leave(p *peer) {
	h := &p.hold
	if h.state <= holdLost {
		return
	}
	if h.state == holdOn && m.now-h.since > steady {
		h.pause = 0
	}
	*h = holder{term: h.term, pause: h.pause, retry: m.now}
	m.say(p)
}

// lose ends our term because its link has gone, or another has its place. If the peer has not given up its own it
// may be there again in a moment: until Patience is over nothing is believed that it did not confirm, and reads
// wait for a term to be on again. Before it hears that this one is over, and waits for us no more, the kernel
// forgets what it was given in it.
func (m *Machine) lose(p *peer) {
	on := p.hold.state == holdOn && p.grant.term != 0
	m.leave(p)
	if on {
		p.awaited = m.now + m.cfg.Patience
		m.token++
		p.hold.state, p.hold.token = holdLost, m.token
		m.emit(Flush{m.token})
	}
}

// leaveSlow is leave because one side could not keep up: the next term is put off, so
// that this does not go on.
func (m *Machine) leaveSlow(p *peer) {
	m.leave(p)
	p.awaited = 0
	h := &p.hold
	h.pause = m.cfg.longer(h.pause)
	h.retry = m.now + h.pause
}

// longer returns the pause after one before that was not enough.
func (c *Config) longer(pause time.Duration) time.Duration {
	return min(max(2*pause, 2*c.Beat), maxPause)
}

// caughtUp reports whether all of a vector is applied here.
func (m *Machine) caughtUp(need []Position) bool {
	for _, n := range need {
		if n.Log != m.cfg.Self && m.applied[n.Log] < n.Seq {
			return false
		}
	}
	return true
}

func (e Flushed) step(m *Machine) error {
	for _, p := range m.peers {
		switch h := &p.hold; {
		case h.token != e.Token:
		case h.state == holdLost:
			h.state = holdOff
			m.say(p)
		case h.state == holdFlushing:
			h.flushed = true
		}
	}
	return nil
}

// hearGranter takes what p says as the granter of our lease.
func (m *Machine) hearGranter(p *peer, msg *Message) error {
	h := &p.hold
	if h.state <= holdLost {
		return nil
	}
	if msg.Revoked == h.term {
		m.leaveSlow(p)
		return nil
	}
	if msg.Granted != h.term {
		return nil // of a term before
	}
	if msg.Echo > m.now {
		return invalid("echo of what was not said")
	}
	h.until = max(h.until, msg.Echo+m.cfg.Term)
	if msg.Joined && h.state == holdJoining {
		h.joined, h.need = true, msg.Need
	}
	if msg.Told > h.number {
		return invalid("answer to what was not asked")
	}
	m.hearTold(p, msg.Told, msg.Upto)
	return nil
}

// hearTold notes that what was asked is watched.
func (m *Machine) hearTold(p *peer, told, upto uint64) {
	h := &p.hold
	for len(h.pending) > 0 && h.pending[0].number <= told {
		for _, id := range h.pending[0].dirs {
			if d := m.dirs[id]; d != nil {
				d.granted(p, h.pending[0].number, upto)
			}
		}
		h.pending = h.pending[1:]
	}
	if h.state == holdFlushing && h.live != 0 && told >= h.live {
		h.live, h.upto = 0, upto
	}
}

// sayHolder fills in what we say as the holder.
func (m *Machine) sayHolder(p *peer, msg *Message) {
	h := &p.hold
	msg.Stamp = m.now
	p.said = m.now
	if h.state == holdOff {
		return
	}
	msg.Term, msg.Join = h.term, h.state == holdJoining
	msg.Live, msg.On = h.state >= holdFlushing, h.state == holdOn
	msg.Mark = h.mark
	m.sayNews(p, msg)
	half := m.cfg.Beat / 2 // renewed, or asked to be, not that long ago
	if renewed := h.until - m.cfg.Term; m.now-renewed >= half && m.now-p.beat >= half {
		msg.Beat, p.beat = true, m.now
	}
}

// sayNews says of every directory the last that there is to say.
func (m *Machine) sayNews(p *peer, msg *Message) {
	h := &p.hold
	last := make(map[[16]byte]int, len(h.news))
	for i := range h.news {
		last[h.news[i].ID] = i
	}
	number := h.number + 1
	for i, n := range h.news {
		switch {
		case last[n.ID] != i:
		case n.drop:
			msg.Drop = append(msg.Drop, n.ID)
		default:
			msg.Ask = append(msg.Ask, n.ID)
			if d := m.dirs[n.ID]; d != nil {
				d.at(p).number = number
			}
		}
	}
	h.news = nil
	if len(msg.Ask) > 0 || h.ask {
		h.number, h.ask = number, false
		h.pending = append(h.pending, asked{number, msg.Ask})
	}
	msg.Number = h.number
}
