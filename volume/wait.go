package volume

import (
	"context"
	"sync"
	"time"

	"github.com/foreverfs/forever/chunk"
)

// Wait tells what an operation waits for. It is safe for concurrent use.
type Wait struct {
	local func(chunk.ID) bool

	mu    sync.Mutex
	since time.Time // of the first chunk that was not in memory; zero: there was none
	id    chunk.ID  // the latest
}

// waitKey is the key of the Wait in a context.
type waitKey struct{}

// WithWait returns a context for one operation, and what tells of its waits.
func (v *Volume) WithWait(ctx context.Context) (context.Context, *Wait) {
	w := &Wait{local: v.cfg.Chunks.Local}
	return context.WithValue(ctx, waitKey{}, w), w
}

// Far reports whether the operation has been waiting for contents for at least d, and now does for some that
// are not on this disk.
func (w *Wait) Far(d time.Duration) bool {
	w.mu.Lock()
	since, id := w.since, w.id
	w.mu.Unlock()
	return !since.IsZero() && time.Since(since) >= d && !w.local(id)
}

// foldLock is a mutex that is waited for no longer than a context lasts. Its capacity is 1.
type foldLock chan struct{}

func newFoldLock() foldLock { return make(foldLock, 1) }

// Lock locks it.
func (l foldLock) Lock() { l <- struct{}{} }

// Unlock unlocks it.
func (l foldLock) Unlock() { <-l }

// TryLock locks it, or reports false, if somebody else holds it.
func (l foldLock) TryLock() bool {
	select {
	case l <- struct{}{}:
		return true
	default:
		return false
	}
}

// LockFor locks it, or returns the error of ctx. If somebody else holds it, that may be for as long as the network takes.
func (l foldLock) LockFor(ctx context.Context) error {
	if l.TryLock() {
		return nil
	}
	before(ctx)()
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaits notes that the operation under ctx is about to wait for a chunk.
func awaits(ctx context.Context, id chunk.ID) {
	w, ok := ctx.Value(waitKey{}).(*Wait)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.id = id
	if w.since.IsZero() {
		w.since = time.Now()
	}
}
