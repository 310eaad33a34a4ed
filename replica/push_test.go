package replica

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foreverfs/forever/chunk"
)

// failingStore cannot read some of what it holds.
type failingStore struct {
	*memStore
	fails atomic.Int32             // the next reads
	bad   atomic.Pointer[chunk.ID] // and those of this chunk
}

func (f *failingStore) Get(ctx context.Context, dst []byte, id chunk.ID) ([]byte, error) {
	if f.fails.Add(-1) >= 0 {
		return dst, errors.New("too many open files")
	}
	if bad := f.bad.Load(); bad != nil && *bad == id {
		return dst, errors.New("no such chunk")
	}
	return f.memStore.Get(ctx, dst, id)
}

// failingPair returns two connected nodes, of which the store of the first may fail.
func failingPair(t *testing.T) (a, b *testNode, store *failingStore) {
	t.Helper()
	mk := memNet()
	a, b = newTestNode(t, "a", mk), newTestNode(t, "b", mk)
	store = &failingStore{memStore: a.store}
	a.edit = func(c *Config) { c.Store = store }
	b.edit = func(c *Config) { c.FetchGrace = 200 * time.Millisecond }
	a.found().start()
	b.joinBy(a, RoleMember).start()
	eventually(t, "connected", func() bool { return a.connectedTo(b) && b.connectedTo(a) })
	return a, b, store
}

// TestPushAfterAFailedRead: a chunk that could not be read when it was to be pushed is not taken to be held elsewhere, and is pushed later.
func TestPushAfterAFailedRead(t *testing.T) {
	a, b, store := failingPair(t)
	store.fails.Store(1)
	id := a.store.put(t, 100)
	a.Poke()
	if err := waitFor(a, 1, 30*time.Second); err != nil {
		t.Fatal(err)
	}
	if has, err := b.store.Has(id); err != nil || !has {
		t.Errorf("the other device counts as holding what it lacks: %v", err)
	}
}

// TestMissingIsFetchedWithoutWhatIsGone: of what is missing here and cannot be had, nothing else waits.
func TestMissingIsFetchedWithoutWhatIsGone(t *testing.T) {
	a, b, store := failingPair(t)
	const n = 50
	var ids []chunk.ID
	for range n {
		ids = append(ids, a.store.put(t, 100))
	}
	eventually(t, "copies", func() bool { a.Poke(); return b.store.len() == n })
	b.store.mu.Lock()
	clear(b.store.chunks)
	b.store.mu.Unlock()
	a.store.slowDown(50 * time.Millisecond)
	store.bad.Store(&ids[0])
	b.Replica.mu.Lock()
	s := b.sessions[a.id()]
	b.Replica.mu.Unlock()
	s.fetchMissing(ids)
	if got := b.store.len(); got != n-1 {
		t.Errorf("%d of %d came", got, n-1)
	}
}
