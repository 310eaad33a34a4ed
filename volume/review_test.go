package volume

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/foreverfs/forever/chunk"
)

// smallBlocks makes files of a few KiB have several blocks and none inline.
func smallBlocks(c *Config) { c.BlockLog, c.InlineMax = 14, -1 }

// hookChunks calls put before the next Put, once.
type hookChunks struct {
	*memChunks
	put atomic.Pointer[func()]
}

func (h *hookChunks) Put(ctx context.Context, sealed []byte) (chunk.ID, error) {
	if fn := h.put.Swap(nil); fn != nil {
		(*fn)()
	}
	return h.memChunks.Put(ctx, sealed)
}

func TestJournalOfReopenedFileKeepsTheRest(t *testing.T) {
	a := newRig(t, 1, smallBlocks)
	h := a.create("f")
	a.write(h, strings.Repeat("x", 50000), 0)
	if err := h.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	h.Release()
	a.sync()
	b := startRig(t, 1, a.state, a.chunks, smallBlocks)
	h = b.open("f", syscall.O_RDWR)
	b.write(h, "new", 100)
	if err := h.Fsync(context.Background()); err != nil {
		t.Fatal(err)
	}
	c := startRig(t, 1, a.state, a.chunks, smallBlocks)
	want := strings.Repeat("x", 100) + "new" + strings.Repeat("x", 50000-103)
	if got := c.content("f"); got != want {
		t.Errorf("after replay %d bytes differ from the %d written (first byte %q)", len(got), len(want), got[0])
	}
}

func TestJournalAfterRemoteGrowthKeepsIt(t *testing.T) {
	a, b := newRig(t, 1, smallBlocks), newRig(t, 2, smallBlocks)
	h := a.create("f")
	a.write(h, strings.Repeat("x", 100), 0)
	exchange(a, b)
	hb := b.open("f", syscall.O_RDWR)
	b.write(hb, strings.Repeat("y", 50000), 0)
	exchange(a, b)
	a.write(h, "new", 0)
	if err := h.Fsync(context.Background()); err != nil {
		t.Fatal(err)
	}
	c := startRig(t, 1, a.state, a.chunks, smallBlocks)
	if got, want := c.content("f"), "new"+strings.Repeat("y", 49997); got != want {
		t.Errorf("after replay %d bytes differ from the %d written", len(got), len(want))
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
		if err := h.Truncate(ctx, size); err != nil {
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

func TestWriteDoesNotSpinWhileAnotherFileCannotBeSealed(t *testing.T) {
	ctx := context.Background()
	change := func(c *Config) { smallBlocks(c); c.DirtyMax = 1 << 10 }
	a := newRig(t, 1, change)
	h := a.create("f")
	a.write(h, strings.Repeat("x", 16384), 0)
	other := a.create("g")
	a.sync()
	b := startRig(t, 1, a.state, a.chunks, change)
	h, other = b.open("f", syscall.O_RDWR), b.open("g", syscall.O_RDWR)
	away := errors.New("nobody has the chunk")
	b.chunks.fail(nil, away)
	b.write(h, strings.Repeat("y", 2000), 7)
	done := make(chan error, 1)
	go func() {
		_, err := other.Write(ctx, []byte("z"), 0)
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, away) {
			t.Errorf("write while memory is full of what cannot be sealed: %v", err)
		}
	case <-time.After(3 * time.Second):
		t.Error("a write spins without end")
		b.chunks.fail(nil, nil)
		<-done
	}
	b.chunks.fail(nil, nil)
}

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

func TestWriteOfNothingAndWriteFarOut(t *testing.T) {
	r := newRig(t, 1, nil)
	h := r.create("f")
	r.write(h, "", 100)
	if a, err := r.Getattr(context.Background(), h.Ino()); err != nil || a.Size != 0 {
		t.Errorf("a write of no bytes made the size %d: %v", a.Size, err)
	}
	if _, err := h.Write(context.Background(), []byte("xy"), 1<<63-2); !errors.Is(err, ErrTooLarge) {
		t.Errorf("write at the end of all offsets: %v", err)
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
	if err := h.Truncate(ctx, 10); err != nil {
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

func TestReplayNeverMixesWithAnotherEdit(t *testing.T) {
	a, b := newRig(t, 1, smallBlocks), newRig(t, 2, smallBlocks)
	h := a.create("f")
	a.write(h, strings.Repeat("x", 50000), 0)
	exchange(a, b)
	a.write(h, "mine", 0)
	if err := h.Fsync(context.Background()); err != nil {
		t.Fatal(err)
	}
	hb := b.open("f", syscall.O_RDWR)
	b.write(hb, strings.Repeat("y", 50000), 0)
	b.sync()
	a.chunks.addAll(b.chunks.all())
	give(b, a)
	c := startRig(t, 1, a.state, a.chunks, smallBlocks)
	if got := c.content("f"); strings.Contains(got, "mine") && strings.Contains(got, "y") {
		t.Error("the journalled write was laid over somebody else's edit")
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

func TestCommitAllWaitsForWhoHoldsAFile(t *testing.T) {
	ctx := context.Background()
	r := newRig(t, 1, smallBlocks)
	h := r.create("f")
	for queued := false; !queued; { // else the committer was done with it already
		r.write(h, "data", 0)
		if err := h.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		h.in.fold.Lock() // so that nobody can enter what is queued
		if queued = r.changedHere(h.in); !queued {
			h.in.fold.Unlock()
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.commitAll(ctx); err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-done:
		t.Error("the queue counts as committed while somebody is still at a file in it")
	case <-time.After(50 * time.Millisecond):
	}
	h.in.fold.Unlock()
	<-done
	if r.changedHere(h.in) {
		t.Error("content is not in the tree after the queue was committed")
	}
}
