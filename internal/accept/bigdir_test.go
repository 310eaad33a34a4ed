package accept

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBigDirectory makes a million entries in one directory: neither making nor finding one gets slower as it grows,
// the node's memory stays bounded, and a list of it is whole.
func TestBigDirectory(t *testing.T) {
	n := newNode(t, "a", "")
	dir := filepath.Join(n.mnt, "dir")
	must(t, os.Mkdir(dir, 0o755))
	total := scale(20_000, 1_000_000)
	const parts = 10
	var makes, finds []time.Duration // per entry, of each tenth
	began := time.Now()
	for part := range parts {
		from, to := total/parts*part, total/parts*(part+1)
		makes = append(makes, timed(func() { makeEntries(t, dir, from, to) })/time.Duration(to-from))
		finds = append(finds, findEntries(t, dir, to))
	}
	took := time.Since(began)
	t.Logf("%d entries in %.1f s (%.0f/s); peak RSS %d MiB", total, took.Seconds(), float64(total)/took.Seconds(), n.rss()>>20)
	t.Logf("to make one, by tenths: %v", rounded(makes))
	t.Logf("to find one, median: %v", rounded(finds))
	listed := timed(func() {
		if out := strings.TrimSpace(run(t, dir, "sh", "-c", "ls -f | wc -l")); out != fmt.Sprint(total+2) {
			t.Errorf("ls -f has %s lines, want %d", out, total+2)
		}
	})
	// As find sees it, each once.
	names := timed(func() {
		if out := strings.TrimSpace(run(t, dir, "sh", "-c", "find . -type f | LC_ALL=C sort -u | wc -l")); out != fmt.Sprint(total) {
			t.Errorf("find has %s different names, want %d", out, total)
		}
	})
	t.Logf("ls -f in %.2f s, find | sort -u in %.2f s; peak RSS %d MiB", listed.Seconds(), names.Seconds(), n.rss()>>20)
	if limit := int64(700 << 20); n.rss() > limit {
		t.Errorf("peak RSS %d MiB, over %d", n.rss()>>20, limit>>20)
	}
	// Three times is noise here; what grows with the directory would grow tenfold.
	if last, first := slices.Min(finds[parts-3:]), slices.Min(finds[:3]); last > 4*first+200*time.Microsecond {
		t.Errorf("finding one takes %v at the end, %v at the beginning", last, first)
	}
	if last, first := slices.Min(makes[parts-3:]), slices.Min(makes[:3]); last > 4*first+scale(time.Millisecond, 0) {
		t.Errorf("making one takes %v at the end, %v at the beginning", last, first)
	}
	n.stop()
	n.start()
	if got := findEntries(t, dir, total); got > 50*time.Millisecond {
		t.Errorf("after a start finding one takes %v", got)
	}
	gone := timed(func() { run(t, n.mnt, "rm", "-r", "dir") })
	t.Logf("rm -r in %.1f s (%.0f/s); peak RSS of the second start %d MiB", gone.Seconds(), float64(total)/gone.Seconds(), n.rss()>>20)
}

func entryName(i int) string { return fmt.Sprintf("entry-%07d.with-a-usual-name", i) }

func makeEntries(t *testing.T, dir string, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		f, err := os.OpenFile(filepath.Join(dir, entryName(i)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		must(t, err)
		must(t, f.Close())
	}
}

// findEntries looks up entries that the kernel has forgotten, and ones that are not there, and returns the median.
func findEntries(t *testing.T, dir string, have int) time.Duration {
	t.Helper()
	_ = os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0)
	rng := rand.New(rand.NewPCG(1, uint64(have)))
	var took []time.Duration
	for i := range 400 {
		var st unix.Stat_t
		name := filepath.Join(dir, entryName(rng.IntN(have)))
		if i%4 == 0 {
			name += "-not"
		}
		began := time.Now()
		err := unix.Lstat(name, &st)
		took = append(took, time.Since(began))
		if (err == nil) == (i%4 == 0) {
			t.Fatalf("%s: %v", name, err)
		}
	}
	slices.Sort(took)
	return took[len(took)/2]
}

func rounded(in []time.Duration) (out []time.Duration) {
	for _, d := range in {
		out = append(out, d.Round(time.Microsecond))
	}
	return out
}
