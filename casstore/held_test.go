package casstore

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/foreverfs/forever/chunk"
)

// What is held stays held: whatever maintenance meets, a pack with a chunk that may be read yet is not removed.

// onceAsked is a context that does something when it is first looked at.
type onceAsked struct {
	context.Context
	do func()
}

func (c *onceAsked) Err() error {
	if do := c.do; do != nil {
		c.do = nil
		do()
	}
	return c.Context.Err()
}

func TestCompactWhileOthersPut(t *testing.T) {
	s, err := Open(Config{Dir: "store", FS: vfs.NewMem(), PackSize: 4 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const n = 40
	put(t, s, 0)
	ctx := &onceAsked{bg, func() {
		for i := 1; i < n; i++ {
			put(t, s, i)
		}
	}}
	if _, err := s.Compact(ctx); err != nil {
		t.Fatal(err)
	}
	wantHeld(t, s, seq(n)...)
}

func TestScrubWhileOthersPut(t *testing.T) {
	disk := vfs.NewMem()
	s, err := Open(Config{Dir: "store", FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put(t, s, 0)
	if err := s.Sync(bg); err != nil {
		t.Fatal(err)
	}
	raw, err := disk.UnsafeGetFileDataBuffer("store/" + packName(1))
	if err != nil {
		t.Fatal(err)
	}
	raw[20] ^= 1 // in the header, so that the pack is left
	others := func() { put(t, s, 1) }
	if _, err := s.Scrub(bg, func(Progress) {
		if others != nil {
			others()
			others = nil
		}
	}); err != nil {
		t.Fatal(err)
	}
	wantHeld(t, s, seq(2)...)
}

// badSector fails reads of a pack from an offset on.
type badSector struct {
	pack string // empty: none
	off  int64
}

func (b *badSector) MaybeError(op errorfs.Op) error {
	if b.pack != "" && op.Kind == errorfs.OpFileReadAt && strings.HasSuffix(op.Path, b.pack) && op.Offset >= b.off {
		return &os.PathError{Op: "read", Path: op.Path, Err: syscall.EIO}
	}
	return nil
}

func (b *badSector) String() string { return "bad sector" }

// placeOf returns where a chunk lies.
func placeOf(t *testing.T, s *Store, i int) (chunk.ID, loc) {
	t.Helper()
	id, _ := blob(i)
	l, err := s.locate(id)
	if err != nil {
		t.Fatal(err)
	}
	return id, l
}

func TestCompactKeepsWhatCannotBeRead(t *testing.T) {
	bad := &badSector{}
	s, err := Open(Config{Dir: "store", FS: errorfs.Wrap(vfs.NewMem(), bad), PackSize: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var first []int
	for i := range 40 {
		put(t, s, i)
		if _, l := placeOf(t, s, i); l.pack == 1 {
			first = append(first, i)
		}
	}
	if err := s.Sync(bg); err != nil {
		t.Fatal(err)
	}
	kept := first[len(first)-1]
	for _, i := range first[:len(first)-1] {
		id, _ := blob(i)
		if err := s.Delete(bg, id); err != nil {
			t.Fatal(err)
		}
	}
	id, l := placeOf(t, s, kept)
	bad.pack, bad.off = packName(1), l.off
	if _, err := s.Compact(bg); err == nil {
		t.Error("compacted, though a chunk could not be read")
	}
	bad.pack = ""
	if _, err := s.Get(bg, nil, id); err != nil {
		t.Errorf("the disk has recovered, and the chunk is gone: %v", err)
	}
}

// TestOpenWithBadSector: a chunk that cannot be read when the index is made anew keeps no store from opening, and its place.
func TestOpenWithBadSector(t *testing.T) {
	bad := &badSector{}
	cfg := Config{Dir: "store", FS: errorfs.Wrap(vfs.NewMem(), bad)}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	const n = 10
	for i := range n {
		put(t, s, i)
	}
	id, l := placeOf(t, s, n-1)
	s.markRebuild()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	bad.pack, bad.off = packName(1), l.chunk()
	if s, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if has, err := s.Has(id); err != nil || has {
		t.Errorf("what cannot be read counts as held: %v", err)
	}
	wantHeld(t, s, seq(n-1)...)
	bad.pack = ""
	if _, err := s.Get(bg, nil, id); err != nil {
		t.Errorf("the disk has recovered, and the chunk is gone: %v", err)
	}
}
