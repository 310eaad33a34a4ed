package replica

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/foreverfs/forever/chunk"
)

// clonePatience is how long the side of an older connection may take to prove that
// it is still there, before a newer one of the same device is believed to be
// its next start. It is shorter than dialTimeout, so that the newer one hears
// the verdict.
const clonePatience = 3 * time.Second

// refusedClone is what a device hears that is already connected from elsewhere.
func refusedClone() *RefusedError {
	return &RefusedError{Code: CodeClone, Reason: "the same device runs twice; one is a copy or a restored backup"}
}

// runsBeside reports whether a device is connected from another process than the
// instance that just said hello. Both would own one key and push each other out
// again and again; so the one that was first stays, if it still answers. A node
// that was killed and started again does not: its old connection is dead.
func (r *Replica) runsBeside(ctx context.Context, device DeviceID, instance [16]byte) bool {
	r.mu.Lock()
	s := r.sessions[device]
	r.mu.Unlock()
	if s == nil || s.hello.instance == instance {
		return false
	}
	return s.answers(ctx)
}

// answers asks the peer for a chunk that does not exist and waits for its no. What
// is only on its way from a process that has ended is no answer.
func (s *session) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, clonePatience)
	defer cancel()
	var id chunk.ID
	_, _ = rand.Read(id[:])
	reply := make(chan answer, 1)
	s.fetch.reserve(1)
	s.fetch.ask(ctx, id, reply)
	select {
	case a := <-reply:
		return a.err == nil
	case <-s.conn.Done():
	case <-ctx.Done():
	}
	return false
}
