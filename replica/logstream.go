package replica

import (
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/foreverfs/forever/replica/replicapb"
)

// About how much one message of the log stream carries, in bytes and envelopes.
const (
	logBytes = 1 << 20
	logCount = 512
)

// runLog exchanges logs on a stream until it ends.
func (s *session) runLog(st *stream) error {
	g, ctx := errgroup.WithContext(s.ctx)
	g.Go(func() error { return s.readLog(st) })
	g.Go(func() error {
		if err := s.greet(st); err != nil {
			return err
		}
		for {
			m, err := s.nextLog()
			if err != nil {
				return err
			}
			if m == nil {
				select {
				case <-s.logWake:
				case <-ctx.Done():
					return ctx.Err()
				}
				continue
			}
			if err := st.write(m); err != nil {
				return err
			}
			if err := st.flush(); err != nil {
				return err
			}
			if m.Control != nil {
				s.toldControl()
			}
		}
	})
	stop := closeOn(ctx, st)
	defer stop()
	return g.Wait()
}

// greet says what is here: first of all the logs, then what of them is durable.
func (s *session) greet(st *stream) error {
	r := s.r
	r.mu.Lock()
	m := &replicapb.LogMessage{
		State: &replicapb.State{Heads: hashList(r.control.headList()), Have: positions(r.vector())},
		Acked: positions(r.durable),
	}
	for id, p := range r.peers {
		if id != s.peer && len(p.addrs) > 0 {
			m.Peers = append(m.Peers, &replicapb.Peer{Device: id[:], Addrs: p.addrs})
		}
	}
	r.mu.Unlock()
	if err := st.write(m); err != nil {
		return err
	}
	return st.flush()
}

// nextLog collects what is to be sent now, or nil. Control entries go first,
// because envelopes build on them.
func (s *session) nextLog() (*replicapb.LogMessage, error) {
	m := &replicapb.LogMessage{}
	todo := s.collect(m)
	size := 0
	for _, t := range todo {
		if size >= logBytes {
			s.mark(t.author)
			continue
		}
		count := int(min(t.to-t.from, logCount))
		list, err := s.r.rawEnvelopes(t.author, t.from+1, count, logBytes-size)
		if err != nil {
			return nil, err
		}
		if !s.sent(t, uint64(len(list))) {
			continue
		}
		for _, p := range list {
			size += len(p.GetBody())
		}
		m.Envelopes = append(m.Envelopes, list...)
	}
	if m.Control == nil && m.Acked == nil && m.Peers == nil && m.Envelopes == nil && m.Outrun == nil {
		return nil, nil
	}
	return m, nil
}

// toldControl notes that the entries collected last were written.
func (s *session) toldControl() {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.telling, s.told = false, time.Now()
	s.r.broadcast()
}

// span is a part of an author's log that the peer lacks: behind from, up to to.
type span struct {
	author   AuthorID
	from, to uint64
}

// collect moves what waits in memory into m and returns what must be read.
func (s *session) collect(m *replicapb.LogMessage) []span {
	r := s.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(s.acks) > 0 {
		m.Acked = positions(s.acks)
		s.acks = map[AuthorID]uint64{}
	}
	for id := range s.gossip {
		if p := r.peers[id]; p != nil && id != s.peer && len(p.addrs) > 0 {
			m.Peers = append(m.Peers, &replicapb.Peer{Device: id[:], Addrs: p.addrs})
		}
		delete(s.gossip, id)
	}
	if !s.synced {
		return nil
	}
	for size := 0; len(s.control) > 0 && size < logBytes; s.control = s.control[1:] {
		m.Control = append(m.Control, s.control[0].proto())
		size += len(s.control[0].body)
	}
	if len(m.Control) > 0 { // alone, for the sake of the cap
		s.telling = true
		wake(s.logWake)
		return nil
	}
	var todo []span
	for a := range s.dirty {
		delete(s.dirty, a)
		if s.has[a] < r.floors[a] {
			s.tellBehind()
			continue
		}
		to := r.heads[a].seq
		if last, limited := r.control.limit(a, r.heads[a].device); limited {
			to = min(to, last)
		}
		if to > s.has[a] {
			todo = append(todo, span{a, s.has[a], to})
		}
	}
	if len(s.outrun) > 0 {
		m.Outrun, s.outrun = s.outrun[0], s.outrun[1:]
		wake(s.logWake)
	}
	return todo
}

// mark has an author looked at again.
func (s *session) mark(a AuthorID) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.dirty[a] = struct{}{}
	wake(s.logWake)
}

// sent notes that n envelopes of t are on their way. It returns false if the log was shortened
// while they were read: they may not be the next then, and collect decides anew.
func (s *session) sent(t span, n uint64) bool {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	if t.from < s.r.floors[t.author] {
		s.dirty[t.author] = struct{}{}
		wake(s.logWake)
		return false
	}
	s.has[t.author] = max(s.has[t.author], t.from+n)
	if t.from+n < t.to && n > 0 {
		s.dirty[t.author] = struct{}{}
		wake(s.logWake)
	}
	return true
}

func (s *session) readLog(st *stream) error {
	for {
		var m replicapb.LogMessage
		if err := st.read(&m, maxMessage); err != nil {
			return err
		}
		if err := s.takeLog(&m); err != nil {
			return err
		}
	}
}

func (s *session) takeLog(m *replicapb.LogMessage) error {
	if st := m.GetState(); st != nil {
		if err := s.takeState(st); err != nil {
			return fmt.Errorf("state: %w", err)
		}
	}
	if err := s.r.acceptControl(s, m.GetControl()); err != nil {
		return fmt.Errorf("control entries: %w", err)
	}
	if err := s.r.acceptEnvelopes(s, m.GetEnvelopes()); err != nil {
		return fmt.Errorf("envelopes: %w", err)
	}
	if len(m.GetAcked()) > 0 || m.GetState() != nil { // the first word counts also if it is that nothing is durable
		if err := s.takeAcks(m.GetAcked()); err != nil {
			return fmt.Errorf("acknowledgement: %w", err)
		}
	}
	if err := s.takeOutrun(m.GetOutrun()); err != nil {
		return fmt.Errorf("outrun: %w", err)
	}
	if err := s.r.learnPeers(s.peer, m.GetPeers()); err != nil {
		return fmt.Errorf("peers: %w", err)
	}
	return nil
}

// takeState learns what the peer has, and so what it is to be sent.
func (s *session) takeState(st *replicapb.State) error {
	heads, err := parseHashes(st.GetHeads())
	if err != nil {
		return err
	}
	have, err := vectorOf(st.GetHave())
	if err != nil {
		return err
	}
	r := s.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.synced {
		return invalid("a second state")
	}
	s.synced = true
	s.has, s.heads = have, heads
	s.control = r.control.lacking(heads)
	s.outrun = r.outrunBy(s.peer)
	p := r.peer(s.peer)
	p.lost = map[AuthorID]bool{}
	for a, h := range r.heads {
		if h.seq <= have[a] {
			continue
		}
		s.dirty[a] = struct{}{}
		if h.device == s.peer {
			p.lost[a] = true
		}
	}
	wake(s.logWake)
	return nil
}

// maxUnheard bounds the logs that a peer says it has, and of which nothing came yet.
const maxUnheard = 4096

// takeAcks notes what is durable at the peer. The first word of a session
// replaces what was known: the peer may have been restored from a backup.
func (s *session) takeAcks(list []*replicapb.Position) error {
	acked, err := vectorOf(list)
	if err != nil {
		return err
	}
	r := s.r
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.peer(s.peer)
	if !s.acked {
		s.acked = true
		p.acked = map[AuthorID]uint64{}
	}
	for a, n := range acked {
		if _, heard := r.heads[a]; heard || len(p.acked) < len(r.heads)+maxUnheard {
			p.acked[a] = max(p.acked[a], n)
		}
	}
	p.changed = true
	r.broadcast()
	return nil
}

// forked complains, once per session, that a log was forked.
func (s *session) forked(a AuthorID, err error) {
	s.r.mu.Lock()
	_, told := s.forks[a]
	s.forks[a] = struct{}{}
	s.r.mu.Unlock()
	if !told {
		s.r.log.Error("a device runs twice, from a copy or a restored backup; its second version is refused",
			"from", s.name, "author", fmt.Sprintf("%x", a), "error", err)
	}
}
