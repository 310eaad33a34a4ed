package fusefs

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// slowKernel drops pages when the test lets it.
type slowKernel struct {
	pages *pages
	busy  map[uint64]bool // a request holds pages

	mu      sync.Mutex
	stuck   map[uint64]chan struct{} // not there: dropped at once
	under   map[uint64]bool          // being dropped
	dropped []uint64
	broken  bool // one file was dropped twice at the same time
}

func newSlowKernel(stuck ...uint64) *slowKernel {
	k := &slowKernel{pages: newPages(), busy: map[uint64]bool{}, stuck: map[uint64]chan struct{}{}, under: map[uint64]bool{}}
	for _, ino := range stuck {
		k.stuck[ino] = make(chan struct{})
	}
	k.pages.start(k.drop, func(ino uint64) bool { return k.busy[ino] })
	return k
}

func (k *slowKernel) drop(ino uint64) {
	k.mu.Lock()
	k.broken = k.broken || k.under[ino]
	k.under[ino] = true
	wait := k.stuck[ino]
	k.mu.Unlock()
	if wait != nil {
		<-wait
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.under[ino] = false
	k.dropped = append(k.dropped, ino)
}

// release lets everything go on.
func (k *slowKernel) release() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for ino, ch := range k.stuck {
		close(ch)
		delete(k.stuck, ino)
	}
}

// settled returns how long the word that all has arrived takes.
func (k *slowKernel) settled() time.Duration {
	began, done := time.Now(), make(chan struct{})
	k.pages.settle(k.pages.settling(), func() { close(done) })
	<-done
	return time.Since(began)
}

// TestStuckDropsHoldUpNoOther has more files stuck than are dropped at the same time.
func TestStuckDropsHoldUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stuck []uint64
		for i := range uint64(5 * dropsAtOnce) {
			stuck = append(stuck, 100+i)
		}
		k := newSlowKernel(stuck...)
		for _, ino := range stuck {
			k.pages.ask(ino)
		}
		k.pages.ask(1)
		began, done := time.Now(), make(chan struct{})
		k.pages.dropped(1, func() { close(done) })
		<-done
		if d := time.Since(began); d > 10*stuckAfter {
			t.Errorf("a file waits %v for others", d)
		}
		time.Sleep(time.Second)
		if d := k.settled(); d != 0 {
			t.Errorf("writers wait %v for what has been stuck for long", d)
		}
		k.release()
		k.pages.stop()
		if len(k.dropped) != len(stuck)+1 {
			t.Errorf("%d of %d were dropped", len(k.dropped), len(stuck)+1)
		}
	})
}

// TestChangedWhileDropped: pages that may have come after a drop began are dropped by another, after it.
func TestChangedWhileDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newSlowKernel(1)
		k.pages.ask(1)
		synctest.Wait()
		for range 3 {
			k.pages.ask(1)
		}
		over := false
		k.pages.dropped(1, func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			over = len(k.dropped) == 2
		})
		time.Sleep(time.Second)
		k.release()
		synctest.Wait()
		if len(k.dropped) != 2 || k.broken || !over {
			t.Errorf("dropped %d times; at the same time: %t; waited for: %t", len(k.dropped), k.broken, over)
		}
		k.pages.stop()
	})
}

// TestWritersWaitForPages, but not long.
func TestWritersWaitForPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newSlowKernel(1, 2)
		k.busy[2] = true
		if d := k.settled(); d != 0 {
			t.Errorf("%v with nothing to drop", d)
		}
		k.pages.ask(2)
		if d := k.settled(); d != busyPatience {
			t.Errorf("%v while a request holds the pages", d)
		}
		k.pages.ask(1)
		if d := k.settled(); d != settlePatience {
			t.Errorf("%v for a file that the kernel takes long for", d)
		}
		k.pages.ask(3)
		if d := k.settled(); d != 0 || len(k.dropped) != 1 {
			t.Errorf("%v for one that it does not; dropped %v", d, k.dropped)
		}
		k.release()
		k.pages.stop()
	})
}

// TestNobodyWaitsAfterTheEnd has drops asked for that never begin.
func TestNobodyWaitsAfterTheEnd(t *testing.T) {
	p := newPages()
	p.ask(1)
	done := make(chan struct{}, 2)
	p.dropped(1, func() { done <- struct{}{} })
	p.stop()
	p.ask(2)
	p.dropped(2, func() { done <- struct{}{} })
	<-done
	<-done
}

// TestStuckReadHoldsUpNoOtherFile has one mount read what only the network has of a file that the other
// then changes, and after it a file which the first has open.
func TestStuckReadHoldsUpNoOtherFile(t *testing.T) {
	a, b := pair(t, nil)
	a.write("far", string(noise(64*block)))
	a.write("near", "old")
	a.give(b)
	far, err := os.Open(b.path("far"))
	must(t, err)
	defer far.Close()
	near, err := os.Open(b.path("near"))
	must(t, err)
	defer near.Close()
	content := func() string {
		got := make([]byte, 3)
		_, err := syscall.Pread(int(near.Fd()), got, 0)
		must(t, err)
		return string(got)
	}
	if got := content(); got != "old" {
		t.Fatal(got)
	}
	release := b.chunks.holdUp(false)
	read := make(chan error, 1)
	go func() { _, err := far.ReadAt(make([]byte, 4096), 40*block); read <- err }()
	defer func() { release(); <-read }()
	until(t, "the read waits", func() bool { return b.chunks.held.Load() > 0 })
	for _, name := range []string{"far", "near"} {
		a.write(name, "new")
		a.give(b)
	}
	settled := make(chan struct{})
	began := time.Now()
	b.notes.Settle(false, func() { close(settled) })
	<-settled
	if d := time.Since(began); d > time.Second {
		t.Errorf("a writer waits %v for a read of another file", d)
	}
	until(t, "the open file shows the new content", func() bool { return content() == "new" })
	if b.chunks.held.Load() == 0 {
		t.Error("the read does not wait any more")
	}
}

// TestManyStuckReadsHoldUpNoOther has many reads wait for what only the network has; one of what is here must get through.
func TestManyStuckReadsHoldUpNoOther(t *testing.T) {
	r := mount(t, nil)
	evict(t, r, "big")
	big, err := os.Open(r.path("big"))
	must(t, err)
	defer big.Close()
	must(t, unix.Fadvise(int(big.Fd()), 0, 0, unix.FADV_RANDOM)) // each page is a request
	near, err := os.Create(r.path("hole"))
	must(t, err)
	defer near.Close()
	must(t, near.Truncate(1<<20))
	release := r.chunks.holdUp(false)
	var reads sync.WaitGroup
	defer func() { release(); reads.Wait() }()
	const many = 300
	for i := range int64(many) {
		reads.Go(func() { _, _ = big.ReadAt(make([]byte, 1), i*4096) })
	}
	until(t, "the kernel has all requests", func() bool {
		n, err := os.ReadFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/waiting", r.minor))
		must(t, err)
		waiting, err := strconv.Atoi(strings.TrimSpace(string(n)))
		must(t, err)
		return waiting >= many
	})
	read := make(chan error, 1)
	go func() { _, err := near.ReadAt(make([]byte, 1), 0); read <- err }()
	select {
	case err := <-read:
		must(t, err)
	case <-time.After(10 * time.Second):
		t.Error("a read of a hole waits for those of what is not")
		release()
		<-read
	}
}

// TestSettledMeansDropped changes the content of an open file beside the mount, again and again, and reads it when
// the kernel is said to know.
func TestSettledMeansDropped(t *testing.T) {
	r, p := peered(t)
	p.covered.Store(true)
	r.write("f", "000")
	f, beside := r.openBeside(t, "f")
	for i := range 300 {
		_, err := f.ReadAt(make([]byte, 3), 0) // warms the cache
		must(t, err)
		want := fmt.Sprintf("%03d", i)
		_, err = beside.Write(t.Context(), []byte(want), 0)
		must(t, err)
		done := make(chan struct{})
		r.notes.InvalidateContent(beside.Ino())
		r.notes.Settle(false, func() { close(done) })
		<-done
		got := make([]byte, 3)
		if _, err := f.ReadAt(got, 0); err != nil || string(got) != want {
			t.Fatalf("%q after the kernel was told of %q: %v", got, want, err)
		}
	}
}

// TestUnmountWhileReadsAreStuck expects the mount to go although pages are still to be dropped.
func TestUnmountWhileReadsAreStuck(t *testing.T) {
	r := mount(t, nil)
	r.write("f", strings.Repeat("x", 64*block))
	must(t, r.vol.SyncAll(context.Background()))
	f, err := os.Open(r.path("f"))
	must(t, err)
	defer f.Close()
	info, err := f.Stat()
	must(t, err)
	ino := info.Sys().(*syscall.Stat_t).Ino
	r.notes.InvalidateContent(ino)
	until(t, "what was written is dropped", func() bool { return r.notes.mayKeep(ino) })
	defer r.chunks.holdUp(false)()
	read := make(chan error, 1)
	go func() { _, err := f.ReadAt(make([]byte, 4096), 40*block); read <- err }()
	until(t, "the read waits", func() bool { return r.chunks.held.Load() > 0 })
	r.notes.InvalidateContent(ino)
	r.notes.InvalidateContent(ino)
	dropped := make(chan struct{})
	r.notes.Dropped(ino, func() { close(dropped) })
	must(t, r.Unmount())
	<-dropped
	if err := <-read; err == nil {
		t.Error("the read got what the store holds back")
	}
}
