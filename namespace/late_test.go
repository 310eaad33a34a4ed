package namespace

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
)

// scaled returns full in the long run of the tests, else small.
func scaled(small, full int) int {
	if os.Getenv("FOREVER_ACCEPT") == "full" {
		return full
	}
	return small
}

// lateRig is a tree on disk that has gone a long way, and a device that was away meanwhile.
type lateRig struct {
	t    *testing.T
	tree *Tree
	away *rig
	now  int64
	dirs []Node
}

func newLateRig(t *testing.T, dirs int) *lateRig {
	db, err := kv.OpenPebble(kv.PebbleConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	tree, err := Open(db, AuthorID{0: 1, 15: 1})
	if err != nil {
		t.Fatal(err)
	}
	r := &lateRig{t: t, tree: tree, away: newRig(t, 2)}
	for i := range dirs {
		r.dirs = append(r.dirs, r.create(Root, fmt.Sprint("dir", i), KindDir))
	}
	r.publish(func(seq uint64, payload []byte) { r.away.merge(tree.Author(), seq, payload) })
	return r
}

func (r *lateRig) create(dir NodeID, name string, kind Kind) Node {
	r.now++
	n, err := r.tree.Create(r.now, dir, name, CreateSpec{Kind: kind, Mode: 0o644})
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

func (r *lateRig) publish(fn func(seq uint64, payload []byte)) {
	for r.tree.Pending() > 0 {
		payload, err := r.tree.Cut()
		if err != nil {
			r.t.Fatal(err)
		}
		seq := r.tree.Vector()[r.tree.Author()] + 1
		if err := r.tree.Committed(seq); err != nil {
			r.t.Fatal(err)
		}
		fn(seq, payload)
	}
}

// work does n random operations: files and directories made, written, renamed.
func (r *lateRig) work(n int) {
	rng := rand.New(rand.NewPCG(1, 2))
	var last Node
	for i := range n {
		r.now++
		d := r.dirs[rng.IntN(len(r.dirs))]
		var err error
		switch {
		case i%5 < 2 || last.ID == NodeID{}:
			last = r.create(d.ID, fmt.Sprint("new", i), KindFile)
		case i%5 == 2:
			_, err = r.tree.SetContent(r.now, last.ID, chunk.Version{Size: 3, Inline: []byte("abc")}, r.now, nil, nil)
		default: // a directory moves into another, and back
			var e Entry
			if e, err = r.tree.Lookup(Root, fmt.Sprint("moving", i%7)); err != nil {
				r.create(Root, fmt.Sprint("moving", i%7), KindDir)
				err = nil
				break
			}
			if _, _, err = r.tree.Rename(r.now, Root, e.Name, d.ID, e.Name, 0); err == nil {
				_, _, err = r.tree.Rename(r.now, d.ID, e.Name, Root, e.Name, 0)
			}
		}
		if err != nil {
			r.t.Fatal(err)
		}
		if r.tree.Pending() > 2000 {
			r.publish(func(uint64, []byte) {})
		}
	}
	r.publish(func(uint64, []byte) {})
}

// TestLateOp: an op that arrives long after it was made, into a large tree that went
// on, holds nobody up and needs no memory to speak of.
func TestLateOp(t *testing.T) {
	files, since := scaled(5000, 1_000_000), scaled(2000, 100_000)
	r := newLateRig(t, 100)
	for i := range files {
		r.create(r.dirs[i%len(r.dirs)].ID, fmt.Sprint("file", i), KindFile)
		if r.tree.Pending() > 2000 {
			r.publish(func(uint64, []byte) {})
		}
	}
	r.publish(func(uint64, []byte) {})
	r.away.must(r.away.mv("dir1", "dir2/dir1", 0))
	moved := r.away.cutOne()
	r.away.must(r.away.mkfile("dir3/late"))
	made := r.away.cutOne()
	r.work(since)

	for i, late := range []struct {
		what    string
		payload []byte
	}{{"a directory's move", moved}, {"a file", made}} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		start := time.Now()
		if _, err := r.tree.Merge(r.away.Author(), uint64(i+1), late.payload); err != nil {
			t.Fatal(err)
		}
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		t.Logf("%s, %d files and %d ops later: %v, %d KiB allocated", late.what, files, since, took, (after.TotalAlloc-before.TotalAlloc)>>10)
		if limit := time.Duration(scaled(1000, 100)) * time.Millisecond; took > limit {
			t.Errorf("%s took %v, more than %v", late.what, took, limit)
		}
	}
	if _, err := r.tree.Lookup(r.dirs[2].ID, "dir1"); err != nil {
		t.Errorf("the late move was not done: %v", err)
	}
}
