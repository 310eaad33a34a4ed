package casstore

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// seed returns the seed of a random test, from FOREVER_SEED or the clock, and logs it.
func seed(t testing.TB) uint64 {
	s := uint64(time.Now().UnixNano())
	if env := os.Getenv("FOREVER_SEED"); env != "" {
		var err error
		if s, err = strconv.ParseUint(env, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("FOREVER_SEED=%d", s)
	return s
}

// promise is what a store owes after a crash at some moment.
type promise struct {
	synced []int    // held, and never deleted
	end    Position // no position given out so far is behind it
}

// crash is the disk after a crash, and what was promised then.
type crash struct {
	at   string
	disk *vfs.MemFS
	promise
}

// crasher clones a disk as a crash would leave it before writes to it.
type crasher struct {
	disk *vfs.MemFS
	rng  *rand.Rand
	odds float64 // of one write to be followed up

	mu      sync.Mutex
	now     promise
	crashes []crash
}

func (c *crasher) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rng.Float64() > c.odds {
		return nil
	}
	percent := []int{0, 30, 100}[c.rng.IntN(3)]
	disk := c.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: c.rng})
	c.crashes = append(c.crashes, crash{fmt.Sprintf("op %d on %s, %d%% kept", op.Kind, op.Path, percent), disk, c.now})
	return nil
}

func (c *crasher) String() string { return "crasher" }

// promised replaces what the store owes from now on.
func (c *crasher) promised(p promise) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = p
}

// TestCrash crashes the disk at its writes and finds everything synced, and
// nothing wrong, each time.
func TestCrash(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			s := seed(t)
			disk := vfs.NewCrashableMem()
			c := &crasher{disk: disk, rng: rand.New(rand.NewPCG(s, 1)), odds: 0.1}
			crashWorkload(t, k, errorfs.Wrap(disk, c), c, rand.New(rand.NewPCG(s, 2)))
			t.Logf("%d crashes", len(c.crashes))
			for _, cr := range c.crashes {
				afterCrash(t, k, cr)
			}
		})
	}
}

// crashWorkload puts, syncs, deletes, compacts and reopens.
func crashWorkload(t *testing.T, k kind, fs vfs.FS, c *crasher, rng *rand.Rand) {
	var p promise
	var put1, synced []int
	n := 0
	for range 3 {
		b := mustOpen(t, k, fs)
		for range 60 {
			switch r := rng.IntN(20); {
			case r < 14:
				put1 = append(put1, n)
				put(t, b, n)
				n++
				p.end = b.End()
			case r < 17:
				if err := b.Sync(bg); err != nil {
					t.Fatal(err)
				}
				synced = append(synced, put1...)
				put1 = nil
			case r < 19 && len(synced) > 3:
				i := rng.IntN(len(synced))
				id, _ := blob(synced[i])
				synced = append(append([]int(nil), synced[:i]...), synced[i+1:]...)
				p.synced = synced
				c.promised(p)
				if err := b.Delete(bg, id); err != nil {
					t.Fatal(err)
				}
			case r == 19:
				if _, err := b.Compact(bg); err != nil {
					t.Fatal(err)
				}
				p.end = b.End()
			}
			p.synced = append([]int(nil), synced...)
			c.promised(p)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// afterCrash opens a crashed disk and checks the promise, twice, with more work in between.
func afterCrash(t *testing.T, k kind, cr crash) {
	t.Helper()
	for round := range 2 {
		b, err := k.open(cr.disk)
		if err != nil {
			t.Fatalf("%s: open: %v", cr.at, err)
		}
		for _, n := range cr.synced {
			id, _ := blob(n)
			if _, err := b.Get(bg, nil, id); err != nil {
				t.Fatalf("%s: chunk %d was synced: %v", cr.at, n, err)
			}
		}
		all := arrivals(t, b, Position{})
		if st, err := b.Stats(); err != nil || st.Chunks != uint64(len(all)) {
			t.Fatalf("%s: %d arrivals, stats %+v, %v", cr.at, len(all), st, err)
		}
		for _, it := range all {
			if _, err := b.Get(bg, nil, it.ID); err != nil {
				t.Fatalf("%s: a chunk that is held: %v", cr.at, err)
			}
		}
		fresh := 10_000 + round
		id := put(t, b, fresh)
		if got := ids(arrivals(t, b, cr.end)); !slices.Contains(got, id) {
			t.Fatalf("%s: what was put after the crash did not arrive behind %v", cr.at, cr.end)
		}
		if err := b.Sync(bg); err != nil {
			t.Fatalf("%s: %v", cr.at, err)
		}
		cr.synced = append(append([]int(nil), cr.synced...), fresh)
		if round == 1 {
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			return
		}
		crashed := cr.disk.CrashClone(vfs.CrashCloneCfg{})
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		cr.disk = crashed
	}
}

// TestPositionsAfterCrash: a run that only opened and closed a store after a
// crash must not make it continue the pack whose end was lost.
func TestPositionsAfterCrash(t *testing.T) {
	onEach(t, func(t *testing.T, k kind, fs *vfs.MemFS) {
		b := mustOpen(t, k, fs)
		put(t, b, 1)
		if err := b.Sync(bg); err != nil {
			t.Fatal(err)
		}
		put(t, b, 2)
		put(t, b, 3)
		given := b.End()
		disk := fs.CrashClone(vfs.CrashCloneCfg{})
		for range 2 {
			b = mustOpen(t, k, disk)
			wantHeld(t, b, 1)
			wantGone(t, b, 2)
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		}
		b = mustOpen(t, k, disk)
		id := put(t, b, 4)
		if items := arrivals(t, b, given); len(items) != 1 || items[0].ID != id {
			t.Fatalf("behind %v: %v, want chunk 4", given, items)
		}
	})
}

// countSyncs counts the flushes of packs and directories.
type countSyncs struct {
	mu sync.Mutex
	n  int
}

func (c *countSyncs) MaybeError(op errorfs.Op) error {
	if op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData {
		c.mu.Lock()
		c.n++
		c.mu.Unlock()
	}
	return nil
}

func (c *countSyncs) String() string { return "count syncs" }

func TestSyncIsShared(t *testing.T) {
	count := &countSyncs{}
	s, err := Open(Config{Dir: "store", FS: errorfs.Wrap(vfs.NewMem(), count)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put(t, s, 0)
	if err := s.Sync(bg); err != nil {
		t.Fatal(err)
	}
	before := count.n
	put(t, s, 1)
	for range 5 {
		if err := s.Sync(bg); err != nil {
			t.Fatal(err)
		}
	}
	if got := count.n - before; got != 1 {
		t.Errorf("%d flushes for one chunk and five syncs, want 1", got)
	}
	before = count.n
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 20 {
				put(t, s, 100+w*20+i)
			}
			if err := s.Sync(bg); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := count.n - before; got > 8 {
		t.Errorf("%d flushes for eight syncs, want at most 8", got)
	}
}
