package namespace

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/foreverfs/forever/chunk"
	pb "github.com/foreverfs/forever/namespace/namespacepb"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goldenBatches makes two batches that have every op, every field.
func goldenBatches(t *testing.T) [][]byte {
	r := newRig(t, 1)
	old := AuthorID{0: 1, 15: 1}
	_, err := r.Create(1700000000_000000001, Root, "d", CreateSpec{Kind: KindDir, Mode: 0o755, UID: 1000, GID: 100})
	r.must(err)
	_, err = r.Create(1700000000_000000002, Root, "f.txt", CreateSpec{Kind: KindFile, Mode: 0o644, Xattrs: map[string][]byte{"user.k": []byte("v")}})
	r.must(err)
	first := r.cutOne()
	f, d := r.node("f.txt").ID, r.node("d").ID
	r.now = 1700000000_000000002
	_, err = r.SetContent(r.tick(), f, chunk.Version{Size: 5, Inline: []byte("hello")}, r.now, nil, nil)
	r.must(err)
	r.reopen(AuthorID{0: 1, 15: 2})
	big := chunk.Version{Size: 1 << 30, BlockLog: 16, Height: 2, Root: chunk.ID{0xab, 31: 0xcd}}
	_, err = r.SetContent(r.tick(), f, big, r.now, []OpID{r.node("f.txt").Content.ID}, nil)
	r.must(err)
	_, err = r.SetAttr(r.tick(), d, AttrChange{Mask: attrAll, Mode: 0o700, UID: 1, GID: 2, Atime: 3, Mtime: -4, Ctime: 5})
	r.must(err, r.SetXattr(r.tick(), f, "user.k", []byte("w")), r.RemoveXattr(r.tick(), f, "user.k"))
	_, err = r.Create(r.tick(), d, "dev", CreateSpec{Kind: KindBlock, Mode: 0o600, Rdev: 0x801})
	r.must(err)
	r.must(r.make(KindSymlink, "l"), r.ln("f.txt", "d/g"), r.mv("l", "d/g", 0), r.mv("f.txt", "d", Exchange), r.rm("d"), r.mkdir("e"), r.rmdir("e"))
	if old == r.Author() {
		t.Fatal("the second batch adopts nothing")
	}
	return [][]byte{first, r.cutOne(), goldenConflicts(r), goldenAcknowledge(r)}
}

// goldenAcknowledge makes a batch with a claim, a promise and a horizon.
func goldenAcknowledge(r *rig) []byte {
	active := []Device{r.Author().Device()}
	for range 2 {
		_, err := r.Acknowledge(r.tick(), active, Retention{})
		r.must(err)
		if r.Pending() > 0 {
			r.cutOne()
		}
		r.must(r.mkfile(string(rune('u' + r.now%5))))
		r.cutOne()
	}
	_, err := r.Acknowledge(r.tick(), active, Retention{Horizon: 1700000000_000000003})
	r.must(err)
	return r.cutOne()
}

// goldenConflicts makes a batch that has every op about conflicts.
func goldenConflicts(r *rig) []byte {
	other := newRig(r.t, 2)
	a, b := newRig(r.t, 1), newRig(r.t, 3)
	for _, r := range []*rig{a, b} {
		r.must(r.mkfile("g"), r.write("g", "of "+r.Author().String()), r.mkdir("d"), r.mkfile("d/x"), r.write("d/x", r.Author().String()))
	}
	meet(r.t, a, b, other)
	b.must(b.write("g", "three"))
	a.must(a.write("g", "one"))
	other.must(other.write("g", "two"))
	meet(r.t, a, b, other)
	var conflicts []string
	for _, p := range other.ls() {
		if path, _, _ := strings.Cut(p, "="); strings.Contains(path, "conflict") && !strings.Contains(path, "/") {
			conflicts = append(conflicts, path)
		}
	}
	other.must(other.rm("d/x"), other.mv("d", "e", 0))
	for _, c := range conflicts {
		if n := other.node(c); n.Nlink == 1 && string(n.Content.Inline) == "one" {
			other.must(other.rm(c))
		} else {
			other.must(other.mv(c, c[len(c)-5:], 0))
		}
	}
	g := other.node("g").ID
	other.must(other.rm("g"))
	_, err := other.Revive(other.tick(), g, chunk.Version{}, 0, nil, nil)
	other.must(err)
	return other.cutOne()
}

// TestGolden: the bytes of batches never change, and batches once written can be merged for ever.
func TestGolden(t *testing.T) {
	for i, got := range goldenBatches(t) {
		path := filepath.Join("testdata", "batch-v1-"+string(rune('a'+i))+".hex")
		if *update {
			if err := os.WriteFile(path, []byte(hex.EncodeToString(got)+"\n"), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		want := readGolden(t, path)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got\n%x\nwant\n%x", path, got, want)
		}
	}
	r := newRig(t, 9)
	r.merge(AuthorID{0: 1, 15: 1}, 1, readGolden(t, "testdata/batch-v1-a.hex"))
	r.merge(AuthorID{0: 1, 15: 2}, 1, readGolden(t, "testdata/batch-v1-b.hex"))
	r.wantTree("f.txt/", "f.txt/dev", "f.txt/g")
}

// TestGoldenOfOlderProgram: a batch in which a content says only that all names come back is read as ever.
func TestGoldenOfOlderProgram(t *testing.T) {
	b, err := decodeBatch(AuthorID{0: 2, 15: 1}, 1, readGolden(t, "testdata/batch-v1-c-revive.hex"))
	if err != nil {
		t.Fatal(err)
	}
	revives := 0
	for _, raw := range b.ops {
		var op pb.Op
		if err := errors.Join(proto.Unmarshal(raw, &op), validateOp(&op)); err != nil {
			t.Error(err)
		}
		if op.GetContent().GetRevive() {
			revives++
		}
	}
	if revives != 1 {
		t.Errorf("%d of %d ops bring names back, want 1", revives, len(b.ops))
	}
}

func readGolden(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestGoldenRecords: the state's records.
func TestGoldenRecords(t *testing.T) {
	a := OpID{1, AuthorID{0: 1, 15: 1}}
	b := OpID{0x102, AuthorID{0: 2}}
	file := node{kind: KindFile, created: a, mode: register[uint32]{0o644, b}, uid: register[uint32]{1000, a}, gid: register[uint32]{100, a},
		atime: register[int64]{1, a}, mtime: register[int64]{2, b}, ctime: register[int64]{-1, b}, btime: 1, rev: 1, links: 1,
		entries: 1, homes: []place{{Root, "f", EntryID{a, 0}}},
		heads: []Content{{b, chunk.Version{Size: 2, BlockLog: 16, Inline: []byte("hi")}, 2, 3}}}
	dir := node{kind: KindDir, created: a, mode: register[uint32]{0o755, a}, place: placement{Root, "d", EntryID{a, 0}, 7}, removed: true, removal: register[int64]{5, b},
		children: 2, subdirs: 1, class: []NodeID{{7}, {8}}}
	s := slot{own: []slotEntry{{EntryID{a, 1}, NodeID{5}, KindFile, 9, b, false}, {EntryID{b, 0}, NodeID{7}, KindDir, 9, OpID{}, true}}, aliases: []alias{{"s", EntryID{b, 0}, NodeID{6}, KindDir}}}
	tb := tomb{Root, "t", 8, []kill{{a, 1}, {b, 2}}}
	mv := moveRecord{done: true, moves: []dirMove{{NodeID{5}, dir.place, placement{NodeID{6}, "o", EntryID{b, 0}, 6}}}}
	sparse := Content{a, chunk.Version{Size: 1 << 30, BlockLog: 16, Height: 2, Root: chunk.ID{0xab}, Holes: 16000}, 2, 3}
	d := decoder{b: appendContent(nil, &sparse)}
	if got := d.content(); !reflect.DeepEqual(got, sparse) {
		t.Errorf("sparse content decoded as %+v", got)
	}
	x := xattr{a, true, []byte("v")}
	for name, got := range map[string][]byte{"node-file": file.append(nil), "node-dir": dir.append(nil), "slot": s.append(nil),
		"tomb": tb.append(nil), "place": file.homes[0].append(nil), "head": (&conflict{Root, "u", s.aliases[0], false}).append(nil),
		"content": appendContent(nil, &file.heads[0]), "sparse": appendContent(nil, &sparse), "move": mv.append(nil), "xattr": x.append(nil)} {
		path := filepath.Join("testdata", "record-v2-"+name+".hex")
		if *update {
			if err := os.WriteFile(path, []byte(hex.EncodeToString(got)+"\n"), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		if want := readGolden(t, path); !bytes.Equal(got, want) {
			t.Errorf("%s: got\n%x\nwant\n%x", path, got, want)
		}
	}
}
