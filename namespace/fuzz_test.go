package namespace

import (
	"errors"
	"testing"

	"github.com/foreverfs/forever/internal/kv"
)

// FuzzMerge: no payload panics or breaks the tree, and one that is refused has no effect.
func FuzzMerge(f *testing.F) {
	first, second := readGolden(f, "testdata/batch-v1-a.hex"), readGolden(f, "testdata/batch-v1-b.hex")
	f.Add(first)
	f.Add(second)
	f.Add([]byte{})
	author := AuthorID{0: 1, 15: 2}
	f.Fuzz(func(t *testing.T, payload []byte) {
		tree, err := Open(kv.NewMem(), AuthorID{0: 9, 15: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tree.Merge(AuthorID{0: 1, 15: 1}, 1, first); err != nil {
			t.Fatal(err)
		}
		before := mustHash(t, tree)
		_, err = tree.Merge(author, 1, payload)
		switch {
		case err == nil:
			mustCheck(t, tree)
		case !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrNotReady):
			t.Fatalf("merge: %v", err)
		case mustHash(t, tree) != before || tree.Vector()[author] != 0:
			t.Fatal("a refused batch has an effect")
		}
	})
}

// FuzzRecords: no record of the state panics its decoder, and what is decoded is encoded the same.
func FuzzRecords(f *testing.F) {
	for _, name := range []string{"node-file", "node-dir", "slot", "tomb", "move", "xattr"} {
		f.Add(readGolden(f, "testdata/record-v2-"+name+".hex"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var n node
		if decodeNode(NodeID{1}, b, &n) == nil {
			var again node
			if err := decodeNode(n.id, n.append(nil), &again); err != nil {
				t.Fatal(err)
			}
		}
		var s slot
		if decodeSlot(b, &s) == nil {
			u := union{name: "x", dirs: []NodeID{Root}, slots: []*slot{&s}}
			u.resolve()
		}
		_, _ = decodeTomb(b)
		_, _ = decodeMoveRecord(OpID{}, b)
		_, _ = decodeXattr(b)
	})
}
