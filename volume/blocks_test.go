package volume

import (
	"math"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/namespace"
)

// TestBlocksOfSparseFiles: what stat says a file takes is what its blocks that are no holes take, and never less than that
// before they are in the tree; another mount that gets the file says the same, and so does the next start.
func TestBlocksOfSparseFiles(t *testing.T) {
	const bs = 1 << 14
	rapid.Check(t, func(rt *rapid.T) {
		a := newRig(t, 1, smallBlocks)
		h := a.create("f")
		defer h.Release()
		steps := map[string]func(){
			"write": func() {
				n := rapid.IntRange(1, 3*bs).Draw(rt, "length")
				a.write(h, strings.Repeat("x", n), rapid.Int64Range(0, 500*bs).Draw(rt, "at"))
			},
			"truncate": func() {
				_, err := a.Setattr(ctx, h.Ino(), SetAttr{Valid: SetSize, Size: rapid.Int64Range(0, 600*bs).Draw(rt, "size")})
				must(rt, err)
			},
			"punch": func() {
				n := rapid.Int64Range(1, 300*bs).Draw(rt, "length")
				must(rt, h.Allocate(ctx, rapid.Int64Range(0, 400*bs).Draw(rt, "at"), n, punchHole))
			},
			"copy": func() {
				n := rapid.Int64Range(1, 100*bs).Draw(rt, "length")
				from, to := rapid.Int64Range(0, 100).Draw(rt, "from"), rapid.Int64Range(200, 400).Draw(rt, "to")
				_, err := a.Copy(ctx, h, from*bs, h, to*bs, n)
				must(rt, err)
			},
			"sync": func() { a.sync() },
		}
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			steps[rapid.SampledFrom([]string{"write", "truncate", "punch", "copy", "sync"}).Draw(rt, "step")]()
			before, err := a.Getattr(ctx, h.Ino())
			must(rt, err)
			a.sync()
			wantBlocks(rt, a, h.Ino(), before)
		}
		restarted := startRig(t, 1, a.state, a.chunks, smallBlocks)
		attr, err := restarted.Lookup(ctx, RootIno, "f")
		must(rt, err)
		wantBlocks(rt, restarted, attr.Ino, Attr{Blocks: math.MaxInt64})
	})
}

// wantBlocks checks what is said of a file that is in the tree, and what was said before it was.
func wantBlocks(t *rapid.T, r *rig, ino uint64, before Attr) {
	t.Helper()
	a, err := r.Getattr(ctx, ino)
	must(t, err)
	n, err := r.cfg.Tree.NodeByIno(ino)
	must(t, err)
	data := int64(0)
	must(t, chunk.Blocks(ctx, nodeIO{r.Volume}, n.Content.Version, 0, math.MaxInt64, func(int64, chunk.ID) error {
		data++
		return nil
	}))
	want := min((a.Size+511)/512, data*n.Content.BlockSize()/512)
	if a.Blocks != want || a.BlocksVary {
		t.Errorf("%d blocks of 512 bytes (they vary: %v), want %d", a.Blocks, a.BlocksVary, want)
	}
	if before.Blocks < want {
		t.Errorf("%d blocks before, %d in the tree", before.Blocks, want)
	}
}

// TestBlocksReplayed: a file that comes from the journal after a crash takes what it took.
func TestBlocksReplayed(t *testing.T) {
	a := newRig(t, 1, smallBlocks)
	h := a.create("f")
	a.write(h, "start", 100<<14)
	a.sync()
	a.write(h, "more", 50<<14)
	if err := h.Fsync(ctx); err != nil {
		t.Fatal(err)
	}
	b := startRig(t, 1, a.state, a.chunks, smallBlocks)
	b.sync()
	want := int64(2 << 14 / 512)
	if got, err := b.Lookup(ctx, RootIno, "f"); err != nil || got.Blocks != want {
		t.Errorf("%d blocks of 512 bytes, want %d: %v", got.Blocks, want, err)
	}
	var r record
	r.base = namespace.Content{Version: chunk.Version{Size: 101 << 14, BlockLog: 14, Height: 1, Root: chunk.ID{1}, Holes: 99}}
	r.size = r.base.Size
	if got, err := decodeRecord(r.encode()); err != nil || got.base.Holes != 99 || got.base.BlockLog != 14 {
		t.Errorf("decoded %+v: %v", got.base, err)
	}
}

// TestBlocksOfPlainFile: a file without holes takes what its size takes, from the first write on.
func TestBlocksOfPlainFile(t *testing.T) {
	r := newRig(t, 1, nil)
	h := r.create("f")
	size := 0
	for range 3 {
		for _, n := range []int{1, 300, 70_000} {
			r.write(h, strings.Repeat("x", n), int64(size))
			size += n
			for range 2 {
				if a, err := r.Getattr(ctx, h.Ino()); err != nil || a.Blocks != (a.Size+511)/512 || a.BlocksVary {
					t.Errorf("%d blocks of 512 bytes in %d bytes (they vary: %v), %v", a.Blocks, a.Size, a.BlocksVary, err)
				}
				r.sync()
			}
		}
	}
	if h := r.open("f", syscall.O_RDONLY); len(r.read(h)) != size {
		t.Error("wrong size")
	}
}
