package replica

import (
	"context"
	"fmt"

	"github.com/foreverfs/forever/replica/replicapb"
)

// Verified counts what Verify has read.
type Verified struct {
	Entries uint64 // of the control log
	Batches uint64 // of all logs
}

// Verify reads the control log and all logs as they are stored, and checks signatures, and that each batch
// follows the one before. What is wrong is returned in words; an error says that reading failed.
func (r *Replica) Verify(ctx context.Context) (done Verified, wrong []string, err error) {
	err = scanAll(r.cfg.KV, []byte{'c'}, func(key, value []byte) error {
		s, err := parseSigned(value, maxControl)
		if err == nil {
			_, err = parseEntry(r.cfg.Volume, s)
		}
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("control entry %x: %v", key[1:], err))
		}
		done.Entries++
		return ctx.Err()
	})
	if err != nil {
		return done, wrong, fmt.Errorf("read control log: %w", err)
	}
	r.mu.Lock()
	ends, floors := make(map[AuthorID]head, len(r.heads)), r.floors
	for a, h := range r.heads {
		ends[a] = h
	}
	r.mu.Unlock()
	for a, h := range ends {
		if err := r.verifyLog(ctx, a, h, floors[a], &done); err != nil {
			if ctx.Err() != nil {
				return done, wrong, ctx.Err()
			}
			wrong = append(wrong, fmt.Sprintf("log %x: %v", a, err))
		}
	}
	return done, wrong, nil
}

// verifyLog checks one author's log from behind its floor to its end.
func (r *Replica) verifyLog(ctx context.Context, a AuthorID, end head, floor uint64, done *Verified) error {
	var prev Hash
	for next := floor + 1; next <= end.seq; {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		list, err := r.rawEnvelopes(a, next, deliverCount, deliverBytes)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return fmt.Errorf("batch %d is missing", next)
		}
		for _, p := range list {
			if next > end.seq {
				break
			}
			if prev, err = r.verifyBatch(p, a, next, prev); err != nil {
				return fmt.Errorf("batch %d: %w", next, err)
			}
			done.Batches++
			next++
		}
	}
	if end.seq > floor && prev != end.hash {
		return invalid("its end is not what is noted")
	}
	return nil
}

// verifyBatch checks one batch and returns its hash; prev is zero for the first that is read.
func (r *Replica) verifyBatch(p *replicapb.Signed, a AuthorID, seq uint64, prev Hash) (Hash, error) {
	s, err := fromProto(p, maxEnvelope)
	if err != nil {
		return prev, err
	}
	e, err := parseEnvelope(r.cfg.Volume, s.body)
	switch {
	case err != nil:
		return prev, err
	case e.Author != a || e.Seq != seq:
		return prev, invalid("it is batch %d of %x", e.Seq, e.Author)
	case prev != (Hash{}) && e.Prev != prev:
		return prev, invalid("it does not follow the one before")
	case !s.verify(envelopeDomain, e.Device):
		return prev, invalid("wrong signature")
	}
	return s.hash, nil
}
