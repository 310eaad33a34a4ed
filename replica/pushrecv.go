package replica

import (
	"context"
	"fmt"
	"time"

	"github.com/zeebo/blake3"
	"golang.org/x/sync/errgroup"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/replica/replicapb"
)

// lookAgain is how soon what waits for others is looked at again.
const lookAgain = 250 * time.Millisecond

// fullPoll is how soon a full store is looked at again.
const fullPoll = time.Second

// maxPush bounds one message of a push stream, in bytes.
const maxPush = maxChunk + 1024

// storeError says that this side cannot keep what it is given: its disk may be full.
type storeError struct{ err error }

// Error implements error.
func (e storeError) Error() string { return "store chunk: " + e.err.Error() }

func (e storeError) Unwrap() error { return e.err }

// takePush takes the chunks that the peer pushes on a stream.
func (s *session) takePush(st *stream) error {
	r := s.r
	r.mu.Lock()
	resume := &replicapb.Resume{Position: r.peer(s.peer).received}
	r.mu.Unlock()
	if r.cfg.Store.Full() {
		return s.sayFull(st, resume)
	}
	v := r.incoming.join(s.peer, maxFlight)
	defer r.incoming.leave(v)
	if err := st.write(&replicapb.PushReply{Resume: resume}); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(s.ctx)
	defer closeOn(ctx, st)()
	g.Go(func() error { return s.readPush(ctx, st, v) })
	g.Go(func() error { return s.writePushReplies(ctx, st, v) })
	return g.Wait()
}

// sayFull tells the peer that there is no room, and ends the stream when there is, so that it begins anew.
func (s *session) sayFull(st *stream, resume *replicapb.Resume) error {
	if err := st.write(&replicapb.PushReply{Resume: resume, Full: true}); err != nil {
		return err
	}
	if err := st.flush(); err != nil {
		return err
	}
	for s.r.cfg.Store.Full() {
		if !sleep(s.ctx, fullPoll) {
			return s.ctx.Err()
		}
	}
	return nil
}

func (s *session) readPush(ctx context.Context, st *stream, v *receiver) error {
	for {
		var m replicapb.PushMessage
		if err := st.read(&m, maxPush); err != nil {
			return err
		}
		if err := s.takePushMessage(ctx, v, &m); err != nil {
			return err
		}
	}
}

func (s *session) takePushMessage(ctx context.Context, v *receiver, m *replicapb.PushMessage) error {
	r := s.r
	ready := false
	if o := m.GetOffer(); o != nil {
		items, err := parseOffer(o)
		if err != nil {
			return err
		}
		lacking, err := r.lacking(items)
		if err != nil {
			return err
		}
		if err := r.incoming.offer(v, o.GetNumber(), o.GetEnd(), lacking); err != nil {
			return err
		}
		ready = len(lacking) == 0
	}
	if len(m.GetChunk()) > 0 {
		got, err := s.takeChunk(ctx, v, m.GetChunk())
		if err != nil {
			return err
		}
		ready = ready || got
	}
	if len(m.GetGone())%chunk.IDSize != 0 {
		return invalid("%d bytes of IDs", len(m.GetGone()))
	}
	for ids := m.GetGone(); len(ids) > 0; ids = ids[chunk.IDSize:] {
		ready = r.incoming.gone(v, chunk.ID(ids)) || ready
	}
	if ready {
		wake(r.ackWake)
	}
	return nil
}

// lacking returns the chunks of an offer that are not here.
func (r *Replica) lacking(items []queued) ([]queued, error) {
	out := items[:0]
	for _, q := range items {
		has, err := r.cfg.Store.Has(q.id)
		if err != nil {
			return nil, fmt.Errorf("look up chunk: %w", err)
		}
		if !has {
			out = append(out, q)
		}
	}
	return out, nil
}

// takeChunk stores a chunk that was asked for. Its name is what its bytes say.
func (s *session) takeChunk(ctx context.Context, v *receiver, sealed []byte) (ready bool, err error) {
	r := s.r
	id := chunk.ID(blake3.Sum256(sealed))
	if !r.incoming.expects(v, id) {
		return false, nil // it came from elsewhere meanwhile, or was never asked for
	}
	if _, err := r.cfg.Store.Put(ctx, id, sealed); err != nil {
		return false, storeError{err}
	}
	r.fetches.arrived(id, sealed)
	ready = r.incoming.arrived(id, v, time.Now())
	r.notifyPush(s)
	return ready, nil
}

// notifyPush has new chunks offered to all but their source.
func (r *Replica) notifyPush(from *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sessions {
		if s != from {
			wake(s.pushWake)
		}
	}
}

func (s *session) writePushReplies(ctx context.Context, st *stream, v *receiver) error {
	for {
		want, later := s.r.incoming.want(v, time.Now(), s.r.fetches)
		acked := s.r.incoming.takeAck(v)
		if len(want) > 0 || acked > 0 {
			if err := st.write(&replicapb.PushReply{Want: want, Acked: acked}); err != nil {
				return err
			}
		}
		if err := st.flush(); err != nil {
			return err
		}
		var again <-chan time.Time
		if later {
			again = time.After(lookAgain)
		}
		select {
		case <-v.wake:
		case <-again:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
