package volume

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMtimeSetWhileCandidateIsMadeStays(t *testing.T) {
	ctx := context.Background()
	hook := &hookChunks{}
	r := newRig(t, 1, func(c *Config) {
		smallBlocks(c)
		hook.memChunks = c.Chunks.(*memChunks)
		c.Chunks = hook
	})
	h := r.create("f")
	r.write(h, strings.Repeat("x", 50000), 0)
	if err := r.sealDirty(ctx, h.in); err != nil {
		t.Fatal(err)
	}
	for r.sealing.Load() > 0 { // a worker may still be at one of the blocks
		time.Sleep(time.Millisecond)
	}
	const want = 1234567890e9
	utimes := func() { // only the block tree is stored now
		if _, err := r.Setattr(ctx, h.Ino(), SetAttr{Valid: SetMtime, Mtime: want}); err != nil {
			t.Error(err)
		}
	}
	hook.put.Store(&utimes)
	r.sync()
	if a, err := r.Getattr(ctx, h.Ino()); err != nil || a.Mtime != want {
		t.Errorf("mtime %d after utimes to %d: %v", a.Mtime, int64(want), err)
	}
}

func TestInlineCandidateKeepsTheBlockSize(t *testing.T) {
	ctx := context.Background()
	a := newRig(t, 1, func(c *Config) { c.BlockLog, c.InlineMax = 15, -1 })
	h := a.create("f")
	a.write(h, strings.Repeat("x", 40000), 0)
	a.sync()
	b := startRig(t, 1, a.state, a.chunks, func(c *Config) { c.BlockLog = 14 })
	h = b.open("f", syscall.O_RDWR)
	if err := truncate(h, 10); err != nil {
		t.Fatal(err)
	}
	if err := b.prepare(ctx, h.in); err != nil {
		t.Fatal(err)
	}
	b.write(h, "z", 40000) // after the snapshot, in the second block of 32 KiB
	if err := b.settle(context.Background(), h.in); err != nil {
		t.Fatal(err)
	}
	want := strings.Repeat("x", 10) + strings.Repeat("\x00", 39990) + "z"
	if b.read(h) != want {
		t.Error("a write moved when an inline version was committed")
	}
	b.sync()
	if b.read(h) != want {
		t.Error("a write is elsewhere after sync")
	}
}

func TestFailedPrepareDoesNotBringBackCutBytes(t *testing.T) {
	ctx := context.Background()
	r := newRig(t, 1, smallBlocks)
	h := r.create("f")
	r.write(h, strings.Repeat("x", 40000), 0)
	if err := r.prepare(ctx, h.in); err != nil { // a candidate that waits for its flush
		t.Fatal(err)
	}
	for _, size := range []int64{0, 40000} {
		if err := truncate(h, size); err != nil {
			t.Fatal(err)
		}
	}
	r.write(h, "z", 16384)
	if err := r.sealDirty(ctx, h.in); err != nil {
		t.Fatal(err)
	}
	r.chunks.fail(syscall.ENOSPC, nil) // the block tree cannot be stored
	if err := r.prepare(ctx, h.in); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("prepare on a full store: %v", err)
	}
	r.chunks.fail(nil, nil)
	if err := r.settle(context.Background(), h.in); err != nil {
		t.Fatal(err)
	}
	if got := r.read(h); strings.Contains(got, "x") {
		t.Error("bytes that were cut off came back")
	}
}

func TestReloadRacingWithCommit(t *testing.T) {
	ctx := context.Background()
	r := newRig(t, 1, nil)
	h := r.create("f")
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				r.reload(h.in)
			}
		}
	}()
	for i := range 3000 {
		want := strings.Repeat(string(rune('a'+i%26)), 8)
		r.write(h, want, 0)
		if err := h.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		if got := r.read(h); got != want {
			t.Errorf("round %d: read %q after writing %q", i, got, want)
			break
		}
	}
	close(stop)
	<-done
}
