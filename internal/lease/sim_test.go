package lease

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestSimulation lets two to five mounts read and write beside a network and a
// kernel that do their worst, and expects close-to-open between those that are
// connected, every wait to be bounded, and everybody to find together in the end.
// LEASE_SEED=n replays one run and shows it; LEASE_SEEDS=n runs that many.
func TestSimulation(t *testing.T) {
	if s := os.Getenv("LEASE_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(seed)
		w.trace = func(line string) { t.Log(line) }
		if err := w.run(); err != nil {
			t.Fatal(err)
		}
		return
	}
	seeds := uint64(5_000)
	if testing.Short() {
		seeds = 500
	}
	if os.Getenv("FOREVER_ACCEPT") == "full" {
		seeds = 100_000
	}
	if s := os.Getenv("LEASE_SEEDS"); s != "" {
		seeds, _ = strconv.ParseUint(s, 10, 64)
	}
	first := uint64(time.Now().UnixNano())
	t.Logf("seeds %d to %d", first, first+seeds-1)
	var next atomic.Uint64
	var total tally
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for n := next.Add(1) - 1; n < seeds && !t.Failed(); n = next.Add(1) - 1 {
				w := newWorld(first + n)
				if err := w.run(); err != nil {
					t.Errorf("seed %d: %v", first+n, err)
				}
				mu.Lock()
				total.add(&w.tally)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%+v", total)
	if !t.Failed() && seeds >= 100 {
		total.expect(t)
	}
}

// tally counts what happened, so that a simulation in which nothing happens shows.
type tally struct {
	Reads, Checked, Across, Hits, Writes, Waited, Free, Lost, Drops, Marks, Slow, Crashes, Freezes int
}

func (t *tally) add(o *tally) {
	t.Reads += o.Reads
	t.Checked += o.Checked
	t.Across += o.Across
	t.Hits += o.Hits
	t.Writes += o.Writes
	t.Waited += o.Waited
	t.Free += o.Free
	t.Lost += o.Lost
	t.Drops += o.Drops
	t.Marks += o.Marks
	t.Slow += o.Slow
	t.Crashes += o.Crashes
	t.Freezes += o.Freezes
}

func (t *tally) expect(tt *testing.T) {
	for what, n := range map[string]int{
		"reads checked against another's write": t.Checked, "reads from one term to another": t.Across, "reads from the kernel": t.Hits, "writes that waited": t.Waited,
		"writes that nobody watched": t.Free, "leases lost": t.Lost, "directories given back": t.Drops,
		"marks raised": t.Marks, "peers that were too slow": t.Slow, "crashes": t.Crashes, "freezes": t.Freezes,
	} {
		if n == 0 {
			tt.Errorf("no %s in all runs", what)
		}
	}
}

// after returns a random delay: mostly short, now and then long unless all is to be calm.
func (w *world) after(usual, long time.Duration, rare float64) time.Duration {
	if w.rng.Float64() < rare && !w.quiet {
		usual = long
	}
	return time.Duration(w.rng.Int64N(int64(usual) + 1))
}

func (w *world) say(format string, args ...any) {
	if w.trace != nil {
		w.trace(fmt.Sprintf("%8.1f ms  ", float64(w.t)/1e6) + fmt.Sprintf(format, args...))
	}
}

// logName shows a log in a trace.
func logName(l Log) string { return fmt.Sprintf("%d.%d", l[0]-1, l[1]) }

func (v vector) String() string {
	var b strings.Builder
	for l, n := range v {
		fmt.Fprintf(&b, "%s:%d ", logName(l), n)
	}
	return b.String()
}
