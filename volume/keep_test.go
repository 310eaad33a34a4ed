package volume

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/internal/kv"
)

var errAway = errors.New("nobody has the chunk")

// overAway writes a line behind a file of 10,000 bytes whose only block is on devices alone that are not to be reached.
func overAway(t *testing.T) (r *rig, h *Handle, want string) {
	a := newRig(t, 1, smallBlocks)
	h = a.create("f")
	a.write(h, strings.Repeat("x", 10000), 0)
	a.sync()
	r = startRig(t, 1, a.state, a.chunks, smallBlocks)
	r.chunks.fail(nil, errAway)
	r.chunks.sendAway()
	h = r.open("f", syscall.O_RDWR)
	r.write(h, "a line\n", 10000)
	return r, h, strings.Repeat("x", 10000) + "a line\n"
}

// wantAfterCrash fails unless a file has some content after a crash, with all chunks there again.
func wantAfterCrash(r *rig, name, want string) {
	r.t.Helper()
	again := startRig(r.t, 1, r.state.(*kv.Mem).Snapshot().(*kv.Mem), &memChunks{chunks: r.chunks.all()}, smallBlocks)
	if got := again.content(name); got != want {
		r.t.Errorf("after a crash the file has %d bytes, want %d; first difference at %d", len(got), len(want), firstDiff([]byte(got), []byte(want)))
	}
}

// TestOverAwayBlockIsKept: what is written over a block that cannot be had is safe from a crash all the same, and is sealed when the block is there.
func TestOverAwayBlockIsKept(t *testing.T) {
	for name, end := range map[string]func(*rig, *Handle) error{
		"closed":    func(_ *rig, h *Handle) error { return h.Flush(ctx) },
		"published": func(r *rig, h *Handle) error { return r.flush(ctx, h.in) },
		"ended":     func(r *rig, _ *Handle) error { return r.Close() },
		"cut": func(r *rig, h *Handle) error { // to what else is kept in its op
			h.Release()
			_, err := r.Setattr(ctx, h.Ino(), SetAttr{Valid: SetSize, Size: 9999})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, h, want := overAway(t)
			must(t, end(r, h))
			if name == "cut" {
				want = want[:9999]
			}
			wantAfterCrash(r, "f", want)
			if name != "ended" {
				r.chunks.fail(nil, nil)
				r.sync()
				if r.changedHere(h.in) {
					t.Error("not in the tree when the block is there")
				}
			}
		})
	}
}

// TestFlushOfWhoIsKilled: the close of a program that a signal has ended is like any other, if it waits for nobody.
func TestFlushOfWhoIsKilled(t *testing.T) {
	r := newRig(t, 1, smallBlocks)
	h := r.create("f")
	r.write(h, strings.Repeat("x", 10_000), 0)
	killed, kill := context.WithCancel(ctx)
	kill()
	must(t, h.Flush(killed))
	h.in.mu.RLock()
	defer h.in.mu.RUnlock()
	if h.in.ready == nil || h.in.journals {
		t.Errorf("sealed: %v, journalled: %v", h.in.ready != nil, h.in.journals)
	}
}

// TestKeptIsNotWaitedFor: nobody waits for what is in the journal only, neither another mount that is to see all that was closed, or locks the
// file, nor what is done here.
func TestKeptIsNotWaitedFor(t *testing.T) {
	r, h, want := overAway(t)
	must(t, h.Flush(ctx))
	h.Release()
	other := r.create("other")
	r.write(other, "other", 0)
	must(t, other.Flush(ctx))
	_, _, err := r.Publish(ctx, false)
	must(t, err)
	if r.changedHere(other.in) || !r.changedHere(h.in) {
		t.Errorf("published, and not in the tree: what can be sealed %v, what cannot %v", r.changedHere(other.in), r.changedHere(h.in))
	}
	_, err = r.PublishFile(ctx, h.in.id)
	must(t, err)
	must(t, r.commitQueue(ctx)) // as the close of another file does
	must(t, r.Rename(ctx, RootIno, "f", RootIno, "g", 0))
	h = r.open("g", syscall.O_RDWR)
	r.write(h, "a line\n", int64(len(want)))
	want += "a line\n"
	must(t, h.Flush(ctx))
	wantAfterCrash(r, "g", want)
	r.chunks.fail(nil, nil)
	_, err = r.PublishFile(ctx, h.in.id)
	must(t, err)
	if r.changedHere(h.in) || r.content("g") != want {
		t.Error("published, and not in the tree")
	}
}

// TestPublishDoesNotWaitForSlowBlocks: what waits for the network for long is left out, so that another mount is not out of step in all else.
func TestPublishDoesNotWaitForSlowBlocks(t *testing.T) {
	before := newRig(t, 1, smallBlocks)
	h := before.create("f")
	before.write(h, strings.Repeat("x", 10000), 0)
	before.sync()
	stuck := stuckChunks{before.chunks, make(chan struct{})}
	r := startRig(t, 1, before.state, before.chunks, func(c *Config) {
		smallBlocks(c)
		c.Chunks = stuck
	})
	answer := sync.OnceFunc(func() { close(stuck.answer) })
	t.Cleanup(answer) // else the volume would not close
	h = r.open("f", syscall.O_RDWR)
	r.write(h, "a line\n", 10000)
	must(t, h.Fsync(ctx))
	must(t, h.Flush(ctx)) // to be sealed soon, as what lies below is still here
	r.chunks.sendAway()
	published := make(chan error, 1)
	go func() {
		_, _, err := r.Publish(ctx, false)
		published <- err
	}()
	select {
	case err := <-published:
		must(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("not published within 10s")
	}
	if !r.changedHere(h.in) {
		t.Error("in the tree, without what lies below")
	}
	answer()
	r.sync()
	if r.changedHere(h.in) || !strings.HasSuffix(r.content("f"), "a line\n") {
		t.Error("not in the tree, though all of it is here")
	}
}

// TestFullStoreLosesNothing: that the store is full is reported, and what was written is safe all the same, as long as there is room for it.
func TestFullStoreLosesNothing(t *testing.T) {
	free := uint64(1 << 39)
	r := newRig(t, 1, func(c *Config) {
		smallBlocks(c)
		c.DiskUsage = func() (uint64, uint64, error) { return 1 << 40, free, nil }
	})
	h := r.create("f")
	want := strings.Repeat("0123456789", 100<<10)
	r.chunks.fail(syscall.ENOSPC, nil)
	r.write(h, want, 0)
	free = keepFree + 1<<20
	r.looked.Store(nil) // what was seen a moment ago would count
	if err := h.Flush(ctx); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("flush: %v, want ENOSPC", err)
	}
	wantAfterCrash(r, "f", "")
	free = keepFree + 1<<30
	r.looked.Store(nil)
	if err := h.Flush(ctx); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("flush: %v, want ENOSPC", err)
	}
	wantAfterCrash(r, "f", want)
}

// TestReaderClosesBesideAFullStore: who has only read a file is not told that what another writes to it cannot be stored.
func TestReaderClosesBesideAFullStore(t *testing.T) {
	r := newRig(t, 1, smallBlocks)
	w := r.create("f")
	r.chunks.fail(syscall.ENOSPC, nil)
	r.write(w, strings.Repeat("x", 1<<14), 0)
	h := r.open("f", syscall.O_RDONLY)
	if err := h.Flush(ctx); err != nil {
		t.Errorf("close of a reader: %v", err)
	}
	if err := w.Flush(ctx); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("close of the writer: %v, want ENOSPC", err)
	}
	cut := r.open("f", syscall.O_RDONLY|syscall.O_TRUNC)
	r.write(w, "y", 0)
	if err := cut.Flush(ctx); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("close of one that has cut the file: %v, want ENOSPC", err)
	}
}

// TestWrittenBackWithoutRoom: what comes from a mapping is taken on a full disk, but takes nothing of what is kept there: it is stored when there
// is room.
func TestWrittenBackWithoutRoom(t *testing.T) {
	for _, size := range []int{100, 10_000, 40_000} { // kept in its op, journalled, sealed
		var free atomic.Uint64
		free.Store(1 << 39)
		r := newRig(t, 1, func(c *Config) {
			smallBlocks(c)
			c.InlineMax = 256
			c.DiskUsage = func() (uint64, uint64, error) { return 1 << 40, free.Load(), nil }
		})
		set := func(n uint64) { free.Store(n); r.looked.Store(nil) } // what was seen a moment ago would count
		h := r.create("f")
		old, text := strings.Repeat("x", size), strings.Repeat("y", size)
		r.write(h, old, 0)
		must(t, h.Fsync(ctx))
		set(keepFree - 1)
		if _, err := h.Write(ctx, []byte("z"), 0); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("write: %v, want ENOSPC", err)
		}
		if _, err := h.WriteBack(ctx, []byte(text), 0); err != nil {
			t.Errorf("%d bytes from a mapping: %v", size, err)
		}
		for name, err := range map[string]error{"fsync": h.Fsync(ctx), "close": h.Flush(ctx), "publish": r.flush(ctx, h.in), "again": h.Fsync(ctx)} {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%s of %d bytes: %v, want ENOSPC", name, size, err)
			}
		}
		wantAfterCrash(r, "f", old)
		set(1 << 39)
		must(t, h.Fsync(ctx))
		wantAfterCrash(r, "f", text)
	}
}

// TestKeptTakesNoMoreThanTheFile: what is written over and over while it cannot be sealed is not in the journal over and over.
func TestKeptTakesNoMoreThanTheFile(t *testing.T) {
	r, h, want := overAway(t)
	records := func() (n int) {
		must(t, r.state.Scan([]byte{journalPrefix}, kv.PrefixEnd([]byte{journalPrefix}), func(_, _ []byte) bool { n++; return true }))
		return n
	}
	for range 2 {
		must(t, r.flush(ctx, h.in))
		r.write(h, "another\n", 10000)
	}
	must(t, r.flush(ctx, h.in))
	must(t, r.flush(ctx, h.in)) // with nothing new
	if n := records(); n != 3 {
		t.Errorf("%d records of three changes", n)
	}
	h.in.recorded.Store(putOffBytes)
	must(t, r.flush(ctx, h.in))
	if n := records(); n != 1 {
		t.Errorf("%d records of what fits into one", n)
	}
	wantAfterCrash(r, "f", want[:10000]+"another\n")
}

// TestWholeFileIsJournalled: whatever was done to a file, sealed or not, or behind it, is in its records.
func TestWholeFileIsJournalled(t *testing.T) {
	seed := time.Now().UnixNano()
	e := newExerciser(t, seed)
	for round := range 40 {
		for range e.rnd.IntN(12) {
			must(t, e.step())
		}
		in := e.h.in
		if e.rnd.IntN(2) == 0 {
			must(t, e.r.sealDirty(ctx, in))
		}
		in.fold.Lock()
		must(t, e.r.commitReady(in))
		if e.r.changedHere(in) {
			if done, err := e.r.journalWhole(in); !done || err != nil {
				t.Fatalf("not journalled: %v", err)
			}
		}
		wantAfterCrash(e.r, "f", string(e.want))
		in.fold.Unlock()
		if t.Failed() {
			t.Fatalf("seed %d, round %d:\n%s", seed, round, e.last(30))
		}
	}
}

// TestRecordsLieOnWhatIsDurable: a base that was made anew and is only stored is flushed before the records that lie on it are written.
func TestRecordsLieOnWhatIsDurable(t *testing.T) {
	r := newRig(t, 1, smallBlocks)
	h := r.create("f")
	r.write(h, strings.Repeat("x", 100_000), 0)
	r.sync()
	must(t, h.Allocate(ctx, 1<<14, 1<<14, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE))
	r.write(h, "more", 0)
	must(t, r.flushNamed())
	syncs := r.chunks.syncs
	h.in.fold.Lock()
	done, err := r.journalWhole(h.in)
	h.in.fold.Unlock()
	must(t, err)
	must(t, r.flushNamed()) // as the state does before it writes to its log
	if !done || r.chunks.syncs == syncs {
		t.Errorf("journalled: %v; the store was flushed %d times", done, r.chunks.syncs-syncs)
	}
}
