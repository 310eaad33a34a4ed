package fusefs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bazil.org/fuse"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/volume"
)

// helperEnv names what a child made of this test binary does instead of testing.
const helperEnv = "FUSEFS_TEST_HELPER"

func TestMain(m *testing.M) {
	if job, ok := helpers[os.Getenv(helperEnv)]; ok {
		if err := job(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	leave := mountControl()
	code := m.Run()
	leave()
	os.Exit(code)
}

// mountControl has the kernel show its connections, by which one can be broken off whose mount is out of reach: any mount namespace that
// is made while a test runs has a copy. Small machines do not show them.
func mountControl() (leave func()) {
	const dir = "/sys/fs/fuse/connections"
	table, err := MountTable()
	if err != nil || slices.ContainsFunc(table, func(m Mounted) bool { return m.Path == dir }) || unix.Mount("fusectl", dir, "fusectl", 0, "") != nil {
		return func() {}
	}
	return func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }
}

// helpers are jobs that must not share a process with the server: a page fault
// or a poll in the runtime would stop both.
var helpers = map[string]func(args []string) error{
	"touch": func(args []string) error {
		if err := os.WriteFile(args[0], nil, 0o600); err != nil {
			return err
		}
		return os.Remove(args[0])
	},
	"ceiling": ceilingHelper,
	"mmap":    mmapHelper,
	"setid":   setIDHelper,
	"chown":   chownHelper,
	"fsetid":  fsetidHelper,
	"append":  appendHelper,
	"excl":    exclHelper,
	"handler": handlerHelper,
	"mmap2":   mmapTwoHelper,
	"mapfull": mapFullHelper,
}

func helper(t testing.TB, job string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), helperEnv+"="+job, "GORACE=atexit_sleep_ms=0")
	return cmd
}

// runHelper runs a job and fails the test if it fails.
func runHelper(t testing.TB, job string, args ...string) {
	t.Helper()
	if out, err := helper(t, job, args...).CombinedOutput(); err != nil {
		t.Fatalf("helper %s: %v\n%s", job, err, out)
	}
}

// memChunks is a chunk store in memory. Get waits while it is held up.
type memChunks struct {
	mu     sync.Mutex
	chunks map[chunk.ID][]byte
	hold   chan struct{} // not nil: Get waits until it is closed
	slow   bool          // what is held up comes from a slow disk, not from another machine
	held   atomic.Int32
}

func (m *memChunks) Get(ctx context.Context, dst []byte, id chunk.ID) ([]byte, error) {
	m.mu.Lock()
	hold, c := m.hold, m.chunks[id]
	m.mu.Unlock()
	if hold != nil {
		m.held.Add(1)
		defer m.held.Add(-1)
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if c == nil {
		return nil, errors.New("no such chunk")
	}
	return append(dst, c...), nil
}

func (m *memChunks) Put(_ context.Context, sealed []byte) (chunk.ID, error) {
	id := chunk.ID(sha256.Sum256(sealed))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.chunks[id] = append([]byte(nil), sealed...)
	return id, nil
}

func (m *memChunks) Sync(context.Context) error { return nil }
func (m *memChunks) Passed(_, _ chunk.ID)       {}

func (m *memChunks) Local(chunk.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hold == nil || m.slow
}

func (m *memChunks) Ahead(context.Context, chunk.ID) error { return nil }

// holdUp has Get wait until release, as for another machine or for a slow disk.
func (m *memChunks) holdUp(slow bool) (release func()) {
	ch := make(chan struct{})
	m.mu.Lock()
	m.hold, m.slow = ch, slow
	m.mu.Unlock()
	return sync.OnceFunc(func() {
		m.mu.Lock()
		m.hold = nil
		m.mu.Unlock()
		close(ch)
	})
}

// clear seals nothing: names for plaintext are enough here.
type clearSealer struct{}

func (clearSealer) Seal(dst, plain []byte) ([]byte, error) { return append(dst, plain...), nil }

func (clearSealer) Open(dst, sealed []byte) ([]byte, error) { return append(dst, sealed...), nil }

type memLog struct {
	mu      sync.Mutex
	batches [][]byte
}

func (l *memLog) Append(payload []byte) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batches = append(l.batches, append([]byte(nil), payload...))
	return uint64(len(l.batches)), nil
}

// rig is a volume in memory, and its mount.
type rig struct {
	*Server
	t      testing.TB
	vol    *volume.Volume
	dir    string
	chunks *memChunks
	log    *memLog
	author namespace.AuthorID
	given  int // batches delivered to the other side
}

var authors atomic.Int32

// newVolume starts a volume without mounting it.
func newVolume(t testing.TB, chunks *memChunks, change ...func(*volume.Config)) *rig {
	t.Helper()
	if chunks == nil {
		chunks = &memChunks{chunks: map[chunk.ID][]byte{}}
	}
	r := &rig{t: t, chunks: chunks, log: &memLog{}, author: namespace.AuthorID{byte(authors.Add(1)), 15: 1}}
	var err error
	r.vol, err = openMemory(chunks, r.log, r.author, change...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.vol.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// openMemory opens a new volume that keeps everything in memory.
func openMemory(chunks *memChunks, log *memLog, author namespace.AuthorID, change ...func(*volume.Config)) (*volume.Volume, error) {
	state := kv.NewMem()
	tree, err := namespace.Open(state, author)
	if err != nil {
		return nil, err
	}
	cfg := volume.Config{
		Tree: tree, State: state, Chunks: chunks, Sealer: clearSealer{}, Log: log, CacheSize: 1 << 20,
		BatchDelay: time.Millisecond, DiskUsage: func() (uint64, uint64, error) { return 1 << 40, 1 << 39, nil },
	}
	for _, fn := range change {
		fn(&cfg)
	}
	return volume.Open(cfg)
}

// mount mounts a new volume. change may adjust the configuration, prepare the server before it serves.
func mount(t testing.TB, change func(*Config), prepare ...func(*Server)) *rig {
	t.Helper()
	r := newVolume(t, nil)
	r.mount(change, prepare...)
	return r
}

func (r *rig) mount(change func(*Config), prepare ...func(*Server)) {
	t := r.t
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting in tests needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip(err)
	}
	r.dir = filepath.Join(t.TempDir(), "m p") // a space has to be escaped here and there
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Mountpoint: r.dir, Volume: r.vol, UnmountPatience: 300 * time.Millisecond,
		Logger: hclog.New(&hclog.LoggerOptions{Output: testWriter{t}, Level: hclog.Warn})}
	if change != nil {
		change(&cfg)
	}
	srv, err := Mount(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Server = srv
	for _, p := range prepare {
		p(srv)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background()) }()
	t.Cleanup(func() {
		if err := srv.Unmount(); err != nil {
			t.Errorf("unmount: %v", err)
			_ = unix.Unmount(r.dir, unix.MNT_DETACH)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if mountMinor(r.dir) != 0 {
			t.Error("still in the list of mounts")
		}
	})
	if !cfg.ReadOnly {
		runHelper(t, "touch", filepath.Join(r.dir, ".touch"))
	}
}

// testWriter shows log lines with the test.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

// path returns a path on the mount.
func (r *rig) path(elem ...string) string {
	return filepath.Join(append([]string{r.dir}, elem...)...)
}

func (r *rig) write(name, data string) {
	r.t.Helper()
	must(r.t, os.WriteFile(r.path(name), []byte(data), 0o644))
}

func (r *rig) read(name string) string {
	r.t.Helper()
	b, err := os.ReadFile(r.path(name))
	must(r.t, err)
	return string(b)
}

// openBeside opens a file through the mount, and beside it.
func (r *rig) openBeside(t testing.TB, name string) (f *os.File, beside *volume.Handle) {
	t.Helper()
	a, err := r.vol.Lookup(t.Context(), 1, name)
	must(t, err)
	t.Cleanup(func() { r.vol.Forget(a.Ino, 1) })
	beside, err = r.vol.Open(t.Context(), a.Ino, os.O_RDWR)
	must(t, err)
	t.Cleanup(beside.Release)
	f, err = os.Open(r.path(name))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f, beside
}

// give delivers everything published at r to the other volume.
func (r *rig) give(to *rig) {
	r.t.Helper()
	must(r.t, r.vol.SyncAll(context.Background()))
	deadline := time.Now().Add(30 * time.Second)
	for {
		r.log.mu.Lock()
		batches := r.log.batches[r.given:]
		r.log.mu.Unlock()
		for _, b := range batches {
			r.given++
			must(r.t, to.vol.Deliver(r.author, uint64(r.given), b))
		}
		if len(batches) > 0 {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatal("nothing was published")
		}
		time.Sleep(time.Millisecond)
	}
}

// until waits for a condition that must come true soon.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

// counts counts requests by what they are.
type counts struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counts) observe(s *Server) {
	s.observe = func(req fuse.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.n == nil {
			c.n = map[string]int{}
		}
		c.n[fmt.Sprintf("%T", req)]++
	}
}

func (c *counts) of(req fuse.Request) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[fmt.Sprintf("%T", req)]
}

// wantNone expects that the kernel sends no requests of some kinds while something is done, at the latest the second time: others
// on the machine may have it drop its caches meanwhile.
func (c *counts) wantNone(t testing.TB, do func(), kinds ...fuse.Request) {
	t.Helper()
	sent := func() (n int) {
		for _, req := range kinds {
			n += c.of(req)
		}
		return n
	}
	n := 0
	for range 2 {
		before := sent()
		do()
		if n = sent() - before; n == 0 {
			return
		}
	}
	t.Errorf("the kernel sent %d requests such as %T", n, kinds[0])
}

var callerRoot = volume.Caller{}
