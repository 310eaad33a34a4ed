package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/replica/replicapb"
)

const (
	// farBehind is how many chunks must be on offer before it pays to find out
	// which of them the peer has.
	farBehind = 2048
	// compareTimeout bounds one comparison.
	compareTimeout = 2 * time.Minute
	// mendWorkers fetch what turned out to be missing.
	mendWorkers = 4
)

// compareStores compares this store with the peer's.
func (s *session) compareStores() (d *difference, err error) {
	s.comparing.Lock()
	defer s.comparing.Unlock()
	began := time.Now()
	err = s.openStream(replicapb.Stream_KIND_COMPARE, func(st *stream) error {
		if err := st.raw.SetDeadline(began.Add(compareTimeout)); err != nil {
			return err
		}
		d, err = s.compare(st)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("compare stores: %w", err)
	}
	s.r.log.Debug("compared stores", "device", s.name, "lacking", len(d.lacking), "missing", len(d.missing),
		"rounds", d.rounds, "bytes", d.bytes, "took", time.Since(began))
	s.r.mu.Lock()
	p := s.r.peer(s.peer)
	p.compared, p.changed = s.r.cfg.Now(), true
	s.r.mu.Unlock()
	return d, nil
}

// skipKnown finds out what the peer has of very much that would be offered to it. A
// position may be lost on either side: with a state that was restored from a backup, or
// a store that was made anew.
func (p *pusher) skipKnown(from Position) error {
	store := p.s.r.cfg.Store
	items, err := store.Since(from, farBehind)
	if err != nil || len(items) < farBehind {
		return err
	}
	end := store.End()
	if err := store.Sync(p.s.ctx); err != nil { // what is not durable is not compared
		return err
	}
	d, err := p.s.compareStores()
	switch {
	case errors.Is(err, ErrInvalid), p.s.ctx.Err() != nil:
		return err
	case err != nil || d.some == nil: // the peer is new, or of an earlier version
		p.s.r.log.Debug("offering everything", "device", p.s.name, "error", err)
		return nil
	}
	p.lacking, p.jump = d.lacking, end
	if len(p.lacking) == 0 {
		p.lacking = []Item{*d.some} // an offer is what moves the position
	}
	return nil
}

// mendLoop compares the stores from time to time: a chunk that was damaged and
// dropped on one side, or one that a position passed over, comes back from the other.
func (s *session) mendLoop() error {
	for {
		s.r.mu.Lock()
		last := s.r.peer(s.peer).compared
		s.r.mu.Unlock()
		// A clock that was set back must not put it off.
		pause := min(s.r.cfg.CompareEvery, max(s.r.cfg.CompareDelay, s.r.cfg.CompareEvery-s.r.cfg.Now().Sub(last)))
		if !sleep(s.ctx, pause) {
			return nil
		}
		d, err := s.compareStores()
		switch {
		case s.ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrInvalid):
			return err
		case err != nil: // so different that there is enough to push without
			s.r.log.Debug("stores not compared", "device", s.name, "error", err)
		default:
			s.offerLacking(d.lacking)
			s.fetchMissing(d.missing)
		}
		if !sleep(s.ctx, s.r.cfg.CompareDelay) {
			return nil
		}
	}
}

// offerLacking has chunks offered that the peer lacks, whatever its position says.
func (s *session) offerLacking(items []Item) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.lacking = append(s.lacking, items...)
	wake(s.pushWake)
}

func (s *session) takeLacking() []Item {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	items := s.lacking
	s.lacking = nil
	return items
}

// fetchMissing brings chunks here that the peer has. One that cannot be had keeps none of the others from coming.
func (s *session) fetchMissing(ids []chunk.ID) {
	var g errgroup.Group
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	g.SetLimit(mendWorkers)
	for _, id := range ids {
		g.Go(func() error {
			err := s.r.bring(ctx, id)
			if err != nil && !errors.Is(err, ErrUnavailable) { // this store's trouble
				cancel()
			}
			return err
		})
	}
	if err := g.Wait(); err != nil && s.ctx.Err() == nil {
		s.r.log.Warn("cannot fetch what is missing here", "device", s.name, "error", err)
	}
}

// bring fetches a chunk into the store, if it did not come meanwhile.
func (r *Replica) bring(ctx context.Context, id chunk.ID) error {
	if has, err := r.cfg.Store.Has(id); err != nil || has {
		return err
	}
	sealed, err := r.FetchAhead(ctx, id)
	if err != nil {
		return err
	}
	if _, err := r.cfg.Store.Put(ctx, id, sealed); err != nil {
		return fmt.Errorf("keep chunk: %w", err)
	}
	r.Stored(id)
	return nil
}
