package volume

import (
	"errors"
	"strings"
	"syscall"
	"testing"
)

// TestHiddenFileKeepsWhatIsWritten: two make a file of one name; while both are empty, one of them is hidden. What its device writes to it
// is not lost, whatever becomes of the file that is shown meanwhile.
func TestHiddenFileKeepsWhatIsWritten(t *testing.T) {
	data := strings.Repeat("data", 256)
	closed := func(_ *rig, h *Handle) {
		must(t, h.Flush(ctx))
		h.Release()
	}
	synced := func(_ *rig, h *Handle) { must(t, h.Fsync(ctx)) }
	open := func(*rig, *Handle) {}
	moved := func(a *rig) { must(t, a.Rename(ctx, RootIno, "t", RootIno, "f", 0)) }
	written := func(a *rig) {
		h := a.open("t", syscall.O_RDWR)
		a.write(h, "other", 0)
		must(t, h.Flush(ctx))
		h.Release()
		must(t, a.commitQueue(ctx))
	}
	for name, test := range map[string]struct {
		before func(*rig, *Handle)
		then   func(*rig)
		shown  map[string]string
		crash  bool
	}{
		"closed, moved":              {closed, moved, map[string]string{"f": ""}, false},
		"synced, moved":              {synced, moved, map[string]string{"f": ""}, false},
		"synced, moved, crashed":     {synced, moved, map[string]string{"f": ""}, true},
		"open, moved":                {open, moved, map[string]string{"f": ""}, false},
		"closed, written":            {closed, written, map[string]string{"t": "other"}, false},
		"synced, written":            {synced, written, map[string]string{"t": "other"}, false},
		"synced, written, crashed":   {synced, written, map[string]string{"t": "other"}, true},
		"open, written":              {open, written, map[string]string{"t": "other"}, false},
		"synced, exchanged, crashed": {synced, func(a *rig) { must(t, a.Rename(ctx, RootIno, "t", RootIno, "u", RenameExchange)) }, map[string]string{"t": "u", "u": ""}, true},
		"closed, removed":            {closed, func(a *rig) { must(t, a.Unlink(ctx, RootIno, "t")) }, map[string]string{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newRig(t, 1, smallBlocks), newRig(t, 2, smallBlocks)
			if test.shown["t"] == "u" {
				a.write(a.create("u"), "u", 0)
				exchange(a, b)
			}
			h := a.create("t")
			b.create("t").Release()
			exchange(a, b)
			if e, err := a.entry(mustInode(t, a, RootIno), "t"); err != nil || e.Node.Ino() == h.Ino() {
				t.Fatalf("the file that is written is shown: %v", err)
			}
			a.write(h, data, 0)
			test.before(a, h)
			test.then(a)
			if test.crash {
				a = a.crash()
			}
			exchange(a, b)
			for _, r := range []*rig{a, b} {
				got := r.all()
				for name, want := range test.shown {
					if have, ok := got[name]; !ok || have != want {
						t.Errorf("%s holds %q, not %q", name, have, want)
					}
					delete(got, name)
				}
				for name, have := range got {
					if !strings.HasPrefix(name, "t (conflict ") || have != data {
						t.Errorf("%s holds %d bytes", name, len(have))
					}
				}
				if len(got) != 1 {
					t.Errorf("%d other files", len(got))
				}
			}
		})
	}
}

// TestHiddenFileWrittenAfterwards: what was hidden, empty and open went with what is shown; what is written to it then is not lost,
// nor what is in the journal.
func TestHiddenFileWrittenAfterwards(t *testing.T) {
	for _, crash := range []bool{false, true} {
		a, b := newRig(t, 1, smallBlocks), newRig(t, 2, smallBlocks)
		h := a.create("t")
		b.create("t").Release()
		exchange(a, b)
		must(t, a.Rename(ctx, RootIno, "t", RootIno, "f", 0))
		a.write(h, "data", 0)
		must(t, h.Fsync(ctx))
		if crash {
			a = a.crash()
		}
		exchange(a, b)
		wantNames(t, map[string]string{"f": "", "t": "data"}, a, b)
	}
}

// TestReplayOfBothTwins: of two files of one name, both empty, both have something in the journal.
func TestReplayOfBothTwins(t *testing.T) {
	for range 8 { // the order is random
		a, b := newRig(t, 1, smallBlocks), newRig(t, 2, smallBlocks)
		h := a.create("t")
		b.create("t").Release()
		exchange(a, b)
		other := a.open("t", syscall.O_RDWR)
		a.write(h, "mine", 0)
		a.write(other, "other", 0)
		must(t, h.Fsync(ctx))
		must(t, other.Fsync(ctx))
		a = a.crash()
		exchange(a, b)
		for _, r := range []*rig{a, b} {
			got := r.all()
			if got["t"] != "other" || len(got) != 2 {
				t.Errorf("there is %v", got)
			}
		}
	}
}

func mustInode(t *testing.T, r *rig, ino uint64) *inode {
	t.Helper()
	in, err := r.acquire(ino)
	must(t, err)
	t.Cleanup(func() { r.release(in) })
	return in
}

// TestWrittenConflictFileIsRemoved: who writes to a conflict file that another device removes is told so.
func TestWrittenConflictFileIsRemoved(t *testing.T) {
	a, b := newRig(t, 1, smallBlocks), newRig(t, 2, smallBlocks)
	f := a.create("f")
	a.write(f, "base", 0)
	exchange(a, b)
	a.write(f, "of a", 0)
	b.write(b.open("f", syscall.O_RDWR), "of b", 0)
	exchange(a, b)
	name := ""
	for other := range b.all() {
		if other != "f" {
			name = other
		}
	}
	h := b.open(name, syscall.O_RDWR)
	b.write(h, "more", 0)
	must(t, a.Unlink(ctx, RootIno, name))
	a.sync()
	give(a, b)
	if err := h.Fsync(ctx); !errors.Is(err, ErrStale) {
		t.Errorf("fsync: %v, want ErrStale", err)
	}
	h.Release()
	b.sync()
	if got := b.all(); len(got) != 1 {
		t.Errorf("%v is there", got)
	}
}
