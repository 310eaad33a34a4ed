package volume

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/zeebo/blake3"
	"pgregory.net/rapid"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/cipher"
	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/namespace"
)

// memChunks is a chunk store in memory that can be told to be slow, full or without a chunk.
type memChunks struct {
	mu     sync.Mutex
	chunks map[chunk.ID][]byte
	syncs  int
	putErr error
	getErr error
	away   map[chunk.ID]bool // not local: Get delivers, Local says no
	passed [][2]chunk.ID
}

func newMemChunks() *memChunks { return &memChunks{chunks: map[chunk.ID][]byte{}} }

func (m *memChunks) Get(_ context.Context, dst []byte, id chunk.ID) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.getErr != nil {
		return nil, m.getErr
	}
	c, ok := m.chunks[id]
	if !ok {
		return nil, fmt.Errorf("no chunk %v", id)
	}
	return append(dst, c...), nil
}

func (m *memChunks) Put(ctx context.Context, sealed []byte) (chunk.ID, error) {
	if err := ctx.Err(); err != nil {
		return chunk.ID{}, err
	}
	id := chunk.ID(blake3.Sum256(sealed))
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.putErr != nil {
		return chunk.ID{}, m.putErr
	}
	m.chunks[id] = append([]byte(nil), sealed...)
	return id, nil
}

func (m *memChunks) Sync(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.syncs++
	return nil
}

func (m *memChunks) Ahead(_ context.Context, id chunk.ID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.away, id)
	return nil
}

// sendAway leaves all chunks that are there on other devices alone.
func (m *memChunks) sendAway() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = map[chunk.ID]bool{}
	for id := range m.chunks {
		m.away[id] = true
	}
}

func (m *memChunks) Local(id chunk.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.chunks[id] != nil && !m.away[id]
}

func (m *memChunks) Passed(first, last chunk.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.passed = append(m.passed, [2]chunk.ID{first, last})
}

// takePassed returns what was passed since the last call.
func (m *memChunks) takePassed() [][2]chunk.ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.passed
	m.passed = nil
	return list
}

func (m *memChunks) all() map[chunk.ID][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.chunks)
}

func (m *memChunks) addAll(chunks map[chunk.ID][]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.Copy(m.chunks, chunks)
}

func (m *memChunks) fail(put, get error) {
	m.mu.Lock()
	m.putErr, m.getErr = put, get
	m.mu.Unlock()
}

// hookChunks calls put before the next Put, once.
type hookChunks struct {
	*memChunks
	put atomic.Pointer[func()]
}

func (h *hookChunks) Put(ctx context.Context, sealed []byte) (chunk.ID, error) {
	if fn := h.put.Swap(nil); fn != nil {
		(*fn)()
	}
	return h.memChunks.Put(ctx, sealed)
}

// memLog keeps batches, and hands them to other volumes of the same test.
type memLog struct {
	mu      sync.Mutex
	author  namespace.AuthorID
	batches [][]byte
}

func (l *memLog) Append(payload []byte) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batches = append(l.batches, append([]byte(nil), payload...))
	return uint64(len(l.batches)), nil
}

func (l *memLog) all() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([][]byte(nil), l.batches...)
}

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a volume with everything below it at hand.
type rig struct {
	*Volume
	t      *testing.T
	state  kv.DB
	chunks *memChunks
	log    *memLog
	past   []*memLog       // of earlier runs of the device
	got    map[*memLog]int // batches delivered so far
}

// Rename is Volume.Rename for who does not ask what it moved.
func (r *rig) Rename(ctx context.Context, oldParent uint64, oldName string, newParent uint64, newName string, flags uint32) error {
	_, _, err := r.Volume.Rename(ctx, Caller{}, oldParent, oldName, newParent, newName, flags)
	return err
}

var testKey = cipher.EpochKey{ID: cipher.EpochID{1}, Secret: [32]byte{2}}

func testKeyring() *cipher.Keyring {
	var k cipher.Keyring
	k.Add(testKey)
	k.SetCurrent(testKey.ID)
	return &k
}

// smallBlocks makes files of a few KiB have several blocks and none inline.
func smallBlocks(c *Config) { c.BlockLog, c.InlineMax = 14, -1 }

// newRig starts a volume of the device named by a number; change may adjust the configuration.
func newRig(t *testing.T, device byte, change func(*Config)) *rig {
	t.Helper()
	return startRig(t, device, kv.NewMem(), newMemChunks(), change)
}

func startRig(t *testing.T, device byte, state kv.DB, chunks *memChunks, change func(*Config)) *rig {
	t.Helper()
	author := namespace.AuthorID{device, 8: byte(incarnations.next())}
	tree, err := namespace.Open(state, author)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, state: state, chunks: chunks, log: &memLog{author: author}, got: map[*memLog]int{}}
	cfg := Config{Tree: tree, State: state, Chunks: chunks, Sealer: testKeyring(), Log: r.log,
		PublishInterval: time.Hour, FlushInterval: time.Hour, BatchDelay: time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	if r.Volume, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Volume.Close() })
	return r
}

// counter hands out numbers.
type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) next() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

var incarnations counter

// create makes and opens a file in the root directory.
func (r *rig) create(name string) *Handle {
	r.t.Helper()
	_, h, err := r.Create(context.Background(), Caller{}, RootIno, name, 0644, syscall.O_RDWR)
	if err != nil {
		r.t.Fatalf("create %s: %v", name, err)
	}
	r.t.Cleanup(h.Release)
	return h
}

// open opens a file of the root directory.
func (r *rig) open(name string, flags int) *Handle {
	r.t.Helper()
	a, err := r.Lookup(context.Background(), RootIno, name)
	if err != nil {
		r.t.Fatalf("look up %s: %v", name, err)
	}
	h, err := r.Open(context.Background(), a.Ino, flags)
	if err != nil {
		r.t.Fatalf("open %s: %v", name, err)
	}
	r.t.Cleanup(h.Release)
	return h
}

func (r *rig) write(h *Handle, data string, off int64) {
	r.t.Helper()
	if _, err := h.Write(context.Background(), []byte(data), off); err != nil {
		r.t.Fatal(err)
	}
}

// truncate sets the size of an open file, as ftruncate does.
func truncate(h *Handle, size int64) error {
	_, err := h.v.Setattr(context.Background(), h.Ino(), SetAttr{Valid: SetSize, Size: size, Held: true})
	return err
}

// read returns all that a handle shows.
func (r *rig) read(h *Handle) string {
	r.t.Helper()
	a, err := r.Getattr(context.Background(), h.Ino())
	if err != nil {
		r.t.Fatal(err)
	}
	p := make([]byte, a.Size)
	n, err := h.Read(context.Background(), p, 0)
	if err != nil || n != len(p) {
		r.t.Fatalf("read %d of %d bytes: %v", n, len(p), err)
	}
	return string(p)
}

func (r *rig) content(name string) string {
	r.t.Helper()
	h := r.open(name, syscall.O_RDONLY)
	defer h.Release()
	return r.read(h)
}

// all returns what every file of the root directory holds.
func (r *rig) all() map[string]string {
	r.t.Helper()
	r.treeMu.RLock()
	list, err := r.cfg.Tree.List(namespace.Root, "", 1000)
	r.treeMu.RUnlock()
	must(r.t, err)
	out := map[string]string{}
	for _, e := range list {
		out[e.Name] = r.content(e.Name)
	}
	return out
}

// wantNames fails unless the files of the root directory of each rig are those of want.
func wantNames(t *testing.T, want map[string]string, rigs ...*rig) {
	t.Helper()
	for i, r := range rigs {
		if diff := cmp.Diff(want, r.all()); diff != "" {
			t.Errorf("rig %d: -want +got:\n%s", i, diff)
		}
	}
}

// link gives a file of the root directory another name.
func (r *rig) link(name, other string) {
	r.t.Helper()
	a, err := r.Lookup(context.Background(), RootIno, name)
	must(r.t, err)
	_, err = r.Link(context.Background(), a.Ino, RootIno, other)
	must(r.t, err)
}

// crash starts the device anew with what it has now; what is only in memory is gone.
func (r *rig) crash() *rig {
	r.t.Helper()
	_, err := r.cutBatch()
	must(r.t, err)
	again := startRig(r.t, r.log.author[0], r.state.(*kv.Mem).Snapshot().(*kv.Mem), r.chunks, func(c *Config) { c.BlockLog, c.InlineMax = r.cfg.BlockLog, r.cfg.InlineMax })
	again.past = append(slices.Clone(r.past), r.log)
	maps.Copy(again.got, r.got)
	return again
}

func (r *rig) sync() {
	r.t.Helper()
	if err := r.SyncAll(context.Background()); err != nil {
		r.t.Fatal(err)
	}
}

// exchange publishes all of both and delivers each one's batches to the other.
func exchange(a, b *rig) {
	a.t.Helper()
	a.sync()
	b.sync()
	b.chunks.addAll(a.chunks.all())
	a.chunks.addAll(b.chunks.all())
	give(a, b)
	give(b, a)
}

func give(from, to *rig) {
	from.t.Helper()
	for _, log := range append(slices.Clone(from.past), from.log) {
		list := log.all()
		for i := to.got[log]; i < len(list); i++ {
			if err := to.Deliver(log.author, uint64(i+1), list[i]); err != nil {
				from.t.Fatal(err)
			}
		}
		to.got[log] = len(list)
	}
}
