package replica

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/zeebo/blake3"
	"golang.org/x/sync/errgroup"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/replica/replicapb"
)

const (
	// maxFetchIDs bounds the chunks asked for in one message.
	maxFetchIDs = 256
	// fetchWorkers read the store for one peer's requests.
	fetchWorkers = 4
	// minPatience is the least time before a second device is asked for a chunk.
	minPatience = 50 * time.Millisecond
)

// fetchClient asks one peer for chunks, many at a time over one stream.
type fetchClient struct {
	s    *session
	wake chan struct{}

	mu      sync.Mutex
	pending map[chunk.ID][]ask
	queue   []chunk.ID
	closed  bool
	usual   time.Duration // running mean of the time to an answer
	slow    bool          // somebody lost patience, and no answer came since

	places int // reserved for questions that were not answered
	window *window
}

type ask struct {
	ctx   context.Context
	to    chan<- answer
	since time.Time
}

func newFetchClient(s *session) *fetchClient {
	return &fetchClient{s: s, wake: make(chan struct{}, 1), pending: map[chunk.ID][]ask{}, usual: time.Millisecond, window: newWindow(maxFlight)}
}

// hasRoom reports whether the link takes one more chunk that is not urgent.
func (c *fetchClient) hasRoom() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed && c.window.room(c.places*usualChunk, usualChunk)
}

// reserve takes n places, or gives them back. Each ask needs one, and gives it back when
// it is answered.
func (c *fetchClient) reserve(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.places += n
}

// ask asks for id, with a place reserved; one answer comes to the channel, which must have room.
func (c *fetchClient) ask(ctx context.Context, id chunk.ID, to chan<- answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		c.places--
		to <- answer{s: c.s, err: errors.New("lost the connection")}
		return
	}
	if len(c.pending[id]) == 0 {
		c.queue = append(c.queue, id)
	}
	c.pending[id] = append(c.pending[id], ask{ctx, to, time.Now()})
	wake(c.wake)
}

// cost is lower for a peer that is likely to answer sooner.
func (c *fetchClient) cost() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.usual * time.Duration(1+len(c.pending))
}

// patience is how long to wait for the peer before another is asked too, and whether that was not enough since it
// answered last.
func (c *fetchClient) patience() (d time.Duration, slow bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(minPatience, 4*c.usual), c.slow
}

// tooSlow notes that somebody lost patience with the peer.
func (c *fetchClient) tooSlow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slow = true
}

// run works on the stream until it ends, and the session with it.
func (c *fetchClient) run(st *stream) error {
	g, ctx := errgroup.WithContext(c.s.ctx)
	defer closeOn(ctx, st)()
	g.Go(func() error { return c.read(st) })
	g.Go(func() error { return c.write(ctx, st) })
	return g.Wait()
}

// fail answers every open question with a failure, and from now on each at once.
func (c *fetchClient) fail() {
	defer c.s.r.grantTurns()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for id, asks := range c.pending {
		for _, a := range asks {
			a.answer(answer{s: c.s, err: errors.New("lost the connection")})
		}
		c.places -= len(asks)
		delete(c.pending, id)
	}
}

func (a ask) answer(w answer) {
	select {
	case a.to <- w:
	default: // nobody listens any more
	}
}

func (c *fetchClient) write(ctx context.Context, st *stream) error {
	for {
		if ids := c.take(); len(ids) > 0 {
			if err := st.write(&replicapb.FetchRequest{Ids: ids}); err != nil {
				return err
			}
			continue
		}
		if err := st.flush(); err != nil {
			return err
		}
		select {
		case <-c.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take returns the next IDs to ask for, leaving out those nobody waits for any more.
func (c *fetchClient) take() []byte {
	ids, freed := c.takeQueued()
	if freed {
		c.s.r.grantTurns()
	}
	return ids
}

// takeQueued is take; freed says that others may ask now instead.
func (c *fetchClient) takeQueued() (ids []byte, freed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) > 0 && len(ids) < maxFetchIDs*chunk.IDSize {
		id := c.queue[0]
		c.queue = c.queue[1:]
		if c.abandoned(id) {
			c.places -= len(c.pending[id])
			delete(c.pending, id)
			freed = true
			continue
		}
		ids = append(ids, id[:]...)
	}
	return ids, freed
}

func (c *fetchClient) abandoned(id chunk.ID) bool {
	for _, a := range c.pending[id] {
		if a.ctx.Err() == nil {
			return false
		}
	}
	return true
}

func (c *fetchClient) read(st *stream) error {
	for {
		var m replicapb.FetchReply
		if err := st.read(&m, maxPush); err != nil {
			return err
		}
		id, err := fixed32[chunk.ID](m.GetId(), "chunk ID")
		if err != nil {
			return err
		}
		data := m.GetChunk()
		if len(data) > 0 && blake3.Sum256(data) != id {
			return invalid("chunk %v that is not what its name says", id)
		}
		if len(data) == 0 {
			data = nil
		}
		if err := c.reply(id, data); err != nil {
			return err
		}
	}
}

func (c *fetchClient) reply(id chunk.ID, data []byte) error {
	defer c.s.r.grantTurns()
	c.mu.Lock()
	defer c.mu.Unlock()
	asks, ok := c.pending[id]
	if !ok {
		return invalid("answer to a question not asked")
	}
	delete(c.pending, id)
	c.places -= len(asks)
	took := time.Since(asks[0].since)
	c.usual = (7*c.usual + took) / 8
	c.slow = false
	if data != nil {
		c.window.took(len(data), took, time.Now())
	}
	for _, a := range asks {
		a.answer(answer{s: c.s, data: data})
	}
	return nil
}

// serveFetch answers the peer's requests for chunks.
func (s *session) serveFetch(st *stream) error {
	g, ctx := errgroup.WithContext(s.ctx)
	defer closeOn(ctx, st)()
	ids := make(chan chunk.ID, maxFetchIDs)
	g.Go(func() error {
		defer close(ids)
		return readRequests(ctx, st, ids)
	})
	var mu sync.Mutex // one writer at a time
	for range fetchWorkers {
		g.Go(func() error {
			var buf []byte
			for id := range ids {
				sealed, err := s.r.cfg.Store.Get(ctx, buf[:0], id)
				m := &replicapb.FetchReply{Id: id[:]}
				if err == nil && len(sealed) <= maxChunk {
					m.Chunk, buf = sealed, sealed
				}
				mu.Lock()
				err = st.write(m)
				if err == nil && len(ids) == 0 {
					err = st.flush()
				}
				mu.Unlock()
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func readRequests(ctx context.Context, st *stream, ids chan<- chunk.ID) error {
	for {
		var m replicapb.FetchRequest
		if err := st.read(&m, maxFetchIDs*chunk.IDSize+64); err != nil {
			return err
		}
		if len(m.GetIds())%chunk.IDSize != 0 {
			return invalid("%d bytes of IDs", len(m.GetIds()))
		}
		for b := m.GetIds(); len(b) > 0; b = b[chunk.IDSize:] {
			select {
			case ids <- chunk.ID(b):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}
