package volume

import (
	"context"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/chunk"
)

const punchHole = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE

// TestHolesCostNothing: what is punched out is no chunk in the tree's version.
func TestHolesCostNothing(t *testing.T) {
	r := newRig(t, 1, smallBlocks)
	h := r.create("f")
	r.write(h, strings.Repeat("x", 10<<14), 0)
	r.sync()
	if err := h.Allocate(ctx, 100, 9<<14, punchHole); err != nil {
		t.Fatal(err)
	}
	r.sync()
	n, err := r.node(h.in)
	if err != nil {
		t.Fatal(err)
	}
	var left []int64
	err = chunk.Blocks(ctx, nodeIO{r.Volume}, n.Content.Version, 0, 100, func(i int64, _ chunk.ID) error {
		left = append(left, i)
		return nil
	})
	if err != nil || len(left) != 2 || left[0] != 0 || left[1] != 9 {
		t.Errorf("blocks %v are left, %v", left, err)
	}
	if err := h.Allocate(ctx, 0, 10<<14, punchHole); err != nil {
		t.Fatal(err)
	}
	r.sync()
	if a, err := r.Getattr(ctx, h.Ino()); err != nil || a.Blocks != 0 || a.Size != 10<<14 {
		t.Errorf("a file of holes takes %d blocks of %d bytes, %v", a.Blocks, a.Size, err)
	}
}

// TestCopySharesChunks: a copied file puts no block into the store.
func TestCopySharesChunks(t *testing.T) {
	r := newRig(t, 1, smallBlocks)
	src := r.create("src")
	text := strings.Repeat("0123456789abcdef", 20_000)
	r.write(src, text, 0)
	r.sync()
	before := len(r.chunks.all())
	dst := r.create("dst")
	n, err := r.Copy(ctx, src, 0, dst, 0, 1<<40)
	if err != nil || n != int64(len(text)) {
		t.Fatalf("copied %d bytes: %v", n, err)
	}
	r.sync()
	if got := r.content("dst"); got != text {
		t.Errorf("the copy has %d bytes", len(got))
	}
	if after := len(r.chunks.all()); after != before {
		t.Errorf("the copy stored %d chunks", after-before)
	}
	r.write(dst, "changed", 5)
	if err := dst.Fsync(ctx); err != nil {
		t.Fatal(err)
	}
	if r.read(src) != text {
		t.Error("a write to the copy changed the source")
	}
}

// TestCopyKeepsEditsOfOthers: what another device wrote while a file was copied over is kept beside it, not lost.
func TestCopyKeepsEditsOfOthers(t *testing.T) {
	a, b := newRig(t, 1, smallBlocks), newRig(t, 2, smallBlocks)
	h := a.create("f")
	a.write(h, strings.Repeat("x", 50_000), 0)
	src := a.create("src")
	a.write(src, strings.Repeat("s", 60_000), 0)
	exchange(a, b)
	b.write(b.open("f", syscall.O_RDWR), "theirs", 0)
	if _, err := a.Copy(ctx, src, 0, h, 0, 60_000); err != nil {
		t.Fatal(err)
	}
	exchange(a, b)
	exchange(a, b)
	if _, total, err := b.Conflicts(10); err != nil || total != 1 {
		t.Errorf("%d conflicts, %v", total, err)
	}
}

// TestRebuildBesideWriter: a hole is made in a file although somebody writes to it at every moment.
func TestRebuildBesideWriter(t *testing.T) {
	hooks := &hookChunks{memChunks: newMemChunks()}
	r := newRig(t, 1, func(c *Config) { smallBlocks(c); c.Chunks = hooks })
	h := r.create("f")
	r.write(h, strings.Repeat("x", 200_000), 0)
	var writes atomic.Int32
	var again func()
	again = func() {
		writes.Add(1)
		go func() { _, _ = h.Write(context.Background(), []byte("w"), 190_000) }() // it may have to wait
		hooks.put.Store(&again)
	}
	hooks.put.Store(&again)
	if err := h.Allocate(ctx, 0, 100_000, punchHole); err != nil {
		t.Fatal(err)
	}
	if got := r.read(h); got[:100_000] != strings.Repeat("\x00", 100_000) || got[100_000:190_000] != strings.Repeat("x", 90_000) {
		t.Error("wrong content")
	}
	t.Logf("%d writes meanwhile", writes.Load())
}

// TestUnnamedSurvives: the content of a file that was made without a name is durable once the name is.
func TestUnnamedSurvives(t *testing.T) {
	a := newRig(t, 1, smallBlocks)
	_, h, err := a.CreateUnnamed(ctx, Caller{}, RootIno, 0o600, syscall.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	text := strings.Repeat("text", 20_000)
	a.write(h, text, 0)
	if err := h.Fsync(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Link(ctx, h.Ino(), RootIno, "f"); err != nil {
		t.Fatal(err)
	}
	if got := startRig(t, 1, a.state, a.chunks, smallBlocks).content("f"); got != text {
		t.Errorf("after a crash it has %d bytes", len(got))
	}
}
