package volume

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/namespace"
)

// TestJournalOfRemovedFileGoes: a database makes a file durable and removes it, thousands of times.
func TestJournalOfRemovedFileGoes(t *testing.T) {
	for name, steps := range map[string][]string{"closed first": {"close", "unlink"}, "removed first": {"unlink", "close"}} {
		r := newRig(t, 1, nil)
		ctx := context.Background()
		records := func() (n int) {
			lo := []byte{journalPrefix}
			must(t, r.state.Scan(lo, kv.PrefixEnd(lo), func(_, _ []byte) bool { n++; return true }))
			return n
		}
		h := r.create("f")
		r.write(h, string(make([]byte, 5000)), 0)
		must(t, h.Fsync(ctx))
		if records() == 0 {
			t.Fatalf("%s: nothing was journalled", name)
		}
		for _, step := range steps {
			if step == "unlink" {
				must(t, r.Unlink(ctx, RootIno, "f"))
				continue
			}
			must(t, h.Flush(ctx))
			h.Release()
		}
		must(t, r.Close()) // which waits for what goes on behind
		if n := records(); n != 0 {
			t.Errorf("%s: %d records of a file that is gone", name, n)
		}
	}
}

// journalVectors are records and their bytes. They never change.
var journalVectors = map[string]struct {
	rec record
	hex string
}{
	"first write of a new file": {
		record{size: 5, minSize: 0, mtime: 7, extents: []fileExtent{{0, []byte("hello")}}},
		"01" + strings.Repeat("00", 24) + "0000000000000000" + "0000" + strings.Repeat("00", 32) + "00000000" +
			"0000000000000005" + "0000000000000000" + "0000000000000007" + "00000001" +
			"0000000000000000" + "00000005" + "68656c6c6f",
	},
	"over blocks, cut and two extents": {
		record{
			base: namespace.Content{ID: namespace.OpID{Lamport: 9, Author: namespace.AuthorID{1, 15: 2}}, Version: chunk.Version{Size: 1 << 17, BlockLog: 16, Height: 1, Root: chunk.ID{3, 31: 4}}},
			size: 1 << 16, minSize: 4096, mtime: -1, extents: []fileExtent{{4096, []byte{0xaa}}, {65535, []byte{0xbb}}},
		},
		"01" + "0000000000000009" + "01" + strings.Repeat("00", 14) + "02" + "0000000000020000" + "1001" + "03" + strings.Repeat("00", 30) + "04" + "00000000" +
			"0000000000010000" + "0000000000001000" + "ffffffffffffffff" + "00000002" +
			"0000000000001000" + "00000001" + "aa" + "000000000000ffff" + "00000001" + "bb",
	},
	"over inline content, size alone": {
		record{
			base: namespace.Content{ID: namespace.OpID{Lamport: 1, Author: namespace.AuthorID{5}}, Version: chunk.Version{Size: 3, BlockLog: 16, Inline: []byte("abc")}},
			size: 9000, minSize: 2, mtime: 1,
		},
		"01" + "0000000000000001" + "05" + strings.Repeat("00", 15) + "0000000000000003" + "1000" + strings.Repeat("00", 32) + "00000003" + "616263" +
			"0000000000002328" + "0000000000000002" + "0000000000000001" + "00000000",
	},
}

func TestJournalVectors(t *testing.T) {
	for name, v := range journalVectors {
		t.Run(name, func(t *testing.T) {
			if got := hex.EncodeToString(v.rec.encode()); got != v.hex {
				t.Errorf("encoded %s, want %s", got, v.hex)
			}
			b, err := hex.DecodeString(v.hex)
			if err != nil {
				t.Fatal(err)
			}
			got, err := decodeRecord(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(v.rec, got, cmp.AllowUnexported(record{}, fileExtent{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMalformedRecordsAreRefused(t *testing.T) {
	good, err := hex.DecodeString(journalVectors["over blocks, cut and two extents"].hex)
	if err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, err := decodeRecord(good[:n]); !errors.Is(err, errJournal) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	for what, change := range map[string]func(b []byte){
		"a newer version":        func(b []byte) { b[0] = 2 },
		"a negative size":        func(b []byte) { b[71] = 0x80 },
		"an extent past the end": func(b []byte) { b[len(b)-8] = 1 },
		"an impossible height":   func(b []byte) { b[34] = 9 },
		"a block size too large": func(b []byte) { b[33] = 40 },
		"too many extents":       func(b []byte) { b[95] = 0xff },
	} {
		b := append([]byte(nil), good...)
		change(b)
		if _, err := decodeRecord(b); !errors.Is(err, errJournal) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// FuzzJournalRecord: what decodes encodes to the same bytes, and nothing panics.
func FuzzJournalRecord(f *testing.F) {
	for _, v := range journalVectors {
		f.Add(v.rec.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err == nil && string(r.encode()) != string(b) {
			t.Errorf("%x encodes as %x", b, r.encode())
		}
	})
}

func TestJournalOfReopenedFileKeepsTheRest(t *testing.T) {
	a := newRig(t, 1, smallBlocks)
	h := a.create("f")
	a.write(h, strings.Repeat("x", 50000), 0)
	if err := h.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	h.Release()
	a.sync()
	b := startRig(t, 1, a.state, a.chunks, smallBlocks)
	h = b.open("f", syscall.O_RDWR)
	b.write(h, "new", 100)
	if err := h.Fsync(context.Background()); err != nil {
		t.Fatal(err)
	}
	c := startRig(t, 1, a.state, a.chunks, smallBlocks)
	want := strings.Repeat("x", 100) + "new" + strings.Repeat("x", 50000-103)
	if got := c.content("f"); got != want {
		t.Errorf("after replay %d bytes differ from the %d written (first byte %q)", len(got), len(want), got[0])
	}
}

func TestJournalAfterRemoteGrowthKeepsIt(t *testing.T) {
	a, b := newRig(t, 1, smallBlocks), newRig(t, 2, smallBlocks)
	h := a.create("f")
	a.write(h, strings.Repeat("x", 100), 0)
	exchange(a, b)
	hb := b.open("f", syscall.O_RDWR)
	b.write(hb, strings.Repeat("y", 50000), 0)
	exchange(a, b)
	a.write(h, "new", 0)
	if err := h.Fsync(context.Background()); err != nil {
		t.Fatal(err)
	}
	c := startRig(t, 1, a.state, a.chunks, smallBlocks)
	if got, want := c.content("f"), "new"+strings.Repeat("y", 49997); got != want {
		t.Errorf("after replay %d bytes differ from the %d written", len(got), len(want))
	}
}

func TestReplayNeverMixesWithAnotherEdit(t *testing.T) {
	a, b := newRig(t, 1, smallBlocks), newRig(t, 2, smallBlocks)
	h := a.create("f")
	a.write(h, strings.Repeat("x", 50000), 0)
	exchange(a, b)
	a.write(h, "mine", 0)
	if err := h.Fsync(context.Background()); err != nil {
		t.Fatal(err)
	}
	hb := b.open("f", syscall.O_RDWR)
	b.write(hb, strings.Repeat("y", 50000), 0)
	b.sync()
	a.chunks.addAll(b.chunks.all())
	give(b, a)
	c := startRig(t, 1, a.state, a.chunks, smallBlocks)
	if got := c.content("f"); strings.Contains(got, "mine") && strings.Contains(got, "y") {
		t.Error("the journalled write was laid over somebody else's edit")
	}
}
