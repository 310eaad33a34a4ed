package replica

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/transport"
)

// slowDown makes each Get of the store take a while.
func (s *memStore) slowDown(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow = d
}

func (s *memStore) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gets
}

// fetchFrom returns what n asks a peer for chunks with.
func (n *testNode) fetchFrom(of *testNode) *fetchClient {
	n.Replica.mu.Lock()
	defer n.Replica.mu.Unlock()
	return n.sessions[of.id()].fetch
}

// asking returns how many chunks are being asked for of a peer.
func (n *testNode) asking(of *testNode) int {
	f := n.fetchFrom(of)
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.pending)
}

// asks reports whether a peer is being asked for a chunk.
func (n *testNode) asks(of *testNode, id chunk.ID) bool {
	f := n.fetchFrom(of)
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.pending[id]) > 0
}

func (n *testNode) waitingTurns() int {
	n.fetches.turns.mu.Lock()
	defer n.fetches.turns.mu.Unlock()
	return len(n.fetches.turns.waiting)
}

// twoHolders returns two nodes that hold n chunks of the given size, and a third, connected with both, that holds none.
func twoHolders(t *testing.T, n, size int, edit func(*Config)) (a, b, without *testNode, ids []chunk.ID) {
	t.Helper()
	mk := memNet()
	a = newTestNode(t, "a", mk).found().start()
	b = newTestNode(t, "b", mk).joinBy(a, RoleMember).start()
	for range n {
		ids = append(ids, a.store.put(t, size))
	}
	eventually(t, "copies", func() bool { a.Poke(); return b.store.len() == n })
	c := newTestNode(t, "c", mk)
	c.store.fail = errors.New("no space left") // it takes no pushes
	c.edit = edit
	c.joinBy(a, RoleMember).start()
	eventually(t, "mesh", func() bool { return c.connectedTo(a) && c.connectedTo(b) })
	return a, b, c, ids
}

func TestFetchGoesBeforeFetchAhead(t *testing.T) {
	a, b := pair(t)
	b.store.mu.Lock()
	b.store.fail = errors.New("no space left") // it takes no pushes
	b.store.mu.Unlock()
	var ids []chunk.ID
	for range 20 {
		ids = append(ids, a.store.put(t, 1000))
	}
	a.store.slowDown(time.Minute)
	const room = startFlight / usualChunk
	for _, id := range ids[:10] {
		go func() { _, _ = b.FetchAhead(t.Context(), id) }()
	}
	eventually(t, "the window filled", func() bool { return b.asking(a) == room && b.waitingTurns() == 10-room })
	go func() { _, _ = b.Fetch(t.Context(), ids[10]) }()
	eventually(t, "what is urgent asked for", func() bool { return b.asking(a) == room+1 })
	// What waits for its turn becomes urgent.
	for _, id := range ids[:10] {
		go func() { _, _ = b.Fetch(t.Context(), id) }()
	}
	eventually(t, "all asked for", func() bool { return b.waitingTurns() == 0 && b.asking(a) == 11 })
}

// Two holders are read from at once, none is asked for what the other gives, and
// when one goes the other gives the rest.
func TestFetchAheadFromSeveral(t *testing.T) {
	a, b, c, ids := twoHolders(t, 200, 64<<10, func(c *Config) { c.FetchTimeout = time.Minute })
	a.store.slowDown(5 * time.Millisecond)
	b.store.slowDown(5 * time.Millisecond)
	asked := [2]int{a.store.asked(), b.store.asked()}
	fetch := func(ids []chunk.ID, during func(i int)) {
		var g errgroup.Group
		var mu sync.Mutex
		n := 0
		for _, id := range ids {
			g.Go(func() error {
				_, err := c.FetchAhead(t.Context(), id)
				mu.Lock()
				defer mu.Unlock()
				n++
				during(n)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	fetch(ids[:100], func(int) {})
	got := [2]int{a.store.asked() - asked[0], b.store.asked() - asked[1]}
	t.Logf("100 chunks, asked of the two: %v", got)
	if min(got[0], got[1]) < 25 || got[0]+got[1] > 120 {
		t.Errorf("100 chunks, asked of the two: %v", got)
	}
	fetch(ids[100:], func(i int) {
		if i == 20 {
			go b.stop()
		}
	})
	eventually(t, "b gone", func() bool { return !c.connectedTo(b) })
}

// neverOpens is a connection that opens no stream before it ends.
type neverOpens struct {
	transport.Conn
	opening chan struct{}
}

func (c neverOpens) Open(ctx context.Context) (transport.Stream, error) {
	select {
	case c.opening <- struct{}{}:
	case <-ctx.Done():
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// Who is asked over a connection that another one replaces before it has a stream says so at once.
func TestFetchFromReplacedConnection(t *testing.T) {
	a, b := pair(t)
	a.Replica.mu.Lock()
	conn := neverOpens{a.sessions[b.id()].conn, make(chan struct{})}
	s := newSession(a.Replica, conn, a.sessions[b.id()].hello)
	a.Replica.mu.Unlock()
	ended := make(chan error, 1)
	go func() { ended <- s.run() }()
	<-conn.opening
	for range 2 { // before the end and after it
		got := make(chan answer, 1)
		s.fetch.reserve(1)
		s.fetch.ask(t.Context(), chunk.ID{1}, got)
		s.end("replaced by another connection")
		select {
		case w := <-got:
			if w.err == nil {
				t.Errorf("answered %q", w.data)
			}
		case <-time.After(15 * time.Second):
			t.Fatal("no answer")
		}
	}
	<-ended
}

// A slow answer to what nobody waits for is not asked for twice; once somebody waits, it is.
func TestFetchAheadHedgesOnceUrgent(t *testing.T) {
	a, b, c, ids := twoHolders(t, 5, 1000, func(c *Config) { c.FetchTimeout = time.Minute })
	asking := func() int { return c.asking(a) + c.asking(b) }

	a.store.slowDown(5 * minPatience)
	b.store.slowDown(5 * minPatience)
	done := make(chan error, 1)
	go func() {
		_, err := c.FetchAhead(t.Context(), ids[0])
		done <- err
	}()
	eventually(t, "the answer", func() bool {
		if n := asking(); n > 1 {
			t.Fatalf("%d devices asked for what nobody waits for", n)
		}
		return len(done) == 1
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}

	a.store.slowDown(time.Minute)
	b.store.slowDown(time.Minute)
	for _, id := range ids[1:] {
		go func() { _, _ = c.FetchAhead(t.Context(), id) }()
	}
	eventually(t, "each asked of one", func() bool { return asking() == 4 })
	was := c.asking(a)
	if !c.asks(a, ids[1]) {
		was = c.asking(b)
	}
	began := time.Now()
	go func() { _, _ = c.Fetch(t.Context(), ids[1]) }()
	// Who was too slow for that is not waited for with the others either.
	eventually(t, "all asked of the other as well", func() bool { return asking() == 4+was })
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("after %v", d)
	}
}

// TestAbandonedQuestionsGiveRoom: questions that nobody waits for any more, and that were never sent, make room for who waits.
func TestAbandonedQuestionsGiveRoom(t *testing.T) {
	a := newTestNode(t, "a", memNet()).found().start()
	s := &session{r: a.Replica, hello: &peerHello{}}
	s.ctx, s.cancel = context.WithCancelCause(t.Context())
	s.fetch = newFetchClient(s)
	a.Replica.mu.Lock()
	a.sessions[DeviceID{9}] = s
	a.Replica.mu.Unlock()
	defer func() {
		a.Replica.mu.Lock()
		defer a.Replica.mu.Unlock()
		delete(a.sessions, DeviceID{9})
	}()
	ctx, cancel := context.WithCancel(t.Context())
	for i := 0; s.fetch.hasRoom(); i++ {
		s.fetch.reserve(1)
		s.fetch.ask(ctx, chunk.ID{byte(i + 1)}, make(chan answer, 1))
	}
	_, turn := a.fetches.turns.take(map[*session]bool{}, []*session{s})
	if turn == nil {
		t.Fatal("there is room")
	}
	cancel()
	if ids := s.fetch.take(); len(ids) != 0 {
		t.Errorf("%d bytes of IDs are asked for, which nobody wants", len(ids))
	}
	select {
	case <-turn.got:
	default:
		t.Error("there is room, and nobody was told")
	}
}
