package node

import (
	"sync"
	"time"

	"github.com/foreverfs/forever/replica"
)

// refusalPatience is how long a batch that does not know what this device promised waits for
// somebody who merged it before promising the same, until its device is told.
const refusalPatience = time.Minute

// refusals are batches that wait like that: the first of each author.
type refusals struct {
	mu   sync.Mutex
	held map[replica.AuthorID]refusal
}

type refusal struct {
	seq   uint64
	since time.Time
}

func (r *refusals) hold(a replica.AuthorID, seq uint64, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == nil {
		r.held = map[replica.AuthorID]refusal{}
	}
	if was, ok := r.held[a]; !ok || was.seq != seq {
		r.held[a] = refusal{seq, now}
	}
}

func (r *refusals) drop(a replica.AuthorID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.held, a)
}

// overdue returns those that nobody wanted for too long.
func (r *refusals) overdue(now time.Time) map[replica.AuthorID]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[replica.AuthorID]uint64{}
	for a, h := range r.held {
		if now.Sub(h.since) >= refusalPatience {
			out[a] = h.seq
		}
	}
	return out
}
