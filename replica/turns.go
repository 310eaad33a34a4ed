package replica

import (
	"slices"
	"sync"

	"github.com/foreverfs/forever/chunk"
)

// turns has those that read ahead wait until a link has room, in the order in which
// they came. So several holders are read from at once, each as fast as it can, and
// nothing that is urgent waits behind what is not.
type turns struct {
	mu      sync.Mutex
	waiting []*turn
}

// turn is one that waits.
type turn struct {
	asked map[*session]bool // only read while it waits
	got   chan *session     // has room for one
}

// take returns the session to ask, if one has room and nobody was there before;
// otherwise it comes by the turn's channel.
func (q *turns) take(asked map[*session]bool, sessions []*session) (*session, *turn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		if s := withRoom(asked, sessions); s != nil {
			return s, nil
		}
	}
	t := &turn{asked: asked, got: make(chan *session, 1)}
	q.waiting = append(q.waiting, t)
	return nil, t
}

// grant gives turns to those who wait, in order, for as long as there is room.
func (q *turns) grant(sessions []*session) {
	q.mu.Lock()
	defer q.mu.Unlock()
	keep := q.waiting[:0]
	for i, t := range q.waiting {
		if s := withRoom(t.asked, sessions); s != nil {
			t.got <- s
			continue
		}
		keep = append(keep, t)
		if !anyRoom(sessions) {
			keep = append(keep, q.waiting[i+1:]...)
			break
		}
	}
	clear(q.waiting[len(keep):])
	q.waiting = keep
}

// leave ends waiting. It returns a session that was granted meanwhile and will not
// be used, or nil.
func (q *turns) leave(t *turn) *session {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = slices.DeleteFunc(q.waiting, func(w *turn) bool { return w == t })
	select {
	case s := <-t.got:
		return s
	default:
		return nil
	}
}

// grantTurns is grant with the sessions that there are.
func (r *Replica) grantTurns() { r.fetches.turns.grant(r.connected()) }

// withRoom reserves room for one chunk with the best of the sessions not asked yet.
func withRoom(asked map[*session]bool, sessions []*session) *session {
	var best *session
	for _, s := range sessions {
		if _, done := asked[s]; !done && s.fetch.hasRoom() && (best == nil || s.fetch.cost() < best.fetch.cost()) {
			best = s
		}
	}
	if best != nil {
		best.fetch.reserve(1)
	}
	return best
}

func anyRoom(sessions []*session) bool {
	return slices.ContainsFunc(sessions, func(s *session) bool { return s.fetch.hasRoom() })
}

// usualChunk is what a chunk is taken to be before it has come, in bytes.
const usualChunk = 1 << chunk.DefaultBlockLog
