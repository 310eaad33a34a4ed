package replica

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/foreverfs/forever/internal/lease"
	"github.com/foreverfs/forever/replica/replicapb"
)

// maxLease bounds one message about leases, in bytes: as many directories as may be
// watched, twice, and a vector.
const maxLease = 4 << 20

// leaseLink is the stream over which leases with a device are kept.
type leaseLink struct {
	wake chan struct{} // there is something to say; capacity 1
	left chan struct{} // closed once it is said that this mount has left, or the link has gone
	gone func()        // closes left
}

func newLeaseLink() *leaseLink {
	link := &leaseLink{wake: make(chan struct{}, 1), left: make(chan struct{})}
	link.gone = sync.OnceFunc(func() { close(link.left) })
	return link
}

// leaseLoop keeps a lease stream open for as long as the session lasts, in case the
// other side keeps leases.
func (s *session) leaseLoop() error {
	for {
		err := s.openStream(replicapb.Stream_KIND_LEASE, s.runLease)
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

// keepsLeases reports whether leases are kept with the peer: both sides mount the volume.
func (s *session) keepsLeases() bool {
	if s.r.leases == nil {
		return false
	}
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	d, ok := s.r.control.device(s.peer)
	return ok && d.Role == RoleMember
}

// takeLease is runLease on a stream that the peer opened. Only what breaks the rules
// is of concern to the rest of the session.
func (s *session) takeLease(st *stream) error {
	if err := s.runLease(st); errors.Is(err, ErrInvalid) {
		return err
	}
	return nil
}

// runLease exchanges messages about leases on a stream until it ends.
func (s *session) runLease(st *stream) error {
	l := s.r.leases
	link := newLeaseLink()
	defer link.gone()
	if err := l.up(s.peer, link); err != nil {
		return err
	}
	defer l.down(s.peer, link)
	g, ctx := errgroup.WithContext(s.ctx)
	defer closeOn(ctx, st)()
	g.Go(func() error {
		for {
			var p replicapb.LeaseMessage
			if err := st.read(&p, maxLease); err != nil {
				return err
			}
			if err := l.receive(s.peer, link, &p); err != nil {
				return err
			}
		}
	})
	g.Go(func() error {
		for {
			if p := l.poll(s.peer, link); p != nil {
				if err := st.write(p); err != nil {
					return err
				}
				if err := st.flush(); err != nil {
					return err
				}
				if p.GetTerm() == 0 && l.leaving.Load() {
					link.gone()
				}
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
func (l *Leases) up(id DeviceID, link *leaseLink) error {
	l.mu.Lock()
	l.links[id] = link
	effects, err := l.stepLocked(lease.LinkUp{Peer: lease.Peer(id)})
	l.mu.Unlock()
	l.carryOut(effects)
	return err
}

// down ends a link, unless another has taken its place.
func (l *Leases) down(id DeviceID, link *leaseLink) {
	l.mu.Lock()
	var effects []lease.Effect
	if l.links[id] == link {
		effects, _ = l.stepLocked(lease.LinkDown{Peer: lease.Peer(id)})
	}
	l.mu.Unlock()
	l.carryOut(effects)
}

func (l *Leases) receive(id DeviceID, link *leaseLink, p *replicapb.LeaseMessage) error {
	msg, err := leaseMessage(p)
	if err != nil {
		return err
	}
	l.mu.Lock()
	if l.links[id] != link {
		l.mu.Unlock()
		return nil
	}
	effects, err := l.stepLocked(lease.Receive{Peer: lease.Peer(id), Message: msg})
	l.mu.Unlock()
	l.carryOut(effects)
	if errors.Is(err, lease.ErrInvalid) {
		return invalid("%v", err)
	}
	return err
}

// poll returns what is to be said to a device now, or nil.
func (l *Leases) poll(id DeviceID, link *leaseLink) *replicapb.LeaseMessage {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.links[id] != link || l.closed {
		return nil
	}
	msg, ok := l.machine.Poll(leaseClock(), lease.Peer(id))
	if !ok {
		return nil
	}
	return leaseProto(&msg)
}

func leaseProto(m *lease.Message) *replicapb.LeaseMessage {
	p := &replicapb.LeaseMessage{
		Term: m.Term, Join: m.Join, Live: m.Live, On: m.On, Stamp: int64(m.Stamp), Beat: m.Beat,
		Drop: joinIDs(m.Drop), Ask: joinIDs(m.Ask), Number: m.Number, Mark: m.Mark, Applied: m.Applied,
		Granted: m.Granted, Echo: int64(m.Echo), Joined: m.Joined, Told: m.Told, Upto: m.Upto, Revoked: m.Revoked,
	}
	if m.Log != (lease.Log{}) {
		p.Log = m.Log[:]
	}
	for _, n := range m.Need {
		p.Need = append(p.Need, &replicapb.Position{Author: n.Log[:], Seq: n.Seq})
	}
	return p
}

func leaseMessage(p *replicapb.LeaseMessage) (m lease.Message, err error) {
	m = lease.Message{
		Term: p.GetTerm(), Join: p.GetJoin(), Live: p.GetLive(), On: p.GetOn(), Stamp: time.Duration(p.GetStamp()), Beat: p.GetBeat(),
		Number: p.GetNumber(), Mark: p.GetMark(), Applied: p.GetApplied(),
		Granted: p.GetGranted(), Echo: time.Duration(p.GetEcho()), Joined: p.GetJoined(),
		Told: p.GetTold(), Upto: p.GetUpto(), Revoked: p.GetRevoked(),
	}
	if len(p.GetLog()) > 0 {
		if m.Log, err = fixed16(p.GetLog(), "log"); err != nil {
			return m, err
		}
	}
	if m.Drop, err = splitIDs(p.GetDrop()); err != nil {
		return m, err
	}
	if m.Ask, err = splitIDs(p.GetAsk()); err != nil {
		return m, err
	}
	need, err := vectorOf(p.GetNeed())
	for a, n := range need {
		m.Need = append(m.Need, lease.Position{Log: a, Seq: n})
	}
	return m, err
}

func joinIDs(list [][16]byte) []byte {
	var out []byte
	for _, id := range list {
		out = append(out, id[:]...)
	}
	return out
}

func splitIDs(b []byte) ([][16]byte, error) {
	if len(b)%16 != 0 {
		return nil, invalid("%d bytes of directories", len(b))
	}
	out := make([][16]byte, 0, len(b)/16)
	for ; len(b) > 0; b = b[16:] {
		out = append(out, [16]byte(b))
	}
	return out, nil
}
