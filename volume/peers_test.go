package volume

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/namespace"
)

// fakePeers are peers of whom one watches some directories. It notes what
// it is asked.
type fakePeers struct {
	mu       sync.Mutex
	alone    bool
	watched  []namespace.NodeID // by the peer
	observed []namespace.NodeID
	awaited  []wait
	onAwait  func(seq uint64)
}

type wait struct {
	seq  uint64
	dirs []namespace.NodeID
}

var _ Peers = (*fakePeers)(nil)

func dirIDs(dirs []namespace.Watched) []namespace.NodeID {
	var out []namespace.NodeID
	for _, d := range dirs {
		out = append(out, d.Dir)
	}
	return out
}

func (p *fakePeers) Alone() bool { return p.alone }

func (p *fakePeers) Observe(_ context.Context, dirs []namespace.Watched, _ func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range dirIDs(dirs) {
		if !slices.Contains(p.observed, id) {
			p.observed = append(p.observed, id)
		}
	}
}

func (p *fakePeers) Covered(dirs []namespace.Watched) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range dirIDs(dirs) {
		if !slices.Contains(p.observed, id) {
			return false
		}
	}
	return true
}

func (p *fakePeers) Watched(dirs []namespace.Watched) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(dirIDs(dirs), func(id namespace.NodeID) bool { return slices.Contains(p.watched, id) })
}

func (p *fakePeers) Await(ctx context.Context, seq uint64, dirs []namespace.Watched, before func()) {
	before()
	if ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	fn := p.onAwait
	p.awaited = append(p.awaited, wait{seq, dirIDs(dirs)})
	p.mu.Unlock()
	if fn != nil {
		fn(seq)
	}
}

// take returns the waits since the last call.
func (p *fakePeers) take() []wait {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.awaited
	p.awaited = nil
	return list
}

// peered starts a volume in which a peer watches the root directory.
func peered(t *testing.T) (*rig, *fakePeers) {
	p := &fakePeers{watched: []namespace.NodeID{namespace.Root}}
	return newRig(t, 1, func(c *Config) { c.Peers = p }), p
}

// TestEveryChangeIsAnnounced makes each kind of change in a watched directory, and
// expects it to be in the log when it is waited for.
func TestEveryChangeIsAnnounced(t *testing.T) {
	r, p := peered(t)
	ctx := context.Background()
	h := r.create("f")
	p.take()
	changes := []struct {
		name string
		do   func() error
	}{
		{"mkdir", func() error { _, err := r.Mkdir(ctx, Caller{}, RootIno, "d", 0o755); return err }},
		{"mknod", func() error { _, err := r.Mknod(ctx, Caller{}, RootIno, "n", 0o644, 0); return err }},
		{"symlink", func() error { _, err := r.Symlink(ctx, Caller{}, RootIno, "s", "f"); return err }},
		{"link", func() error { _, err := r.Link(ctx, h.Ino(), RootIno, "l"); return err }},
		{"rename", func() error { return r.Rename(ctx, RootIno, "l", RootIno, "m", 0) }},
		{"chmod", func() error {
			_, err := r.Setattr(ctx, h.Ino(), SetAttr{Valid: SetMode, Mode: 0o600})
			return err
		}},
		{"truncate", func() error {
			_, err := r.Setattr(ctx, h.Ino(), SetAttr{Valid: SetMode | SetSize, Size: 9})
			return err
		}},
		{"setxattr", func() error { return r.Setxattr(ctx, h.Ino(), "user.a", []byte("b"), 0) }},
		{"removexattr", func() error { return r.Removexattr(ctx, h.Ino(), "user.a") }},
		{"close", func() error {
			r.write(h, "content", 0)
			return h.Flush(ctx)
		}},
		{"close of much", func() error {
			r.write(h, string(make([]byte, 300<<10)), 0)
			return h.Flush(ctx)
		}},
		{"unlink", func() error { return r.Unlink(ctx, RootIno, "f") }},
		{"rmdir", func() error { return r.Rmdir(ctx, RootIno, "d") }},
	}
	for _, c := range changes {
		batches := len(r.log.all())
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got := p.take()
		if len(got) == 0 || !slices.Contains(got[0].dirs, namespace.Root) {
			t.Errorf("%s: waited for %v", c.name, got)
			continue
		}
		if seq := got[len(got)-1].seq; seq <= uint64(batches) || seq > uint64(len(r.log.all())) {
			t.Errorf("%s: waited for batch %d; there were %d batches, now %d", c.name, seq, batches, len(r.log.all()))
		}
	}
}

// TestKilledWriterIsAnnounced: others are waited for also at the close of a program that a signal has ended.
func TestKilledWriterIsAnnounced(t *testing.T) {
	r, p := peered(t)
	h := r.create("f")
	r.write(h, strings.Repeat("x", 300<<10), 0)
	p.take()
	killed, kill := context.WithCancel(ctx)
	kill()
	must(t, h.Flush(killed))
	if got := p.take(); len(got) == 0 || !slices.Contains(got[0].dirs, namespace.Root) {
		t.Errorf("waited for %v", got)
	}
}

// TestCloseIsInTheLogWhenAnnounced delivers what was announced to another volume: the
// content of a large file must be there.
func TestCloseIsInTheLogWhenAnnounced(t *testing.T) {
	r, p := peered(t)
	other := newRig(t, 2, nil)
	h := r.create("f")
	data := string(make([]byte, 1<<20)) + "end"
	r.write(h, data, 0)
	var got string
	p.onAwait = func(uint64) {
		other.chunks.addAll(r.chunks.all())
		give(r, other)
		got = other.content("f")
	}
	if err := h.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got != data {
		t.Errorf("who was waited for sees %d bytes", len(got))
	}
}

func TestNobodyWatchesNobodyWaits(t *testing.T) {
	r, p := peered(t)
	ctx := context.Background()
	d, err := r.Mkdir(ctx, Caller{}, RootIno, "d", 0o755)
	if err != nil {
		t.Fatal(err)
	}
	p.take()
	_, h, err := r.Create(ctx, Caller{}, d.Ino, "f", 0o644, syscall.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	r.write(h, string(make([]byte, 300<<10)), 0)
	if err := h.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if got := p.take(); got != nil {
		t.Errorf("waited: %v", got)
	}
	// One name of many in a watched directory is where others see the file.
	for _, name := range []string{"2", "3", "4", "5", "6"} {
		if _, err := r.Link(ctx, h.Ino(), d.Ino, name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Link(ctx, h.Ino(), RootIno, "l"); err != nil {
		t.Fatal(err)
	}
	p.take()
	r.write(h, "more", 0)
	if err := h.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if got := p.take(); len(got) != 1 {
		t.Errorf("written through the name that nobody watches: waited %v", got)
	}
}

// TestReadsObserve reads in each way, and expects what it depends on to be observed first.
func TestReadsObserve(t *testing.T) {
	r, p := peered(t)
	ctx := context.Background()
	d, err := r.Mkdir(ctx, Caller{}, RootIno, "d", 0o755)
	if err != nil {
		t.Fatal(err)
	}
	f, h, err := r.Create(ctx, Caller{}, d.Ino, "f", 0o644, syscall.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	h.Release()
	s, err := r.Symlink(ctx, Caller{}, d.Ino, "s", "f")
	if err != nil {
		t.Fatal(err)
	}
	r.treeMu.RLock()
	w, err := r.cfg.Tree.NodeByIno(d.Ino)
	r.treeMu.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Link(ctx, f.Ino, RootIno, "l"); err != nil { // of the entries of the root only this depends on d
		t.Fatal(err)
	}
	reads := map[string]func() error{
		"lookup":       func() error { _, err := r.Lookup(ctx, d.Ino, "f"); return err },
		"getattr":      func() error { _, err := r.Getattr(ctx, f.Ino); return err },
		"getattr dir":  func() error { _, err := r.Getattr(ctx, d.Ino); return err },
		"lookup dir":   func() error { _, err := r.Lookup(ctx, RootIno, "d"); return err },
		"readlink":     func() error { _, err := r.Readlink(ctx, s.Ino); return err },
		"listxattr":    func() error { _, err := r.Listxattr(ctx, f.Ino); return err },
		"open":         func() error { h, err := r.Open(ctx, f.Ino, 0); h.Release(); return err },
		"opendir":      func() error { h, err := r.OpenDir(ctx, d.Ino); h.Release(); return err },
		"entries":      func() error { return observeRoot(r) },
		"no such name": func() error { _, _ = r.Lookup(ctx, d.Ino, "none"); return nil },
	}
	for name, read := range reads {
		p.observed = nil
		if err := read(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !slices.Contains(p.observed, w.ID) {
			t.Errorf("%s observed %v", name, p.observed)
		}
	}
}

func observeRoot(r *rig) error {
	h, err := r.OpenDir(context.Background(), RootIno)
	if err != nil {
		return err
	}
	defer h.Release()
	list, err := h.Read(0, 10)
	r.ObserveEntries(context.Background(), list)
	return err
}

// mkdir makes a directory in the root.
func (r *rig) mkdir(name string) (ino uint64, id namespace.NodeID) {
	r.t.Helper()
	a, err := r.Mkdir(context.Background(), Caller{}, RootIno, name, 0o755)
	if err != nil {
		r.t.Fatal(err)
	}
	r.treeMu.RLock()
	n, err := r.cfg.Tree.NodeByIno(a.Ino)
	r.treeMu.RUnlock()
	if err != nil {
		r.t.Fatal(err)
	}
	return a.Ino, n.ID
}

// TestWatchedFollowsMoves: what a file depends on is remembered, but not when it moved, whoever moved it.
func TestWatchedFollowsMoves(t *testing.T) {
	r, _ := peered(t)
	other := newRig(t, 2, nil)
	ctx := context.Background()
	names := map[namespace.NodeID]string{namespace.Root: "root"}
	inos := map[string]uint64{}
	for _, name := range []string{"d", "e"} {
		ino, id := r.mkdir(name)
		names[id], inos[name] = name, ino
	}
	h := r.create("f")
	want := func(what string, want ...string) {
		t.Helper()
		var got []string
		for _, id := range dirIDs(r.watchAllOf(h.in)) {
			got = append(got, names[id])
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: depends on %v, want %v", what, got, want)
		}
	}
	want("made", "root")
	must(t, r.Rename(ctx, RootIno, "f", inos["d"], "f", 0))
	want("renamed", "d")
	_, err := r.Link(ctx, h.Ino(), inos["e"], "f")
	must(t, err)
	want("linked", "d", "e")
	must(t, r.Unlink(ctx, inos["d"], "f"))
	want("unlinked", "e")
	r.create("g")
	must(t, r.Rename(ctx, RootIno, "g", inos["e"], "f", RenameExchange))
	want("exchanged", "root")
	exchange(r, other)
	d, err := other.Lookup(ctx, RootIno, "d")
	must(t, err)
	must(t, other.Rename(ctx, RootIno, "g", d.Ino, "f", 0))
	exchange(r, other)
	want("moved by another device", "d")
	must(t, r.Unlink(ctx, inos["d"], "f"))
	want("removed")
}

// TestListingWatchesNoDirectory lists a directory, which must not make others wait who work in those below;
// looking at them one after the other asks for the rest together.
func TestListingWatchesNoDirectory(t *testing.T) {
	r, p := peered(t)
	ctx := context.Background()
	var inos []uint64
	names := map[namespace.NodeID]string{}
	for _, name := range []string{"a", "b", "c", "d"} {
		ino, id := r.mkdir(name)
		names[id] = name
		inos = append(inos, ino)
	}
	want := func(what string, want ...string) {
		t.Helper()
		var got []string
		for _, id := range p.observed {
			if name, ok := names[id]; ok {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: watched %v, want %v", what, got, want)
		}
	}
	look := func(i int) {
		t.Helper()
		if _, err := r.Getattr(ctx, inos[i]); err != nil {
			t.Fatal(err)
		}
	}
	p.observed = nil
	h, err := r.OpenDir(ctx, RootIno)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	list, err := h.Read(0, 10)
	if err != nil {
		t.Fatal(err)
	}
	r.ObserveEntries(ctx, list)
	want("listed")
	look(1)
	want("one", "b")
	look(0)
	want("one before it", "a", "b")
	look(2)
	want("one behind", "a", "b", "c", "d")
}

// TestForgetDirsKeepsWhatTheKernelUses gives back three directories, of which the kernel knows one and another holds what is open.
func TestForgetDirsKeepsWhatTheKernelUses(t *testing.T) {
	r, _ := peered(t)
	var ids []namespace.NodeID
	r.create("open")
	for _, name := range []string{"known", "moved to", "unknown"} {
		ino, id := r.mkdir(name)
		ids = append(ids, id)
		if name == "moved to" { // as by another mount
			must(t, r.Rename(ctx, RootIno, "open", ino, "open", 0))
		}
		if name != "known" {
			r.Forget(ino, 1)
		}
	}
	var kept []namespace.NodeID
	r.ForgetDirs(ids, false, func(list []namespace.NodeID) { kept = list })
	if diff := cmp.Diff(ids[:2], kept); diff != "" {
		t.Error(diff)
	}
	r.ForgetDirs(ids, true, func(list []namespace.NodeID) { kept = list })
	if len(kept) > 0 {
		t.Errorf("kept %v although it was to be forgotten", kept)
	}
}

// truncate(2) is published on return, though a program has the file open; ftruncate is when that is closed.
func TestTruncateIsDoneWith(t *testing.T) {
	r := newRig(t, 1, nil)
	ctx := context.Background()
	h := r.create("f")
	r.write(h, strings.Repeat("x", 100_000), 0)
	must(t, h.Flush(ctx))
	r.sync()
	cut := func(size int64, held bool) int64 {
		t.Helper()
		_, err := r.Setattr(ctx, h.Ino(), SetAttr{Valid: SetSize, Size: size, Held: held})
		must(t, err)
		_, _, err = r.Publish(ctx, false)
		must(t, err)
		n, err := r.node(h.in)
		must(t, err)
		return n.Content.Size
	}
	if got := cut(70_000, false); got != 70_000 {
		t.Errorf("cut to 70,000 bytes, others see %d", got)
	}
	if got := cut(50_000, true); got != 70_000 {
		t.Errorf("cut through an open file, others see %d", got)
	}
}

// countedState counts the keys that scans pass.
type countedState struct {
	*kv.Mem
	scanned atomic.Int64
}

func (s *countedState) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	return s.Mem.Scan(lo, hi, func(k, v []byte) bool { s.scanned.Add(1); return fn(k, v) })
}

// TestManyLinksAreNotCountedAnew: to make or remove one of many links of a file takes no look at all others to tell who waits for it.
func TestManyLinksAreNotCountedAnew(t *testing.T) {
	p := &fakePeers{watched: []namespace.NodeID{namespace.Root}}
	state := &countedState{Mem: kv.NewMem()}
	r := startRig(t, 1, state, newMemChunks(), func(c *Config) { c.Peers = p })
	ctx := context.Background()
	h := r.create("f")
	ids := []namespace.NodeID{namespace.Root}
	var inos []uint64
	for i := range 8 {
		ino, id := r.mkdir(fmt.Sprint("d", i))
		inos, ids = append(inos, ino), append(ids, id)
	}
	const n = 400
	each := func(what string, do func(dir uint64, name string) error) {
		t.Helper()
		state.scanned.Store(0)
		for i := range n {
			must(t, do(inos[i%len(inos)], fmt.Sprint(i)))
		}
		if got := state.scanned.Load(); got > 20*n {
			t.Errorf("to %s %d links passed %d keys", what, n, got)
		}
	}
	each("make", func(dir uint64, name string) error { _, err := r.Link(ctx, h.Ino(), dir, name); return err })
	got := dirIDs(r.watchAllOf(h.in))
	for _, id := range ids {
		if !slices.Contains(got, id) {
			t.Errorf("%v is left out of what the file depends on", id)
		}
	}
	each("remove", func(dir uint64, name string) error { return r.Unlink(ctx, dir, name) })
}
