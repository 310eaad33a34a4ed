package node

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/foreverfs/forever/casstore"
	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/cipher"
)

func testStreams(t *testing.T) *sealedNodes {
	t.Helper()
	store, err := casstore.Open(casstore.Config{Dir: t.TempDir(), Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	key, err := cipher.NewEpochKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ring := &cipher.Keyring{}
	ring.Add(key)
	ring.SetCurrent(key.ID)
	return &sealedNodes{chunks: &chunks{store: store, peers: nobody{}, recent: &recent{}, log: hclog.NewNullLogger()}, sealer: ring}
}

// TestStream: what is written in any pieces is read back, and what is missing or cut short is told.
func TestStream(t *testing.T) {
	const block = 1 << streamLog
	for _, size := range []int{1, 1000, block - 1, block, block + 1, 3*block + 5, 12 * block} {
		nodes := testStreams(t)
		want := make([]byte, size)
		_, _ = rand.Read(want)
		w := newStreamWriter(t.Context(), nodes)
		if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{bytes.NewReader(want)}, make([]byte, 70_001)); err != nil {
			t.Fatal(err)
		}
		v, err := w.finish()
		if err != nil || v.Size != int64(size) || v.Check() != nil {
			t.Fatalf("%d bytes: %+v, %v", size, v, err)
		}
		r := newStreamReader(t.Context(), nodes, v)
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: read %d, %v", size, len(got), err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		half := newStreamReader(t.Context(), nodes, v)
		if _, err := half.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		_ = half.Close() // ends its goroutines
	}
	nodes := testStreams(t)
	lost := chunk.Version{Size: 10, BlockLog: streamLog, Root: chunk.ID{1}}
	if _, err := io.ReadAll(newStreamReader(t.Context(), nodes, lost)); !errors.Is(err, errGone) {
		t.Errorf("a block that is nowhere: %v", err)
	}
	hole := chunk.Version{Size: 10, BlockLog: streamLog}
	if _, err := io.ReadAll(newStreamReader(t.Context(), nodes, hole)); !errors.Is(err, chunk.ErrMalformed) {
		t.Errorf("a hole: %v", err)
	}
}
