package replica

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/zeebo/blake3"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/transport"
)

// idStore is a Store of which only the IDs matter.
type idStore struct {
	*memStore
	ids []chunk.ID // in order
}

func newIDStore(ids []chunk.ID) *idStore {
	s := &idStore{newMemStore(), slices.Clone(ids)}
	slices.SortFunc(s.ids, func(a, b chunk.ID) int { return bytes.Compare(a[:], b[:]) })
	return s
}

func (s *idStore) Range(from, to chunk.ID, fn func(chunk.ID, int) bool) error {
	i := sort.Search(len(s.ids), func(i int) bool { return bytes.Compare(s.ids[i][:], from[:]) >= 0 })
	for ; i < len(s.ids) && (to.IsZero() || bytes.Compare(s.ids[i][:], to[:]) < 0); i++ {
		if !fn(s.ids[i], 1) {
			break
		}
	}
	return nil
}

// compareOver has one store compared with another over a stream.
func compareOver(t testing.TB, mine, theirs Store) (*difference, error) {
	t.Helper()
	// Only their stores and the stream are used of the sessions.
	session := func(s Store) *session { return &session{r: &Replica{cfg: Config{Store: s}}} }
	one, other := streamPair(t)
	var g errgroup.Group
	g.Go(func() error {
		_ = session(theirs).serveCompare(newStream(other))
		return other.Close()
	})
	d, err := session(mine).compare(newStream(one))
	_ = one.Close()
	if e := g.Wait(); e != nil {
		t.Fatal(e)
	}
	return d, err
}

// streamPair returns the two ends of a stream.
func streamPair(t testing.TB) (one, other transport.Stream) {
	t.Helper()
	mem := transport.NewMemory()
	open := func(name string) (transport.Transport, DeviceID) {
		n := newTestNode(t, name, nil)
		tr, err := mem.Transport(transport.Config{Identity: n.key, Handshake: agreeable{}})
		if err != nil {
			t.Fatal(err)
		}
		return tr, n.id()
	}
	a, _ := open("one")
	b, id := open("other")
	l, err := b.Listen("other")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var g errgroup.Group
	g.Go(func() error {
		c, err := l.Accept(t.Context())
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = c.Close() })
		other, err = c.Accept(t.Context())
		return err
	})
	c, err := a.Dial(t.Context(), "other", transport.PeerID(id))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if one, err = c.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Write(nil); err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return one, other
}

// agreeable lets everybody in.
type agreeable struct{}

func (agreeable) Handshake(context.Context, transport.Stream, transport.PeerID, bool) (any, error) {
	return nil, nil
}

func hashedNumbers(from, to int) []chunk.ID {
	ids := make([]chunk.ID, 0, to-from)
	for i := from; i < to; i++ {
		ids = append(ids, chunk.ID(blake3.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24)})))
	}
	return ids
}

// Two stores that differ in ten find that out by exchanging kilobytes, however
// large they are.
func TestCompareLargeStores(t *testing.T) {
	n := 50_000
	if os.Getenv("FOREVER_ACCEPT") == "full" {
		n = 1_000_000
	}
	all := hashedNumbers(0, n)
	mine, theirs := newIDStore(all[:n-5]), newIDStore(all[5:])
	began := time.Now()
	d, err := compareOver(t, mine, theirs)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d chunks, 10 differ: %d bytes in %d rounds, %v", n, d.bytes, d.rounds, time.Since(began))
	if len(d.lacking) != 5 || len(d.missing) != 5 {
		t.Fatalf("found %d and %d that differ", len(d.lacking), len(d.missing))
	}
	for i := range 5 {
		if !slices.Contains(d.missing, all[n-1-i]) || !slices.ContainsFunc(d.lacking, func(it Item) bool { return it.ID == all[i] }) {
			t.Errorf("not found: %d", i)
		}
	}
	if d.bytes > 64<<10 || d.rounds > 8 {
		t.Errorf("%d bytes in %d rounds", d.bytes, d.rounds)
	}
}

func TestCompareFindsAllDifferences(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		rng := rand.New(rand.NewPCG(seed, 0))
		n := rapid.IntRange(0, 3000).Draw(rt, "chunks")
		miss := rapid.IntRange(0, 400).Draw(rt, "of a thousand only on one side")
		var mine, theirs []chunk.ID
		var lacking, missing int
		for _, id := range hashedNumbers(0, n) {
			switch k := rng.IntN(1000); {
			case k < miss/2:
				mine = append(mine, id)
				lacking++
			case k < miss:
				theirs = append(theirs, id)
				missing++
			default:
				mine, theirs = append(mine, id), append(theirs, id)
			}
		}
		d, err := compareOver(t, newIDStore(mine), newIDStore(theirs))
		if err != nil {
			rt.Fatal(err)
		}
		if len(d.lacking) != lacking || len(d.missing) != missing {
			rt.Fatalf("found %d and %d, there are %d and %d", len(d.lacking), len(d.missing), lacking, missing)
		}
	})
}

func TestPrefixBounds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := prefix{}
		for range rapid.IntRange(0, 2*chunk.IDSize-1).Draw(rt, "digits") {
			p = p.child(rapid.IntRange(0, 15).Draw(rt, "digit"))
		}
		var id chunk.ID
		copy(id[:], rapid.SliceOfN(rapid.Byte(), chunk.IDSize, chunk.IDSize).Draw(rt, "id"))
		if rapid.Bool().Draw(rt, "below") {
			copy(id[:], p.id[:p.n/2])
			if p.n%2 == 1 {
				id[p.n/2] = p.id[p.n/2] | id[p.n/2]&15
			}
		}
		var digits prefix
		for digits.n < p.n {
			digits = digits.child(digits.digit(id))
		}
		from, to := p.bounds()
		in := bytes.Compare(id[:], from[:]) >= 0 && (to.IsZero() || bytes.Compare(id[:], to[:]) < 0)
		if in != (digits == p) {
			rt.Fatalf("%x below %x/%d: %v", id, p.id, p.n, in)
		}
		again, err := parsePrefixes(p.append(nil))
		if err != nil || len(again) != 1 || again[0] != p {
			rt.Fatal(again, err)
		}
	})
}

// What one side has lost comes back, and a position that was lost costs next to nothing.
func TestStoresMendEachOther(t *testing.T) {
	mk := memNet()
	a := newTestNode(t, "a", mk).found()
	b := newTestNode(t, "b", mk)
	for _, n := range []*testNode{a, b} {
		n.edit = func(c *Config) { c.CompareDelay, c.CompareEvery = 50*time.Millisecond, 50*time.Millisecond }
	}
	a.start()
	b.joinBy(a, RoleMember).start()
	var ids []chunk.ID
	for range 200 {
		ids = append(ids, a.store.put(t, 100))
	}
	eventually(t, "copies", func() bool { a.Poke(); return b.store.len() == 200 })
	for i, s := range []*memStore{a.store, b.store} {
		s.mu.Lock()
		delete(s.chunks, ids[i])
		s.mu.Unlock()
	}
	eventually(t, "what was lost", func() bool { return a.store.len() == 200 && b.store.len() == 200 })
}

func TestLostPositionOffersLittle(t *testing.T) {
	a, b := pair(t)
	const n = 2 * farBehind
	var ids []chunk.ID
	for range n {
		ids = append(ids, a.store.put(t, 50))
	}
	eventually(t, "copies", func() bool { a.Poke(); return b.store.len() == n })
	if err := waitFor(a, 1, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	a.stop()
	b.stop()
	for _, n := range []*testNode{a, b} {
		forgetPositions(t, n)
	}
	b.store.mu.Lock()
	for _, id := range ids[:10] {
		delete(b.store.chunks, id)
	}
	had := b.store.had
	b.store.mu.Unlock()
	b.start()
	a.start()
	eventually(t, "all copies", func() bool { return b.store.len() == n })
	if err := waitFor(a, 1, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	b.store.mu.Lock()
	defer b.store.mu.Unlock()
	if looked := b.store.had - had; looked > 200 {
		t.Errorf("%d chunks were offered", looked)
	}
}
