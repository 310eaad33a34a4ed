package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/internal/sealedfs"
)

func openPebble(t testing.TB, fs vfs.FS) *kv.Pebble {
	t.Helper()
	db, err := kv.OpenPebble(kv.PebbleConfig{Dir: "state", FS: fs, MemTableSize: 256 << 10, ReadAgain: func(key string) bool { return len(key)%2 == 0 }})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// onEach runs a test on every kind of DB.
func onEach(t *testing.T, test func(t *testing.T, db kv.DB)) {
	kinds := map[string]func() kv.DB{
		"mem":    func() kv.DB { return kv.NewMem() },
		"pebble": func() kv.DB { return openPebble(t, vfs.NewMem()) },
		"sealed": func() kv.DB { return openPebble(t, sealedfs.New(vfs.NewMem(), [32]byte{1})) },
	}
	for name, open := range kinds {
		t.Run(name, func(t *testing.T) {
			db := open()
			defer func() {
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			}()
			test(t, db)
		})
	}
}

func update(t testing.TB, db kv.DB, fn func(tx kv.Tx) error) {
	t.Helper()
	if err := db.Update(fn); err != nil {
		t.Fatal(err)
	}
}

func putAll(t testing.TB, db kv.DB, keys ...string) {
	t.Helper()
	update(t, db, func(tx kv.Tx) error {
		for _, k := range keys {
			if err := tx.Put([]byte(k), []byte("v"+k)); err != nil {
				return err
			}
		}
		return nil
	})
}

// list returns the keys in a range, checking that values fit.
func list(t testing.TB, r kv.Reader, lo, hi []byte) []string {
	t.Helper()
	out := []string{}
	if err := r.Scan(lo, hi, func(k, v []byte) bool {
		if string(v) != "v"+string(k) {
			t.Fatalf("%q has %q", k, v)
		}
		out = append(out, string(k))
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestGetPutDelete(t *testing.T) {
	onEach(t, func(t *testing.T, db kv.DB) {
		if _, err := db.Get([]byte("a")); !errors.Is(err, kv.ErrNotFound) {
			t.Fatalf("get of nothing: %v", err)
		}
		k, v := []byte("key"), []byte("val")
		update(t, db, func(tx kv.Tx) error {
			if err := errors.Join(tx.Put(k, v), tx.Put([]byte("empty"), nil)); err != nil {
				return err
			}
			k[0], v[0] = 'X', 'X' // a Tx keeps nothing
			return nil
		})
		for key, want := range map[string]string{"key": "val", "empty": ""} {
			if got, err := db.Get([]byte(key)); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", key, got, err)
			}
		}
		update(t, db, func(tx kv.Tx) error { return errors.Join(tx.Delete([]byte("key")), tx.Delete([]byte("never"))) })
		if _, err := db.Get([]byte("key")); !errors.Is(err, kv.ErrNotFound) {
			t.Errorf("deleted: %v", err)
		}
		if err := db.Sync(); err != nil {
			t.Error(err)
		}
	})
}

func TestScan(t *testing.T) {
	onEach(t, func(t *testing.T, db kv.DB) {
		putAll(t, db, "b", "a", "ab", "\xff", "\xff\xff", "c", "a\x00")
		for _, c := range []struct {
			lo, hi string
			want   []string
		}{
			{"", "", []string{"a", "a\x00", "ab", "b", "c", "\xff", "\xff\xff"}},
			{"a", "b", []string{"a", "a\x00", "ab"}},
			{"ab", "ab", []string{}},
			{"b", "a", []string{}},
			{"b", "", []string{"b", "c", "\xff", "\xff\xff"}},
		} {
			var hi []byte
			if c.hi != "" {
				hi = []byte(c.hi)
			}
			if diff := cmp.Diff(c.want, list(t, db, []byte(c.lo), hi)); diff != "" {
				t.Errorf("scan %q to %q: %s", c.lo, c.hi, diff)
			}
		}
		if diff := cmp.Diff([]string{"\xff", "\xff\xff"}, list(t, db, []byte("\xff"), kv.PrefixEnd([]byte("\xff")))); diff != "" {
			t.Error(diff)
		}
		seen := 0
		if err := db.Scan(nil, nil, func(_, _ []byte) bool { seen++; return seen < 2 }); err != nil || seen != 2 {
			t.Errorf("stopped scan: %d, %v", seen, err)
		}
		// Reading inside a scan is allowed.
		if err := db.Scan(nil, nil, func(k, _ []byte) bool {
			_, err := db.Get(bytes.Clone(k))
			if err != nil {
				t.Error(err)
			}
			return true
		}); err != nil {
			t.Error(err)
		}
	})
}

func TestTxSeesItself(t *testing.T) {
	onEach(t, func(t *testing.T, db kv.DB) {
		putAll(t, db, "a", "b", "c")
		fail := errors.New("no")
		err := db.Update(func(tx kv.Tx) error {
			if err := errors.Join(tx.Delete([]byte("b")), tx.Put([]byte("bb"), []byte("vbb")), tx.Put([]byte("d"), []byte("vd")),
				tx.Delete([]byte("d")), tx.Delete([]byte("c")), tx.Put([]byte("c"), []byte("vc"))); err != nil {
				return err
			}
			if diff := cmp.Diff([]string{"a", "bb", "c"}, list(t, tx, nil, nil)); diff != "" {
				t.Error(diff)
			}
			if _, err := tx.Get([]byte("b")); !errors.Is(err, kv.ErrNotFound) {
				t.Errorf("deleted in the same update: %v", err)
			}
			if v, err := tx.Get([]byte("bb")); err != nil || string(v) != "vbb" {
				t.Errorf("put in the same update: %q, %v", v, err)
			}
			return fail
		})
		if !errors.Is(err, fail) {
			t.Errorf("update: %v", err)
		}
		if diff := cmp.Diff([]string{"a", "b", "c"}, list(t, db, nil, nil)); diff != "" {
			t.Errorf("a failed update left something: %s", diff)
		}
	})
}

// TestUpdatesDoNotMix: what an update read is still so when it commits.
func TestUpdatesDoNotMix(t *testing.T) {
	onEach(t, func(t *testing.T, db kv.DB) {
		const workers, rounds = 4, 50
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for range rounds {
					if err := db.Update(increment); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		v, err := db.Get([]byte("n"))
		if err != nil || string(v) != strconv.Itoa(workers*rounds) {
			t.Errorf("counted to %s, %v; want %d", v, err, workers*rounds)
		}
	})
}

// TestSnapshot: a snapshot stays what it was, whatever is written beside it.
func TestSnapshot(t *testing.T) {
	onEach(t, func(t *testing.T, db kv.DB) {
		putAll(t, db, "a", "b", "c")
		snap := db.Snapshot()
		update(t, db, func(tx kv.Tx) error {
			return errors.Join(tx.Delete([]byte("b")), tx.Put([]byte("a"), []byte("other")), tx.Put([]byte("d"), []byte("vd")))
		})
		if diff := cmp.Diff([]string{"a", "b", "c"}, list(t, snap, nil, nil)); diff != "" {
			t.Errorf("the snapshot changed: %s", diff)
		}
		if v, err := snap.Get([]byte("b")); err != nil || string(v) != "vb" {
			t.Errorf("get from the snapshot: %q, %v", v, err)
		}
		if _, err := snap.Get([]byte("d")); !errors.Is(err, kv.ErrNotFound) {
			t.Errorf("get of what came later: %v", err)
		}
		if err := snap.Close(); err != nil {
			t.Error(err)
		}
		if v, err := db.Get([]byte("a")); err != nil || string(v) != "other" {
			t.Errorf("get from the state: %q, %v", v, err)
		}
	})
}

func increment(tx kv.Tx) error {
	n := 0
	v, err := tx.Get([]byte("n"))
	if err == nil {
		n, err = strconv.Atoi(string(v))
	} else if errors.Is(err, kv.ErrNotFound) {
		err = nil
	}
	if err != nil {
		return err
	}
	return tx.Put([]byte("n"), []byte(strconv.Itoa(n+1)))
}

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

// randomUpdate applies a few random writes to db and to the model.
func randomUpdate(t testing.TB, rng *rand.Rand, db kv.DB, model map[string]string) {
	t.Helper()
	update(t, db, func(tx kv.Tx) error {
		for range 1 + rng.IntN(5) {
			k := fmt.Sprintf("key%02d", rng.IntN(40))
			if rng.IntN(4) == 0 {
				delete(model, k)
				if err := tx.Delete([]byte(k)); err != nil {
					return err
				}
				continue
			}
			v := fmt.Sprintf("%x", make([]byte, rng.IntN(300))) + fmt.Sprint(rng.Uint64())
			model[k] = v
			if err := tx.Put([]byte(k), []byte(v)); err != nil {
				return err
			}
		}
		return nil
	})
}

func contents(t testing.TB, r kv.Reader) map[string]string {
	t.Helper()
	out := map[string]string{}
	if err := r.Scan(nil, nil, func(k, v []byte) bool { out[string(k)] = string(v); return true }); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestModel compares every DB with a map.
func TestModel(t *testing.T) {
	s := seed(t)
	onEach(t, func(t *testing.T, db kv.DB) {
		rng := rand.New(rand.NewPCG(s, 0))
		model := map[string]string{}
		for i := range 400 {
			randomUpdate(t, rng, db, model)
			if rng.IntN(10) == 0 { // what comes later lies over what is in the database
				if err := db.Sync(); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 { // what was read before may have changed
				k := fmt.Sprintf("key%02d", rng.IntN(40))
				got, err := db.Get([]byte(k))
				want, there := model[k]
				if there != (err == nil) || string(got) != want || err != nil && !errors.Is(err, kv.ErrNotFound) {
					t.Fatalf("%s: %q, %v; want %q", k, got, err, want)
				}
			}
			if i%20 == 0 {
				if diff := cmp.Diff(model, contents(t, db)); diff != "" {
					t.Fatal(diff)
				}
				compareRange(t, rng, db, model)
			}
		}
		if diff := cmp.Diff(model, contents(t, db)); diff != "" {
			t.Fatal(diff)
		}
	})
}

// compareRange compares a range, inside an update that has written to it, with the model.
func compareRange(t testing.TB, rng *rand.Rand, db kv.DB, model map[string]string) {
	t.Helper()
	lo, hi := fmt.Sprintf("key%02d", rng.IntN(40)), fmt.Sprintf("key%02d", rng.IntN(40))
	want := map[string]string{}
	for k, v := range model {
		if k >= lo && k < hi {
			want[k] = v
		}
	}
	undo := errors.New("undo")
	err := db.Update(func(tx kv.Tx) error {
		gone, made := fmt.Sprintf("key%02d", rng.IntN(40)), fmt.Sprintf("key%02d", rng.IntN(40))
		if err := errors.Join(tx.Delete([]byte(gone)), tx.Put([]byte(made), []byte("made"))); err != nil {
			return err
		}
		delete(want, gone)
		if made >= lo && made < hi {
			want[made] = "made"
		}
		got := map[string]string{}
		last := ""
		err := tx.Scan([]byte(lo), []byte(hi), func(k, v []byte) bool {
			if string(k) <= last {
				t.Fatalf("%q after %q", k, last)
			}
			last = string(k)
			got[last] = string(v)
			return true
		})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%q to %q: %s", lo, hi, diff)
		}
		return errors.Join(err, undo)
	})
	if !errors.Is(err, undo) {
		t.Fatal(err)
	}
}

// TestReadersBesideUpdates: a scan sees each update whole or not at all while updates go from
// memory into the database beside it.
func TestReadersBesideUpdates(t *testing.T) {
	onEach(t, func(t *testing.T, db kv.DB) {
		const keys, rounds = 20, 300
		var wg sync.WaitGroup
		defer wg.Wait()
		done := make(chan struct{})
		wg.Go(func() {
			for range rounds {
				if err := db.Sync(); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			defer close(done)
			for r := range rounds {
				update(t, db, func(tx kv.Tx) error {
					for k := range keys {
						if err := tx.Put(fmt.Appendf(nil, "k%02d", k), fmt.Append(nil, r)); err != nil {
							return err
						}
					}
					return nil
				})
			}
		})
		for last := -1; ; {
			seen := map[string]int{}
			if err := db.Scan(nil, nil, func(_, v []byte) bool { seen[string(v)]++; return true }); err != nil {
				t.Fatal(err)
			}
			for v, n := range seen {
				r, _ := strconv.Atoi(v)
				if len(seen) != 1 || n != keys || r < last {
					t.Fatalf("a scan saw parts: %v after %d", seen, last)
				}
				last = r
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
}

// TestGetBesideUpdates: who reads a key again and again sees it grow, also while updates go from memory into the
// database.
func TestGetBesideUpdates(t *testing.T) {
	onEach(t, func(t *testing.T, db kv.DB) {
		const rounds = 500
		key := []byte("key")
		var done atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() {
			for last := -1; ; {
				over := done.Load()
				v, err := db.Get(key)
				r, _ := strconv.Atoi(string(v))
				if err != nil && !errors.Is(err, kv.ErrNotFound) || r < last || over && r != rounds-1 {
					t.Errorf("%d after %d: %v", r, last, err)
					return
				}
				if last = r; over {
					return
				}
			}
		})
		for r := range rounds {
			update(t, db, func(tx kv.Tx) error { return tx.Put(key, fmt.Append(nil, r)) })
			if err := db.Sync(); err != nil {
				t.Error(err)
			}
		}
		done.Store(true)
		wg.Wait()
	})
}

// TestCrash: after a crash at any moment the state is one that was there,
// not older than the last Sync.
func TestCrash(t *testing.T) {
	for name, over := range map[string]func(vfs.FS) vfs.FS{
		"plain":  func(fs vfs.FS) vfs.FS { return fs },
		"sealed": func(fs vfs.FS) vfs.FS { return sealedfs.New(fs, [32]byte{1}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := seed(t)
			for round := range uint64(6) {
				crashOnce(t, rand.New(rand.NewPCG(s, round)), over)
			}
		})
	}
}

func crashOnce(t *testing.T, rng *rand.Rand, over func(vfs.FS) vfs.FS) {
	disk := vfs.NewCrashableMem()
	states := []map[string]string{{}} // after each update
	synced := 0                       // index of the oldest state a crash may leave
	for range 4 {
		db := openPebble(t, over(disk))
		model := contents(t, db)
		for range 50 + rng.IntN(200) {
			randomUpdate(t, rng, db, model)
			states = append(states, maps.Clone(model))
			if rng.IntN(15) == 0 {
				if err := db.Sync(); err != nil {
					t.Fatal(err)
				}
				synced = len(states) - 1
			}
			if rng.IntN(120) == 0 {
				if err := db.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		crashed := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		disk = crashed
		found := stateAfterCrash(t, over(disk), states, synced)
		states, synced = states[:found+1], found
	}
}

// stateAfterCrash returns the index of the state that a crash left.
func stateAfterCrash(t *testing.T, fs vfs.FS, states []map[string]string, synced int) int {
	t.Helper()
	db := openPebble(t, fs)
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	got := contents(t, db)
	for i := len(states) - 1; i >= synced; i-- {
		if maps.Equal(states[i], got) {
			return i
		}
	}
	t.Fatalf("the crash left a state that never was after sync %d of %d updates: %d keys", synced, len(states)-1, len(got))
	return 0
}

// TestWithoutLog: a state that its owner can make anew needs no log, and is closed without an error.
func TestWithoutLog(t *testing.T) {
	db, err := kv.OpenPebble(kv.PebbleConfig{Dir: "state", FS: vfs.NewMem(), DisableWAL: true})
	if err != nil {
		t.Fatal(err)
	}
	putAll(t, db, "a", "b")
	if got := list(t, db, nil, nil); len(got) != 2 {
		t.Errorf("found %q", got)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// TestDamage: what is wrong with a state on the disk is in the log, and what pebble says of its work is not, unless
// somebody debugs.
func TestDamage(t *testing.T) {
	for _, level := range []hclog.Level{hclog.Info, hclog.Debug} {
		t.Run(level.String(), func(t *testing.T) {
			var out lockedBuffer
			cfg := kv.PebbleConfig{Dir: t.TempDir(), Logger: hclog.New(&hclog.LoggerOptions{Output: &out, Level: level})}
			damaged := writeAndDamage(t, cfg)
			if chatter := out.String(); (chatter != "") != (level == hclog.Debug) {
				t.Errorf("the log of a state in good order:\n%s", chatter)
			}
			db, err := kv.OpenPebble(cfg)
			if err == nil {
				_, err = db.Get([]byte("a"))
				_ = db.Close()
			}
			if err == nil {
				t.Error("a damaged table was read")
			}
			if log := out.String(); !strings.Contains(log, "state is damaged") || !strings.Contains(log, damaged) {
				t.Errorf("the log does not say that %s is damaged:\n%s", damaged, log)
			}
		})
	}
}

// writeAndDamage makes a state of one table, and damages that. It returns its name.
func writeAndDamage(t *testing.T, cfg kv.PebbleConfig) string {
	t.Helper()
	db, err := kv.OpenPebble(cfg)
	if err != nil {
		t.Fatal(err)
	}
	putAll(t, db, "a", "b")
	if err := errors.Join(db.Flush(), db.Close()); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(cfg.Dir, "*.sst"))
	if err != nil || len(tables) != 1 {
		t.Fatalf("tables %q: %v", tables, err)
	}
	table, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	table[2] ^= 1 // in the first block
	if err := os.WriteFile(tables[0], table, 0o600); err != nil {
		t.Fatal(err)
	}
	return filepath.Base(tables[0])
}

// lockedBuffer is a bytes.Buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestPrefixEnd(t *testing.T) {
	for _, c := range []struct{ in, want []byte }{
		{[]byte("a"), []byte("b")},
		{[]byte("a\xff"), []byte("b")},
		{[]byte("ab\x00"), []byte("ab\x01")},
		{[]byte("\xff\xff"), nil},
		{nil, nil},
	} {
		in := slices.Clone(c.in)
		if got := kv.PrefixEnd(c.in); !bytes.Equal(got, c.want) || (got == nil) != (c.want == nil) {
			t.Errorf("PrefixEnd(%q) = %q, want %q", c.in, got, c.want)
		}
		if !bytes.Equal(in, c.in) {
			t.Errorf("PrefixEnd changed its argument %q", in)
		}
	}
}

// What Before was given is called after an update and before the update can outlive the process; if it fails,
// nothing more is taken.
func TestBefore(t *testing.T) {
	fs := vfs.NewCrashableMem()
	p, err := kv.OpenPebble(kv.PebbleConfig{Dir: "state", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	put := func(key string) error {
		return p.Update(func(tx kv.Tx) error { return tx.Put([]byte(key), []byte("x")) })
	}
	left := func(key string) bool { // by a crash that spares what the kernel has
		clone, err := kv.OpenPebble(kv.PebbleConfig{Dir: "state", FS: fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))})})
		if err != nil {
			t.Fatal(err)
		}
		defer clone.Close()
		_, err = clone.Get([]byte(key))
		return err == nil
	}
	calls := 0
	p.Before(func() error {
		calls++
		if left("a") {
			t.Error("the update is in the log before the call")
		}
		return nil
	})
	if err := put("a"); err != nil {
		t.Fatal(err)
	}
	if err := p.Sync(); err != nil {
		t.Fatal(err)
	}
	if calls == 0 || !left("a") {
		t.Errorf("%d calls, the update is in the log: %v", calls, left("a"))
	}
	bad := errors.New("no")
	p.Before(func() error { return bad })
	if err := errors.Join(put("b"), p.Sync()); !errors.Is(err, bad) {
		t.Errorf("Sync: %v", err)
	}
	if err := put("c"); !errors.Is(err, bad) {
		t.Errorf("an update after it: %v", err)
	}
	if err := p.Close(); !errors.Is(err, bad) {
		t.Errorf("Close: %v", err)
	}
	if left("b") {
		t.Error("the update is there although what it names may not be")
	}
}
