package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/replica/replicapb"
)

const (
	// pushPace is the shortest time between two offers that are not full, so that
	// a stream of single chunks is offered in handfuls.
	pushPace = 2 * time.Millisecond
	// pushRetry is the pause before a push that the peer broke off starts anew:
	// its disk may be full.
	pushRetry = 5 * time.Second
)

// pushState is the sending side of a push, without I/O: what was offered, what the
// peer wants of it, what it acknowledged.
type pushState struct {
	next    Position // where the next offer begins
	number  uint64   // of the last offer
	open    []outOffer
	offered map[chunk.ID]int // in open offers and not asked for yet, how often
	wants   []chunk.ID
}

type outOffer struct {
	number uint64
	end    Position
	ids    []chunk.ID
}

func newPushState(from Position) *pushState {
	return &pushState{next: from, offered: map[chunk.ID]int{}}
}

// mayOffer reports whether the peer is ready for another offer.
func (p *pushState) mayOffer() bool { return len(p.open) < maxOffers }

// offer makes the next offer, of at least one item; end is the position behind it.
func (p *pushState) offer(items []Item, end Position) *replicapb.Offer {
	p.number++
	p.next = end
	o := outOffer{number: p.number, end: p.next}
	m := &replicapb.Offer{Number: p.number, End: append([]byte(nil), p.next[:]...)}
	for _, it := range items {
		o.ids = append(o.ids, it.ID)
		p.offered[it.ID]++
		m.Ids = append(m.Ids, it.ID[:]...)
		m.Sizes = append(m.Sizes, uint32(it.Size))
	}
	p.open = append(p.open, o)
	return m
}

// want takes the peer's wishes, which must be for what is on offer.
func (p *pushState) want(ids []byte) error {
	if len(ids)%chunk.IDSize != 0 {
		return invalid("%d bytes of IDs", len(ids))
	}
	for ; len(ids) > 0; ids = ids[chunk.IDSize:] {
		id := chunk.ID(ids)
		if p.offered[id] == 0 {
			return invalid("chunk wanted that is not on offer")
		}
		p.take(id)
		p.wants = append(p.wants, id)
	}
	return nil
}

func (p *pushState) take(id chunk.ID) {
	if p.offered[id]--; p.offered[id] <= 0 {
		delete(p.offered, id)
	}
}

// ack takes the peer's word that offers up to number are durable there, and
// returns the position this means. ok is false if it says nothing new.
func (p *pushState) ack(number uint64) (pos Position, ok bool, err error) {
	if number > p.number {
		return pos, false, invalid("acknowledgement of offer %d of %d", number, p.number)
	}
	for len(p.open) > 0 && p.open[0].number <= number {
		for _, id := range p.open[0].ids {
			p.take(id)
		}
		pos, ok = p.open[0].end, true
		p.open = p.open[1:]
	}
	return pos, ok, nil
}

// pusher is a pushState at work on a stream.
type pusher struct {
	s  *session
	st *stream

	mu    sync.Mutex
	state *pushState

	wake chan struct{} // the peer answered

	// What the peer turned out to lack goes first; then it has all up to jump,
	// if that is set.
	lacking []Item
	jump    Position
}

// pushLoop pushes chunks for as long as the session lasts. A push that fails
// leaves the rest of the session alone and starts anew after a pause.
func (s *session) pushLoop() error {
	for {
		err := s.openStream(replicapb.Stream_KIND_PUSH, s.runPush)
		if s.ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, ErrInvalid) {
			return err
		}
		if errors.Is(err, errFull) {
			continue // there is room again
		}
		s.r.log.Debug("push broke off", "device", s.name, "error", err)
		if !sleep(s.ctx, pushRetry) {
			return nil
		}
	}
}

func (s *session) runPush(st *stream) error {
	var m replicapb.PushReply
	if err := st.read(&m, maxHello); err != nil {
		return err
	}
	if m.GetResume() == nil {
		return invalid("push without a position to start from")
	}
	s.setFull(m.GetFull())
	if m.GetFull() {
		// It says no more, and ends the stream when it has room.
		if err := st.read(&m, maxHello); !errors.Is(err, io.EOF) {
			return err
		}
		return errFull
	}
	from := s.resume(m.GetResume().GetPosition())
	p := &pusher{s: s, st: st, state: newPushState(from), wake: make(chan struct{}, 1)}
	if err := p.skipKnown(from); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(s.ctx)
	defer closeOn(ctx, st)()
	g.Go(p.read)
	g.Go(func() error { return p.write(ctx) })
	return g.Wait()
}

// errFull ends a push to a peer that had no room, and has some now.
var errFull = errors.New("the peer had no room")

// setFull notes whether the peer takes chunks.
func (s *session) setFull(full bool) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	p := s.r.peer(s.peer)
	if p.full != full {
		p.full = full
		s.r.broadcast()
		if full {
			s.r.log.Warn("a device has no room for more", "device", s.name)
		}
	}
}

// resume returns where to go on: the earlier of what both sides remember, since
// either may have been set back.
func (s *session) resume(theirs []byte) Position {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	p := s.r.peer(s.peer)
	var pos Position
	if len(theirs) == len(pos) {
		copy(pos[:], theirs)
	}
	if p.pushed.after(pos) {
		p.pushed, p.changed = pos, true
	}
	return p.pushed
}

// read takes the peer's answers.
func (p *pusher) read() error {
	for {
		var m replicapb.PushReply
		if err := p.st.read(&m, maxOffers*maxOfferIDs*chunk.IDSize+1024); err != nil {
			return err
		}
		p.mu.Lock()
		err := p.state.want(m.GetWant())
		pos, ok, ackErr := p.state.ack(m.GetAcked())
		p.mu.Unlock()
		if err := errors.Join(err, ackErr); err != nil {
			return err
		}
		if ok {
			p.s.pushed(pos)
		}
		wake(p.wake)
	}
}

// pushed notes what the peer has of our store.
func (s *session) pushed(pos Position) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	p := s.r.peer(s.peer)
	if pos.after(p.pushed) {
		p.pushed, p.changed = pos, true
		s.r.broadcast()
	}
}

// write offers what is new and sends what is wanted.
func (p *pusher) write(ctx context.Context) error {
	fresh := true // there may be something to offer
	for {
		p.mu.Lock()
		may := p.state.mayOffer()
		next := p.state.next
		n := min(len(p.state.wants), 16)
		wants := p.state.wants[:n:n]
		p.state.wants = p.state.wants[n:]
		p.mu.Unlock()
		if fresh && may {
			var err error
			if fresh, err = p.offer(next); err != nil {
				return err
			}
		}
		if err := p.send(ctx, wants); err != nil {
			return err
		}
		if n > 0 || fresh && may {
			continue
		}
		if err := p.st.flush(); err != nil {
			return err
		}
		select {
		case <-p.s.pushWake:
			fresh = true
			if !sleep(ctx, pushPace) {
				return ctx.Err()
			}
		case <-p.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// offer offers what came after next; more says that there may be more still.
func (p *pusher) offer(next Position) (more bool, err error) {
	items, end, err := p.next(next)
	if err != nil || len(items) == 0 {
		return false, err
	}
	p.mu.Lock()
	m := p.state.offer(items, end)
	p.mu.Unlock()
	if err := p.st.write(&replicapb.PushMessage{Offer: m}); err != nil {
		return false, err
	}
	return true, p.st.flush()
}

// next returns what to offer, and the position behind it.
func (p *pusher) next(from Position) (items []Item, end Position, err error) {
	p.lacking = append(p.lacking, p.s.takeLacking()...)
	if n := min(len(p.lacking), maxOfferIDs); n > 0 {
		items, p.lacking = p.lacking[:n], p.lacking[n:]
		if len(p.lacking) == 0 && p.jump.after(from) {
			from = p.jump
		}
		return items, from, nil
	}
	if items, err = p.s.r.cfg.Store.Since(from, maxOfferIDs); err == nil && len(items) > 0 {
		end = items[len(items)-1].Pos
	}
	return items, end, err
}

func (p *pusher) send(ctx context.Context, wants []chunk.ID) error {
	var buf []byte
	for _, id := range wants {
		var err error
		m := &replicapb.PushMessage{}
		buf, err = p.s.r.cfg.Store.Get(ctx, buf[:0], id)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !p.s.isGone(id): // to say that it is gone would have the peer count as holding it
			return fmt.Errorf("read an offered chunk: %w", err)
		case err != nil || len(buf) > maxChunk:
			p.s.r.log.Debug("offered chunk is gone", "chunk", id, "error", err)
			m.Gone = id[:]
		default:
			m.Chunk = buf
		}
		if err := p.st.write(m); err != nil {
			return err
		}
	}
	return nil
}

// isGone reports whether the store says for certain that it does not hold a chunk.
func (s *session) isGone(id chunk.ID) bool {
	has, err := s.r.cfg.Store.Has(id)
	return err == nil && !has
}

// Poke says that there are new chunks in the store; they are offered to all
// connected devices within milliseconds.
func (r *Replica) Poke() { r.notifyPush(nil) }

// Stored is Poke for one chunk, which no device needs to push here any more.
func (r *Replica) Stored(id chunk.ID) {
	if r.incoming.arrived(id, nil, time.Now()) {
		wake(r.ackWake)
	}
	r.notifyPush(nil)
}
