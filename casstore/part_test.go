package casstore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/blake3"
	"pgregory.net/rapid"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/hashtree"
)

// wantPart checks a part of a chunk.
func wantPart(t testing.TB, s *Store, data []byte, off, n int) {
	t.Helper()
	called := false
	err := s.Part(bg, blake3.Sum256(data), off, n, func(part, head []byte, size int) error {
		called = true
		if !bytes.Equal(part, data[off:off+n]) || !bytes.Equal(head, data[:PartHead]) || size != len(data) {
			t.Errorf("%d bytes at %d of %d are wrong", n, off, len(data))
		}
		return nil
	})
	if err != nil || !called {
		t.Fatalf("read %d bytes at %d of %d: %v", n, off, len(data), err)
	}
}

func noPart([]byte, []byte, int) error { return errors.New("called") }

func TestPart(t *testing.T) {
	disk := vfs.NewMem()
	s := mustOpen(t, kinds[0], disk).(*Store)
	const group = hashtree.GroupSize
	var all [][]byte
	for i, size := range []int{group + 1, 2 * group, 4*group + 75, 70000, MaxChunk} {
		data := random(size)
		data[0] = byte(i)
		all = append(all, data)
	}
	check := func() {
		t.Helper()
		rapid.Check(t, func(rt *rapid.T) {
			data := rapid.SampledFrom(all).Draw(rt, "chunk")
			n := rapid.IntRange(1, group+1).Draw(rt, "n")
			off := rapid.IntRange(0, len(data)-n).Draw(rt, "off")
			wantPart(t, s, data, off, n)
		})
	}
	for _, data := range all {
		if _, _, err := s.Add(bg, data); err != nil {
			t.Fatal(err)
		}
		wantPart(t, s, data, 0, 1)
		wantPart(t, s, data, len(data)-1, 1)
	}
	check() // not yet in the index
	if err := s.Sync(bg); err != nil {
		t.Fatal(err)
	}
	check()
	if err := errors.Join(s.Close(), disk.RemoveAll("store/index")); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, kinds[0], disk).(*Store) // the index made anew
	check()

	large := blake3.Sum256(all[3])
	for _, r := range [][2]int{{-1, 5}, {0, 0}, {0, -1}, {69999, 2}, {70000, 1}, {0, 3 * group}, {group - 1, group + 2}, {1 << 62, 1 << 62}} {
		if err := s.Part(bg, large, r[0], r[1], noPart); !errors.Is(err, ErrWhole) {
			t.Errorf("%d bytes at %d: %v, want ErrWhole", r[1], r[0], err)
		}
	}
	if err := s.Part(bg, chunk.ID{1}, 0, 1, noPart); !errors.Is(err, ErrNotFound) {
		t.Errorf("part of no chunk: %v, want ErrNotFound", err)
	}
	small := put(t, s, 1)
	if err := s.Part(bg, small, 0, 1, noPart); !errors.Is(err, ErrWhole) {
		t.Errorf("part of a small chunk: %v, want ErrWhole", err)
	}
	want := errors.New("not opened")
	if err := s.Part(bg, large, 0, 1, func(_, _ []byte, _ int) error { return want }); !errors.Is(err, want) {
		t.Errorf("error of the caller came back as %v", err)
	}
}

// TestPartOfDamaged: whatever bit of a record is wrong, a part is right or not given, and a scrub mends what was wrong
// around the chunk.
func TestPartOfDamaged(t *testing.T) {
	data := random(3*hashtree.GroupSize + 500)
	id := chunk.ID(blake3.Sum256(data))
	rapid.Check(t, func(rt *rapid.T) {
		disk := vfs.NewMem()
		s := mustOpen(t, kinds[0], disk).(*Store)
		defer s.Close()
		if _, _, err := s.Add(bg, data); err != nil {
			rt.Fatal(err)
		}
		if err := s.Sync(bg); err != nil {
			rt.Fatal(err)
		}
		raw, err := disk.UnsafeGetFileDataBuffer("store/" + packName(1))
		if err != nil {
			rt.Fatal(err)
		}
		front := rapid.Bool().Draw(rt, "in front of the chunk")
		from, to := packHeaderSize, len(raw)-len(data)
		if !front {
			from, to = to, len(raw)
		}
		if rapid.Bool().Draw(rt, "near the beginning of the chunk") {
			from, to = max(from, len(raw)-len(data)-200), min(to, len(raw)-len(data)+PartHead)
		}
		at := rapid.IntRange(from, to-1).Draw(rt, "byte")
		raw[at] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		off := rapid.IntRange(0, len(data)-100).Draw(rt, "off")
		err = s.Part(bg, id, off, 100, func(part, head []byte, _ int) error {
			if !bytes.Equal(part, data[off:off+100]) || !bytes.Equal(head, data[:PartHead]) {
				rt.Errorf("wrong bytes at %d or at the beginning", off)
			}
			return nil
		})
		if err != nil && !errors.Is(err, ErrDamaged) {
			rt.Errorf("part at %d: %v, want ErrDamaged", off, err)
		}
		rep, err := s.Scrub(bg, nil)
		if err != nil || front && rep.Records != 1 || !front && len(rep.Damaged) != 1 {
			rt.Errorf("scrub says %+v: %v", rep, err)
		}
		if front {
			wantPart(t, s, data, off, 100)
		}
	})
}

// TestPartReadsOnePlace: what a part is verified and opened with is in the index.
func TestPartReadsOnePlace(t *testing.T) {
	disk := vfs.NewMem()
	s := mustOpen(t, kinds[0], disk).(*Store)
	data := random(4 * hashtree.GroupSize)
	id, _, err := s.Add(bg, data)
	if err := errors.Join(err, s.Sync(bg)); err != nil {
		t.Fatal(err)
	}
	raw, err := disk.UnsafeGetFileDataBuffer("store/" + packName(1))
	if err != nil {
		t.Fatal(err)
	}
	clear(raw[packHeaderSize+recordHeaderSize:][:4*hashtree.HashSize+hashtree.GroupSize])
	wantPart(t, s, data, 2*hashtree.GroupSize, 1000)
	if err := s.Part(bg, id, 0, 1, noPart); !errors.Is(err, ErrDamaged) {
		t.Errorf("part of the damaged group: %v, want ErrDamaged", err)
	}
	if err := s.Delete(bg, id); err != nil {
		t.Fatal(err)
	}
	if f, err := s.idx.front(nil, id); !errors.Is(err, ErrNotFound) {
		t.Errorf("front of a deleted chunk: %x, %v", f, err)
	}
}

// TestScrubMendsFronts: a front that the index lacks, or has wrong, is entered.
func TestScrubMendsFronts(t *testing.T) {
	s := mustOpen(t, kinds[0], vfs.NewMem()).(*Store)
	data := random(70000)
	id, _, err := s.Add(bg, data)
	if err := errors.Join(err, s.Sync(bg)); err != nil {
		t.Fatal(err)
	}
	want, err := s.idx.front(nil, id)
	if err != nil {
		t.Fatal(err)
	}
	wrong := slices.Clone(want)
	wrong[len(wrong)-1]++
	for name, spoil := range map[string]func() error{
		"lost":  func() error { return s.idx.db.Delete(frontKey(nil, id), pebble.NoSync) },
		"wrong": func() error { return s.idx.db.Set(frontKey(nil, id), wrong, pebble.NoSync) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if rep, err := s.Scrub(bg, nil); err != nil || rep.Chunks != 1 || rep.Records != 0 {
			t.Errorf("%s: scrub says %+v: %v", name, rep, err)
		}
		if got, err := s.idx.front(nil, id); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: front is %x, want %x: %v", name, got, want, err)
		}
	}
}

// TestPartOfForged: other bytes with hashes to match are not the chunk.
func TestPartOfForged(t *testing.T) {
	disk := vfs.NewMem()
	s := mustOpen(t, kinds[0], disk).(*Store)
	data := random(50000)
	id, _, err := s.Add(bg, data)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := disk.UnsafeGetFileDataBuffer("store/" + packName(1))
	if err != nil {
		t.Fatal(err)
	}
	data[20000] ^= 1
	_, hashes := hashtree.Sum(nil, data)
	copy(raw[packHeaderSize+recordHeaderSize:], append(hashes, data...))
	if err := s.Part(bg, id, 20000, 1, noPart); !errors.Is(err, ErrDamaged) {
		t.Errorf("part of a forged chunk: %v, want ErrDamaged", err)
	}
}

// TestOldPack: packs and an index of the version before are read, and not continued.
func TestOldPack(t *testing.T) {
	disk := vfs.NewMem()
	open := func() *Store {
		t.Helper()
		s, err := Open(Config{Dir: "store", FS: disk})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	const n = 8
	for i := range n {
		put(t, s, i)
	}
	large := random(70000)
	if added, _, err := s.append(blake3.Sum256(large), nil, large, 0); err != nil || !added { // as that version did
		t.Fatal(err)
	}
	if err := s.Sync(bg); err != nil {
		t.Fatal(err)
	}
	m := s.idx.meta.encode()
	m[0], m[1] = oldMetaVersion, 1
	if err := errors.Join(s.Close(), setMeta(disk, m)); err != nil {
		t.Fatal(err)
	}
	path := "store/" + packName(1)
	raw, err := disk.UnsafeGetFileDataBuffer(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[11] = oldPackVersion
	copy(raw, resum(bytes.Clone(raw[:packHeaderSize])))
	size := len(raw)
	for range 2 {
		s = open()
		if err := wantWhole(s, large); err != nil {
			t.Fatal(err)
		}
		wantHeld(t, s, seq(n)...)
		data := random(50000)
		if _, _, err := s.Add(bg, data); err != nil {
			t.Fatal(err)
		}
		wantPart(t, s, data, 20000, 1000)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if raw, err = disk.UnsafeGetFileDataBuffer(path); err != nil || len(raw) != size {
		t.Errorf("the old pack has %d bytes, had %d: %v", len(raw), size, err)
	}
	if _, err := disk.Stat("store/" + packName(3)); err == nil {
		t.Error("the new pack was not continued")
	}
}

// wantWhole checks a chunk that can only be read whole.
func wantWhole(s *Store, data []byte) error {
	id := chunk.ID(blake3.Sum256(data))
	got, err := s.Get(bg, nil, id)
	if err != nil || !bytes.Equal(got, data) {
		return fmt.Errorf("got %d of %d bytes: %w", len(got), len(data), err)
	}
	if err := s.Part(bg, id, 20000, 1000, noPart); !errors.Is(err, ErrWhole) {
		return fmt.Errorf("part: %w, want ErrWhole", err)
	}
	return nil
}

// setMeta writes what a closed index says about itself.
func setMeta(disk vfs.FS, value []byte) (err error) {
	db, err := pebble.Open("store/index", &pebble.Options{FS: disk, FormatMajorVersion: pebble.FormatNewest})
	if err != nil {
		return fmt.Errorf("open index: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.Set(metaKey, value, pebble.Sync)
}

func BenchmarkPart(b *testing.B) {
	s, ids := benchFilled(b, 65611)
	n := 0
	for b.Loop() {
		n++
		err := s.Part(bg, ids[n%len(ids)], n*4096%(60<<10), 4096, func(_, _ []byte, _ int) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
	}
}
