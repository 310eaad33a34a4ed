package volume

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/namespace"
)

// warmDB is a state that notes what it is to have in memory. Of that nothing is, unless warm is set.
type warmDB struct {
	kv.DB
	mu   sync.Mutex
	warm bool
	keys [][]byte
}

var _ kv.Warmer = (*warmDB)(nil)

func (d *warmDB) Warm(keys [][]byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keys = append(d.keys, keys...)
	if d.warm {
		return 0, nil
	}
	return len(keys), nil
}

// named returns how often each file's name was warmed.
func (d *warmDB) named(n int) []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]int, n)
	for i := range n {
		for _, k := range d.keys {
			if bytes.HasSuffix(k, []byte(fileName(i))) {
				out[i]++
			}
		}
	}
	d.keys = nil
	return out
}

func fileName(i int) string { return fmt.Sprintf("file %05d", i) }

// rigOfFiles returns a volume with n empty files.
func rigOfFiles(t *testing.T, n int) (*rig, *warmDB) {
	db := &warmDB{DB: kv.NewMem()}
	r := startRig(t, 1, db, newMemChunks(), nil)
	for i := range n {
		h := r.create(fileName(i))
		h.Release()
	}
	dir, err := r.acquire(RootIno) // so that it stays in memory, with what was looked up in it
	must(t, err)
	t.Cleanup(func() { r.release(dir) })
	return r, db
}

// lookUp looks names up one after the other, and lets what that begins come to its end.
func (r *rig) lookUp(t *testing.T, numbers ...int) {
	t.Helper()
	for _, i := range numbers {
		a, err := r.Lookup(context.Background(), RootIno, fileName(i))
		must(t, err)
		r.Forget(a.Ino, 1)
		for len(r.ahead) > 0 {
			runtime.Gosched()
		}
	}
}

func upTo(n int) (out []int) {
	for i := range n {
		out = append(out, i)
	}
	return out
}

// Who looks names up in order has those after them read ahead, once each.
func TestLookUpInOrder(t *testing.T) {
	const n = 300
	r, db := rigOfFiles(t, n)
	r.lookUp(t, upTo(3)...)
	if got := db.named(n); got[2] != 0 || got[3] != 1 || got[3+minLookAhead-1] != 1 || got[3+minLookAhead] != 0 {
		t.Fatalf("after three names: %v", got)
	}
	r.lookUp(t, upTo(n)[3:]...)
	for i, times := range db.named(n)[3+minLookAhead:] {
		if times != 1 {
			t.Fatalf("%s was read ahead %d times", fileName(3+minLookAhead+i), times)
		}
	}
	r.lookUp(t, upTo(n)...) // from the start again
	if got := db.named(n); got[3] != 1 || got[n-1] != 1 {
		t.Fatalf("the second time: %v", got)
	}
}

// Who does not look up in order has nothing read ahead; nor, but for a little, who finds everything in memory.
func TestLookUpWithoutNeed(t *testing.T) {
	const n = 1000
	r, db := rigOfFiles(t, n)
	for i := range n / 2 {
		r.lookUp(t, n-1-2*i, n-2-2*i)
	}
	for i, times := range db.named(n) {
		if times != 0 {
			t.Fatalf("backwards: %s was read ahead", fileName(i))
		}
	}
	db.warm = true
	r.lookUp(t, upTo(n)...)
	sum := 0
	for _, times := range db.named(n) {
		sum += times
	}
	if sum == 0 || sum > n/5 {
		t.Errorf("%d of %d names were looked at though all is in memory", sum, n)
	}
}

// Who asks for attributes with a directory's entries has those of the next in memory by then.
func TestDirWarm(t *testing.T) {
	const n, part = 300, 50
	r, db := rigOfFiles(t, n)
	d, err := r.OpenDir(context.Background(), RootIno)
	must(t, err)
	defer d.Release()
	read := func(cookie uint64) []DirEntry {
		entries, err := d.Read(cookie, part)
		must(t, err)
		d.Warm(entries)
		for len(r.ahead) > 0 {
			runtime.Gosched()
		}
		return entries
	}
	var seen []string
	for entries := read(0); len(entries) > 0; entries = read(entries[len(entries)-1].Cookie) {
		for _, e := range entries {
			seen = append(seen, e.Name)
		}
		files := len(seen) - 2 // without . and ..
		for i, times := range db.named(n)[files-len(entries)+2 : min(files+part/2, n)] {
			if times == 0 {
				t.Fatalf("after %d files the one %d behind was not warmed", files, i)
			}
		}
	}
	if len(seen) != n+2 {
		t.Fatalf("%d entries", len(seen))
	}
}

// A look ahead goes on where the last one ended, and begins anew when names begin anew.
func TestLookAheadSteps(t *testing.T) {
	var l lookAhead
	entries := func(from, n int) (out []namespace.Entry) {
		for i := range n {
			out = append(out, namespace.Entry{Name: fileName(from + i)})
		}
		return out
	}
	for i := range 2 {
		if _, _, ok := l.found(fileName(i)); ok {
			t.Fatal("before names are known to come in order")
		}
	}
	after, n, ok := l.found(fileName(2))
	if after != fileName(2) || n != minLookAhead || !ok {
		t.Fatal(after, n, ok)
	}
	if _, _, ok := l.found(fileName(3)); ok {
		t.Fatal("twice at a time")
	}
	l.read(entries(3, n), n)
	if _, _, ok := l.found(fileName(4)); ok {
		t.Fatal("before half of it was used")
	}
	after, n, ok = l.found(fileName(3 + n/2))
	if after != fileName(3+minLookAhead-1) || n != 2*minLookAhead || !ok {
		t.Fatal(after, n, ok)
	}
	l.read(nil, 0)
	if _, _, ok := l.found(fileName(999)); ok {
		t.Fatal("behind the last")
	}
	for i := range 3 {
		_, _, ok = l.found(fileName(i))
	}
	if !ok {
		t.Fatal("not from the start again")
	}
}
