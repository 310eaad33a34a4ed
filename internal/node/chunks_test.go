package node

import (
	"context"
	"crypto/rand"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/foreverfs/forever/casstore"
	"github.com/foreverfs/forever/chunk"
)

// others has chunks that this device may have as well.
type others map[chunk.ID][]byte

func (o others) Fetch(_ context.Context, id chunk.ID) ([]byte, error)      { return o[id], nil }
func (o others) FetchAhead(_ context.Context, id chunk.ID) ([]byte, error) { return o[id], nil }
func (o others) Connected() int                                            { return 0 }
func (o others) Stored(chunk.ID)                                           {}

// TestChunksWithDamagedIndex: what the index of this disk can't tell any more comes from others, and is kept; new chunks are taken.
func TestChunksWithDamagedIndex(t *testing.T) {
	dir := t.TempDir()
	open := func() *casstore.Store {
		s, err := casstore.Open(casstore.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	store, has := open(), others{}
	for range 2000 {
		sealed := make([]byte, 100)
		_, _ = rand.Read(sealed)
		id, _, err := store.Add(t.Context(), sealed)
		if err != nil {
			t.Fatal(err)
		}
		has[id] = sealed
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	flip(t, filepath.Join(dir, "index", "*.sst"))
	store = open()
	c := &chunks{store: store, peers: has, recent: &recent{}, log: hclog.NewNullLogger()}
	fetched := 0
	for id, sealed := range has {
		_, err := store.Get(t.Context(), nil, id)
		if err != nil {
			fetched++
		}
		if got, err := c.Get(t.Context(), nil, id); err != nil || string(got) != string(sealed) {
			t.Fatalf("chunk %v: %v", id, err)
		}
		if _, err := store.Get(t.Context(), nil, id); err != nil {
			t.Errorf("chunk %v is not kept: %v", id, err)
		}
	}
	if fetched == 0 || fetched == len(has) {
		t.Errorf("%d of %d chunks were hit by the damage", fetched, len(has))
	}
	if err := c.Sync(t.Context()); err != nil {
		t.Error(err)
	}
}
