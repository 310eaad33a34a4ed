package namespace

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
)

func (r *rig) export() []byte {
	r.t.Helper()
	var b bytes.Buffer
	r.must(r.Export(&b))
	return b.Bytes()
}

// exportRig makes a tree that has a record of every kind that an export can have.
func exportRig(t testing.TB) *rig {
	r := newRig(t.(*testing.T), 1)
	other := newRig(t.(*testing.T), 2)
	r.must(r.mkdir("d"), r.mkfile("d/f"), r.write("d/f", "one"), r.write("d/f", "two"), r.mkfile("g"), r.mkdir("e"), r.mv("e", "d/e", 0),
		r.SetXattr(r.tick(), r.node("g").ID, "user.k", []byte("v")), r.rm("g"))
	for i := range 6 {
		r.must(r.ln("d/f", fmt.Sprint("link", i)))
	}
	other.must(other.mkdir("d"), other.mkfile("d/f"), other.write("d/f", "other"))
	r.must(r.mkfile("h"))
	meet(r.t, r, other)
	r.must(r.write("h", "r"))
	other.must(other.write("h", "o"))
	meet(r.t, r, other)
	r.must(r.mkfile("late"))
	r.reopen(AuthorID{0: 1, 15: 2})
	_, err := r.Acknowledge(r.tick(), []Device{r.Author().Device()}, Retention{})
	r.must(err)
	r.must(r.rm("d/f"))
	r.cutOne()
	_, err = r.Acknowledge(r.tick(), []Device{r.Author().Device()}, Retention{Horizon: 1})
	r.must(err)
	r.cutOne()
	to, err := r.Stable([]Device{r.Author().Device()})
	r.must(err)
	_, err = r.Fold(to, 10000)
	r.must(err)
	r.must(r.mkdir("x"), r.mv("x", "y", 0))
	r.cutOne()
	return r
}

// TestExportHasAll: the example has every kind of record, so the tests of damage meet every check.
func TestExportHasAll(t *testing.T) {
	r := exportRig(t)
	db := kv.NewMem()
	r.must(Import(db, bytes.NewReader(r.export())))
	for _, kind := range exportKeys {
		if found, err := anyKey(db, key(kind)); err != nil || !found {
			t.Errorf("no record of kind %q (%v)", kind, err)
		}
	}
}

func TestExportPending(t *testing.T) {
	r := newRig(t, 1)
	r.must(r.mkfile("f"))
	if err := r.Export(io.Discard); !errors.Is(err, ErrPending) {
		t.Errorf("export with a pending op: %v", err)
	}
	r.cutOne()
	full := errors.New("disk full")
	if err := r.Export(failingWriter{full}); !errors.Is(err, full) {
		t.Errorf("export to a full disk: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// TestExportLongDeviceName: a device's name that is cut where a blank is.
func TestExportLongDeviceName(t *testing.T) {
	tree, err := Open(kv.NewMem(), AuthorID{1}, WithDevice(strings.Repeat("d", MaxDevice-1)+" x"))
	if err != nil {
		t.Fatal(err)
	}
	a, b := &rig{Tree: tree, t: t}, newRig(t, 2)
	a.must(a.mkfile("f"))
	b.merge(a.Author(), 1, a.cutOne())
	for _, r := range []*rig{a, b} {
		r.must(Import(kv.NewMem(), bytes.NewReader(r.export())))
	}
	// Before, the blank was kept.
	b.must(b.update(func(x *txn) error {
		info := x.author(a.Author())
		info.device += " "
		return x.setAuthor(a.Author(), info)
	}))
	b.must(Import(kv.NewMem(), bytes.NewReader(b.export())))
}

// TestImportDamaged: whatever is cut off or changed gives an error and no tree, and a good import then works.
func TestImportDamaged(t *testing.T) {
	good := exportRig(t).export()
	try := func(what string, b []byte) {
		t.Helper()
		db := kv.NewMem()
		if err := Import(db, bytes.NewReader(b)); !errors.Is(err, ErrDamaged) {
			t.Fatalf("%s: %v", what, err)
		}
		if _, err := Open(db, AuthorID{1}); !errors.Is(err, ErrUnfinished) {
			t.Fatalf("%s: open: %v", what, err)
		}
		if err := Import(db, bytes.NewReader(good)); err != nil {
			t.Fatalf("%s: import again: %v", what, err)
		}
		tree, err := Open(db, AuthorID{1})
		if err != nil {
			t.Fatalf("%s: open: %v", what, err)
		}
		mustCheck(t, tree)
	}
	for i := 0; i < len(good); i += 1 + i/50 {
		try(fmt.Sprint("cut at ", i), good[:i])
		bad := bytes.Clone(good)
		bad[i] ^= 0x41
		try(fmt.Sprint("changed at ", i), bad)
	}
	try("more", append(bytes.Clone(good), 0))
}

// forge builds an export of records, with the right sum.
func forge(pairs ...string) []byte {
	b := []byte(exportMagic)
	for i := 0; i < len(pairs); i += 2 {
		b = appendBytes(appendBytes(b, pairs[i]), pairs[i+1])
	}
	b = binary.AppendUvarint(append(b, 0), uint64(len(pairs)/2))
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// TestImportForged: a right sum makes nothing of wrong records.
func TestImportForged(t *testing.T) {
	record := func(n node) (string, string) { return string(nodeKey(n.id)[1:]), string(n.append(nil)) }
	rootKey, root := record(node{id: Root, kind: KindDir, place: placement{parent: Root}})
	dir := func(id, parent NodeID) (string, string) {
		return record(node{id: id, kind: KindDir, created: OpID{Lamport: 1}, place: placement{parent: parent, name: "d"}})
	}
	k1, v1 := dir(NodeID{8}, NodeID{9})
	k2, v2 := dir(NodeID{9}, NodeID{8})
	missing, missingVal := dir(NodeID{8}, NodeID{7})
	if err := Import(kv.NewMem(), bytes.NewReader(forge(rootKey, root))); err != nil {
		t.Fatalf("the least tree: %v", err)
	}
	for name, b := range map[string][]byte{
		"no root":          forge(),
		"root is a file":   forge(rootKey, string((&node{id: Root, kind: KindFile}).append(nil))),
		"cycle":            forge(rootKey, root, k1, v1, k2, v2),
		"missing parent":   forge(rootKey, root, missing, missingVal),
		"out of order":     forge(k1, v1, rootKey, root),
		"twice":            forge(rootKey, root, rootKey, root),
		"meta":             forge("M", "", rootKey, root),
		"pending":          forge(rootKey, root, "p12345678", "x"),
		"unknown kind":     forge(rootKey, root, "z", ""),
		"name with /":      forge("e"+string(Root[:])+"a/b", string((&slot{own: []slotEntry{{kind: KindFile}}}).append(nil)), rootKey, root),
		"empty slot":       forge("e"+string(Root[:])+"a", "\x00\x00", rootKey, root),
		"short author":     forge("a123", "", rootKey, root),
		"negative horizon": forge("F", "\xff\xff\xff\xff\xff\xff\xff\xff", rootKey, root),
		"long key":         forge(rootKey, root, "x"+string(make([]byte, 600)), ""),
	} {
		if err := Import(kv.NewMem(), bytes.NewReader(b)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A length that nothing follows must not be allocated.
	huge := append([]byte(exportMagic), 1, 'x')
	huge = binary.AppendUvarint(huge, maxRecord+1)
	if err := Import(kv.NewMem(), bytes.NewReader(huge)); !errors.Is(err, ErrDamaged) {
		t.Errorf("huge record: %v", err)
	}
}

func TestImportIntoTree(t *testing.T) {
	r := newRig(t, 1)
	r.must(r.mkfile("f"))
	r.cutOne()
	if err := Import(r.db, bytes.NewReader(r.export())); !errors.Is(err, ErrExist) {
		t.Errorf("import over a tree: %v", err)
	}
	r.wantTree("f")
}

// TestGoldenExport: the bytes of exports never change.
func TestGoldenExport(t *testing.T) {
	const path = "testdata/export-v1.hex"
	got := exportRig(t).export()
	if *update {
		if err := os.WriteFile(path, []byte(hex.EncodeToString(got)+"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if want := readGolden(t, path); !bytes.Equal(got, want) {
		t.Errorf("exports\n%x\nwant\n%x", got, want)
	}
	db := kv.NewMem()
	if err := Import(db, bytes.NewReader(readGolden(t, path))); err != nil {
		t.Fatal(err)
	}
	tree, err := Open(db, AuthorID{9})
	if err != nil {
		t.Fatal(err)
	}
	mustCheck(t, tree)
}

// FuzzImport: no bytes panic, hang, or make a tree that cannot be walked without a panic.
func FuzzImport(f *testing.F) {
	golden := readGolden(f, "testdata/export-v1.hex")
	f.Add(golden)
	f.Add(golden[:len(golden)/2])
	f.Add(forge())
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, resum(b)} {
			db := kv.NewMem()
			if err := Import(db, bytes.NewReader(b)); err != nil {
				if !errors.Is(err, ErrDamaged) {
					t.Fatal(err)
				}
				continue
			}
			tree, err := Open(db, AuthorID{0: 9})
			if err != nil {
				continue
			}
			_, places, _ := walk(tree)
			for _, p := range places {
				_, _ = tree.Node(p.Node)
				_, _ = tree.Xattrs(p.Node)
				_, _ = tree.Path(p.Node)
				_, _ = tree.History([]string{p.Name})
			}
			_, _ = tree.ListPast(nil)
			_, _ = tree.Create(1, Root, "new", CreateSpec{Kind: KindFile})
		}
	})
}

// resum gives an export the count and sum that its records ask for.
func resum(b []byte) []byte {
	rest, ok := bytes.CutPrefix(b, []byte(exportMagic))
	if !ok {
		return b
	}
	var pairs []string
	for d := (decoder{b: rest}); !d.bad; {
		k := d.bytes()
		if len(k) == 0 {
			break
		}
		if v := d.bytes(); !d.bad {
			pairs = append(pairs, string(k), string(v))
		}
	}
	return forge(pairs...)
}

// TestImportSpeed: a tree of many files is there in far less than it would take to replay it.
func TestImportSpeed(t *testing.T) {
	files := scaled(5_000, 100_000)
	open := func() *kv.Pebble {
		db, err := kv.OpenPebble(kv.PebbleConfig{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		return db
	}
	tree, err := Open(open(), AuthorID{0: 1, 15: 1})
	if err != nil {
		t.Fatal(err)
	}
	r := &lateRig{t: t, tree: tree}
	var dir Node
	for i := range files {
		if i%1000 == 0 {
			dir = r.create(Root, fmt.Sprint("dir", i), KindDir)
		}
		n := r.create(dir.ID, benchName(i), KindFile)
		v := chunk.Version{Size: 1 << 20, BlockLog: 16, Height: 1, Root: chunk.ID{1: byte(i), 2: byte(i >> 8), 3: 1}}
		if _, err := tree.SetContent(r.now, n.ID, v, r.now, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	r.publish(func(uint64, []byte) {})
	var b bytes.Buffer
	start := time.Now()
	if err := tree.Export(&b); err != nil {
		t.Fatal(err)
	}
	exported, size := time.Since(start), b.Len()
	start = time.Now()
	db := open()
	if err := errors.Join(Import(db, &b), db.Sync()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files: exported in %v (%d bytes each), imported in %v", files, exported, size/files, time.Since(start))
	again, err := Open(db, AuthorID{0: 2, 15: 1})
	if err != nil {
		t.Fatal(err)
	}
	if n, _, _ := again.Count(); n != uint64(files) {
		t.Fatalf("%d files imported", n)
	}
}
