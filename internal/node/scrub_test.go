package node

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/foreverfs/forever/internal/control"
)

// TestScrubSeesWhatAStartWritesAnew flips bits in a table of the state that no reader looks at, and has the
// node's start write the table anew: a scrub that begins before it notices all the same.
func TestScrubSeesWhatAStartWritesAnew(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	cfg := testConfig(t, dir)
	if _, err := Create(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second start writes out what the first has in its log
		if err := mustOpen(t, cfg).Close(); err != nil {
			t.Fatal(err)
		}
	}
	tables, err := filepath.Glob(filepath.Join(dir, stateName, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	table, _ := filepath.Rel(dir, tables[0])
	whole, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}

	// scrub tells whether a scrub of a copy with one byte of the table changed notices that.
	scrub := func(at int, verify bool) bool {
		c := cfg
		c.Dir, c.Verify = filepath.Join(t.TempDir(), "copy"), verify
		if err := os.CopyFS(c.Dir, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		changed := slices.Clone(whole)
		changed[at] ^= 1
		if err := os.WriteFile(filepath.Join(c.Dir, table), changed, 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := Open(t.Context(), c)
		if err != nil {
			return true
		}
		defer n.Close()
		if err := n.state.Raw().Compact(t.Context(), []byte{0}, []byte{0xff}, false); err != nil {
			return true
		}
		rep, err := controlNode{n: n}.Scrub(t.Context(), func(control.ScrubProgress) {})
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(rep.Problems, func(p string) bool { return strings.Contains(p, table) })
	}
	unseen := 0
	for at := 0; at < len(whole) && unseen < 3; at += 16 {
		if scrub(at, false) {
			continue
		}
		unseen++
		if !scrub(at, true) {
			t.Errorf("byte %d of %d was changed, and nothing noticed", at, len(whole))
		}
	}
	if unseen == 0 {
		t.Error("no byte of the table goes unread when it is written anew: nothing was tested")
	}
}

// TestScrubAfterTheIndexWasMadeAnew: the files of the new index, which have names of the old one's, are not taken for damaged.
func TestScrubAfterTheIndexWasMadeAnew(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	cfg := testConfig(t, dir)
	if _, err := Create(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	n := mustOpen(t, cfg)
	data := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{5}).Read(data)
	if err := (files{v: n.vol}).Put(t.Context(), "/file", control.PutOptions{Mode: 0o640}, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	manifests, err := filepath.Glob(filepath.Join(dir, chunksName, "index", "MANIFEST-*"))
	if err != nil || len(manifests) == 0 {
		t.Fatal(manifests, err)
	}
	raw, err := os.ReadFile(manifests[0])
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err := os.WriteFile(manifests[0], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	for start := range 3 {
		n := mustOpen(t, cfg)
		rep, err := controlNode{n: n}.Scrub(t.Context(), func(control.ScrubProgress) {})
		if err != nil {
			t.Fatal(err)
		}
		for _, problem := range rep.Problems {
			if start > 0 || !strings.Contains(problem, "was not as it was left") {
				t.Errorf("start %d: %s", start, problem)
			}
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEndDuringScrub: a node that ends waits for the scrub that its end interrupts before it closes what that reads.
func TestEndDuringScrub(t *testing.T) {
	cfg := testConfig(t, filepath.Join(t.TempDir(), "data"))
	if _, err := Create(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	n := mustOpen(t, cfg)
	if err := (files{v: n.vol}).Put(t.Context(), "/file", control.PutOptions{Mode: 0o640}, strings.NewReader(strings.Repeat("content ", 1000))); err != nil {
		t.Fatal(err)
	}
	if err := n.vol.SyncAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	scrubbing, closed := make(chan struct{}), make(chan error, 1)
	go func() {
		<-scrubbing
		closed <- n.Close()
	}()
	once := sync.OnceFunc(func() {
		close(scrubbing)
		<-n.waiting.Done()
	})
	// So little is left of it that it may be over first.
	if _, err := (controlNode{n: n}).Scrub(t.Context(), func(control.ScrubProgress) { once() }); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("the scrub ended with %v", err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// TestScrubWithDamagedIndex: a scrub that starts the node makes the index anew before it verifies all chunks; one on a node that runs says
// that the next start does, and verifies the rest. The scrub after that finds nothing.
func TestScrubWithDamagedIndex(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	cfg := testConfig(t, dir)
	if _, err := Create(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	n := mustOpen(t, cfg)
	data := make([]byte, 20<<20)
	_, _ = rand.NewChaCha8([32]byte{6}).Read(data)
	if err := (files{v: n.vol}).Put(t.Context(), "/file", control.PutOptions{Mode: 0o640}, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	for name, verify := range map[string]bool{"for the scrub": true, "running": false} {
		t.Run(name, func(t *testing.T) {
			c := cfg
			c.Dir, c.Verify = filepath.Join(t.TempDir(), "copy"), verify
			if err := os.CopyFS(c.Dir, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			flip(t, filepath.Join(c.Dir, chunksName, "index", "*.sst"))
			for start := range 3 {
				n := mustOpen(t, c)
				rep, err := controlNode{n: n}.Scrub(t.Context(), func(control.ScrubProgress) {})
				if err != nil {
					t.Fatal(err)
				}
				if (len(rep.Problems) > 0) != (start == 0) {
					t.Errorf("scrub %d: %q", start, rep.Problems)
				}
				if left := start == 0 && !verify; (rep.Lost > 0) != left || rep.Keys == 0 || (rep.Chunks < 300) != left {
					t.Errorf("scrub %d: %+v", start, rep)
				}
				if err := n.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// flip changes a bit in the middle of each file of a pattern, of which there must be one.
func flip(t *testing.T, pattern string) {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)/2] ^= 1
		if err := os.WriteFile(name, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
