package namespace

import (
	"fmt"
	"testing"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
)

// benchTree is a tree on pebble with n files in the directory it returns, in a directory.
func benchTree(b *testing.B, n int) (*Tree, NodeID, []Node) {
	b.Helper()
	db, err := kv.OpenPebble(kv.PebbleConfig{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	t, err := Open(db, AuthorID{1})
	if err != nil {
		b.Fatal(err)
	}
	d, err := t.Create(1, Root, "dir", CreateSpec{Kind: KindDir, Mode: 0o755})
	if err != nil {
		b.Fatal(err)
	}
	nodes := make([]Node, n)
	for i := range nodes {
		if nodes[i], err = t.Create(1, d.ID, benchName(i), CreateSpec{Kind: KindFile, Mode: 0o644}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	return t, d.ID, nodes
}

func benchName(i int) string { return fmt.Sprintf("file-%07d", i) }

func BenchmarkCreate(b *testing.B) {
	t, dir, _ := benchTree(b, 0)
	for i := 0; b.Loop(); i++ {
		if _, err := t.Create(int64(i), dir, benchName(i), CreateSpec{Kind: KindFile, Mode: 0o644}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	t, dir, nodes := benchTree(b, 10000)
	for i := 0; b.Loop(); i++ {
		if _, err := t.Lookup(dir, benchName(i%len(nodes))); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNode(b *testing.B) {
	t, _, nodes := benchTree(b, 10000)
	for i := 0; b.Loop(); i++ {
		if _, err := t.Node(nodes[i%len(nodes)].ID); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNodeByIno(b *testing.B) {
	t, _, nodes := benchTree(b, 10000)
	for i := 0; b.Loop(); i++ {
		if _, err := t.NodeByIno(nodes[i%len(nodes)].ID.Ino()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkList1000(b *testing.B) {
	t, dir, _ := benchTree(b, 10000)
	for b.Loop() {
		if list, err := t.List(dir, benchName(4000), 1000); err != nil || len(list) != 1000 {
			b.Fatal(len(list), err)
		}
	}
}

func BenchmarkRename(b *testing.B) {
	t, dir, _ := benchTree(b, 1)
	old := benchName(0)
	for i := 1; b.Loop(); i++ {
		name := benchName(i)
		if _, _, err := t.Rename(int64(i), dir, old, dir, name, 0); err != nil {
			b.Fatal(err)
		}
		old = name
	}
}

func BenchmarkSetContent(b *testing.B) {
	t, _, nodes := benchTree(b, 1000)
	for i := 0; b.Loop(); i++ {
		v := chunk.Version{Size: 1 << 20, BlockLog: 16, Height: 1, Root: chunk.ID{byte(i), 1}}
		n := &nodes[i%len(nodes)]
		c, err := t.SetContent(int64(i), n.ID, v, int64(i), []OpID{n.Content.ID}, nil)
		if err != nil {
			b.Fatal(err)
		}
		n.Content = c
	}
}

// BenchmarkMerge1000 merges a batch of 1000 files made in one directory.
func BenchmarkMerge1000(b *testing.B) {
	from, _, _ := benchTree(b, 1000)
	payload, err := from.Cut()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		db, err := kv.OpenPebble(kv.PebbleConfig{Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		to, err := Open(db, AuthorID{2})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := to.Merge(AuthorID{1}, 1, payload); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		_ = db.Close()
		b.StartTimer()
	}
}

func BenchmarkUnlink(b *testing.B) {
	t, dir, _ := benchTree(b, b.N)
	b.ResetTimer()
	for i := range b.N {
		if _, err := t.Unlink(int64(i), dir, benchName(i)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWriteOfLinked writes to a file with as many links: the time grows with their number, not with its square.
func BenchmarkWriteOfLinked(b *testing.B) {
	for _, links := range []int{1000, 16000} {
		b.Run(fmt.Sprint(links), func(b *testing.B) {
			t, dir, files := benchTree(b, 1)
			for i := range links {
				if _, err := t.Link(1, files[0].ID, dir, fmt.Sprint("l", i)); err != nil {
					b.Fatal(err)
				}
			}
			for i := 0; b.Loop(); i++ {
				if _, err := t.SetContent(1, files[0].ID, chunk.Version{Size: 4, Inline: fmt.Appendf(nil, "%04d", i%10000)}, 1, nil, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
