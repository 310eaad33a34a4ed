package fusefs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bazil.org/fuse"

	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/volume"
)

// slowPeers are other mounts that answer when the test lets them.
type slowPeers struct {
	covered atomic.Bool
	waiting atomic.Int32
	mu      sync.Mutex
	hold    chan struct{} // not nil: Observe and Await wait until it is closed
}

var _ volume.Peers = (*slowPeers)(nil)

func (p *slowPeers) Alone() bool { return false }

func (p *slowPeers) Observe(_ context.Context, _ []namespace.Watched, before func()) { p.wait(before) }

func (p *slowPeers) Await(_ context.Context, _ uint64, _ []namespace.Watched, before func()) {
	p.wait(before)
}

func (p *slowPeers) Covered([]namespace.Watched) bool { return p.covered.Load() }
func (p *slowPeers) Watched([]namespace.Watched) bool { return true }

func (p *slowPeers) wait(before func()) {
	p.mu.Lock()
	hold := p.hold
	p.mu.Unlock()
	if hold == nil {
		return
	}
	before()
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	<-hold
}

func (p *slowPeers) holdUp() (release func()) {
	ch := make(chan struct{})
	p.mu.Lock()
	p.hold = ch
	p.mu.Unlock()
	return sync.OnceFunc(func() {
		p.mu.Lock()
		p.hold = nil
		p.mu.Unlock()
		close(ch)
	})
}

// peered mounts a volume that has peers.
func peered(t *testing.T, prepare ...func(*Server)) (*rig, *slowPeers) {
	p := &slowPeers{}
	r := newVolume(t, nil, func(c *volume.Config) { c.Peers = p })
	r.mount(nil, prepare...)
	return r, p
}

// TestWaitsForPeersHoldUpNobodyElse has many requests wait for other mounts, in each
// way there is; others must get through, and signals must not make the mount spin.
func TestWaitsForPeersHoldUpNobodyElse(t *testing.T) {
	r, p := peered(t)
	r.write("f", "there")
	open, err := os.Open(r.path("f"))
	must(t, err)
	defer open.Close()
	release := p.holdUp()
	defer release()
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			var err error
			switch i % 3 {
			case 0:
				_, err = os.Stat(r.path("f"))
			case 1:
				err = os.Mkdir(r.path(fmt.Sprintf("d%d", i)), 0o755)
			case 2:
				_, err = os.ReadDir(r.dir)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	until(t, "requests wait", func() bool { return p.waiting.Load() >= 3 })
	got := make([]byte, 5)
	done := make(chan error, 1)
	go func() { _, err := syscall.Pread(int(open.Fd()), got, 0); done <- err }()
	select {
	case err := <-done:
		if err != nil || string(got) != "there" {
			t.Errorf("read %q, %v", got, err)
		}
	case <-time.After(5 * time.Second):
		t.Error("requests that wait for other mounts hold up one that does not")
	}
	release()
	wg.Wait()
}

// TestOnlyWhatIsCoveredIsKept looks at a name again and again: the kernel may answer by itself only
// as long as it is made to forget in time.
func TestOnlyWhatIsCoveredIsKept(t *testing.T) {
	for _, covered := range []bool{true, false} {
		var seen counts
		r, p := peered(t, seen.observe)
		if !r.notes.epochs {
			t.Skip("this kernel has no epochs, so it is given no names to keep")
		}
		p.covered.Store(covered)
		r.write("f", "there")
		asked := func(name string) (lookups, attrs int) {
			for range 4 { // the first may fill the cache, and others may have the kernel drop it
				l, a := seen.of(&fuse.LookupRequest{}), seen.of(&fuse.GetattrRequest{})
				_, _ = os.Lstat(r.path(name))
				if lookups, attrs = seen.of(&fuse.LookupRequest{})-l, seen.of(&fuse.GetattrRequest{})-a; lookups+attrs == 0 {
					break
				}
			}
			return lookups, attrs
		}
		if l, a := asked("f"); covered != (l+a == 0) {
			t.Errorf("covered %v: a name was looked up %d times, its attributes asked for %d times", covered, l, a)
		}
		if l, _ := asked("none"); covered != (l == 0) {
			t.Errorf("covered %v: a name that does not exist was looked up %d times", covered, l)
		}
	}
}

// TestSettledMeansForgotten changes a file beside the mount, again and again, and looks
// when the kernel is said to know. A kernel without epochs is given no names to keep.
func TestSettledMeansForgotten(t *testing.T) {
	for _, epochs := range []bool{true, false} {
		t.Run(fmt.Sprintf("epochs %v", epochs), func(t *testing.T) {
			r, p := peered(t, func(s *Server) { s.notes.epochs = s.notes.epochs && epochs })
			if epochs && !r.notes.epochs {
				t.Skip("this kernel has no epochs")
			}
			p.covered.Store(true)
			testSettled(t, r, epochs)
		})
	}
}

func testSettled(t *testing.T, r *rig, forget bool) {
	r.write("f", "")
	settle := func(forget bool) {
		done := make(chan struct{})
		r.notes.Settle(forget, func() { close(done) })
		<-done
	}
	a, err := r.vol.Lookup(t.Context(), 1, "f")
	must(t, err)
	defer r.vol.Forget(a.Ino, 1)
	for i := range 300 {
		info, err := os.Stat(r.path("f")) // warms the caches
		must(t, err)
		_, err = os.Stat(r.path("g"))
		wantErr(t, err, syscall.ENOENT)
		mode := info.Mode() ^ 0o111
		_, err = r.vol.Setattr(t.Context(), a.Ino, volume.SetAttr{Valid: volume.SetMode, Mode: uint32(mode)})
		must(t, err)
		r.notes.InvalidateAttr(a.Ino)
		settle(false)
		if info, err := os.Stat(r.path("f")); err != nil || info.Mode() != mode {
			t.Fatalf("round %d: mode %v after the kernel was told of %v; %v", i, info.Mode(), mode, err)
		}
		_, _, err = r.vol.Rename(t.Context(), volume.Caller{}, 1, "f", 1, "g", 0)
		must(t, err)
		settle(forget)
		if _, err := os.Stat(r.path("g")); err != nil {
			t.Fatalf("round %d: after the kernel forgot everything: %v", i, err)
		}
		_, _, err = r.vol.Rename(t.Context(), volume.Caller{}, 1, "g", 1, "f", 0)
		must(t, err)
		settle(forget)
	}
}

func TestSettleAfterTheEnd(t *testing.T) {
	n := newNotes()
	stop := n.start(&Server{})
	stop()
	done := false
	n.Settle(false, func() { done = true })
	if !done {
		t.Error("who waits for a kernel that has gone waits for ever")
	}
}

// watchedPeers are others who may watch everything and answer at once.
type watchedPeers struct {
	slowPeers
	watched atomic.Bool
}

func (p *watchedPeers) Watched([]namespace.Watched) bool { return p.watched.Load() }

// TestWaitingForAClose: requests that have to wait until a file, whose close waits for the network, is in the tree, keep nobody
// from being answered.
func TestWaitingForAClose(t *testing.T) {
	peers := &watchedPeers{}
	peers.covered.Store(true)
	var chmods atomic.Int32
	r := newVolume(t, nil, func(c *volume.Config) { c.Peers = peers })
	r.mount(nil, func(s *Server) {
		s.observe = func(req fuse.Request) {
			if r, ok := req.(*fuse.SetattrRequest); ok && r.Valid.Mode() {
				chmods.Add(1)
			}
		}
	})
	for _, name := range []string{"a", "b", "c"} {
		r.write(name, "x")
	}
	data := make([]byte, 8<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	must(t, os.WriteFile(r.path("far"), data, 0o644))
	must(t, r.vol.SyncAll(context.Background()))
	f, err := os.OpenFile(r.path("far"), os.O_WRONLY, 0)
	must(t, err)
	g, err := os.OpenFile(r.path("far"), os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("abc"), 70000)
	must(t, errors.Join(err, f.Close())) // in the queue
	release := r.chunks.holdUp(false)
	_, err = g.WriteAt([]byte("abc"), 1<<20+5)
	must(t, err)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer release()
	wg.Go(func() { _ = g.Close() })
	until(t, "the close waits", func() bool { return r.chunks.held.Load() > 0 })
	peers.watched.Store(true)
	for _, name := range []string{"a", "b", "c"} {
		wg.Go(func() { _ = os.Chmod(r.path(name), 0o600) })
	}
	until(t, "two wait", func() bool { return chmods.Load() >= 2 })
	for range 20 {
		answered := make(chan struct{})
		wg.Go(func() { _, _ = os.Lstat(r.path("nothing of the kind")); close(answered) })
		select {
		case <-answered:
		case <-time.After(5 * time.Second):
			t.Fatal("the mount is frozen")
		}
	}
}
