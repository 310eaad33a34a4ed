package volume

import (
	"context"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// countingSealer counts what is sealed and opened.
type countingSealer struct {
	Sealer
	sealed, opened atomic.Int64
}

func (c *countingSealer) Seal(dst, plain []byte) ([]byte, error) {
	c.sealed.Add(1)
	return c.Sealer.Seal(dst, plain)
}

func (c *countingSealer) Open(dst, sealed []byte) ([]byte, error) {
	c.opened.Add(1)
	return c.Sealer.Open(dst, sealed)
}

// countingRig returns a rig, and what it counts with.
func countingRig(t *testing.T) (*rig, *countingSealer) {
	sealer := &countingSealer{}
	return newRig(t, 1, func(c *Config) {
		sealer.Sealer = c.Sealer
		c.Sealer = sealer
	}), sealer
}

// TestCopyOfStoredSmallFile: a small file that is stored is copied without opening or sealing it, one that was just written as it is.
func TestCopyOfStoredSmallFile(t *testing.T) {
	r, sealer := countingRig(t)
	ctx := context.Background()
	content := strings.Repeat("small. ", 700)
	src := r.create("src")
	r.write(src, content, 0)
	copyTo := func(name string, n int64) {
		t.Helper()
		dst := r.create(name)
		if got, err := r.Copy(ctx, src, 0, dst, 0, n); err != nil || got != min(n, int64(len(content))) {
			t.Fatalf("%d bytes copied to %s: %v", got, name, err)
		}
		must(t, dst.Flush(ctx))
		dst.Release()
		r.sync()
	}
	copyTo("unsealed", int64(len(content)))
	must(t, src.Flush(ctx))
	src.Release()
	r.sync()
	src = r.open("src", syscall.O_RDONLY)
	defer src.Release()

	sealer.sealed.Store(0)
	sealer.opened.Store(0)
	copyTo("shared", int64(len(content)))
	copyTo("more asked for", 10_000)
	if s, o := sealer.sealed.Load(), sealer.opened.Load(); s+o > 0 {
		t.Errorf("to copy what is stored %d chunks were sealed and %d opened", s, o)
	}
	copyTo("part", 100)
	for _, name := range []string{"unsealed", "shared", "more asked for"} {
		if got := r.content(name); got != content {
			t.Errorf("%s has %d bytes, %d are right", name, len(got), len(content))
		}
	}
	if got := r.content("part"); got != content[:100] {
		t.Errorf("part has %d bytes", len(got))
	}
}

// TestCopyOfSmallPieces: small files that are put together are not stored again with each that comes.
func TestCopyOfSmallPieces(t *testing.T) {
	r, sealer := countingRig(t)
	ctx := context.Background()
	piece := strings.Repeat("piece, ", 100)
	src := r.create("src")
	r.write(src, piece, 0)
	must(t, src.Flush(ctx))
	src.Release()
	r.sync()
	src = r.open("src", syscall.O_RDONLY)
	defer src.Release()
	dst := r.create("dst")
	defer dst.Release()
	sealer.sealed.Store(0)
	const n = 50
	for i := range int64(n) {
		if got, err := r.Copy(ctx, src, 0, dst, i*int64(len(piece)), int64(len(piece))); err != nil || got != int64(len(piece)) {
			t.Fatalf("%d bytes copied: %v", got, err)
		}
	}
	must(t, dst.Flush(ctx))
	r.sync()
	if s := sealer.sealed.Load(); s > 5 {
		t.Errorf("%d chunks were sealed for one block", s)
	}
	if got := r.content("dst"); got != strings.Repeat(piece, n) {
		t.Errorf("%d bytes", len(got))
	}
}
