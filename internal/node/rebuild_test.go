package node

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/foreverfs/forever/casstore"
	"github.com/foreverfs/forever/volume"
)

// smallNode opens a node on a disk of its own, of 128 MiB.
func smallNode(t *testing.T) (n *Node, disk string) {
	t.Helper()
	disk = t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=128m"); err != nil {
		t.Skipf("no tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	cfg := testConfig(t, filepath.Join(disk, "data"))
	cfg.Checkpoints.Tick = time.Hour // the node's own work would clear away what the test's has under way
	if _, err := Create(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	return mustOpen(t, cfg), disk
}

// fillUp takes all of the disk but what chunks leave free and so many bytes more, and returns what gives it back.
func fillUp(t *testing.T, n *Node, disk string, left uint64) (undo func()) {
	t.Helper()
	name := filepath.Join(disk, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	total, free, err := n.diskUsage()
	if err == nil {
		err = syscall.Fallocate(int(f.Fd()), 0, 0, int64(free-casstore.DefaultReserve(total)-left))
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// lowest looks at the free space until it is asked for the least that it saw.
func lowest(n *Node) func() uint64 {
	least, stop := ^uint64(0), make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		for {
			if _, free, err := n.diskUsage(); err == nil {
				least = min(least, free)
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	return func() uint64 {
		close(stop)
		done.Wait()
		return least
	}
}

// untilAsked is a context that does something when somebody first asks whether it has ended.
type untilAsked struct {
	context.Context
	once func()
}

func (u untilAsked) Err() error {
	u.once()
	return u.Context.Err()
}

// TestRebuildLeavesRoom: a tree is made anew only where the disk has room for it beside what is kept free, and another time if not now. One that
// finds that somebody else has taken the room gives back what it had.
func TestRebuildLeavesRoom(t *testing.T) {
	n, disk := smallNode(t)
	for range 20_000 {
		name := strings.Repeat(rand.Text(), 9)[:190]
		a, err := n.vol.Mknod(t.Context(), volume.Caller{}, volume.RootIno, name, syscall.S_IFREG|0o644, 0)
		if err != nil {
			t.Fatal(err)
		}
		n.vol.Forget(a.Ino, 1)
	}
	if err := errors.Join(n.vol.SyncAll(t.Context()), n.state.Flush()); err != nil {
		t.Fatal(err)
	}
	seen, active := n.vector(), n.members() // now and then the node says itself what it has seen
	again := func(ctx context.Context) ([32]byte, error) {
		got, err := n.rebuild(ctx, nil, seen, active, io.Discard)
		return got.digest, err
	}
	want, err := again(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, fill := range map[string]func(take func()) context.Context{
		"before":    func(take func()) context.Context { take(); return t.Context() },
		"meanwhile": func(take func()) context.Context { return untilAsked{t.Context(), sync.OnceFunc(take)} },
	} {
		t.Run("full "+name, func(t *testing.T) {
			running := runtime.NumGoroutine()
			total, before, _ := n.diskUsage()
			var undo func()
			ctx := fill(func() { undo = fillUp(t, n, disk, 1<<20) })
			least := lowest(n)
			if _, err := again(ctx); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("without room: %v, want ENOSPC", err)
			}
			if least := least(); least < casstore.DefaultReserve(total)-3<<20 { // the state may be compacted meanwhile
				t.Errorf("%d KiB were left, of which %d are kept", least>>10, casstore.DefaultReserve(total)>>10)
			}
			undo()
			if _, after, _ := n.diskUsage(); after < before-3<<20 {
				t.Errorf("%d KiB are gone", (before-after)>>10)
			}
			wantGoroutines(t, running)
			if got, err := again(t.Context()); err != nil || got != want {
				t.Errorf("with room again: another tree, or %v", err)
			}
		})
	}
}

// TestScratchOfKilled: what a node left that was killed while it made a tree anew is gone with the next start.
func TestScratchOfKilled(t *testing.T) {
	cfg := testConfig(t, filepath.Join(t.TempDir(), "data"))
	if _, err := Create(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(cfg.Dir, scratchName)
	if err := errors.Join(os.Mkdir(left, 0o700), os.WriteFile(filepath.Join(left, "000001.sst"), []byte("left"), 0o600)); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, cfg)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}
