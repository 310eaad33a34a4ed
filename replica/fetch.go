package replica

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/foreverfs/forever/chunk"
)

// fetcher gets chunks from peers. Concurrent calls for one chunk share the work.
type fetcher struct {
	r  *Replica
	mu sync.Mutex
	// calls are those under way.
	calls map[chunk.ID]*call
	last  time.Time // when one ended
	turns turns
}

// lull is how long after a fetch a reader is still taken to be at it.
const lull = 200 * time.Millisecond

// call is one chunk being fetched.
type call struct {
	id      chunk.ID
	waiters int
	cancel  context.CancelFunc
	pushed  chan []byte   // it came by push meanwhile
	urgent  chan struct{} // closed once somebody waits for it
	hurried bool          // urgent is closed
	patient bool          // somebody wants FetchGrace to be waited for
	done    chan struct{}
	data    []byte // once done
	err     error
}

func newFetcher(r *Replica) *fetcher {
	return &fetcher{r: r, calls: map[chunk.ID]*call{}}
}

// Fetch gets a chunk from a connected device, verified. One device is asked at
// first; if it has not answered in the time it usually takes, another as well.
// Within FetchTimeout, or FetchGrace if everybody connected has said no, or at once if the volume has no
// other device, it fails with ErrUnavailable, naming whom it asked. The bytes are shared between callers of
// the same chunk and must not be changed. They are not stored: who does it says so with Stored.
func (r *Replica) Fetch(ctx context.Context, id chunk.ID) ([]byte, error) {
	return r.fetch(ctx, id, true, true)
}

// FetchAtOnce is Fetch without FetchGrace: it takes the word of those who are connected now.
func (r *Replica) FetchAtOnce(ctx context.Context, id chunk.ID) ([]byte, error) {
	return r.fetch(ctx, id, true, false)
}

// FetchAhead is Fetch for what will be wanted soon. It waits until a link has room, and so
// delays nobody who fetches.
func (r *Replica) FetchAhead(ctx context.Context, id chunk.ID) ([]byte, error) {
	return r.fetch(ctx, id, false, true)
}

func (r *Replica) fetch(ctx context.Context, id chunk.ID, urgent, patient bool) ([]byte, error) {
	f := r.fetches
	f.mu.Lock()
	c := f.calls[id]
	if c == nil {
		if r.closing.Err() != nil {
			f.mu.Unlock()
			return nil, ErrClosed
		}
		c = f.start(id)
	}
	c.waiters++
	c.patient = c.patient || patient
	if urgent && !c.hurried {
		c.hurried = true
		close(c.urgent)
	}
	f.mu.Unlock()
	select {
	case <-c.done:
		return c.data, c.err
	case <-ctx.Done():
		f.mu.Lock()
		defer f.mu.Unlock()
		if c.waiters--; c.waiters == 0 {
			c.cancel()
			if f.calls[id] == c {
				delete(f.calls, id)
			}
		}
		return nil, ctx.Err()
	}
}

// start begins a call; f.mu is held.
func (f *fetcher) start(id chunk.ID) *call {
	ctx, cancel := context.WithTimeout(f.r.closing, f.r.cfg.FetchTimeout)
	c := &call{id: id, cancel: cancel, pushed: make(chan []byte, 1), urgent: make(chan struct{}), done: make(chan struct{})}
	f.calls[id] = c
	f.r.wg.Add(1)
	go func() {
		defer f.r.wg.Done()
		defer cancel()
		c.data, c.err = f.run(ctx, c)
		f.mu.Lock()
		if f.calls[id] == c {
			delete(f.calls, id)
		}
		f.last = time.Now()
		f.mu.Unlock()
		close(c.done)
	}()
	return c
}

// arrived hands a pushed chunk to a call that waits for it.
func (f *fetcher) arrived(id chunk.ID, sealed []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.calls[id]; c != nil {
		select {
		case c.pushed <- sealed:
		default:
		}
	}
}

// fetching implements demand.
func (f *fetcher) fetching() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls) > 0 || time.Since(f.last) < lull
}

// has implements demand.
func (f *fetcher) has(id chunk.ID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[id] != nil
}

// answer is what came of asking one session.
type answer struct {
	s    *session
	data []byte // nil: it does not have the chunk, or err says more
	err  error
}

// hunt is the state of one call: whom it asked and what they said.
type hunt struct {
	asked   map[*session]bool // true: answered
	names   map[string]string // what came of it, by device
	open    int
	last    *session      // asked last; nil: it has answered, or there was nobody
	since   time.Time     // when last was asked
	pause   time.Duration // before those who said no are asked again
	answers chan answer
}

func (f *fetcher) run(ctx context.Context, c *call) ([]byte, error) {
	h := &hunt{asked: map[*session]bool{}, names: map[string]string{}, pause: 100 * time.Millisecond, answers: make(chan answer, 64)}
	grace := time.Now().Add(f.r.cfg.FetchGrace)
	for {
		changed := f.r.change()
		hurry := c.urgent
		if isClosed(hurry) {
			hurry = nil
		}
		wait := f.hedge(h, hurry == nil)
		if wait <= 0 {
			if data := f.askNext(ctx, c, h); data != nil {
				return data, nil
			}
			if h.last != nil {
				continue
			}
			wait = f.r.cfg.FetchTimeout
		}
		if h.open == 0 {
			left := time.Until(grace)
			if left <= 0 || f.r.isOnly() || f.isOver(c) {
				return nil, f.unavailable(c.id, h)
			}
			wait = min(left, h.pause)
		}
		t := time.NewTimer(wait)
		select {
		case data := <-c.pushed:
			t.Stop()
			return data, nil
		case a := <-h.answers:
			t.Stop()
			h.open--
			h.asked[a.s] = true
			if a.data != nil {
				return a.data, nil
			}
			h.last = nil // the next is asked at once
			h.names[a.s.name] = "does not have it"
			if a.err != nil {
				h.names[a.s.name] = a.err.Error()
			}
		case <-t.C:
			if h.open == 0 {
				clear(h.asked)
				h.pause *= 2
			}
		case <-changed:
			t.Stop()
		case <-hurry:
			t.Stop()
		case <-ctx.Done():
			t.Stop()
			return nil, f.unavailable(c.id, h)
		}
	}
}

// isOver reports whether nobody wants a call to go on that everybody connected has said no to. Then nobody joins it any more.
func (f *fetcher) isOver(c *call) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !c.patient && f.calls[c.id] == c {
		delete(f.calls, c.id)
	}
	return !c.patient
}

// hedge returns how long to wait before it is asked again whether another session is to be asked besides the last;
// at 0 one is. A chunk nobody waits for yet is worth no second transfer, unless the last was too slow for somebody
// who does wait, or seems never to answer.
func (f *fetcher) hedge(h *hunt, urgent bool) time.Duration {
	if h.last == nil {
		return 0
	}
	patience, slow := h.last.fetch.patience()
	left := patience - time.Since(h.since)
	switch {
	case urgent && left <= 0:
		h.last.fetch.tooSlow()
	case !urgent && !slow && time.Since(h.since) < f.r.cfg.FetchTimeout/4:
		left = max(left, minPatience)
	}
	return left
}

// askNext asks the best session not asked yet, if there is one; or it returns the chunk, if it
// came meanwhile.
func (f *fetcher) askNext(ctx context.Context, c *call, h *hunt) []byte {
	best, data := f.choose(ctx, c, h)
	h.last, h.since = best, time.Now()
	if best == nil {
		return data
	}
	h.asked[best] = false
	h.names[best.name] = "did not answer"
	h.open++
	best.fetch.ask(ctx, c.id, h.answers)
	return nil
}

// choose returns whom to ask, with room reserved: at once if the chunk is urgent,
// otherwise when it is its turn. Nil: there is nobody left, or ctx has ended, or the chunk came.
func (f *fetcher) choose(ctx context.Context, c *call, h *hunt) (*session, []byte) {
	sessions := f.r.connected()
	if !isClosed(c.urgent) && h.open == 0 && slices.ContainsFunc(sessions, h.mayAsk) {
		s, turn := f.turns.take(h.asked, sessions)
		if turn == nil {
			return s, nil
		}
		s, data, settled := f.await(ctx, c, turn)
		if settled {
			return s, data
		}
		sessions = f.r.connected()
	}
	var best *session
	for _, s := range sessions {
		if h.mayAsk(s) && (best == nil || s.fetch.cost() < best.fetch.cost()) {
			best = s
		}
	}
	if best != nil {
		best.fetch.reserve(1)
	}
	return best, nil
}

// await waits for a turn. It is not settled if the chunk has become urgent.
func (f *fetcher) await(ctx context.Context, c *call, t *turn) (s *session, data []byte, settled bool) {
	for {
		changed := f.r.change()
		f.r.grantTurns() // room may have come up meanwhile
		select {
		case s := <-t.got:
			return s, nil, true
		case data := <-c.pushed:
			f.forgo(t)
			return nil, data, true
		case <-ctx.Done():
			f.forgo(t)
			return nil, nil, true
		case <-c.urgent:
			f.forgo(t)
			return nil, nil, false
		case <-changed:
		}
	}
}

func (h *hunt) mayAsk(s *session) bool {
	_, asked := h.asked[s]
	return !asked
}

// forgo gives up a turn, and what it was granted at the last moment.
func (f *fetcher) forgo(t *turn) {
	if s := f.turns.leave(t); s != nil {
		s.fetch.reserve(-1)
		f.r.grantTurns()
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// isOnly reports whether the volume has no device but this one.
func (r *Replica) isOnly() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.control.deviceList()
	return len(r.sessions) == 0 && len(list) == 1 && list[0].ID == r.self
}

// Connected returns how many devices are connected.
func (r *Replica) Connected() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sessions)
}

// connected returns the sessions there are.
func (r *Replica) connected() []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*session, 0, len(r.sessions))
	for _, s := range r.sessions {
		out = append(out, s)
	}
	return out
}

func (r *Replica) change() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sessionsChanged
}

// unavailable says whom a chunk was asked of, and who was not there.
func (f *fetcher) unavailable(id chunk.ID, h *hunt) error {
	var said []string
	for name, what := range h.names {
		said = append(said, name+" "+what)
	}
	f.r.mu.Lock()
	for _, d := range f.r.control.deviceList() {
		if d.ID != f.r.self && f.r.sessions[d.ID] == nil && h.names[d.Name] == "" {
			said = append(said, d.Name+" is not connected")
		}
	}
	f.r.mu.Unlock()
	if len(said) == 0 {
		said = []string{"there is no other device"}
	}
	slices.Sort(said)
	return fmt.Errorf("%w: %v: %s", ErrUnavailable, id, strings.Join(said, ", "))
}
