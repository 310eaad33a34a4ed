package casstore

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/zeebo/blake3"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/hashtree"
)

// filled returns a disk with a closed store of n chunks, and their order.
func filled(t *testing.T, n int) (*vfs.MemFS, []chunk.ID) {
	t.Helper()
	disk := vfs.NewMem()
	b := mustOpen(t, kinds[0], disk)
	for i := range n {
		put(t, b, i)
	}
	order := ids(arrivals(t, b, Position{}))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return disk, order
}

func TestIndexIsRebuilt(t *testing.T) {
	for name, ruin := range map[string]func(t *testing.T, disk *vfs.MemFS){
		"gone": func(t *testing.T, disk *vfs.MemFS) {
			if err := disk.RemoveAll("store/index"); err != nil {
				t.Fatal(err)
			}
		},
		"manifest damaged": func(t *testing.T, disk *vfs.MemFS) { overwrite(t, disk, "MANIFEST") },
		"tables damaged":   func(t *testing.T, disk *vfs.MemFS) { overwrite(t, disk, ".sst") },
		"tables missing": func(t *testing.T, disk *vfs.MemFS) {
			walk(t, disk, "store/index", func(path string) {
				if strings.HasSuffix(path, ".sst") {
					if err := disk.Remove(path); err != nil {
						t.Fatal(err)
					}
				}
			})
		},
		"header damaged": func(t *testing.T, disk *vfs.MemFS) {
			s := mustOpen(t, kinds[0], disk).(*Store)
			if err := s.idx.db.Set(metaKey, []byte("nonsense"), pebble.NoSync); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.idx.flush(), s.release()); err != nil {
				t.Fatal(err)
			}
			s.closed = true
		},
		"entries damaged": func(t *testing.T, disk *vfs.MemFS) {
			s := mustOpen(t, kinds[0], disk).(*Store)
			id, _ := blob(7)
			if err := s.idx.db.Set(entryKey(nil, id), []byte("nonsense"), pebble.NoSync); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Get(bg, nil, id); !errors.Is(err, ErrIndex) {
				t.Fatalf("get: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			disk, order := filled(t, 60)
			ruin(t, disk)
			b := mustOpen(t, kinds[0], disk)
			wantHeld(t, b, seq(60)...)
			if diff := cmp.Diff(order, ids(arrivals(t, b, Position{}))); diff != "" {
				t.Error(diff)
			}
			if st, err := b.Stats(); st.Chunks != 60 || err != nil {
				t.Errorf("stats %+v, %v", st, err)
			}
			put(t, b, 60)
		})
	}
}

// overwrite spoils every file of the index whose name contains part.
func overwrite(t *testing.T, disk *vfs.MemFS, part string) {
	t.Helper()
	n := 0
	walk(t, disk, "store/index", func(path string) {
		if !strings.Contains(path, part) {
			return
		}
		raw, err := disk.UnsafeGetFileDataBuffer(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range raw {
			raw[i] ^= 0x5a
		}
		n++
	})
	if n == 0 {
		t.Fatalf("no file %s in the index", part)
	}
}

// TestRebuildPastDamage: what is damaged in a pack costs only itself.
func TestRebuildPastDamage(t *testing.T) {
	disk, _ := filled(t, 60)
	_, data := blob(3)
	path := "store/" + packName(1)
	raw, err := disk.UnsafeGetFileDataBuffer(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(raw, data)
	if at < 0 {
		t.Fatal("chunk 3 is not in the first pack")
	}
	for name, place := range map[string]int{"chunk": at + 1, "length": at - recordHeaderSize + 5, "magic": at - recordHeaderSize, "pack header": 3} {
		t.Run(name, func(t *testing.T) {
			raw[place] ^= 0xff
			defer func() { raw[place] ^= 0xff }()
			if err := disk.RemoveAll("store/index"); err != nil {
				t.Fatal(err)
			}
			b := mustOpen(t, kinds[0], disk)
			defer b.Close()
			want := seq(60)
			if name != "pack header" {
				want = append(want[:3], want[4:]...)
				wantGone(t, b, 3)
			}
			wantHeld(t, b, want...)
			if got := arrivals(t, b, Position{}); len(got) != len(want) {
				t.Errorf("%d arrivals, want %d", len(got), len(want))
			}
		})
	}
}

// TestForgedRecord: a chunk that holds what looks like a record is only itself.
func TestForgedRecord(t *testing.T) {
	disk := vfs.NewMem()
	b := mustOpen(t, kinds[0], disk)
	inner := []byte("a chunk inside a chunk")
	innerID := chunk.ID(blake3.Sum256(inner))
	outer := appendRecord(bytes.Repeat([]byte{1}, 100), salt{}, innerID, nil, inner)
	outerID := chunk.ID(blake3.Sum256(outer))
	if _, err := b.Put(bg, outerID, outer); err != nil {
		t.Fatal(err)
	}
	put(t, b, 1)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	// The outer record's header is lost, so its bytes are searched.
	raw, err := disk.UnsafeGetFileDataBuffer("store/" + packName(1))
	if err != nil {
		t.Fatal(err)
	}
	raw[packHeaderSize] ^= 1
	if err := disk.RemoveAll("store/index"); err != nil {
		t.Fatal(err)
	}
	b = mustOpen(t, kinds[0], disk)
	wantHeld(t, b, 1)
	if has, err := b.Has(innerID); has || err != nil {
		t.Errorf("the forged record was entered: %v", err)
	}
}

func TestNewerVersion(t *testing.T) {
	disk, _ := filled(t, 3)
	raw, err := disk.UnsafeGetFileDataBuffer("store/" + packName(1))
	if err != nil {
		t.Fatal(err)
	}
	head := encodePackHeader(1, salt{})
	head[11]++
	copy(raw, resum(head))
	if err := disk.RemoveAll("store/index"); err != nil {
		t.Fatal(err)
	}
	if _, err := kinds[0].open(disk); !errors.Is(err, ErrVersion) {
		t.Fatalf("open: %v, want ErrVersion", err)
	}
}

func TestCompact(t *testing.T) {
	disk := vfs.NewCrashableMem()
	b := mustOpen(t, kinds[0], disk)
	var drop []chunk.ID
	var kept []int
	for n := range 120 {
		id := put(t, b, n)
		if n%6 != 0 && n < 100 {
			drop = append(drop, id)
		} else {
			kept = append(kept, n)
		}
	}
	if err := b.Delete(bg, drop...); err != nil {
		t.Fatal(err)
	}
	before, err := b.Stats()
	if err != nil {
		t.Fatal(err)
	}
	rep, err := b.Compact(bg)
	if err != nil || rep.Packs == 0 || rep.Bytes <= 0 {
		t.Fatalf("compact: %+v, %v", rep, err)
	}
	after, err := b.Stats()
	if err != nil || after.Chunks != before.Chunks || after.Bytes != before.Bytes {
		t.Fatalf("compact changed what is held: %+v, then %+v, %v", before, after, err)
	}
	if freed := int64(before.PackBytes) - int64(after.PackBytes); freed < rep.Bytes/2 {
		t.Errorf("%d bytes freed, reported %d", freed, rep.Bytes)
	}
	check := func(b backend) {
		t.Helper()
		wantHeld(t, b, kept...)
		if got := arrivals(t, b, Position{}); len(got) != len(kept) {
			t.Errorf("%d arrivals, want %d", len(got), len(kept))
		}
	}
	check(b)
	check(mustOpen(t, kinds[0], disk.CrashClone(vfs.CrashCloneCfg{})))
	if rep, err = b.Compact(bg); err != nil || rep.Packs != 0 {
		t.Errorf("compacted again: %+v, %v", rep, err)
	}
}

// TestMendedThenCrash: the index that a crash leaves still names the damaged
// place of a chunk that was put again and synced.
func TestMendedThenCrash(t *testing.T) {
	disk := vfs.NewCrashableMem()
	b := mustOpen(t, kinds[0], disk)
	for n := range 5 {
		put(t, b, n)
	}
	if err := b.Close(); err != nil { // flushes the index
		t.Fatal(err)
	}
	b = mustOpen(t, kinds[0], disk)
	id, data := blob(2)
	flip(t, disk, data)
	f, err := disk.OpenReadWrite("store/"+packName(1), writeKind)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil { // the damage is on the disk
		t.Fatal(err)
	}
	if _, err := b.Get(bg, nil, id); !errors.Is(err, ErrDamaged) {
		t.Fatalf("get: %v", err)
	}
	put(t, b, 2)
	if err := b.Sync(bg); err != nil {
		t.Fatal(err)
	}
	b = mustOpen(t, kinds[0], disk.CrashClone(vfs.CrashCloneCfg{}))
	wantHeld(t, b, seq(5)...)
	if st, err := b.Stats(); st.Chunks != 5 || err != nil {
		t.Errorf("stats %+v, %v", st, err)
	}
}

func TestPackMissing(t *testing.T) {
	disk, _ := filled(t, 60)
	b := mustOpen(t, kinds[0], disk)
	if err := disk.Remove("store/" + packName(1)); err != nil {
		t.Fatal(err)
	}
	id, data := blob(1)
	if _, err := b.Get(bg, nil, id); !errors.Is(err, ErrDamaged) {
		t.Fatalf("get from a missing pack: %v", err)
	}
	if added, err := b.Put(bg, id, data); !added || err != nil {
		t.Fatalf("mend: %v, %v", added, err)
	}
	wantHeld(t, b, 1, 59)
}

// TestManyPacks: more packs than may be open at once.
func TestManyPacks(t *testing.T) {
	s, err := Open(Config{Dir: "store", FS: vfs.NewMem(), PackSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n := maxOpenPacks + 20
	for i := range n {
		put(t, s, i)
		if i%10 == 0 {
			if err := s.Sync(bg); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Sync(bg); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		wantHeld(t, s, seq(n)...)
	}
	if s.packs.open > maxOpenPacks {
		t.Errorf("%d packs open, want at most %d", s.packs.open, maxOpenPacks)
	}
}

// TestGolden holds the pack format, the old one as well.
func TestGolden(t *testing.T) {
	s := salt{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	data := []byte("a sealed chunk")
	id := chunk.ID(blake3.Sum256(data))
	pack := appendRecord(encodePackHeader(7, s), s, id, nil, data)
	if got := hex.EncodeToString(pack); got != goldenPack {
		t.Fatalf("pack is\n%s, want\n%s", got, goldenPack)
	}
	wantRecord(t, pack, 7, record{id, packHeaderSize, len(data), false})
	pack, err := hex.DecodeString(goldenPack1)
	if err != nil {
		t.Fatal(err)
	}
	wantRecord(t, pack, 7, record{id, packHeaderSize, len(data), false})
}

// TestGoldenGroups holds the record of a chunk that has groups, less the chunk itself.
func TestGoldenGroups(t *testing.T) {
	s := salt{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	data := make([]byte, 40000)
	for i := range data {
		data[i] = byte(i % 251)
	}
	id, hashes := hashtree.Sum(nil, data)
	pack := appendRecord(encodePackHeader(7, s), s, id, hashes, data)
	if got := hex.EncodeToString(pack[packHeaderSize : len(pack)-len(data)]); got != goldenGroups {
		t.Fatalf("record is\n%s, want\n%s", got, goldenGroups)
	}
	wantRecord(t, pack, 7, record{id, packHeaderSize, len(data), true})
}

// wantRecord checks that a pack holds nothing but one record.
func wantRecord(t *testing.T, raw []byte, number uint32, want record) {
	t.Helper()
	sc, err := newScanner(bytes.NewReader(raw), number, 0, int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	rec, ok, err := sc.next()
	if err != nil || !ok || rec != want {
		t.Fatalf("record %+v, %v, %v", rec, ok, err)
	}
	if _, ok, err := sc.next(); ok || err != nil || sc.skipped != 0 {
		t.Fatalf("after the last record: %v, %v, %d skipped", ok, err, sc.skipped)
	}
}

const goldenPack1 = "6676727061636b0a00000001000000070102030405060708090a0b0c421569fe" +
	"667652630000000ee03b9a89f726fb473dead4d5f30f00d42ceb231ceb192c66d4376ad529e73b4c936610bf" +
	"61207365616c6564206368756e6b"

const goldenGroups = "6676526700009c40ccd32b4544a24c50fbefb249e10a8fcedc26e2794c79eb8a44ad0631bf07f53f3d3251b8" +
	"5384f9b342c6cb86badedcbe662b0e980476a8db17db3cc1f13b19329749ab1f" +
	"406632eceb31aa6735f072ad0554f5963f4082b5139978455b44f67732cf949d" +
	"083663d9bddc14d40cc2f3869e01c5bebde7632dfea165eda38af01d93d5045b"

const goldenPack = "6676727061636b0a00000002000000070102030405060708090a0b0ca2380d1f" +
	"667652630000000ee03b9a89f726fb473dead4d5f30f00d42ceb231ceb192c66d4376ad529e73b4c936610bf" +
	"61207365616c6564206368756e6b"

// TestGoldenIndex holds the values of the index and the entries of an order file.
func TestGoldenIndex(t *testing.T) {
	for _, c := range []struct {
		name, want string
		got        []byte
	}{
		{"place", "00000003" + "0000000000001020" + "00010040", loc{3, 0x1020, 0x10040, false}.encode()},
		{"grouped place", "00000003" + "0000000000001020" + "80010040", loc{3, 0x1020, 0x10040, true}.encode()},
		{"meta", "0201" + "00000003" + "0000000000020000" + "0000000000000005" + "0000000000050140",
			meta{Position{3, 0x20000}, true, 5, 0x50140}.encode()},
		{"order", "66765263" + "00000100" + strings.Repeat("aa", 32) + "68555fe8", appendOrder(nil, chunk.ID(bytes.Repeat([]byte{0xaa}, 32)), 256)},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s is %s, want %s", c.name, got, c.want)
		}
	}
}

// FuzzIndex parses arbitrary bytes as values of the index.
func FuzzIndex(f *testing.F) {
	f.Add(loc{3, 0x1020, 0x10040, false}.encode())
	f.Add(loc{3, 0x1020, 0x10040, true}.encode())
	f.Add(meta{Position{3, 0x20000}, true, 5, 0x50140}.encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		if l, err := parseLoc(raw); err == nil && !bytes.Equal(l.encode(), raw) {
			t.Errorf("place %x came back as %x", raw, l.encode())
		}
		if m, err := parseMeta(raw); err == nil && raw[0] == metaVersion && !bytes.Equal(m.encode(), raw) {
			t.Errorf("meta %x came back as %x", raw, m.encode())
		}
	})
}

// FuzzPack walks arbitrary bytes as a pack.
func FuzzPack(f *testing.F) {
	s := salt{9}
	id, data := blob(1)
	whole := appendRecord(appendRecord(encodePackHeader(1, s), s, id, nil, data), s, id, nil, data)
	f.Add(whole)
	f.Add(whole[:len(whole)-5])
	f.Add(whole[40:])
	large := make([]byte, 40000)
	root, hashes := hashtree.Sum(nil, large)
	f.Add(appendRecord(whole, s, root, hashes, large))
	f.Add([]byte(recordMagic + groupedMagic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		sc, err := newScanner(bytes.NewReader(raw), 1, 0, int64(len(raw)))
		if err != nil {
			return
		}
		end := int64(packHeaderSize)
		for {
			rec, ok, err := sc.next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			if rec.off < end || rec.end() > int64(len(raw)) || rec.size <= 0 || rec.size > MaxChunk {
				t.Fatalf("record %+v in %d bytes, behind %d", rec, len(raw), end)
			}
			end = rec.end()
		}
		if sc.skipped+packHeaderSize > max(packHeaderSize, int64(len(raw))) {
			t.Fatalf("%d of %d bytes skipped", sc.skipped, len(raw))
		}
	})
}

// resum sets the checksum of a pack header.
func resum(head []byte) []byte {
	binary.BigEndian.PutUint32(head[28:], crc32.Checksum(head[:28], castagnoli))
	return head
}
