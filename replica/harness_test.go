package replica

import (
	"bytes"
	"context"
	"crypto/ed25519"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/zeebo/blake3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/replica/replicapb"
	"github.com/foreverfs/forever/transport"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

var (
	testVolume = VolumeID{1, 2, 3}
	testEpoch  = EpochID{9, 9, 9}
)

// memStore is a Store in memory.
type memStore struct {
	full   atomic.Bool
	mu     sync.Mutex
	chunks map[chunk.ID][]byte
	order  []Item
	synced int
	puts   int
	gets   int
	had    int // calls of Has
	failed int
	fail   error         // of Put
	slow   time.Duration // of Get
}

var _ Store = (*memStore)(nil)

// Full implements Store.
func (m *memStore) Full() bool { return m.full.Load() }

func newMemStore() *memStore { return &memStore{chunks: map[chunk.ID][]byte{}} }

func (s *memStore) Get(ctx context.Context, dst []byte, id chunk.ID) ([]byte, error) {
	s.mu.Lock()
	c, ok := s.chunks[id]
	slow := s.slow
	s.gets++
	s.mu.Unlock()
	if slow > 0 && !sleep(ctx, slow) {
		return dst, ctx.Err()
	}
	if !ok {
		return dst, errors.New("not here")
	}
	return append(dst, c...), nil
}

func (s *memStore) Put(_ context.Context, id chunk.ID, sealed []byte) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		s.failed++
		return false, s.fail
	}
	s.puts++
	if _, ok := s.chunks[id]; ok {
		return false, nil
	}
	s.chunks[id] = bytes.Clone(sealed)
	s.order = append(s.order, Item{id, len(sealed), storePos(len(s.order) + 1)})
	return true, nil
}

func storePos(n int) (p Position) {
	binary.BigEndian.PutUint64(p[4:], uint64(n))
	return p
}

func (s *memStore) Has(id chunk.ID) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.had++
	_, ok := s.chunks[id]
	return ok, nil
}

func (s *memStore) Sync(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced = len(s.order)
	return nil
}

// flushed returns how many chunks a crash would leave.
func (s *memStore) flushed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.synced
}

func (s *memStore) End() Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return storePos(len(s.order))
}

func (s *memStore) Since(pos Position, limit int) ([]Item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := int(binary.BigEndian.Uint64(pos[4:]))
	if from >= len(s.order) {
		return nil, nil
	}
	return slices.Clone(s.order[from:min(from+limit, len(s.order))]), nil
}

func (s *memStore) Range(from, to chunk.ID, fn func(chunk.ID, int) bool) error {
	s.mu.Lock()
	var ids []chunk.ID
	for id := range s.chunks {
		if bytes.Compare(id[:], from[:]) >= 0 && (to.IsZero() || bytes.Compare(id[:], to[:]) < 0) {
			ids = append(ids, id)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(ids, func(a, b chunk.ID) int { return bytes.Compare(a[:], b[:]) })
	for _, id := range ids {
		s.mu.Lock()
		n := len(s.chunks[id])
		s.mu.Unlock()
		if !fn(id, n) {
			return nil
		}
	}
	return nil
}

// put stores new random bytes.
func (s *memStore) put(t testing.TB, size int) chunk.ID {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	id := chunk.ID(blake3.Sum256(b))
	if _, err := s.Put(t.Context(), id, b); err != nil {
		t.Fatal(err)
	}
	return id
}

func (s *memStore) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.chunks)
}

// testNode is one device: what survives a restart, and what runs.
type testNode struct {
	t      testing.TB
	name   string
	addr   string
	make   func(transport.Config) (transport.Transport, error)
	key    ed25519.PrivateKey
	kv     kv.DB
	store  *memStore
	edit   func(*Config)
	before func() // called before the replica serves
	starts byte

	*Replica
	author AuthorID
	stop   func()

	mu  sync.Mutex
	got []Envelope
}

// forgetPositions takes what a stopped node remembers of chunk positions.
func forgetPositions(t testing.TB, n *testNode) {
	t.Helper()
	records := map[string]*replicapb.PeerRecord{}
	err := scanAll(n.kv, []byte{'r', 'p'}, func(key, value []byte) error {
		rec := &replicapb.PeerRecord{}
		records[string(key)] = rec
		return proto.Unmarshal(value, rec)
	})
	if err != nil {
		t.Fatal(err)
	}
	err = n.kv.Update(func(tx kv.Tx) error {
		for key, rec := range records {
			rec.Pushed, rec.Received = nil, nil
			if err := putProto(tx, []byte(key), rec); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// memNet makes a test's transports over one network in memory.
func memNet() func(transport.Config) (transport.Transport, error) {
	return transport.NewMemory().Transport
}

func newTestNode(t testing.TB, name string, mk func(transport.Config) (transport.Transport, error)) *testNode {
	seed := blake3.Sum256([]byte(name))
	return &testNode{t: t, name: name, addr: name, make: mk, key: ed25519.NewKeyFromSeed(seed[:]), kv: kv.NewMem(), store: newMemStore()}
}

func (n *testNode) id() DeviceID { return DeviceID(n.key.Public().(ed25519.PublicKey)) }

func (n *testNode) config() Config {
	level := hclog.NoLevel
	if os.Getenv("REPLICA_LOG") != "" {
		level = hclog.Debug
	}
	cfg := Config{
		Volume:   testVolume,
		Identity: n.key,
		KV:       n.kv,
		Store:    n.store,
		Listen:   n.addr,
		Logger:   hclog.New(&hclog.LoggerOptions{Name: n.name, Level: level, Output: os.Stderr}),
		Transport: func(h transport.Handshaker) (transport.Transport, error) {
			return n.make(transport.Config{Identity: n.key, Handshake: h})
		},
		Admit: func(box, info []byte) ([]WrappedKey, error) {
			return []WrappedKey{{testEpoch, append([]byte("for "), box...)}}, nil
		},
		NewEpoch: func(members []Device, _ RecoveryPublic) (EpochID, []Wrap, error) {
			var id EpochID
			_, _ = crand.Read(id[:])
			wraps := []Wrap{{id, DeviceID{}, []byte("recovery")}}
			for _, d := range members {
				wraps = append(wraps, Wrap{id, d.ID, []byte("for " + d.Name)})
			}
			return id, wraps, nil
		},
		Rewrap: func(_ EpochID, d DeviceID, _ []byte) ([]byte, error) {
			return append([]byte("again for "), d[:]...), nil
		},
		Deliver: func(e Envelope) error {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.got = append(n.got, e)
			return nil
		},
		RetryMin:    20 * time.Millisecond,
		RetryMax:    200 * time.Millisecond,
		AckInterval: 10 * time.Millisecond,
	}
	if level == hclog.NoLevel {
		cfg.Logger = nil
	}
	if n.edit != nil {
		n.edit(&cfg)
	}
	return cfg
}

func recoveryFor(device DeviceID) (RecoveryPublic, []byte) {
	seed := blake3.Sum256([]byte("recovery"))
	key := ed25519.NewKeyFromSeed(seed[:])
	p := RecoveryPublic{Sign: DeviceID(key.Public().(ed25519.PublicKey)), Box: [32]byte{7}}
	return p, ed25519.Sign(key, RecoveryMessage(testVolume, device, p.Box))
}

// found makes n the founder of the volume.
func (n *testNode) found() *testNode {
	p, sig := recoveryFor(n.id())
	err := Create(n.config(), Founding{
		Name: n.name, Box: make([]byte, 32), Recovery: p, RecoverySignature: sig,
		Epoch: testEpoch,
		Wraps: []Wrap{{testEpoch, n.id(), []byte("own")}, {testEpoch, DeviceID{}, []byte("recovery")}},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return n
}

// start runs the node, which first catches up with what it stored before it stopped and did not see.
func (n *testNode) start() *testNode {
	n.t.Helper()
	cfg := n.config()
	r, err := Open(cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	if n.starts > 0 && cfg.Deliver != nil {
		if err := r.Replay(n.seen(), cfg.Deliver); err != nil {
			n.t.Fatal(err)
		}
	}
	n.Replica = r
	n.starts++
	n.author = AuthorOf(n.id(), [8]byte{n.starts})
	if n.before != nil {
		n.before()
	}
	if _, err := r.Listen(); err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
	})
	n.t.Cleanup(n.stop)
	return n
}

// joinBy has n let in by an invite of by, which is running.
func (n *testNode) joinBy(by *testNode, role Role) *testNode {
	n.t.Helper()
	inv, err := by.CreateInvite(role, time.Hour)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := n.join(inv); err != nil {
		n.t.Fatal(err)
	}
	return n
}

func (n *testNode) join(inv Invite) error {
	return Join(n.t.Context(), n.config(), Joining{Invite: inv, Name: n.name, Box: bytes.Repeat([]byte{n.name[0]}, 32)})
}

// write appends a batch of the given text.
func (n *testNode) write(text string) uint64 {
	n.t.Helper()
	seq, err := n.Append(n.author, testEpoch, []byte(text))
	if err != nil {
		n.t.Fatal(err)
	}
	return seq
}

// seen returns how far each log was delivered; of its own a node has seen all.
func (n *testNode) seen() map[AuthorID]uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := map[AuthorID]uint64{}
	for _, e := range n.got {
		out[e.Author] = e.Seq
	}
	for i := range n.starts {
		out[AuthorOf(n.id(), [8]byte{i + 1})] = math.MaxUint64
	}
	return out
}

func (n *testNode) texts() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for _, e := range n.got {
		out = append(out, string(e.Sealed))
	}
	return out
}

// eventually waits for cond.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func (n *testNode) sees(texts ...string) bool {
	got := n.texts()
	slices.Sort(got)
	want := slices.Sorted(slices.Values(texts))
	return slices.Equal(got, want)
}

func (n *testNode) status(t testing.TB) Status {
	t.Helper()
	st, err := n.Status()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func (n *testNode) connectedTo(o *testNode) bool {
	for _, d := range n.status(n.t).Devices {
		if d.ID == o.id() {
			return d.Connected
		}
	}
	return false
}

// pair starts a founder and a member that it let in.
func pair(t testing.TB) (a, b *testNode) {
	mk := memNet()
	a = newTestNode(t, "a", mk).found().start()
	b = newTestNode(t, "b", mk).joinBy(a, RoleMember).start()
	eventually(t, "connection", func() bool { return a.connectedTo(b) && b.connectedTo(a) })
	return a, b
}

func numbered(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return out
}
