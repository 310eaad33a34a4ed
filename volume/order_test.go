package volume

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/foreverfs/forever/internal/kv"
)

// TestExchangeBringsContentAlong: a file is written, closed, and exchanged with another, in either order of their names: whatever a crash
// leaves of that, no name has a file that is still empty.
func TestExchangeBringsContentAlong(t *testing.T) {
	for _, names := range [][2]string{{"new", "f"}, {"f", "new"}} {
		r := newRig(t, 1, smallBlocks)
		r.queueMu.Lock() // nothing enters the tree by itself
		for _, name := range names {
			h := r.create(name)
			r.write(h, strings.Repeat(name, 10000), 0)
			must(t, h.Flush(ctx))
			h.Release()
		}
		must(t, r.Rename(ctx, RootIno, names[0], RootIno, names[1], RenameExchange))
		after := startRig(t, 1, r.state.(*kv.Mem).Snapshot().(*kv.Mem), r.chunks, smallBlocks)
		wantNames(t, map[string]string{"f": strings.Repeat("new", 10000), "new": strings.Repeat("f", 10000)}, after)
		r.queueMu.Unlock()
	}
}

// TestDirectoryBringsContentAlong: files are made in a directory, closed, and the directory is renamed.
func TestDirectoryBringsContentAlong(t *testing.T) {
	r := newRig(t, 1, smallBlocks)
	dir, err := r.Mkdir(ctx, Caller{}, RootIno, "new", 0755)
	must(t, err)
	_, h, err := r.Create(ctx, Caller{}, dir.Ino, "f", 0644, syscall.O_RDWR)
	must(t, err)
	r.write(h, "content", 0)
	must(t, h.Flush(ctx))
	h.Release()
	must(t, r.Rename(ctx, RootIno, "new", RootIno, "dir", 0))
	after := startRig(t, 1, r.state.(*kv.Mem).Snapshot().(*kv.Mem), r.chunks, smallBlocks)
	dir, err = after.Lookup(ctx, RootIno, "dir")
	must(t, err)
	a, err := after.Lookup(ctx, dir.Ino, "f")
	must(t, err)
	if a.Size != int64(len("content")) {
		t.Errorf("the file has %d bytes after a crash", a.Size)
	}
}

// TestFileThatIsHeldHoldsUpNoOther: a closed file cannot enter the tree, as somebody who holds it waits for the network; others that are
// closed do.
func TestFileThatIsHeldHoldsUpNoOther(t *testing.T) {
	r := newRig(t, 1, smallBlocks)
	closed := func(name string) *inode {
		h := r.create(name)
		r.write(h, "content", 0)
		must(t, h.Flush(ctx))
		return h.in
	}
	r.queueMu.Lock()
	held := closed("held")
	held.fold.Lock()
	r.queueMu.Unlock()
	time.Sleep(2 * closeDelay) // the committer is at it
	other := closed("other")
	for end := time.Now().Add(5 * time.Second); r.changedHere(other); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Error("a closed file does not enter the tree while another one is held")
			break
		}
	}
	if !r.changedHere(held) {
		t.Error("the file that is held was entered")
	}
	held.fold.Unlock()
	must(t, r.commitAll(ctx))
	if r.changedHere(held) {
		t.Error("the file that was held is not in the tree")
	}
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
