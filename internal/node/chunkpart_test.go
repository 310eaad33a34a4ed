package node

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/foreverfs/forever/casstore"
	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/cipher"
)

// newChunkParts returns parts of a new store in dir, and what seals for them.
func newChunkParts(t *testing.T, dir string) chunkParts {
	t.Helper()
	store, err := casstore.Open(casstore.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	key := cipher.EpochKey{ID: cipher.EpochID{1}, Secret: [32]byte{2}}
	ring := &cipher.Keyring{}
	ring.Add(key)
	ring.SetCurrent(key.ID)
	return chunkParts{store: store, ring: ring}
}

// seal stores a block.
func (p chunkParts) seal(t *testing.T, plain []byte) (id chunk.ID, sealed []byte) {
	t.Helper()
	sealed, err := p.ring.Seal(nil, plain)
	if err != nil {
		t.Fatal(err)
	}
	if id, _, err = p.store.Add(t.Context(), sealed); err != nil {
		t.Fatal(err)
	}
	return id, sealed
}

// TestChunkParts: a part of a stored block is read and opened by itself, unless the block is compressed.
func TestChunkParts(t *testing.T) {
	parts := newChunkParts(t, t.TempDir())
	noise := make([]byte, 64<<10)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(noise)
	text := bytes.Repeat(noise[:32<<10], 2)
	clear(text[20<<10:])
	for _, c := range []struct {
		plain []byte
		until int
		want  error
	}{{noise, 64 << 10, nil}, {text, 16 << 10, cipher.ErrCompressed}} {
		id, _ := parts.seal(t, c.plain)
		for off := 0; off < c.until; off += 4096 {
			got := make([]byte, 4096)
			if err := parts.Part(t.Context(), got, id, off); !errors.Is(err, c.want) || err == nil && !bytes.Equal(got, c.plain[off:off+4096]) {
				t.Errorf("part at %d: %v, want %v", off, err, c.want)
			}
		}
	}
}

// TestChunkPartUnderAnotherHead: with the beginning of another chunk of its size, which names another key, no part of a chunk opens.
func TestChunkPartUnderAnotherHead(t *testing.T) {
	dir := t.TempDir()
	parts := newChunkParts(t, dir)
	noise := make([]byte, 2*64<<10)
	_, _ = rand.NewChaCha8([32]byte{4}).Read(noise)
	id, sealed := parts.seal(t, noise[:64<<10])
	_, other := parts.seal(t, noise[64<<10:])

	path := filepath.Join(dir, "00000001.pack")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copy(raw[bytes.Index(raw, sealed):], other[:cipher.PartOffset])
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	for off := 0; off < 64<<10; off += 4096 {
		if err := parts.Part(t.Context(), make([]byte, 4096), id, off); !errors.Is(err, casstore.ErrDamaged) {
			t.Errorf("part at %d: %v, want ErrDamaged", off, err)
		}
	}
}
