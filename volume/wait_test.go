package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/internal/kv"
)

// sealers are operations that seal what was written to the file 0, which h has open.
var sealers = map[string]func(ctx context.Context, r *rig, h *Handle) error{
	"fsync": func(ctx context.Context, _ *rig, h *Handle) error { return h.Fsync(ctx) },
	"close": func(ctx context.Context, _ *rig, h *Handle) error { return h.Flush(ctx) },
	"unlock": func(ctx context.Context, r *rig, h *Handle) error {
		_, err := r.PublishFile(ctx, h.in.id)
		return err
	},
	"punch": func(ctx context.Context, _ *rig, h *Handle) error {
		return h.Allocate(ctx, 1<<14, 1<<14, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE)
	},
	"copy": func(ctx context.Context, r *rig, h *Handle) error {
		_, err := r.Copy(ctx, h, 0, r.create("copy"), 0, 2<<14)
		return err
	},
}

// TestWhoWaitsForTheNetworkHoldsUpNoOther: while an operation waits for what lies below what was written to a file, others of the same file
// that need nothing of that go on, and what is written meanwhile can be journalled.
func TestWhoWaitsForTheNetworkHoldsUpNoOther(t *testing.T) {
	for name, op := range sealers {
		t.Run(name, func(t *testing.T) {
			r, answer := stuckRig(t, 1, nil)
			r.cfg.DirtyMax = 1 // more than is journalled instead
			h := r.open("0", syscall.O_RDWR)
			r.write(h, strings.Repeat("b", 1<<14), 1<<14)
			await(t, "a full block is not sealed", func(in *inode) bool { return len(in.sealed) == 1 }, h)
			r.write(h, "part", 0)
			opCtx, wait := r.WithWait(ctx)
			done := make(chan error, 1)
			go func() { done <- op(opCtx, r, h) }()
			await(t, "it does not wait", func(*inode) bool { return wait.Far(0) }, h)
			await(t, "the file is held", func(in *inode) bool {
				free := in.fold.TryLock()
				if free {
					in.fold.Unlock()
				}
				return free
			}, h)
			select {
			case err := <-done:
				t.Errorf("done without what it needs: %v", err)
			default:
			}
			answer()
			must(t, <-done)
		})
	}
}

// TestWaitForAFileEndsWithItsContext: who waits for somebody else to be done with a file can be interrupted.
func TestWaitForAFileEndsWithItsContext(t *testing.T) {
	for name, op := range sealers {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1, smallBlocks)
			h := r.create("0")
			r.write(h, strings.Repeat("x", 3<<14), 0)
			h.in.fold.Lock()
			defer h.in.fold.Unlock()
			waits := make(chan struct{}, 1)
			opCtx, cancel := context.WithCancel(WithBeforeWait(ctx, func() { wake(waits) }))
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- op(opCtx, r, h) }()
			within(t, waits, "it does not wait")
			cancel()
			if err := within(t, done, "not interrupted"); !errors.Is(err, context.Canceled) {
				t.Errorf("interrupted: %v", err)
			}
		})
	}
}

// TestStartDoesNotWaitForTheNetwork: what the journal holds over blocks that are not here is brought into the tree when they can be had, not
// before the volume is there.
func TestStartDoesNotWaitForTheNetwork(t *testing.T) {
	for name, write := range map[string]string{"part of a block": "part", "a block": strings.Repeat("b", 1<<14)} {
		t.Run(name, func(t *testing.T) {
			r, answer := stuckRig(t, 3, nil)
			want := write + strings.Repeat("x", 3<<14-len(write))
			for _, name := range []string{"0", "1", "2"} {
				h := r.open(name, syscall.O_RDWR)
				r.write(h, write, 0)
				must(t, r.keepUnsealed(ctx, h.in, errAway))
			}
			started := make(chan *rig, 1)
			go func() {
				started <- startRig(t, 1, r.state.(*kv.Mem).Snapshot().(*kv.Mem), r.chunks, func(c *Config) {
					smallBlocks(c)
					c.Chunks = r.cfg.Chunks
				})
			}()
			again := within(t, started, "it waits")
			if !again.allSaved() {
				t.Error("what the journal holds is to be journalled again")
			}
			answer()
			again.sync()
			if got := again.content("1"); got != want || again.journalled() != 0 {
				t.Errorf("%d bytes, %d records; first difference at %d", len(got), again.journalled(), firstDiff([]byte(got), []byte(want)))
			}
		})
	}
}

// TestEndDoesNotWaitForEveryFile: a volume that ends waits a moment for what files lie over, of all together, and keeps in the journal what it
// cannot seal; what needs nothing of others is in the tree.
func TestEndDoesNotWaitForEveryFile(t *testing.T) {
	r, _ := stuckRig(t, 4, nil)
	closed := r.open("3", syscall.O_RDWR)
	r.write(closed, "part", 0)
	must(t, r.keepUnsealed(ctx, closed.in, errAway))
	if !r.closedUnsealed(closed.in) {
		t.Fatal("not in the journal")
	}
	r.setFailed(waiting{in: closed.in})
	for i, write := range []string{"part", strings.Repeat("b", 1<<14), "part"} {
		r.write(r.open(fmt.Sprint(i), syscall.O_RDWR), write, 0)
	}
	other := r.create("other")
	r.write(other, strings.Repeat("o", 3<<14), 0)
	saved := make(chan error, 1)
	go func() { saved <- r.SaveAll(ctx) }()
	must(t, within(t, saved, "it waits"))
	if r.changedHere(other.in) {
		t.Error("what needs nothing of others is not in the tree")
	}
	for _, name := range []string{"0", "2", "3"} {
		wantAfterCrash(r, name, "part"+strings.Repeat("x", 3<<14-4))
	}
	wantAfterCrash(r, "1", strings.Repeat("b", 1<<14)+strings.Repeat("x", 2<<14))
}

// TestAllWaitsForFilesAtOnce: who is to have everything in the tree waits for the network once for many files, not for one after the other.
func TestAllWaitsForFilesAtOnce(t *testing.T) {
	r, answer := stuckRig(t, maxAside, nil)
	var waits []*Handle
	for i := range maxAside {
		waits = append(waits, r.open(fmt.Sprint(i), syscall.O_RDWR))
		r.write(waits[i], "part", 0)
	}
	synced := make(chan error, 1)
	go func() { synced <- r.SyncAll(ctx) }()
	await(t, "it waits for another one first", (*inode).saved, waits...) // which is done before the wait
	answer()
	must(t, within(t, synced, "it waits for what is there"))
	for _, h := range waits {
		if r.changedHere(h.in) {
			t.Error("not in the tree")
		}
	}
}

// TestFsyncIsDurableWithoutTheNetwork: an fsync waits a moment for what lies below what was written, and then makes it durable in the journal: the
// kernel holds the file as long, and nobody who wants to write to it, rename it or cut it can be killed meanwhile.
func TestFsyncIsDurableWithoutTheNetwork(t *testing.T) {
	r, answer := stuckRig(t, 1, nil)
	h := r.open("0", syscall.O_RDWR)
	want := strings.Repeat("b", 1<<14) + "part" + strings.Repeat("x", 2<<14-4)
	r.write(h, want[:1<<14], 0)
	await(t, "a full block is not sealed", func(in *inode) bool { return len(in.sealed) == 1 }, h)
	r.write(h, "part", 1<<14)
	synced := make(chan error, 1)
	go func() { synced <- h.Fsync(ctx) }()
	must(t, within(t, synced, "it waits"))
	wantAfterCrash(r, "0", want)

	r.write(h, "more", 1<<14)
	r.cfg.DirtyMax = 1 // more than is journalled
	opCtx, wait := r.WithWait(ctx)
	go func() { synced <- h.Fsync(opCtx) }()
	await(t, "it does not wait", func(*inode) bool { return wait.Far(saveFor + 100*time.Millisecond) }, h)
	answer()
	must(t, within(t, synced, "it waits for what is there"))
	if r.changedHere(h.in) {
		t.Error("neither in the journal nor in the tree")
	}
}

// within returns what ch delivers, which must be soon.
func within[T any](t *testing.T, ch <-chan T, failure string) (got T) {
	t.Helper()
	select {
	case got = <-ch:
	case <-time.After(30 * time.Second):
		t.Fatal(failure)
	}
	return got
}
