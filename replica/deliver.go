package replica

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Envelopes read from the state at a time while delivering.
const (
	deliverCount = 64
	deliverBytes = 4 << 20
)

// Replay hands the stored envelopes beyond after to fn, each author's in order,
// those of this device's earlier incarnations included: at start, what the tree
// lost or never had. An envelope that fn answers with ErrLater comes again
// after others; what is still too early at the end is left to Deliver. Call it
// before Serve.
func (r *Replica) Replay(after map[AuthorID]uint64, fn func(Envelope) error) error {
	r.mu.Lock()
	for a, h := range r.heads {
		r.delivered[a] = min(after[a], h.seq)
		if r.delivered[a] < h.seq {
			r.undone[a] = struct{}{}
		}
	}
	r.mu.Unlock()
	for {
		progress, err := r.deliverPass(fn)
		if err != nil {
			return fmt.Errorf("replay logs: %w", err)
		}
		if !progress {
			return nil
		}
	}
}

// deliverPass goes once over all authors with something to deliver, each as far as
// possible, and reports whether anything was delivered.
func (r *Replica) deliverPass(fn func(Envelope) error) (bool, error) {
	progress := false
	var errs []error
	first, others := r.undoneAuthors()
	for i, a := range append(first, others...) {
		if i == len(first) && progress {
			return true, nil // once more, before what others may have refused
		}
		n, err := r.deliverAuthor(a, fn)
		progress = progress || n > 0
		if err != nil && !errors.Is(err, ErrLater) {
			errs = append(errs, err)
		}
	}
	return progress, errors.Join(errs...)
}

// undoneAuthors returns whose envelopes are to be delivered: first those of the members that the newest checkpoint
// is made of. What they promised not to take any more the tree must know before it sees the others' batches.
func (r *Replica) undoneAuthors() (first, others []AuthorID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var newest *checkpointState
	for _, s := range r.control.checkpoints {
		if s.vouched && (newest == nil || s.body().GetClock() > newest.body().GetClock()) {
			newest = s
		}
	}
	for a := range r.undone {
		if newest == nil || newest.isActive(r.heads[a].device) {
			first = append(first, a)
		} else {
			others = append(others, a)
		}
	}
	return first, others
}

// deliverAuthor delivers one author's envelopes until there are no more or fn fails.
func (r *Replica) deliverAuthor(a AuthorID, fn func(Envelope) error) (n int, err error) {
	for r.closing.Err() == nil {
		r.mu.Lock()
		next := r.delivered[a] + 1
		if next > r.heads[a].seq {
			delete(r.undone, a)
			r.mu.Unlock()
			return n, nil
		}
		r.mu.Unlock()
		list, err := r.envelopesFrom(a, next, deliverCount, deliverBytes)
		if err != nil {
			return n, err
		}
		if len(list) == 0 {
			return n, fmt.Errorf("stored log %x lacks envelope %d", a, next)
		}
		for _, e := range list {
			if err := fn(e); err != nil {
				return n, fmt.Errorf("deliver batch %d of %x: %w", e.Seq, a, err)
			}
			n++
			r.mu.Lock()
			r.delivered[a] = e.Seq
			r.mu.Unlock()
		}
	}
	return n, r.closing.Err()
}

// deliverLoop is the one goroutine that Deliver and ControlChanged are called from.
func (r *Replica) deliverLoop(ctx context.Context) {
	seen := r.loadedControl
	pause := time.Second
	for {
		var retry <-chan time.Time
		seen = r.tellControl(seen)
		if err := r.deliverAll(); err != nil && ctx.Err() == nil {
			r.log.Error("cannot apply what other devices wrote; will try again", "error", err)
			retry = time.After(pause)
			pause = min(2*pause, time.Minute)
		} else {
			pause = time.Second
		}
		select {
		case <-r.deliverWake:
		case <-retry:
		case <-ctx.Done():
			return
		}
	}
}

func (r *Replica) tellControl(seen int) int {
	r.mu.Lock()
	n := len(r.control.order)
	r.mu.Unlock()
	if n > seen && r.cfg.ControlChanged != nil {
		r.cfg.ControlChanged()
	}
	return n
}

// deliverAll delivers until nothing moves. The envelopes of one author failing
// do not hold up the others.
func (r *Replica) deliverAll() error {
	if r.cfg.Deliver == nil {
		return nil
	}
	for {
		progress, err := r.deliverPass(r.cfg.Deliver)
		if !progress {
			return err
		}
	}
}
