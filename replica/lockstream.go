package replica

import (
	"errors"
	"math"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/foreverfs/forever/internal/lock"
	"github.com/foreverfs/forever/replica/replicapb"
)

// maxLockMessage bounds one message about locks, in bytes: 256 files, and three times the locks that
// one file may have.
const maxLockMessage = 4 << 20

// lockLink is the stream over which a device and this one speak of locks.
type lockLink struct {
	wake chan struct{} // there is something to say; capacity 1
}

// lockLoop keeps a lock stream open for as long as the session lasts, in case the
// other side shares its locks.
func (s *session) lockLoop() error {
	for {
		err := s.openStream(replicapb.Stream_KIND_LOCK, s.runLocks)
		if s.ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, ErrInvalid) {
			return err
		}
		if !sleep(s.ctx, pushRetry) {
			return nil
		}
	}
}

// sharesLocks reports whether locks are shared with the peer: both sides are members.
func (s *session) sharesLocks() bool {
	if s.r.locks == nil {
		return false
	}
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	d, ok := s.r.control.device(s.peer)
	return ok && d.Role == RoleMember
}

// takeLocks is runLocks on a stream that the peer opened. Only what breaks the rules
// is of concern to the rest of the session.
func (s *session) takeLocks(st *stream) error {
	if err := s.runLocks(st); errors.Is(err, ErrInvalid) {
		return err
	}
	return nil
}

// runLocks exchanges messages about locks on a stream until it ends.
func (s *session) runLocks(st *stream) error {
	l := s.r.locks
	link := &lockLink{wake: make(chan struct{}, 1)}
	l.up(s.peer, link)
	defer l.down(s.peer, link)
	g, ctx := errgroup.WithContext(s.ctx)
	defer closeOn(ctx, st)()
	g.Go(func() error {
		for {
			var p replicapb.LockMessage
			if err := st.read(&p, maxLockMessage); err != nil {
				return err
			}
			if err := l.receive(s.peer, link, &p); err != nil {
				return err
			}
		}
	})
	g.Go(func() error {
		for {
			for p := l.poll(s.peer, link); p != nil; p = l.poll(s.peer, link) {
				if err := st.write(p); err != nil {
					return err
				}
			}
			if err := st.flush(); err != nil {
				return err
			}
			select {
			case <-link.wake:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	return g.Wait()
}

// up makes a link the one with a device.
func (l *Locks) up(id DeviceID, link *lockLink) {
	l.mu.Lock()
	l.links[id] = link
	effects, _ := l.stepLocked(lock.LinkUp{Peer: lock.Peer(id)})
	l.mu.Unlock()
	l.carryOut(effects)
}

// down ends a link, unless another has taken its place.
func (l *Locks) down(id DeviceID, link *lockLink) {
	l.mu.Lock()
	var effects []lock.Effect
	if l.links[id] == link {
		delete(l.links, id)
		effects, _ = l.stepLocked(lock.LinkDown{Peer: lock.Peer(id)})
	}
	l.mu.Unlock()
	l.carryOut(effects)
}

func (l *Locks) receive(id DeviceID, link *lockLink, p *replicapb.LockMessage) error {
	msg, err := lockMessage(p)
	if err != nil {
		return err
	}
	l.mu.Lock()
	if l.links[id] != link {
		l.mu.Unlock()
		return nil
	}
	effects, err := l.stepLocked(lock.Receive{Peer: lock.Peer(id), Message: msg})
	l.mu.Unlock()
	l.carryOut(effects)
	if errors.Is(err, lock.ErrInvalid) {
		return invalid("%v", err)
	}
	return err
}

// poll returns what is to be said to a device now, or nil.
func (l *Locks) poll(id DeviceID, link *lockLink) *replicapb.LockMessage {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.links[id] != link || l.closed {
		return nil
	}
	msg, ok := l.machine.Poll(leaseClock(), lock.Peer(id))
	if !ok {
		return nil
	}
	return lockProto(&msg)
}

func lockProto(m *lock.Message) *replicapb.LockMessage {
	p := &replicapb.LockMessage{
		Mine: m.Mine, Yours: m.Yours, Time: int64(m.Time), Echo: int64(m.Echo), Beat: m.Beat, Clock: uint64(m.Clock),
	}
	if m.Log != (lock.Log{}) {
		p.Log = m.Log[:]
	}
	for i := range m.Items {
		it := &m.Items[i]
		pi := &replicapb.LockItem{
			Kind: replicapb.LockItem_Kind(it.Kind), File: it.File[:], Stamp: uint64(it.Stamp), Want: it.Want, Seq: it.Seq,
		}
		for _, k := range it.Locks {
			pi.Locks = append(pi.Locks, &replicapb.LockRange{
				Flock: k.Class == lock.Flock, Exclusive: k.Exclusive, Start: k.Start, End: k.End,
			})
		}
		p.Items = append(p.Items, pi)
	}
	return p
}

func lockMessage(p *replicapb.LockMessage) (m lock.Message, err error) {
	m = lock.Message{
		Mine: p.GetMine(), Yours: p.GetYours(), Time: time.Duration(p.GetTime()), Echo: time.Duration(p.GetEcho()),
		Beat: p.GetBeat(), Clock: lock.Stamp(p.GetClock()),
	}
	if len(p.GetLog()) > 0 {
		if m.Log, err = fixed16(p.GetLog(), "log"); err != nil {
			return m, err
		}
	}
	for _, pi := range p.GetItems() {
		it := lock.Item{Stamp: lock.Stamp(pi.GetStamp()), Want: pi.GetWant(), Seq: pi.GetSeq()}
		if k := pi.GetKind(); k > 0 && k <= math.MaxUint8 {
			it.Kind = lock.Kind(k)
		}
		if it.File, err = fixed16(pi.GetFile(), "file"); err != nil {
			return m, err
		}
		if it.Locks, err = lockRanges(pi.GetLocks()); err != nil {
			return m, err
		}
		m.Items = append(m.Items, it)
	}
	return m, nil
}

func lockRanges(list []*replicapb.LockRange) ([]lock.Lock, error) {
	var out []lock.Lock
	for _, k := range list {
		l := lock.Lock{Exclusive: k.GetExclusive(), Start: k.GetStart(), End: k.GetEnd()}
		if l.End > math.MaxInt64 || l.Start > l.End {
			return nil, invalid("lock on bytes %d to %d", l.Start, l.End)
		}
		if k.GetFlock() {
			l.Class = lock.Flock
		}
		out = append(out, l)
	}
	return out, nil
}
