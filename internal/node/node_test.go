package node

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/fail"
)

func testConfig(t *testing.T, dir string) Config {
	return Config{
		Dir: dir, Listen: "127.0.0.1:0", Name: "tester", Version: "test",
		Logger:     hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: newTestWriter(t)}),
		Passphrase: func(bool) ([]byte, error) { return nil, nil },
	}
}

// testWriter shows log lines with the test that they belong to. A state that has broken may log something when its test is over.
type testWriter struct {
	mu sync.Mutex
	t  *testing.T // nil: it is over
}

func newTestWriter(t *testing.T) *testWriter {
	w := &testWriter{t: t}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.t = nil
	})
	return w
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Logf("%s", bytes.TrimRight(p, "\n"))
	}
	return len(p), nil
}

func mustOpen(t *testing.T, cfg Config) *Node {
	t.Helper()
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// wantGoroutines waits until no more goroutines run than before.
func wantGoroutines(t *testing.T, before int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

func TestStartsFindWhatWasThere(t *testing.T) {
	before := runtime.NumGoroutine()
	cfg := testConfig(t, filepath.Join(t.TempDir(), "data"))
	phrase, err := Create(t.Context(), cfg)
	if err != nil || len(strings.Fields(phrase)) != 24 {
		t.Fatalf("Create: %q, %v", phrase, err)
	}
	content := bytes.Repeat([]byte("forever and ever "), 20000)
	for i := range 3 {
		n, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		f := files{v: n.vol}
		if i == 0 {
			if err := f.Put(t.Context(), "/file", control.PutOptions{Mode: 0o640}, bytes.NewReader(content)); err != nil {
				t.Fatal(err)
			}
		}
		r, _, err := f.Open(t.Context(), "file")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("start %d: %d bytes, %v", i, len(got), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := n.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
	}
	wantGoroutines(t, before)
}

func TestTwoNodes(t *testing.T) {
	ctx := t.Context()
	cfgA := testConfig(t, filepath.Join(t.TempDir(), "a"))
	if _, err := Create(ctx, cfgA); err != nil {
		t.Fatal(err)
	}
	a := mustOpen(t, cfgA)
	line, err := controlNode{a}.Invite(ctx, control.InviteRequest{})
	if err != nil {
		t.Fatal(err)
	}
	cfgB := testConfig(t, filepath.Join(t.TempDir(), "b"))
	if err := Join(ctx, cfgB, line); err != nil {
		t.Fatal(err)
	}
	b := mustOpen(t, cfgB)
	if err := (files{v: a.vol}).Put(ctx, "from a", control.PutOptions{Mode: 0o600}, strings.NewReader("hello b")); err != nil {
		t.Fatal(err)
	}
	wait, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := (controlNode{a}).Wait(wait, control.WaitRequest{}, func(control.Progress) {}); err != nil {
		t.Fatal(err)
	}
	wantContent(t, b, "from a", "hello b")
	st, err := controlNode{b}.Status(ctx)
	if err != nil || len(st.Devices) != 2 || !st.Devices[0].Self || !st.Devices[1].Connected {
		t.Errorf("status of b: %+v, %v", st, err)
	}
	if st.Files != 1 || st.Directories != 1 || st.Bytes != 7 {
		t.Errorf("b counts %d files, %d directories, %d bytes", st.Files, st.Directories, st.Bytes)
	}
	if err := (files{v: b.vol}).Remove(ctx, "from a", false); err != nil {
		t.Fatal(err)
	}
	// Ending hands the last changes over.
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, _, err := files{v: a.vol}.Open(ctx, "from a")
		if fail.KindOf(err) == fail.Path {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("a still has what b removed: %v", err)
		}
	}
}

func wantContent(t *testing.T, n *Node, path, want string) {
	t.Helper()
	var got []byte
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var r io.ReadCloser
		if r, _, err = (files{v: n.vol}).Open(t.Context(), path); err != nil {
			continue
		}
		if got, err = io.ReadAll(r); err == nil && string(got) == want {
			r.Close()
			return
		}
		r.Close()
	}
	t.Errorf("%s: %q, %v", path, got, err)
}

func TestKeylessReplicaHoldsAndRefuses(t *testing.T) {
	ctx := t.Context()
	cfgA := testConfig(t, filepath.Join(t.TempDir(), "a"))
	if _, err := Create(ctx, cfgA); err != nil {
		t.Fatal(err)
	}
	a := mustOpen(t, cfgA)
	line, err := controlNode{a}.Invite(ctx, control.InviteRequest{Replica: true})
	if err != nil {
		t.Fatal(err)
	}
	cfgR := testConfig(t, filepath.Join(t.TempDir(), "r"))
	if err := Join(ctx, cfgR, line); err != nil {
		t.Fatal(err)
	}
	r := mustOpen(t, cfgR)
	content := bytes.Repeat([]byte("only members read this "), 9000)
	if err := (files{v: a.vol}).Put(ctx, "x", control.PutOptions{Mode: 0o600}, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	wait, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := (controlNode{a}).Wait(wait, control.WaitRequest{Replicas: 1}, func(control.Progress) {}); err != nil {
		t.Fatal(err)
	}
	st, err := controlNode{r}.Status(ctx)
	if err != nil || st.Role != RoleReplica || st.Store.Chunks == 0 {
		t.Errorf("status of the replica: %+v, %v", st, err)
	}
	if _, err := (controlNode{r}).ExportKey(ctx); fail.KindOf(err) != fail.Keyless {
		t.Errorf("ExportKey: %v", err)
	}
	if err := r.Mount(MountConfig{Mountpoint: t.TempDir()}); fail.KindOf(err) != fail.Keyless {
		t.Errorf("Mount: %v", err)
	}
}

// TestTableMissing: a state that has lost a file is damaged.
func TestTableMissing(t *testing.T) {
	cfg := testConfig(t, filepath.Join(t.TempDir(), "data"))
	if _, err := Create(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second start writes out what the first has in its log
		if err := mustOpen(t, cfg).Close(); err != nil {
			t.Fatal(err)
		}
	}
	tables, err := filepath.Glob(filepath.Join(cfg.Dir, stateName, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	if err := os.Remove(tables[0]); err != nil {
		t.Fatal(err)
	}
	n, err := Open(t.Context(), cfg)
	if err == nil {
		_ = n.Close()
	}
	if fail.KindOf(err) != fail.Damaged {
		t.Errorf("open: %v", err)
	}
}
