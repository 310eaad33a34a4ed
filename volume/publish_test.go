package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
)

// TestPublishedAnIntervalAfterTheFirstChange: a file that is opened, written and closed within the interval
// is published once, whole, however long ago it was last, or if it never was.
func TestPublishedAnIntervalAfterTheFirstChange(t *testing.T) {
	var minutes atomic.Int64
	minutes.Store(100_000)
	r := newRig(t, 1, func(c *Config) { // which publishes every hour of this clock, when it is asked to
		c.Uptime = func() time.Duration { return time.Duration(minutes.Load()) * time.Minute }
	})
	h := r.create("f")
	r.write(h, "half of ", 0)
	look := func() (published bool) {
		if err := r.publishDue(h.in); err != nil {
			t.Fatal(err)
		}
		h.in.mu.RLock()
		defer h.in.mu.RUnlock()
		return !h.in.changed || h.in.ready != nil
	}
	minutes.Add(59)
	if look() {
		t.Fatal("published before the interval is over")
	}
	minutes.Add(1)
	if !look() {
		t.Fatal("not published when the interval is over")
	}
	r.sync()
	minutes.Add(10_000)
	r.write(h, "the content", 0)
	if look() {
		t.Fatal("published again before the interval is over")
	}
}

// TestClockThatIsSetBackDelaysNothing: neither of a file that was published before nor of one that was changed before.
func TestClockThatIsSetBackDelaysNothing(t *testing.T) {
	var step atomic.Int64
	r := newRig(t, 1, func(c *Config) {
		c.PublishInterval = 10 * time.Millisecond
		c.Now = func() time.Time { return time.Now().Add(time.Duration(step.Load())) }
	})
	published, changed := r.create("published"), r.create("changed")
	r.write(published, "before", 0)
	must(t, r.flush(ctx, published.in))
	r.write(changed, "before", 0)
	step.Store(-int64(time.Hour))
	r.write(published, "after", 0)
	for end := time.Now().Add(5 * time.Second); r.changedHere(published.in) || r.changedHere(changed.in); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not published after the clock was set back")
		}
	}
}

// stuckChunks are chunks of which those that are away are on a device that does not answer until it is let to.
type stuckChunks struct {
	*memChunks
	answer chan struct{}
}

func (s stuckChunks) Get(ctx context.Context, dst []byte, id chunk.ID) ([]byte, error) {
	if !s.Local(id) {
		select {
		case <-s.answer:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return s.memChunks.Get(ctx, dst, id)
}

func (s stuckChunks) Local(id chunk.ID) bool {
	select {
	case <-s.answer:
		return true
	default:
		return s.memChunks.Local(id)
	}
}

// stuckRig has the content of files, three blocks of one character each, on a device that does not answer before answer is called.
func stuckRig(t *testing.T, files int, change func(*Config)) (r *rig, answer func()) {
	before := newRig(t, 1, smallBlocks)
	for i := range files {
		h := before.create(fmt.Sprint(i))
		before.write(h, strings.Repeat("x", 3<<14), 0)
	}
	before.sync()
	before.chunks.sendAway()
	stuck := stuckChunks{before.chunks, make(chan struct{})}
	r = startRig(t, 1, before.state, before.chunks, func(c *Config) {
		smallBlocks(c)
		c.Chunks = stuck
		if change != nil {
			change(c)
		}
	})
	answer = sync.OnceFunc(func() { close(stuck.answer) })
	t.Cleanup(answer) // else the volume would not close
	return r, answer
}

// await fails unless something soon holds of the files of all handles.
func await(t *testing.T, failure string, is func(in *inode) bool, list ...*Handle) {
	t.Helper()
	end := time.Now().Add(30 * time.Second)
	for _, h := range list {
		for ok := false; !ok; time.Sleep(time.Millisecond) {
			h.in.mu.RLock()
			ok = is(h.in)
			h.in.mu.RUnlock()
			if !ok && time.Now().After(end) {
				t.Fatal(failure)
			}
		}
	}
}

// TestFileThatWaitsHoldsUpNoOther: a file that lies over blocks, or below nodes, which are waited for keeps no other one from being published,
// and what is written to it meanwhile is journalled, also if there are too many such files.
func TestFileThatWaitsHoldsUpNoOther(t *testing.T) {
	for name, write := range map[string]string{"part of a block": "part", "a block": strings.Repeat("b", 1<<14)} {
		t.Run(name, func(t *testing.T) {
			const files = 2 * maxAside
			r, answer := stuckRig(t, files, func(c *Config) { c.PublishInterval = 10 * time.Millisecond })
			var waits []*Handle
			for i := range files {
				waits = append(waits, r.open(fmt.Sprint(i), syscall.O_RDWR))
				r.write(waits[i], write, 1<<14)
			}
			inTree := func(in *inode) bool { return !in.changed }
			await(t, "what waits is not journalled", (*inode).saved, waits...)
			for _, h := range waits {
				r.write(h, "then", 0)
			}
			other := r.create("other")
			r.write(other, "content", 0)
			await(t, "a file that need not wait is not published", inTree, other)
			await(t, "what is written to a file that waits is not journalled", (*inode).saved, waits...)
			x := strings.Repeat("x", 3<<14)
			wantAfterCrash(r, "7", "then"+x[4:1<<14]+write+x[1<<14+len(write):])
			answer()
			await(t, "not published after the wait", inTree, waits...)
		})
	}
}

// TestLargeFileHoldsUpNoOther: while the many blocks of a file are sealed that is written all over, others are published, and what was written
// to it before is journalled.
func TestLargeFileHoldsUpNoOther(t *testing.T) {
	chunks := &hookChunks{memChunks: newMemChunks()}
	r := startRig(t, 1, kv.NewMem(), chunks.memChunks, func(c *Config) {
		smallBlocks(c)
		c.Chunks, c.PublishInterval = chunks, 10*time.Millisecond
	})
	sealing, goOn := make(chan struct{}), make(chan struct{})
	hook := func() {
		close(sealing)
		<-goOn
	}
	t.Cleanup(func() { close(goOn) }) // else the volume would not close
	chunks.put.Store(&hook)
	large, other := r.create("large"), r.create("other")
	for i := range int64(closeBlocks + 1) {
		r.write(large, "x", i<<14)
	}
	within(t, sealing, "not published")
	r.write(other, "content", 0)
	await(t, "a small file is not published while a large one is sealed", func(in *inode) bool { return !in.changed }, other)
	if r.journalled() == 0 {
		t.Error("what was written to the large file is not in the journal")
	}
}

// TestJournalledIsSealedAfterClose: what an fsync has journalled does not make its close wait, nor is it sealed if it
// is removed before; and yet every close is a version of its own, and there for whoever is let in to watch.
func TestJournalledIsSealedAfterClose(t *testing.T) {
	ctx := context.Background()
	// closed makes a file durable and closes it; the queue stands still until the test lets it go on.
	closed := func(r *rig) (h *Handle, goOn func()) {
		h = r.create("f")
		r.write(h, strings.Repeat("durable ", 1000), 0)
		must(t, h.Fsync(ctx))
		r.queueMu.Lock()
		must(t, h.Flush(ctx))
		return h, r.queueMu.Unlock
	}
	inTree := func(r *rig, h *Handle) int64 {
		n, err := r.node(h.in)
		must(t, err)
		return n.Content.Size
	}

	t.Run("not at once", func(t *testing.T) {
		r := newRig(t, 1, nil)
		h, goOn := closed(r)
		if n := len(r.chunks.all()); n != 0 {
			t.Errorf("the close sealed %d chunks", n)
		}
		goOn()
		_, _, err := r.Publish(ctx, false)
		must(t, err)
		if inTree(r, h) != 8000 {
			t.Error("closed, published, and not in the tree")
		}
	})
	t.Run("later than others", func(t *testing.T) {
		r := newRig(t, 1, nil)
		_, goOn := closed(r)
		defer goOn()
		if !r.mayFoldLater() {
			t.Error("what is durable and only here is sealed in a hurry")
		}
		h := r.create("g")
		r.write(h, strings.Repeat("soon ", 1000), 0)
		must(t, h.Flush(ctx))
		if r.mayFoldLater() {
			t.Error("what is sealed already waits for what is journalled")
		}
	})
	t.Run("as soon as others while somebody else is connected", func(t *testing.T) {
		if r, _ := peered(t); r.mayFoldLater() {
			t.Error("others wait for it")
		}
	})
	t.Run("removed", func(t *testing.T) {
		r := newRig(t, 1, nil)
		h, goOn := closed(r)
		h.Release()
		must(t, r.Unlink(ctx, RootIno, "f"))
		goOn()
		must(t, r.Close())
		if n := len(r.chunks.all()); n != 0 {
			t.Errorf("%d chunks of a file that is gone", n)
		}
	})
	t.Run("opened again", func(t *testing.T) {
		r := newRig(t, 1, nil)
		h, goOn := closed(r)
		defer goOn()
		r.open("f", syscall.O_WRONLY|syscall.O_TRUNC)
		if inTree(r, h) != 8000 {
			t.Error("what was closed is not in the tree when the next writer begins")
		}
	})
	t.Run("opened again, and given another time, without others waiting for that", func(t *testing.T) {
		for name, op := range map[string]func(ctx context.Context, r *rig, ino uint64) error{
			"open": func(ctx context.Context, r *rig, ino uint64) error {
				h, err := r.Open(ctx, ino, syscall.O_WRONLY)
				t.Cleanup(h.Release)
				return err
			},
			"setattr": func(ctx context.Context, r *rig, ino uint64) error {
				_, err := r.Setattr(ctx, ino, SetAttr{Valid: SetMtime, Mtime: 12345})
				return err
			},
		} {
			r := newRig(t, 1, nil)
			h, goOn := closed(r)
			told := false
			must(t, op(WithBeforeWait(ctx, func() { told = true }), r, h.Ino()))
			goOn()
			if !told {
				t.Errorf("%s seals a file, and nobody takes over what else is asked meanwhile", name)
			}
		}
	})
	t.Run("opened again when the store is full", func(t *testing.T) {
		r := newRig(t, 1, nil)
		_, goOn := closed(r)
		defer goOn()
		r.chunks.fail(syscall.ENOSPC, nil)
		r.open("f", syscall.O_WRONLY|syscall.O_TRUNC) // which may be what makes room
		r.chunks.fail(nil, nil)
	})
	t.Run("renamed", func(t *testing.T) {
		r := newRig(t, 1, nil)
		h, goOn := closed(r)
		defer goOn()
		must(t, r.Rename(ctx, RootIno, "f", RootIno, "g", 0))
		if inTree(r, h) != 8000 {
			t.Error("the rename overtook the content")
		}
	})
	t.Run("published when the store is full, and again", func(t *testing.T) {
		r := newRig(t, 1, nil)
		h := r.create("f")
		r.write(h, strings.Repeat("durable ", 1000), 0)
		must(t, h.Fsync(ctx))
		r.chunks.fail(syscall.ENOSPC, nil)
		must(t, h.Flush(ctx))
		for range 2 {
			if _, _, err := r.Publish(ctx, false); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("published what is not in the tree: %v", err)
			}
		}
		must(t, r.commitQueue(ctx)) // as the close of another file does
		r.chunks.fail(nil, nil)
		_, _, err := r.Publish(ctx, false)
		must(t, err)
		if inTree(r, h) != 8000 {
			t.Error("closed, published, and not in the tree")
		}
	})
	t.Run("given another time", func(t *testing.T) {
		state, chunks := kv.NewMem(), newMemChunks()
		r := startRig(t, 1, state, chunks, nil)
		h, goOn := closed(r)
		defer goOn()
		h.Release()
		_, err := r.Setattr(ctx, h.Ino(), SetAttr{Valid: SetMtime, Mtime: 12345})
		must(t, err)
		must(t, r.FsyncDir(ctx, RootIno))
		r.Volume.stop() // and nothing else, as if killed
		r = startRig(t, 1, state, chunks, nil)
		a, err := r.Lookup(ctx, RootIno, "f")
		must(t, err)
		if a.Mtime != 12345 || a.Size != 8000 {
			t.Errorf("modified at %d, %d bytes after a crash", a.Mtime, a.Size)
		}
	})
	t.Run("watched", func(t *testing.T) {
		r, p := peered(t)
		h := r.create("f")
		r.write(h, strings.Repeat("durable ", 1000), 0)
		must(t, h.Fsync(ctx))
		p.take()
		p.onAwait = func(uint64) {
			if inTree(r, h) != 8000 {
				t.Error("who was waited for does not see the content")
			}
		}
		must(t, h.Flush(ctx))
		if len(p.take()) != 1 {
			t.Error("nobody was waited for")
		}
	})
	t.Run("far away", func(t *testing.T) { // a close that waits for the network is better than a queue that does
		r := newRig(t, 1, nil)
		h := r.create("f")
		r.write(h, strings.Repeat("0123456", 30000), 0)
		must(t, h.Flush(ctx))
		r.sync()
		r.write(h, "changed", 70000)
		must(t, h.Fsync(ctx))
		r.cache = newBlockCache(1<<20, r.loadChunk)
		r.chunks.sendAway()
		if r.sealsLater(h.in) {
			t.Error("the queue would wait for the network")
		}
	})
}
