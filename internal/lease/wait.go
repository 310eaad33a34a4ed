package lease

import (
	"slices"
	"time"
)

// wait is an operation that waits for peers.
type wait struct {
	op    Op
	since time.Duration
	end   time.Duration // those it waits for were told, and nobody counts after; 0: not yet
	write bool
	seq   uint64 // of a write
	dirs  []Dir
}

func (e Observe) step(m *Machine) error {
	for i := range e.Dirs {
		m.watch(&e.Dirs[i])
	}
	m.waits = append(m.waits, &wait{op: e.Op, since: m.now, dirs: e.Dirs})
	return nil
}

func (e Write) step(m *Machine) error {
	m.waits = append(m.waits, &wait{op: e.Op, since: m.now, write: true, seq: e.Seq, dirs: e.Dirs})
	return nil
}

func (e Cancel) step(m *Machine) error {
	for i, w := range m.waits {
		if w.op == e.Op {
			m.waits = append(m.waits[:i:i], m.waits[i+1:]...)
			break
		}
	}
	return nil
}

// settleWaits ends waits that are over, and gives up peers that took too long. Whatever those say, Patience later
// they know: what they watch by then they have asked for since, and been told that this change comes first.
func (m *Machine) settleWaits() {
	for _, w := range m.waits {
		if w.end == 0 && m.now >= w.since+m.cfg.Limit {
			w.end = m.now + m.cfg.Patience
			m.giveUp(w)
		}
	}
	left := m.waits[:0]
	for _, w := range m.waits {
		if m.waiting(w) {
			left = append(left, w)
		} else {
			m.emit(Done{w.op})
		}
	}
	clear(m.waits[len(left):])
	m.waits = left
}

// waiting reports whether a peer has yet to do its part.
func (m *Machine) waiting(w *wait) bool {
	if w.write && m.now < m.cfg.Bound {
		return true
	}
	if w.end != 0 && m.now >= w.end {
		return false
	}
	return slices.ContainsFunc(m.peers, func(p *peer) bool { return w.waitsFor(m, p) })
}

func (w *wait) waitsFor(m *Machine, p *peer) bool {
	if w.write && p.grant.acked >= w.seq {
		return false
	}
	for i := range w.dirs {
		if w.write && p.watches(&w.dirs[i]) || !w.write && !m.current(p, &w.dirs[i]) {
			return true
		}
	}
	return false
}

// giveUp parts with the peers that a wait has lasted too long for.
func (m *Machine) giveUp(w *wait) {
	for _, p := range m.peers {
		switch {
		case !w.waitsFor(m, p):
		case w.write:
			m.revoke(p)
		default:
			m.leaveSlow(p)
		}
	}
}
