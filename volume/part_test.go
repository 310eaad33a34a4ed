package volume

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/foreverfs/forever/chunk"
)

// countedParts opens parts of what memChunks holds, and counts.
type countedParts struct {
	chunks *memChunks
	sealer Sealer
	fail   error
	parts  int
}

func (c *countedParts) Part(ctx context.Context, dst []byte, id chunk.ID, off int) error {
	if c.fail != nil {
		return c.fail
	}
	sealed, err := c.chunks.Get(ctx, nil, id)
	if err != nil {
		return err
	}
	plain, err := c.sealer.Open(nil, sealed)
	if err != nil {
		return err
	}
	if off > len(plain)-len(dst) {
		return errors.New("behind the end")
	}
	copy(dst, plain[off:])
	c.parts++
	return nil
}

// TestPartsOfBlocks: reads at random open parts of blocks, once for a block; others do not, and all see the content.
func TestPartsOfBlocks(t *testing.T) {
	parts := &countedParts{}
	r := newRig(t, 1, func(c *Config) {
		c.BlockLog = 15
		c.CacheSize = 1 // nodes and blocks leave it at once
		parts.chunks, parts.sealer = c.Chunks.(*memChunks), c.Sealer
		c.Parts = parts
	})
	ctx := context.Background()
	const blocks = 2 * maxAsked
	h := r.create("f")
	bs := r.blockSize(h.in)
	data := make([]byte, blocks*bs-100)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	r.write(h, string(data), 0)
	must(t, h.Flush(ctx))
	h.Release()
	r.sync()
	h = r.open("f", syscall.O_RDONLY)
	defer func() { h.Release() }()
	read := func(off, n int64) {
		t.Helper()
		p := make([]byte, n)
		got, err := h.Read(ctx, p, off)
		if want := data[off:min(off+n, int64(len(data)))]; err != nil || string(p[:got]) != string(want) {
			t.Fatalf("%d bytes at %d: %d are right: %v", n, off, len(want), err)
		}
	}
	wantParts := func(what string, want int) {
		t.Helper()
		if parts.parts != want {
			t.Fatalf("%s: %d parts opened, want %d", what, parts.parts, want)
		}
		parts.parts = 0
	}
	order := rng.Perm(blocks/16 - 1)
	for i, b := range order {
		read(int64(b+1)*16*bs+int64(i)*7%1000, 100) // far from each other and from the beginning
	}
	wantParts(fmt.Sprintf("first reads, in order %v", order), len(order))
	read(10*bs, 10)
	parts.parts = 0
	read(200*bs, 10)
	wantParts("a block", 1)
	read(50*bs, maxPart+1)
	wantParts("much of a block", 0)
	read(200*bs+50, 10)
	wantParts("the same block again", 0)
	parts.fail = errors.New("not here")
	read(100*bs, 10)
	parts.fail = nil
	wantParts("what cannot be read in parts", 0)
	read(300*bs, 10)
	wantParts("another block", 1)
	h.Release()
	h = r.open("f", syscall.O_RDONLY)
	for off := int64(0); off < 20*bs; off += 100 {
		read(off, 100)
	}
	wantParts("one after the other", 0)
	w := r.open("f", syscall.O_RDWR)
	r.write(w, "new", 400*bs+5)
	copy(data[400*bs+5:], "new")
	read(400*bs, 10)
	w.Release()
}
