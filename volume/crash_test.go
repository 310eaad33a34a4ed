package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/casstore"
	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/internal/sealedfs"
	"github.com/foreverfs/forever/namespace"
)

// diskChunks is a real store without peers.
type diskChunks struct{ *casstore.Store }

func (d diskChunks) Put(ctx context.Context, sealed []byte) (chunk.ID, error) {
	id, _, err := d.Add(ctx, sealed)
	return id, err
}

func (d diskChunks) Ahead(context.Context, chunk.ID) error { return nil }

func (d diskChunks) Passed(_, _ chunk.ID) {}

func (d diskChunks) Local(id chunk.ID) bool {
	has, err := d.Has(id)
	return err == nil && has
}

// machine is a whole member without network on one simulated disk.
type machine struct {
	vol   *Volume
	state *kv.Pebble
	store *casstore.Store
	log   *memLog
}

// boot starts a machine on a disk, as after a power cut.
func boot(fs vfs.FS, change func(*Config)) (*machine, error) {
	m := &machine{}
	var err error
	if err = makeDir(fs); err != nil {
		return nil, err
	}
	if m.state, err = kv.OpenPebble(kv.PebbleConfig{Dir: "data/state", FS: sealedfs.New(fs, [32]byte{3})}); err != nil {
		return nil, err
	}
	if m.store, err = casstore.Open(casstore.Config{Dir: "data/chunks", FS: fs}); err != nil {
		return nil, errors.Join(err, m.state.Close())
	}
	m.log = &memLog{author: namespace.AuthorID{1, 8: byte(incarnations.next())}}
	tree, err := namespace.Open(m.state, m.log.author)
	if err != nil {
		return nil, err
	}
	cfg := Config{Tree: tree, State: m.state, Chunks: diskChunks{m.store}, Sealer: testKeyring(), Log: m.log,
		BlockLog: 14, InlineMax: 64, JournalMax: 8 << 10, PublishInterval: 3 * time.Millisecond, FlushInterval: 2 * time.Millisecond, BatchDelay: time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	m.vol, err = Open(cfg)
	return m, err
}

// makeDir makes the data directory durably.
func makeDir(fs vfs.FS) error {
	if err := fs.MkdirAll("data", 0755); err != nil {
		return err
	}
	root, err := fs.OpenDir("")
	if err != nil {
		return err
	}
	return errors.Join(root.Sync(), root.Close())
}

func (m *machine) close() error {
	return errors.Join(m.vol.Close(), m.store.Close(), m.state.Close())
}

// expectation is what a crash at some moment may leave of each file.
type expectation map[string]*fileState

// fileState is what is known of one name.
type fileState struct {
	names    bool     // a namespace op on it may not be durable yet: it may be there or not
	contents [][]byte // what it may hold; the first was acknowledged by fsync, or is nil
}

func (e expectation) clone() expectation {
	c := expectation{}
	for name, f := range e {
		c[name] = &fileState{f.names, append([][]byte(nil), f.contents...)}
	}
	return c
}

// crasher takes clones of the disk while a workload runs.
type crasher struct {
	disk   *vfs.MemFS
	armed  atomic.Bool // a volume that is not there yet has nothing to lose
	writes atomic.Int64

	mu     sync.Mutex
	want   expectation
	clones []clone
	rng    *rand.Rand
}

type clone struct {
	disk *vfs.MemFS
	want expectation
	at   int64
}

// hook is an errorfs.InjectorFunc: it injects no error, but crashes before a write.
func (c *crasher) hook(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || !c.armed.Load() {
		return nil
	}
	n := c.writes.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	cfg := vfs.CrashCloneCfg{}
	if pct := []int{0, 30, 100}[len(c.clones)%3]; pct > 0 {
		cfg = vfs.CrashCloneCfg{UnsyncedDataPercent: pct, RNG: c.rng}
	}
	c.clones = append(c.clones, clone{c.disk.CrashClone(cfg), c.want.clone(), n})
	return nil
}

// note changes what is expected.
func (c *crasher) note(fn func(expectation)) {
	c.mu.Lock()
	fn(c.want)
	c.mu.Unlock()
}

// TestPowerCutAnywhere cuts the power before every write to the disk, and finds each time
// every acknowledged fsync, no file with a content it never had, and every file readable to its end.
func TestPowerCutAnywhere(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	c := &crasher{disk: vfs.NewCrashableMem(), want: expectation{}, rng: rand.New(rand.NewPCG(uint64(seed), 2))}
	m, err := boot(errorfs.Wrap(c.disk, errorfs.InjectorFunc(c.hook)), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.armed.Store(true)
	rng := rand.New(rand.NewPCG(uint64(seed), 1))
	for i := range 45 {
		if err := work(m.vol, c, rng, i); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	if err := m.close(); err != nil {
		t.Fatal(err)
	}
	for _, cl := range c.clones {
		if err := inspect(cl); err != nil {
			t.Fatalf("power cut before write %d of %d: %v", cl.at, c.writes.Load(), err)
		}
	}
	t.Logf("%d power cuts in %d writes", len(c.clones), c.writes.Load())
}

// files is how many files the workload uses.
const files = 6

// work does one thing to one of a few files, and fsyncs it or not.
func work(v *Volume, c *crasher, rng *rand.Rand, i int) error {
	name := fmt.Sprintf("f%d", rng.IntN(files))
	switch rng.IntN(12) {
	case 0:
		return remove(v, c, name)
	case 1:
		return replaceFile(v, c, name, noise(rng, i))
	case 2, 3:
		return copyFile(v, c, fmt.Sprintf("f%d", rng.IntN(files)), name, rng.IntN(3) > 0)
	case 4, 5:
		return punchFile(v, c, name, rng.Int64N(40_000), 1+rng.Int64N(60_000), rng.IntN(3) > 0)
	}
	return writeFile(v, c, name, noise(rng, i), rng.IntN(3) > 0)
}

// noise returns some incompressible bytes of a size that takes one of the paths: inline, journalled, sealed.
func noise(rng *rand.Rand, i int) []byte {
	p := make([]byte, []int{10, 2000, 6000, 20_000, 70_000}[rng.IntN(5)])
	for j := range p {
		p[j] = byte(rng.Uint32())
	}
	return fmt.Appendf(p[:0:len(p)], "%-10d", i)[:len(p)]
}

func (e expectation) at(name string) *fileState {
	if e[name] == nil {
		e[name] = &fileState{contents: [][]byte{nil}, names: true}
	}
	return e[name]
}

// acknowledge notes that a file's content and all names are durable as they are now.
func (c *crasher) acknowledge(v *Volume, name string, data []byte) {
	there := map[string]bool{}
	for i := range files {
		for _, n := range []string{fmt.Sprintf("f%d", i), fmt.Sprintf("f%d.tmp", i)} {
			_, err := lookup(v, n)
			there[n] = err == nil
		}
	}
	c.note(func(e expectation) {
		e.at(name).contents = [][]byte{data}
		for n, f := range e {
			f.names = false
			if !there[n] {
				delete(e, n)
			}
		}
	})
}

func lookup(v *Volume, name string) (Attr, error) {
	a, err := v.Lookup(ctx, RootIno, name)
	if err == nil {
		v.Forget(a.Ino, 1)
	}
	return a, err
}

// writeFile writes a whole file in one step, in place.
func writeFile(v *Volume, c *crasher, name string, data []byte, sync bool) error {
	h, err := openOrCreate(v, c, name)
	if err != nil {
		return err
	}
	defer h.Release()
	old := make([]byte, 1<<20)
	n, err := h.Read(ctx, old, 0)
	if err != nil {
		return err
	}
	overlaid := append(append([]byte(nil), data...), old[min(n, len(data)):n]...)
	c.note(func(e expectation) { f := e.at(name); f.contents = append(f.contents, overlaid, data) })
	if _, err := h.Write(ctx, data, 0); err != nil {
		return err
	}
	if err := truncate(h, int64(len(data))); err != nil {
		return err
	}
	if !sync {
		return h.Flush(ctx)
	}
	if err := h.Fsync(ctx); err != nil {
		return err
	}
	c.acknowledge(v, name, data)
	return nil
}

func openOrCreate(v *Volume, c *crasher, name string) (*Handle, error) {
	a, err := lookup(v, name)
	if err == nil {
		return v.Open(ctx, a.Ino, syscall.O_RDWR)
	}
	c.note(func(e expectation) { f := e.at(name); f.names = true; f.contents = append(f.contents, []byte{}) })
	_, h, err := v.Create(ctx, Caller{}, RootIno, name, 0644, syscall.O_RDWR)
	return h, err
}

// replaceFile saves a file as editors do: a temporary file, fsync, rename.
func replaceFile(v *Volume, c *crasher, name string, data []byte) error {
	tmp := name + ".tmp"
	if err := writeFile(v, c, tmp, data, true); err != nil {
		return err
	}
	c.note(func(e expectation) {
		f := e.at(name)
		f.contents = append(f.contents, data)
		e.at(tmp).names = true
	})
	if _, _, err := v.Rename(ctx, Caller{}, RootIno, tmp, RootIno, name, 0); err != nil {
		return err
	}
	if err := v.FsyncDir(ctx, RootIno); err != nil {
		return err
	}
	c.acknowledge(v, name, data)
	return nil
}

func remove(v *Volume, c *crasher, name string) error {
	if _, err := lookup(v, name); err != nil {
		return nil
	}
	c.note(func(e expectation) { e.at(name).names = true })
	return v.Unlink(ctx, RootIno, name)
}

// copyFile makes one file a copy of another, and changes its first bytes.
func copyFile(v *Volume, c *crasher, from, to string, sync bool) error {
	a, err := lookup(v, from)
	if err != nil || from == to {
		return nil
	}
	src, err := v.Open(ctx, a.Ino, syscall.O_RDONLY)
	if err != nil {
		return err
	}
	defer src.Release()
	dst, err := openOrCreate(v, c, to)
	if err != nil {
		return err
	}
	defer dst.Release()
	data := make([]byte, a.Size)
	if _, err := src.Read(ctx, data, 0); err != nil {
		return err
	}
	changed := append([]byte("copy"), data[min(4, len(data)):]...)
	c.note(func(e expectation) { f := e.at(to); f.contents = append(f.contents, []byte{}, data, changed) })
	if err := truncate(dst, 0); err != nil {
		return err
	}
	if n, err := v.Copy(ctx, src, 0, dst, 0, a.Size); err != nil || n != a.Size {
		return fmt.Errorf("copied %d of %d: %w", n, a.Size, err)
	}
	if _, err := dst.Write(ctx, []byte("copy"), 0); err != nil {
		return err
	}
	return finish(v, c, dst, to, changed, sync)
}

// punchFile makes a hole in a file.
func punchFile(v *Volume, c *crasher, name string, off, n int64, sync bool) error {
	h, err := openOrCreate(v, c, name)
	if err != nil {
		return err
	}
	defer h.Release()
	data := make([]byte, 1<<20)
	k, err := h.Read(ctx, data, 0)
	if err != nil {
		return err
	}
	data = data[:k]
	clear(data[min(off, int64(k)):min(off+n, int64(k))])
	c.note(func(e expectation) { f := e.at(name); f.contents = append(f.contents, data) })
	if err := h.Allocate(ctx, off, n, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE); err != nil {
		return err
	}
	return finish(v, c, h, name, data, sync)
}

// finish flushes a file or makes it durable.
func finish(v *Volume, c *crasher, h *Handle, name string, data []byte, sync bool) error {
	if !sync {
		return h.Flush(ctx)
	}
	if err := h.Fsync(ctx); err != nil {
		return err
	}
	c.acknowledge(v, name, data)
	return nil
}

// inspect boots a crashed disk and looks at everything on it.
func inspect(cl clone) error {
	m, err := boot(cl.disk, func(c *Config) { c.PublishInterval, c.FlushInterval = time.Hour, time.Hour })
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer m.close()
	d, err := m.vol.OpenDir(ctx, RootIno)
	if err != nil {
		return err
	}
	defer d.Release()
	list, err := d.Read(2, 1000)
	if err != nil {
		return err
	}
	found := map[string][]byte{}
	for _, e := range list {
		if found[e.Name], err = contentOf(m.vol, e.Ino); err != nil {
			return fmt.Errorf("read %s: %w", e.Name, err)
		}
	}
	for name, f := range cl.want {
		got, ok := found[name]
		if !ok && !f.names {
			return fmt.Errorf("%s is gone; found %d names, want %d", name, len(found), len(cl.want))
		}
		if ok && !f.allows(got) {
			return fmt.Errorf("%s has %d bytes beginning %.16q that it never had, of %d possible", path.Base(name), len(got), got, len(f.contents))
		}
	}
	return nil
}

func (f *fileState) allows(got []byte) bool {
	for _, c := range f.contents {
		if bytes.Equal(c, got) {
			return true
		}
	}
	return false
}

func contentOf(v *Volume, ino uint64) ([]byte, error) {
	h, err := v.Open(ctx, ino, syscall.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer h.Release()
	a, err := v.Getattr(ctx, ino)
	if err != nil {
		return nil, err
	}
	p := make([]byte, a.Size)
	n, err := h.Read(ctx, p, 0)
	return p[:n], err
}

// TestFsyncIsOneFlush counts the flushes that reach the disk between the request and the answer.
func TestFsyncIsOneFlush(t *testing.T) {
	var flushes atomic.Int64
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo, errorfs.OpFileFlush:
			flushes.Add(1)
		}
		return nil
	}))
	m, err := boot(fs, func(c *Config) { c.PublishInterval, c.FlushInterval = time.Hour, time.Hour })
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	_, h, err := m.vol.Create(ctx, Caller{}, RootIno, "f", 0644, syscall.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	for i, size := range []int{10, 4096, 4096, 8000} {
		if _, err := h.Write(ctx, bytes.Repeat([]byte{byte(i + 1)}, size), int64(i)*5000); err != nil {
			t.Fatal(err)
		}
		before := flushes.Load()
		if err := h.Fsync(ctx); err != nil {
			t.Fatal(err)
		}
		if n := flushes.Load() - before; n != 1 {
			t.Errorf("fsync %d of %d bytes: %d flushes, want 1", i, size, n)
		}
	}
}

// orderedLog fails the test if a batch comes while chunks that its ops name may not be durable.
type orderedLog struct {
	*memLog
	named func() bool
}

func (l orderedLog) Append(payload []byte) (uint64, error) {
	if l.named() {
		return 0, errors.New("a batch goes out before the chunks it names are durable")
	}
	return l.memLog.Append(payload)
}

// lastingChunks counts the chunks that no Sync has followed.
type lastingChunks struct {
	*memChunks
	loose atomic.Int64
}

func (c *lastingChunks) Put(ctx context.Context, sealed []byte) (chunk.ID, error) {
	c.loose.Add(1)
	return c.memChunks.Put(ctx, sealed)
}

func (c *lastingChunks) Sync(ctx context.Context) error {
	c.loose.Store(0)
	return c.memChunks.Sync(ctx)
}

func TestChunksBeforeBatch(t *testing.T) {
	chunks := &lastingChunks{}
	r := newRig(t, 1, func(c *Config) {
		smallBlocks(c)
		c.BatchDelay = time.Hour
		chunks.memChunks = c.Chunks.(*memChunks)
		c.Chunks = chunks
		c.Log = orderedLog{c.Log.(*memLog), func() bool { return chunks.loose.Load() > 0 }}
	})
	for i := range 3 {
		h := r.create(fmt.Sprint(i))
		r.write(h, "content", 0)
		if err := h.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		if err := r.commitQueue(ctx); err != nil {
			t.Fatal(err)
		}
		if chunks.loose.Load() == 0 {
			t.Fatal("the chunk is durable already: this shows nothing")
		}
		if i == 2 { // another device's batch comes first
			if err := r.Deliver(namespace.AuthorID{9}, 1, nil); strings.Contains(err.Error(), "durable") {
				t.Error(err)
			}
		} else if _, err := r.cutBatch(); err != nil {
			t.Error(err)
		}
	}
}
