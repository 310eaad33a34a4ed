package replica

import (
	"context"
	"fmt"
	"time"
)

// ackLoop makes durable what peers sent, and then tells them: one flush for all
// that came since the last, at most once per AckInterval.
func (r *Replica) ackLoop(ctx context.Context) {
	for {
		select {
		case <-r.ackWake:
		case <-ctx.Done():
			return
		}
		began := time.Now()
		if err := r.flush(ctx); err != nil && ctx.Err() == nil {
			r.log.Error("cannot make durable what other devices sent; will try again", "error", err)
			if !sleep(ctx, time.Second) {
				return
			}
			wake(r.ackWake)
		}
		if !sleep(ctx, r.cfg.AckInterval-time.Since(began)) {
			return
		}
	}
}

// flush makes durable all envelopes stored and offers filled so far, and has
// them acknowledged.
func (r *Replica) flush(ctx context.Context) error {
	r.mu.Lock()
	batch := make(map[AuthorID]uint64, len(r.unflushed))
	for a := range r.unflushed {
		batch[a] = r.heads[a].seq
	}
	clear(r.unflushed)
	r.mu.Unlock()
	filled := r.incoming.filled()
	if err := r.syncAll(ctx, len(filled) > 0, len(batch) > 0); err != nil {
		r.mu.Lock()
		for a := range batch {
			r.unflushed[a] = struct{}{}
		}
		r.mu.Unlock()
		return err
	}
	r.mu.Lock()
	for a, n := range batch {
		r.durable[a] = max(r.durable[a], n)
		for _, s := range r.sessions {
			s.acks[a] = r.durable[a]
			wake(s.logWake)
		}
	}
	for _, f := range filled {
		p := r.peer(f.recv.from)
		p.received, p.changed = f.end, true
	}
	r.mu.Unlock()
	for _, f := range filled {
		r.incoming.ack(f)
	}
	if len(filled) > 0 {
		// Offered back to where they came from as well, in one go: its word that it
		// holds them is what Wait and Status count.
		r.notifyPush(nil)
	}
	return nil
}

func (r *Replica) syncAll(ctx context.Context, store, state bool) error {
	if store {
		if err := r.cfg.Store.Sync(ctx); err != nil {
			return fmt.Errorf("flush chunks: %w", err)
		}
	}
	if state {
		if err := r.cfg.KV.Sync(); err != nil {
			return fmt.Errorf("flush state: %w", err)
		}
	}
	return nil
}
