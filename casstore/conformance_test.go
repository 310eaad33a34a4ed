package casstore

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/zeebo/blake3"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/hashtree"
)

// backend is the contract that every kind of store keeps.
type backend interface {
	Add(ctx context.Context, sealed []byte) (chunk.ID, bool, error)
	Put(ctx context.Context, id chunk.ID, sealed []byte) (bool, error)
	Get(ctx context.Context, dst []byte, id chunk.ID) ([]byte, error)
	Has(id chunk.ID) (bool, error)
	Size(id chunk.ID) (int, error)
	Sync(ctx context.Context) error
	End() Position
	Since(pos Position, max int) ([]Item, error)
	Delete(ctx context.Context, ids ...chunk.ID) error
	Scrub(ctx context.Context, progress func(Progress)) (ScrubReport, error)
	Compact(ctx context.Context) (CompactReport, error)
	Stats() (Stats, error)
	Close() error
}

var (
	_ backend = (*Store)(nil)
	_ backend = (*Files)(nil)
)

// kind is one backend under test.
type kind struct {
	name string
	open func(vfs.FS) (backend, error)
}

// kinds use packs small enough that every test fills several.
var kinds = []kind{
	{"packs", func(fs vfs.FS) (backend, error) {
		return opened(Open(Config{Dir: "store", FS: fs, PackSize: 16 << 10, IndexFlush: 24 << 10}))
	}},
	{"files", func(fs vfs.FS) (backend, error) { return opened(OpenFiles(Config{Dir: "store", FS: fs})) }},
}

// opened keeps a nil pointer from becoming a backend.
func opened[B backend](b B, err error) (backend, error) {
	if err != nil {
		return nil, err
	}
	return b, nil
}

var bg = context.Background()

func mustOpen(t testing.TB, k kind, fs vfs.FS) backend {
	t.Helper()
	b, err := k.open(fs)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil && !errors.Is(err, ErrFailed) {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

// blob returns a chunk that is a function of n, of up to 3000 bytes, or for one in sixteen so large that it has groups.
func blob(n int) (chunk.ID, []byte) {
	rng := rand.New(rand.NewPCG(uint64(n), 7))
	size := 1 + rng.IntN(3000)
	if n%16 == 9 {
		size += hashtree.GroupSize
	}
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return blake3.Sum256(b), b
}

func put(t testing.TB, b backend, n int) chunk.ID {
	t.Helper()
	id, data := blob(n)
	if n%2 == 0 {
		if _, err := b.Put(bg, id, data); err != nil {
			t.Fatalf("put %d: %v", n, err)
		}
	} else if got, _, err := b.Add(bg, data); got != id || err != nil {
		t.Fatalf("add %d: %v, %v", n, got, err)
	}
	return id
}

func wantHeld(t testing.TB, b backend, ns ...int) {
	t.Helper()
	for _, n := range ns {
		id, data := blob(n)
		got, err := b.Get(bg, []byte("before"), id)
		if err != nil || !bytes.Equal(got, append([]byte("before"), data...)) {
			t.Fatalf("get %d: %d bytes, %v; want %d", n, len(got), err, len(data)+6)
		}
		if has, err := b.Has(id); !has || err != nil {
			t.Fatalf("has %d: %v, %v", n, has, err)
		}
		if size, err := b.Size(id); size != len(data) || err != nil {
			t.Fatalf("size %d: %d, %v; want %d", n, size, err, len(data))
		}
	}
}

func wantGone(t testing.TB, b backend, ns ...int) {
	t.Helper()
	for _, n := range ns {
		id, _ := blob(n)
		if _, err := b.Get(bg, nil, id); !errors.Is(err, ErrNotFound) {
			t.Fatalf("get %d: %v, want ErrNotFound", n, err)
		}
		if has, err := b.Has(id); has || err != nil {
			t.Fatalf("has %d: %v, %v", n, has, err)
		}
		if _, err := b.Size(id); !errors.Is(err, ErrNotFound) {
			t.Fatalf("size %d: %v, want ErrNotFound", n, err)
		}
	}
}

// arrivals lists everything from pos on, a few at a time.
func arrivals(t testing.TB, b backend, pos Position) []Item {
	t.Helper()
	var all []Item
	for {
		items, err := b.Since(pos, 7)
		if err != nil {
			t.Fatalf("since %v: %v", pos, err)
		}
		for _, it := range items {
			if it.Pos.Compare(pos) <= 0 {
				t.Fatalf("position %v does not follow %v", it.Pos, pos)
			}
			pos = it.Pos
		}
		all = append(all, items...)
		if len(items) == 0 {
			return all
		}
	}
}

func ids(items []Item) []chunk.ID {
	out := []chunk.ID{}
	for _, it := range items {
		out = append(out, it.ID)
	}
	return out
}

func seq(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// onEach runs a test on every backend over a fresh memory file system.
func onEach(t *testing.T, test func(t *testing.T, k kind, fs *vfs.MemFS)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			test(t, k, vfs.NewCrashableMem())
		})
	}
}

func TestPutGet(t *testing.T) {
	onEach(t, func(t *testing.T, k kind, fs *vfs.MemFS) {
		b := mustOpen(t, k, fs)
		wantGone(t, b, 1)
		for n := range 40 {
			id, data := blob(n)
			keep := bytes.Clone(data)
			for i, want := range []bool{true, false} {
				if added, err := b.Put(bg, id, data); added != want || err != nil {
					t.Fatalf("put %d, time %d: %v, %v", n, i, added, err)
				}
			}
			if !bytes.Equal(data, keep) {
				t.Fatal("put changed the bytes it was given")
			}
			wantHeld(t, b, n)
		}
		wantHeld(t, b, seq(40)...)
		wantGone(t, b, 40, 41)
	})
}

func TestRefused(t *testing.T) {
	onEach(t, func(t *testing.T, k kind, fs *vfs.MemFS) {
		b := mustOpen(t, k, fs)
		id, data := blob(1)
		wrong := append(bytes.Clone(data), 0)
		canceled, cancel := context.WithCancel(bg)
		cancel()
		for _, c := range []struct {
			name string
			ctx  context.Context
			data []byte
			want error
		}{
			{"other bytes", bg, wrong, ErrMismatch},
			{"no bytes", bg, nil, ErrSize},
			{"too many bytes", bg, make([]byte, MaxChunk+1), ErrSize},
			{"context ended", canceled, data, context.Canceled},
		} {
			if _, err := b.Put(c.ctx, id, c.data); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", c.name, err, c.want)
			}
		}
		wantGone(t, b, 1)
		if st, err := b.Stats(); st.Chunks != 0 || err != nil {
			t.Errorf("stats %+v, %v", st, err)
		}
	})
}

func TestReopen(t *testing.T) {
	onEach(t, func(t *testing.T, k kind, fs *vfs.MemFS) {
		var before []Item
		for round := range 4 {
			b := mustOpen(t, k, fs)
			wantHeld(t, b, seq(round*15)...)
			if got := arrivals(t, b, Position{}); !slices.Equal(ids(got), ids(before)) {
				t.Fatalf("arrivals after reopening differ: %d, want %d", len(got), len(before))
			}
			end := b.End()
			for n := round * 15; n < round*15+15; n++ {
				put(t, b, n)
			}
			fresh := arrivals(t, b, end)
			if len(fresh) != 15 {
				t.Fatalf("%d chunks arrived behind the end, want 15", len(fresh))
			}
			before = append(before, fresh...)
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			if err := b.Close(); err != nil {
				t.Fatalf("second close: %v", err)
			}
			if _, err := b.Has(chunk.ID{1}); !errors.Is(err, ErrClosed) {
				t.Fatalf("has after close: %v", err)
			}
		}
	})
}

func TestArrivalOrder(t *testing.T) {
	onEach(t, func(t *testing.T, k kind, fs *vfs.MemFS) {
		b := mustOpen(t, k, fs)
		var want []chunk.ID
		for n := range 60 {
			want = append(want, put(t, b, n))
			if n%13 == 0 {
				if err := b.Sync(bg); err != nil {
					t.Fatal(err)
				}
			}
		}
		all := arrivals(t, b, Position{})
		if diff := cmp.Diff(want, ids(all)); diff != "" {
			t.Fatal(diff)
		}
		for i, it := range all {
			if got := ids(arrivals(t, b, it.Pos)); !slices.Equal(got, want[i+1:]) {
				t.Fatalf("behind item %d: %d chunks, want %d", i, len(got), len(want)-i-1)
			}
			p, err := ParsePosition(it.Pos.Bytes())
			if err != nil || p != it.Pos {
				t.Fatalf("position %v came back as %v, %v", it.Pos, p, err)
			}
		}
		if got := arrivals(t, b, b.End()); len(got) != 0 {
			t.Fatalf("%d chunks behind the end", len(got))
		}
	})
}

func TestDelete(t *testing.T) {
	onEach(t, func(t *testing.T, k kind, fs *vfs.MemFS) {
		b := mustOpen(t, k, fs)
		for n := range 30 {
			put(t, b, n)
			if n == 15 {
				if err := b.Sync(bg); err != nil {
					t.Fatal(err)
				}
			}
		}
		a, _ := blob(3)
		c, _ := blob(20)
		never, _ := blob(99)
		if err := b.Delete(bg, a, c, never, a); err != nil {
			t.Fatal(err)
		}
		wantGone(t, b, 3, 20)
		if st, err := b.Stats(); st.Chunks != 28 || err != nil {
			t.Fatalf("stats %+v, %v; want 28 chunks", st, err)
		}
		if got := arrivals(t, b, Position{}); len(got) != 28 {
			t.Fatalf("%d arrivals, want 28", len(got))
		}
		end := b.End()
		put(t, b, 3)
		if got := ids(arrivals(t, b, end)); !slices.Equal(got, []chunk.ID{a}) {
			t.Fatalf("a chunk put again did not arrive again: %v", got)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b = mustOpen(t, k, fs)
		wantGone(t, b, 20)
		wantHeld(t, b, 3, 4, 29)
	})
}

func TestConcurrent(t *testing.T) {
	onEach(t, func(t *testing.T, k kind, fs *vfs.MemFS) {
		b := mustOpen(t, k, fs)
		const workers, chunks = 6, 60
		var wg sync.WaitGroup
		var mu sync.Mutex
		added := 0
		for w := range workers {
			wg.Go(func() {
				for i := range chunks {
					n := (i + w*7) % chunks // everybody puts everything
					id, data := blob(n)
					ok, err := b.Put(bg, id, data)
					if err == nil && i%9 == w {
						err = b.Sync(bg)
					}
					if err == nil {
						_, err = b.Get(bg, nil, id)
					}
					if err == nil && i%20 == 0 {
						_, err = b.Since(Position{}, 1000)
					}
					if err != nil {
						t.Errorf("worker %d, chunk %d: %v", w, n, err)
						return
					}
					mu.Lock()
					if ok {
						added++
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		wantHeld(t, b, seq(chunks)...)
		st, err := b.Stats()
		if added != chunks || st.Chunks != chunks || err != nil {
			t.Fatalf("%d added, stats %+v, %v; want %d", added, st, err, chunks)
		}
		if got := arrivals(t, b, Position{}); len(got) != chunks {
			t.Fatalf("%d arrivals, want %d", len(got), chunks)
		}
	})
}

func TestScrub(t *testing.T) {
	onEach(t, func(t *testing.T, k kind, fs *vfs.MemFS) {
		b := mustOpen(t, k, fs)
		for n := range 50 {
			put(t, b, n)
		}
		if err := b.Sync(bg); err != nil {
			t.Fatal(err)
		}
		calls := 0
		rep, err := b.Scrub(bg, func(Progress) { calls++ })
		if err != nil || rep.Chunks != 50 || len(rep.Damaged) != 0 || calls == 0 {
			t.Fatalf("scrub: %+v, %v, %d calls", rep, err, calls)
		}
		id, data := blob(17)
		flip(t, fs, data)
		rep, err = b.Scrub(bg, nil)
		if err != nil || !slices.Equal(rep.Damaged, []chunk.ID{id}) {
			t.Fatalf("scrub: %+v, %v; want %v damaged", rep, err, id)
		}
		wantGone(t, b, 17)
		if added, err := b.Put(bg, id, data); !added || err != nil {
			t.Fatalf("mend: %v, %v", added, err)
		}
		wantHeld(t, b, 17)
	})
}

func TestDamagedIsMended(t *testing.T) {
	onEach(t, func(t *testing.T, k kind, fs *vfs.MemFS) {
		b := mustOpen(t, k, fs)
		for n := range 10 {
			put(t, b, n)
		}
		for round := range 2 { // once before and once after it is in the index
			id, data := blob(4)
			flip(t, fs, data)
			got, err := b.Get(bg, []byte("x"), id)
			if !errors.Is(err, ErrDamaged) || string(got) != "x" {
				t.Fatalf("get damaged: %q, %v", got, err)
			}
			wantGone(t, b, 4)
			if added, err := b.Put(bg, id, data); !added || err != nil {
				t.Fatalf("round %d: mend: %v, %v", round, added, err)
			}
			wantHeld(t, b, seq(10)...)
			if err := b.Sync(bg); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// flip changes a byte wherever a chunk lies in a file.
func flip(t testing.TB, fs *vfs.MemFS, data []byte) {
	t.Helper()
	found := 0
	walk(t, fs, "store", func(path string) {
		if strings.Contains(path, "index") { // pebble may be writing there
			return
		}
		raw, err := fs.UnsafeGetFileDataBuffer(path)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(raw, data); i >= 0 {
			raw[i+len(data)/2] ^= 1
			found++
		}
	})
	if found == 0 {
		t.Fatal("the chunk is in no file")
	}
}

// walk calls fn for every file below dir.
func walk(t testing.TB, fs vfs.FS, dir string, fn func(path string)) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	for _, name := range names {
		path := fs.PathJoin(dir, name)
		fi, err := fs.Stat(path)
		switch {
		case err != nil:
			continue
		case fi.IsDir():
			walk(t, fs, path, fn)
		default:
			fn(path)
		}
	}
}

func TestInUse(t *testing.T) {
	onEach(t, func(t *testing.T, k kind, fs *vfs.MemFS) {
		b := mustOpen(t, k, fs)
		if _, err := k.open(fs); !errors.Is(err, ErrInUse) {
			t.Fatalf("second open: %v", err)
		}
		put(t, b, 1)
		wantHeld(t, b, 1)
	})
}

func TestOnRealDisk(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			for round := range 3 {
				b := mustOpen(t, k, vfs.Default)
				wantHeld(t, b, seq(round*20)...)
				for n := range 20 {
					put(t, b, n+round*20)
				}
				if _, err := k.open(vfs.Default); !errors.Is(err, ErrInUse) {
					t.Fatalf("open twice: %v", err)
				}
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
