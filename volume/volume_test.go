package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/namespace"
)

var ctx = context.Background()

// TestFileModel runs random writes, truncations, flushes and fsyncs against a
// byte slice, with blocks, journal and memory so small that every path is taken.
func TestFileModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t, 1, func(c *Config) {
			c.BlockLog, c.InlineMax, c.JournalMax, c.DirtyMax = 14, 100, 3000, 64<<10
		})
		defer r.Close()
		_, h, err := r.Create(ctx, Caller{}, RootIno, "f", 0644, syscall.O_RDWR)
		if err != nil {
			rt.Fatal(err)
		}
		defer h.Release()
		var model []byte
		for range rapid.IntRange(1, 25).Draw(rt, "ops") {
			model = step(rt, r, h, model)
			got := make([]byte, len(model)+10)
			n, err := h.Read(ctx, got, 0)
			if err != nil || !bytes.Equal(got[:n], model) {
				rt.Fatalf("read %d bytes, want %d: %v (first difference at %d)", n, len(model), err, firstDiff(got[:n], model))
			}
			checkHoles(rt, h, model)
		}
	})
}

// step does one random thing to the file and to the model.
func step(t *rapid.T, r *rig, h *Handle, model []byte) []byte {
	const limit = 100 << 10
	switch rapid.SampledFrom([]string{"write", "write", "append", "truncate", "flush", "fsync", "sync", "zero", "copy"}).Draw(t, "op") {
	case "write", "append":
		off := rapid.IntRange(0, limit).Draw(t, "off")
		if rapid.Bool().Draw(t, "at end") {
			off = min(len(model), limit)
		}
		p := bytes.Repeat([]byte{rapid.Byte().Draw(t, "fill")}, rapid.IntRange(1, 40<<10).Draw(t, "len"))
		if _, err := h.Write(ctx, p, int64(off)); err != nil {
			t.Fatal(err)
		}
		if need := off + len(p); need > len(model) {
			model = append(model, make([]byte, need-len(model))...)
		}
		copy(model[off:], p)
	case "truncate":
		n := rapid.IntRange(0, limit).Draw(t, "size")
		if _, err := r.Setattr(ctx, h.Ino(), SetAttr{Valid: SetSize, Size: int64(n)}); err != nil {
			t.Fatal(err)
		}
		model = append(model, make([]byte, max(0, n-len(model)))...)[:n]
	case "zero":
		mode := rapid.SampledFrom([]uint32{unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE, 0, unix.FALLOC_FL_KEEP_SIZE}).Draw(t, "mode")
		off, n := rapid.IntRange(0, limit).Draw(t, "off"), rapid.IntRange(1, limit).Draw(t, "len")
		if err := h.Allocate(ctx, int64(off), int64(n), mode); err != nil {
			t.Fatal(err)
		}
		if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
			model = append(model, make([]byte, max(0, off+n-len(model)))...)
		}
		if mode&^unix.FALLOC_FL_KEEP_SIZE != 0 && off < len(model) {
			clear(model[off:min(off+n, len(model))])
		}
	case "copy":
		const bs = 1 << 14
		from, to := rapid.IntRange(0, 6).Draw(t, "from")*bs, rapid.IntRange(0, 6).Draw(t, "to")*bs
		if rapid.Bool().Draw(t, "unaligned") {
			by := rapid.IntRange(0, bs).Draw(t, "by")
			from, to = from+by, to+by
		}
		n := rapid.IntRange(0, 4*bs).Draw(t, "len")
		got, err := r.Copy(ctx, h, int64(from), h, int64(to), int64(n))
		if from < to+n && to < from+n {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("overlapping copy: %v", err)
			}
			break
		}
		if want := max(0, min(n, len(model)-from)); err != nil || got != int64(want) {
			t.Fatalf("copied %d bytes of %d: %v", got, want, err)
		}
		if got > 0 {
			model = append(model, make([]byte, max(0, to+int(got)-len(model)))...)
			copy(model[to:], model[from:from+int(got)])
		}
	case "flush":
		if err := h.Flush(ctx); err != nil {
			t.Fatal(err)
		}
	case "fsync":
		if err := h.Fsync(ctx); err != nil {
			t.Fatal(err)
		}
	case "sync":
		if err := r.SyncAll(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return model
}

// checkHoles fails the test if something that is not zero counts as a hole, or data and holes do not take turns.
// Zeros that were written may become a hole at any time: when they are folded.
func checkHoles(t *rapid.T, h *Handle, model []byte) {
	off := int64(0)
	for off < int64(len(model)) {
		data, err := h.Seek(ctx, off, unix.SEEK_DATA)
		if errors.Is(err, ErrNoSuchOffset) {
			data, err = int64(len(model)), nil
		}
		if err != nil || data < off || !allZero(model[off:data]) {
			t.Fatalf("data from %d is at %d of %d: %v", off, data, len(model), err)
		}
		if data == int64(len(model)) {
			return
		}
		if off, err = h.Seek(ctx, data, unix.SEEK_HOLE); err != nil || off < data || off == data && model[data] != 0 || off > int64(len(model)) {
			t.Fatalf("hole from %d is at %d of %d: %v", data, off, len(model), err)
		}
	}
}

func firstDiff(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

func TestContentReachesOtherMount(t *testing.T) {
	a, b := newRig(t, 1, nil), newRig(t, 2, nil)
	want := strings.Repeat("0123456789abcdef", 20000)
	h := a.create("big")
	a.write(h, want, 0)
	a.write(a.create("small"), "hello", 0)
	exchange(a, b)
	if got := b.content("big"); got != want {
		t.Fatalf("big: %d bytes differ at %d", len(got), firstDiff([]byte(got), []byte(want)))
	}
	if got := b.content("small"); got != "hello" {
		t.Fatalf("small: %q", got)
	}
}

func TestOpenHandleFollowsRemoteChange(t *testing.T) {
	a, b := newRig(t, 1, nil), newRig(t, 2, nil)
	h := a.create("f")
	a.write(h, "one", 0)
	exchange(a, b)
	n := &notes{}
	b.SetNotifier(n)
	hb := b.open("f", syscall.O_RDONLY)
	if got := b.read(hb); got != "one" {
		t.Fatalf("before: %q", got)
	}
	if b.open("f", syscall.O_RDONLY).KeepCache() != true {
		t.Error("second open of unchanged content drops the kernel's pages")
	}
	a.write(h, "second", 0)
	exchange(a, b)
	if got := b.read(hb); got != "second" {
		t.Fatalf("after: %q", got)
	}
	want := []string{"content"}
	if diff := cmp.Diff(want, n.got); diff != "" {
		t.Error(diff)
	}
	if b.open("f", syscall.O_RDONLY).KeepCache() {
		t.Error("kernel told to keep pages of the old content")
	}
}

// notes records what a notifier is told.
type notes struct{ got []string }

func (n *notes) InvalidateAttr(uint64)    { n.got = append(n.got, "attr") }
func (n *notes) InvalidateContent(uint64) { n.got = append(n.got, "content") }
func (n *notes) InvalidateDir(uint64)     { n.got = append(n.got, "dir") }
func (n *notes) Settle(bool, func())      { n.got = append(n.got, "settle") }
func (n *notes) Dropped(uint64, func())   { n.got = append(n.got, "dropped") }
func (n *notes) InvalidateEntry(_ uint64, name string) {
	n.got = append(n.got, "entry "+name)
}

func TestConcurrentEditsKeepBothVersions(t *testing.T) {
	a, b := newRig(t, 1, nil), newRig(t, 2, nil)
	a.write(a.create("f"), "base", 0)
	exchange(a, b)
	a.write(a.open("f", syscall.O_RDWR), "from a", 0)
	b.write(b.open("f", syscall.O_RDWR), "from b", 0)
	exchange(a, b)
	exchange(a, b)
	if x, y := a.content("f"), b.content("f"); x != y {
		t.Fatalf("a shows %q, b shows %q", x, y)
	}
	e, err := a.cfg.Tree.Lookup(namespace.Root, "f")
	if err != nil {
		t.Fatal(err)
	}
	n, err := a.cfg.Tree.Node(e.Node)
	if err != nil || len(n.Heads) != 2 {
		t.Fatalf("want two heads, got %d: %v", len(n.Heads), err)
	}
}

// TestContentGoesWithTheLastReference has what was written to a file without a name go when nobody can read it any
// more, and not only when the publisher comes by.
func TestContentGoesWithTheLastReference(t *testing.T) {
	lose := map[string]func(r *rig) *Handle{
		"unlinked": func(r *rig) *Handle {
			h := r.create("f")
			must(t, r.Unlink(ctx, RootIno, "f"))
			return h
		},
		"replaced": func(r *rig) *Handle {
			h := r.create("f")
			r.create("g").Release()
			must(t, r.Rename(ctx, RootIno, "g", RootIno, "f", 0))
			return h
		},
		"never named": func(r *rig) *Handle {
			_, h, err := r.CreateUnnamed(ctx, Caller{}, RootIno, 0o600, syscall.O_RDWR)
			must(t, err)
			return h
		},
	}
	for name, open := range lose {
		r := newRig(t, 1, nil)
		h := open(r)
		r.write(h, strings.Repeat("x", 5000), 0)
		h.Release()
		r.Forget(h.Ino(), 1)
		r.mu.Lock()
		changed := len(r.changed)
		r.mu.Unlock()
		if changed != 0 || r.dirty.used != 0 {
			t.Errorf("%s: left behind: %d changed, %d bytes", name, changed, r.dirty.used)
		}
	}
}

func TestUnlinkedFileStaysUsable(t *testing.T) {
	r := newRig(t, 1, nil)
	h := r.create("f")
	big := strings.Repeat("x", 300<<10)
	r.write(h, big, 0)
	if err := r.Unlink(ctx, RootIno, "f"); err != nil {
		t.Fatal(err)
	}
	r.write(h, "y", 5)
	if err := h.Fsync(ctx); err != nil {
		t.Fatal(err)
	}
	if err := h.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if got := r.read(h); got != "xxxxxy"+big[6:] {
		t.Fatalf("%d bytes", len(got))
	}
	a, err := r.Getattr(ctx, h.Ino())
	if err != nil || a.Nlink != 0 {
		t.Fatalf("nlink %d: %v", a.Nlink, err)
	}
	h.Release()
	r.Forget(h.Ino(), 1)
	if err := r.Close(); err != nil { // waits for what Release left to be done
		t.Fatal(err)
	}
	if len(r.changed) != 0 || r.dirty.used != 0 {
		t.Errorf("left behind: %d changed, %d bytes", len(r.changed), r.dirty.used)
	}
}

func TestFullStoreIsReportedAndRecovers(t *testing.T) {
	r := newRig(t, 1, nil)
	h := r.create("f")
	data := strings.Repeat("data", 100<<10)
	r.chunks.fail(syscall.ENOSPC, nil)
	r.write(h, data, 0)
	if err := h.Flush(ctx); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("flush on a full store: %v", err)
	}
	if err := h.Fsync(ctx); err != nil {
		t.Fatalf("fsync on a full store, which the journal takes: %v", err)
	}
	r.chunks.fail(nil, nil)
	r.sync()
	if got := r.read(h); got != data {
		t.Fatal("content differs")
	}
}

func TestMtimeSetAfterCloseStays(t *testing.T) {
	r := newRig(t, 1, nil)
	h := r.create("f")
	r.write(h, strings.Repeat("z", 100<<10), 0)
	if err := h.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	want := time.Date(1969, 1, 2, 3, 4, 5, 6, time.UTC).UnixNano()
	if _, err := r.Setattr(ctx, h.Ino(), SetAttr{Valid: SetMtime, Mtime: want}); err != nil {
		t.Fatal(err)
	}
	r.sync()
	a, err := r.Getattr(ctx, h.Ino())
	if err != nil || a.Mtime != want {
		t.Fatalf("mtime %d, want %d: %v", a.Mtime, want, err)
	}
}

func TestRestartFindsJournalledWrites(t *testing.T) {
	r := newRig(t, 1, func(c *Config) { c.InlineMax = 10 })
	h := r.create("f")
	r.write(h, strings.Repeat("a", 200<<10), 0)
	if err := h.Fsync(ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.commitQueue(ctx); err != nil { // so that nothing of before is queued
		t.Fatal(err)
	}
	before := r.chunks.syncs
	r.write(h, "bb", 70_000)
	if err := h.Fsync(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Setattr(ctx, h.Ino(), SetAttr{Valid: SetSize, Size: 80_000, Held: true}); err != nil {
		t.Fatal(err)
	}
	r.write(h, "c", 90_000)
	if err := h.Fsync(ctx); err != nil {
		t.Fatal(err)
	}
	if r.chunks.syncs != before {
		t.Errorf("small fsyncs flushed the store %d times", r.chunks.syncs-before)
	}
	want := r.read(h)

	// The first still runs and writes, to what was its state.
	again := startRig(t, 1, r.state.Snapshot().(*kv.Mem), r.chunks, nil)
	if got := again.content("f"); got != want {
		t.Fatalf("got %d bytes, want %d, first difference at %d", len(got), len(want), firstDiff([]byte(got), []byte(want)))
	}
}

func TestReaddirWhileChanging(t *testing.T) {
	r := newRig(t, 1, nil)
	for i := range 2000 {
		r.create(fmt.Sprintf("f%05d", i)).Release()
	}
	d, err := r.OpenDir(ctx, RootIno)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Release()
	seen := map[string]int{}
	for cookie, n := uint64(0), 0; ; n++ {
		list, err := d.Read(cookie, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			break
		}
		for _, e := range list {
			seen[e.Name]++
			cookie = e.Cookie
			if n%2 == 0 && strings.HasPrefix(e.Name, "f") {
				if err := r.Unlink(ctx, RootIno, e.Name); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if len(seen) != 2002 {
		t.Errorf("saw %d names, want 2002", len(seen))
	}
	for name, n := range seen {
		if n != 1 {
			t.Errorf("%s seen %d times", name, n)
		}
	}
}

func TestReadOnlyRefusesEverything(t *testing.T) {
	r := newRig(t, 1, func(c *Config) { c.ReadOnly = true })
	if _, err := r.Mkdir(ctx, Caller{}, RootIno, "d", 0755); !errors.Is(err, ErrReadOnly) {
		t.Errorf("mkdir: %v", err)
	}
	if err := r.Unlink(ctx, RootIno, "x"); !errors.Is(err, ErrReadOnly) {
		t.Errorf("unlink: %v", err)
	}
}

func TestHandleNeedsWriteMode(t *testing.T) {
	r := newRig(t, 1, nil)
	r.create("f")
	h := r.open("f", syscall.O_RDONLY)
	if _, err := h.Write(ctx, []byte("x"), 0); !errors.Is(err, ErrBadHandle) {
		t.Errorf("write on a read-only handle: %v", err)
	}
}

// TestStatNeverGoesBack looks at a file's size while its content enters the tree.
func TestStatNeverGoesBack(t *testing.T) {
	r := newRig(t, 1, func(c *Config) { c.InlineMax = 100 })
	for i := range 200 {
		h := r.create(fmt.Sprintf("f%d", i))
		r.write(h, strings.Repeat("x", 5000), 0)
		stop, bad := make(chan struct{}), make(chan int64, 1)
		go func() {
			defer close(bad)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if a, err := r.Getattr(ctx, h.Ino()); err != nil || a.Size != 5000 {
					bad <- a.Size
					return
				}
			}
		}()
		if err := h.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		r.sync()
		close(stop)
		if size, ok := <-bad; ok {
			t.Fatalf("file %d showed a size of %d while it was published", i, size)
		}
		h.Release()
	}
}

// TestWriteBeforeRemoteDeleteBringsTheFileBack: what was written here, published or
// not, before this mount heard that others removed the file is not lost. Names that the file had
// before, and that were removed here, do not count.
func TestWriteBeforeRemoteDeleteBringsTheFileBack(t *testing.T) {
	plain := func(a *rig) { a.write(a.create("f"), "base", 0) }
	linked := func(a *rig) {
		plain(a)
		a.link("f", "g")
		must(t, a.Unlink(ctx, RootIno, "g"))
	}
	unnamed := func(a *rig) {
		_, h, err := a.CreateUnnamed(ctx, Caller{}, RootIno, 0o644, syscall.O_RDWR)
		must(t, err)
		defer h.Release()
		a.write(h, "base", 0)
		_, err = a.Link(ctx, h.Ino(), RootIno, "f")
		must(t, err)
	}
	const more = "more"
	for name, prepare := range map[string]func(*rig){"one name": plain, "a name removed before": linked, "made without a name": unnamed} {
		t.Run(name, func(t *testing.T) {
			a, b := newRig(t, 1, smallBlocks), newRig(t, 2, smallBlocks)
			prepare(a)
			exchange(a, b)
			h := a.open("f", syscall.O_RDWR)
			a.write(h, more, 0)
			must(t, b.Unlink(ctx, RootIno, "f"))
			b.sync()
			give(b, a)
			must(t, h.Flush(ctx))
			h.Release()
			exchange(a, b)
			wantNames(t, map[string]string{"f": more}, a, b)
		})
		t.Run(name+", journalled", func(t *testing.T) {
			a, b := newRig(t, 1, smallBlocks), newRig(t, 2, smallBlocks)
			prepare(a)
			exchange(a, b)
			h := a.open("f", syscall.O_RDWR)
			a.write(h, more, 0)
			must(t, h.Fsync(ctx))
			must(t, b.Unlink(ctx, RootIno, "f"))
			b.sync()
			give(b, a)
			again := a.crash()
			exchange(again, b)
			wantNames(t, map[string]string{"f": more}, again, b)
		})
	}
}

// TestRemovalsOfTwoNamesMeet: each of two removed another name, not knowing of the other's removal, so neither
// removed the file; and one of them had written to it.
func TestRemovalsOfTwoNamesMeet(t *testing.T) {
	for _, crash := range []bool{false, true} {
		a, b := newRig(t, 1, smallBlocks), newRig(t, 2, smallBlocks)
		a.write(a.create("f"), "base", 0)
		a.link("f", "g")
		exchange(a, b)
		h := a.open("f", syscall.O_RDWR)
		a.write(h, "more", 0)
		must(t, h.Fsync(ctx))
		for range 5 { // so that its removal has the greater counter
			a.create("x").Release()
			must(t, a.Unlink(ctx, RootIno, "x"))
		}
		must(t, a.Unlink(ctx, RootIno, "g"))
		must(t, b.Unlink(ctx, RootIno, "f"))
		b.sync()
		give(b, a)
		if crash {
			a = a.crash()
		} else {
			must(t, h.Flush(ctx))
			h.Release()
		}
		exchange(a, b)
		for _, r := range []*rig{a, b} {
			if got := r.all(); !slices.Contains(slices.Collect(maps.Values(got)), "more") {
				t.Errorf("crash %v: what is there: %v", crash, got)
			}
		}
	}
}

// TestMergedBeforeFilesFollow: a removal from elsewhere is in the tree a moment before open files hear of it. What is sealed in
// that moment comes back as well.
func TestMergedBeforeFilesFollow(t *testing.T) {
	a, b := newRig(t, 1, smallBlocks), newRig(t, 2, smallBlocks)
	a.write(a.create("f"), "base", 0)
	exchange(a, b)
	h := a.open("f", syscall.O_RDWR)
	a.write(h, "more", 0)
	must(t, b.Unlink(ctx, RootIno, "f"))
	b.sync()
	_, err := a.cutBatch()
	must(t, err)
	for i, payload := range b.log.all() {
		a.treeMu.Lock()
		_, err := a.cfg.Tree.Merge(b.log.author, uint64(i+1), payload)
		a.treeMu.Unlock()
		must(t, err)
	}
	must(t, h.Flush(ctx))
	h.Release()
	exchange(a, b)
	wantNames(t, map[string]string{"f": "more"}, a, b)
}

// TestRemovedHereStaysRemoved: a file that others removed, and that was about to come back for what was
// written to it here, is removed here as well.
func TestRemovedHereStaysRemoved(t *testing.T) {
	a, b := newRig(t, 1, smallBlocks), newRig(t, 2, smallBlocks)
	a.write(a.create("f"), "base", 0)
	a.link("f", "g")
	exchange(a, b)
	h := a.open("f", syscall.O_RDWR)
	a.write(h, "more", 0)
	must(t, b.Unlink(ctx, RootIno, "f"))
	b.sync()
	give(b, a)
	must(t, a.Unlink(ctx, RootIno, "g"))
	must(t, h.Flush(ctx))
	h.Release()
	exchange(a, b)
	wantNames(t, map[string]string{}, a, b)
}

// TestRemovedJournalledStaysRemoved: what was journalled of a file brings none of its names back after a crash, if this device removed
// the last and another had removed one.
func TestRemovedJournalledStaysRemoved(t *testing.T) {
	a, b := newRig(t, 1, smallBlocks), newRig(t, 2, smallBlocks)
	a.write(a.create("f"), "base", 0)
	a.link("f", "g")
	exchange(a, b)
	must(t, b.Unlink(ctx, RootIno, "g"))
	b.sync()
	give(b, a)
	h := a.open("f", syscall.O_RDWR)
	a.write(h, "more", 0)
	must(t, h.Fsync(ctx))
	must(t, a.Unlink(ctx, RootIno, "f"))
	if got := a.read(h); got != "more" {
		t.Errorf("the open handle reads %q", got)
	}
	must(t, h.Fsync(ctx))
	a = a.crash()
	exchange(a, b)
	wantNames(t, map[string]string{}, a, b)
}

// TestNamedAgainAfterUnjournalled: a file that was journalled, removed here and named again by another device that had changed it keeps what
// was written to it here, and a crash loses nothing of that once it was flushed.
func TestNamedAgainAfterUnjournalled(t *testing.T) {
	a, b := newRig(t, 1, smallBlocks), newRig(t, 2, smallBlocks)
	a.write(a.create("f"), "base", 0)
	exchange(a, b)
	h := a.open("f", syscall.O_RDWR)
	a.write(h, "more", 0)
	must(t, h.Fsync(ctx))
	must(t, a.Unlink(ctx, RootIno, "f"))
	b.link("f", "g")
	b.sync()
	give(b, a)
	a.write(h, "!", 4)
	must(t, h.Fsync(ctx))
	a = a.crash()
	exchange(a, b)
	wantNames(t, map[string]string{"g": "more!"}, a, b)
}

// TestWriteAfterRemoteDeleteRevivesNothing writes to a file that is open here and known to be deleted elsewhere.
func TestWriteAfterRemoteDeleteRevivesNothing(t *testing.T) {
	a, b := newRig(t, 1, nil), newRig(t, 2, nil)
	a.write(a.create("f"), "base", 0)
	exchange(a, b)
	h := a.open("f", syscall.O_RDWR)
	if err := b.Unlink(ctx, RootIno, "f"); err != nil {
		t.Fatal(err)
	}
	exchange(a, b)
	a.write(h, "more", 0)
	if got := a.read(h); got != "more" {
		t.Errorf("open handle reads %q", got)
	}
	if err := h.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	h.Release()
	exchange(a, b)
	for _, r := range []*rig{a, b} {
		if _, err := r.Lookup(ctx, RootIno, "f"); !errors.Is(err, namespace.ErrNotExist) {
			t.Errorf("the deleted name is there: %v", err)
		}
	}
}

// TestTruncatingOnAFullDisk: what frees space is still possible where nothing that takes some is.
func TestTruncatingOnAFullDisk(t *testing.T) {
	var free atomic.Uint64
	free.Store(1 << 39)
	r := newRig(t, 1, func(c *Config) { c.DiskUsage = func() (uint64, uint64, error) { return 1 << 40, free.Load(), nil } })
	h := r.create("f")
	r.write(h, strings.Repeat("x", 1000), 0)
	r.sync()
	free.Store(24 << 20)
	r.looked.Store(nil) // what was seen a moment ago would count
	if _, err := h.Write(ctx, []byte("more"), 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %v, want ENOSPC", err)
	}
	if err := truncate(h, 500); err != nil {
		t.Errorf("ftruncate: %v", err)
	}
	if _, err := r.Setattr(ctx, h.Ino(), SetAttr{Valid: SetSize}); err != nil {
		t.Errorf("truncate: %v", err)
	}
}

// TestDfShowsWhatContentsMayTake: no space is shown as available where every content is ENOSPC.
func TestDfShowsWhatContentsMayTake(t *testing.T) {
	const mib = 1 << 20 / 4096
	for _, c := range []struct{ total, free, left uint64 }{{1 << 40, 1 << 39, 64}, {260 << 20, 100 << 20, 13}, {260 << 20, 13 << 20, 13}, {260 << 20, 1 << 20, 1}} {
		r := newRig(t, 1, func(cfg *Config) { cfg.DiskUsage = func() (uint64, uint64, error) { return c.total, c.free, nil } })
		st, err := r.Statfs(ctx)
		must(t, err)
		if st.Bfree != c.free/4096 || st.Bavail != st.Bfree-c.left*mib {
			t.Errorf("%d MiB free of %d: %d MiB are available, want %d less", c.free>>20, c.total>>20, st.Bavail/mib, c.left)
		}
	}
}

// TestCutWhatCannotBeStored: truncate succeeds once the file is cut, also if that can be stored nowhere yet, and others are not shown the file as
// it was.
func TestCutWhatCannotBeStored(t *testing.T) {
	for name, left := range map[string]uint64{"journalled": 1 << 39, "not journalled": 24 << 20} {
		t.Run(name, func(t *testing.T) {
			var free atomic.Uint64
			free.Store(1 << 39)
			r := newRig(t, 1, func(c *Config) {
				smallBlocks(c)
				c.DiskUsage = func() (uint64, uint64, error) { return 1 << 40, free.Load(), nil }
			})
			h := r.create("f")
			text := strings.Repeat("x", 40_000)
			r.write(h, text, 0)
			r.sync()
			h.Release()
			r.chunks.fail(syscall.ENOSPC, nil)
			free.Store(left)
			r.looked.Store(nil) // what was seen a moment ago would count
			a, err := r.Setattr(ctx, h.Ino(), SetAttr{Valid: SetSize | SetMtimeNow, Size: 25_000})
			if err != nil || a.Size != 25_000 {
				t.Fatalf("truncate to 25000: %d, %v", a.Size, err)
			}
			if _, _, err := r.Publish(ctx, false); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("published what is not in the tree: %v", err)
			}
			if name == "journalled" {
				wantAfterCrash(r, "f", text[:25_000])
			}
			r.chunks.fail(nil, nil)
			_, _, err = r.Publish(ctx, false)
			must(t, err)
			wantAfterCrash(r, "f", text[:25_000])
		})
	}
}

// TestReadAcrossTheEndOfACut: what a read gives does not depend on how it lies to the end of what is left of a file of one block.
func TestReadAcrossTheEndOfACut(t *testing.T) {
	r := newRig(t, 1, smallBlocks)
	h := r.create("f")
	const page = 4096
	text := strings.Repeat("a", page) + strings.Repeat("b", page) + strings.Repeat("c", page) + strings.Repeat("d", page)
	r.write(h, text, 0)
	r.sync()
	must(t, truncate(h, 3*page))
	r.write(h, "end", 5*page)
	text = text[:3*page] + strings.Repeat("\x00", page)
	for off := range 4 {
		got := make([]byte, (4-off)*page)
		if n, err := h.Read(ctx, got, int64(off*page)); err != nil || n != len(got) {
			t.Fatalf("read %d bytes: %v", n, err)
		}
		if want := text[off*page:]; string(got) != want {
			t.Errorf("page %d begins with %q, want %q", off, got[0], want[0])
		}
	}
}

// TestSameContentAgain: a file that is cut and written anew with what it had, before that has entered the tree, keeps it.
func TestSameContentAgain(t *testing.T) {
	for _, cut := range []int64{0, 5000, 20_000} {
		r := newRig(t, 1, smallBlocks)
		h := r.create("f")
		text := strings.Repeat("x", 3<<14)
		r.write(h, text, 0)
		h.in.fold.Lock()
		must(t, r.prepare(ctx, h.in))
		must(t, truncate(h, cut))
		r.write(h, text[cut:], cut)
		must(t, r.sealDirty(ctx, h.in))
		must(t, r.commitReady(h.in))
		h.in.fold.Unlock()
		if got := r.read(h); got != text {
			t.Errorf("cut to %d: another content", cut)
		}
		r.sync()
		if got := r.read(h); got != text {
			t.Errorf("cut to %d: another content in the tree", cut)
		}
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
