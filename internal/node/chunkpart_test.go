package node

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/foreverfs/forever/casstore"
	"github.com/foreverfs/forever/cipher"
)

// TestChunkParts: a part of a stored block is read and opened by itself, unless the block is compressed.
func TestChunkParts(t *testing.T) {
	store, err := casstore.Open(casstore.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	key := cipher.EpochKey{ID: cipher.EpochID{1}, Secret: [32]byte{2}}
	ring := &cipher.Keyring{}
	ring.Add(key)
	ring.SetCurrent(key.ID)
	parts := chunkParts{store: store, ring: ring}

	noise := make([]byte, 64<<10)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(noise)
	text := bytes.Repeat(noise[:32<<10], 2)
	clear(text[20<<10:])
	for _, c := range []struct {
		plain []byte
		want  error
	}{{noise, nil}, {text, cipher.ErrCompressed}} {
		sealed, err := ring.Seal(nil, c.plain)
		if err != nil {
			t.Fatal(err)
		}
		id, _, err := store.Add(t.Context(), sealed)
		if err != nil {
			t.Fatal(err)
		}
		for off := 0; off < 16<<10; off += 4096 {
			got := make([]byte, 4096)
			if err := parts.Part(t.Context(), got, id, off); !errors.Is(err, c.want) || err == nil && !bytes.Equal(got, c.plain[off:off+4096]) {
				t.Errorf("part at %d: %v, want %v", off, err, c.want)
			}
		}
	}
}
