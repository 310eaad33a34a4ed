package namespace

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/foreverfs/forever/internal/kv"
)

// countingDB counts reads of one kind of key.
type countingDB struct {
	kv.DB
	kind byte
	gets int
}

func (c *countingDB) Get(k []byte) ([]byte, error) {
	if k[1] == c.kind {
		c.gets++
	}
	return c.DB.Get(k)
}

// TestFreshNeedsNoSearch: that a name is free in a new directory, and that a new file has no attributes, is known.
func TestFreshNeedsNoSearch(t *testing.T) {
	db := &countingDB{DB: kv.NewMem(), kind: keySlot}
	tree, err := Open(db, AuthorID{1})
	if err != nil {
		t.Fatal(err)
	}
	d, err := tree.Create(1, Root, "d", CreateSpec{Kind: KindDir, Mode: 0o755})
	if err != nil {
		t.Fatal(err)
	}
	f, err := tree.Create(2, d.ID, "f", CreateSpec{Kind: KindFile})
	if err != nil {
		t.Fatal(err)
	}
	db.gets = 0
	if _, err := tree.Lookup(d.ID, "g"); !errors.Is(err, ErrNotExist) || db.gets != 0 {
		t.Errorf("what is not there: %v after %d searches", err, db.gets)
	}
	if n, err := tree.Lookup(d.ID, "f"); err != nil || n.Node != f.ID || db.gets != 1 {
		t.Errorf("what is there: %v after %d searches", err, db.gets)
	}
	db.kind, db.gets = keyXattr, 0
	if _, err := tree.Xattr(f.ID, "user.a"); !errors.Is(err, ErrNoXattr) || db.gets != 0 {
		t.Errorf("an attribute that is not there: %v after %d searches", err, db.gets)
	}
	if err := tree.SetXattr(3, f.ID, "user.a", []byte("v")); err != nil {
		t.Fatal(err)
	}
	if v, err := tree.Xattr(f.ID, "user.a"); err != nil || string(v) != "v" {
		t.Errorf("an attribute that is there: %q, %v", v, err)
	}
}

// TestFreshHidesNothing: two trees that change the same directories and merge each other's work show what trees do that were
// opened anew on the same state.
func TestFreshHidesNothing(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 30 {
		checkFreshHidesNothing(t, rng)
	}
}

func checkFreshHidesNothing(t *testing.T, rng *rand.Rand) {
	t.Helper()
	var sites [2]*site
	for i := range sites {
		sites[i] = newSite(t, byte(i+1))
		sites[i].tree.fresh.max = 1 + rng.IntN(30)
	}
	names := []string{"a", "b", "c"}
	for step := range 60 {
		s := sites[rng.IntN(2)]
		nodes := s.nodes(t)
		pick := func() Node { return nodes[rng.IntN(len(nodes))] }
		n, name, now := pick(), names[rng.IntN(len(names))], int64(step)
		var err error
		switch rng.IntN(7) {
		case 0, 1:
			_, err = s.tree.Create(now, n.ID, name, CreateSpec{Kind: KindDir, Mode: 0o755})
		case 2:
			spec := CreateSpec{Kind: KindFile}
			if rng.IntN(3) == 0 {
				spec.Xattrs = map[string][]byte{"user.a": []byte("made with it")}
			}
			_, err = s.tree.Create(now, n.ID, name, spec)
		case 3:
			err = s.tree.SetXattr(now, n.ID, "user."+name, []byte(fmt.Sprint(step)))
		case 4:
			_, err = s.tree.Unlink(now, n.ID, name)
		case 5:
			_, _, err = s.tree.Rename(now, n.ID, name, pick().ID, names[rng.IntN(len(names))], 0)
		case 6:
			give(t, sites)
		}
		_ = err // what cannot be done is as good
		s.compare(t, names)
	}
	give(t, sites)
	for _, s := range sites {
		s.compare(t, names)
	}
}

// site is a tree and what it has handed out.
type site struct {
	db   kv.DB
	id   AuthorID
	tree *Tree
	sent [][]byte
	got  int // of the other's
}

func newSite(t *testing.T, device byte) *site {
	t.Helper()
	s := &site{db: kv.NewMem(), id: AuthorID{device}}
	var err error
	if s.tree, err = Open(s.db, s.id); err != nil {
		t.Fatal(err)
	}
	return s
}

// give has two sites merge each other's work.
func give(t *testing.T, sites [2]*site) {
	t.Helper()
	for _, s := range sites {
		for s.tree.Pending() > 0 {
			payload, err := s.tree.Cut()
			if err != nil {
				t.Fatal(err)
			}
			s.sent = append(s.sent, payload)
			if err := s.tree.Committed(uint64(len(s.sent))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, s := range sites {
		from := sites[1-i]
		for ; s.got < len(from.sent); s.got++ {
			if _, err := s.tree.Merge(from.id, uint64(s.got+1), from.sent[s.got]); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// nodes lists all that the tree shows.
func (s *site) nodes(t *testing.T) []Node {
	t.Helper()
	root, err := s.tree.Node(Root)
	if err != nil {
		t.Fatal(err)
	}
	out := []Node{root}
	for i := 0; i < len(out); i++ {
		if out[i].Kind != KindDir {
			continue
		}
		entries, err := s.tree.List(out[i].ID, "", 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			found, err := s.tree.Lookup(out[i].ID, e.Name)
			if err != nil {
				t.Fatalf("%q is listed and not there: %v", e.Name, err)
			}
			n, err := s.tree.Node(found.Node)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, n)
		}
	}
	return out
}

// compare checks the tree against one opened on its state.
func (s *site) compare(t *testing.T, names []string) {
	t.Helper()
	plain := *s.tree
	plain.fresh = newFresh()
	for _, n := range s.nodes(t) {
		for _, name := range names {
			if n.Kind == KindDir {
				got, gerr := s.tree.Lookup(n.ID, name)
				want, werr := plain.Lookup(n.ID, name)
				if got.Node != want.Node || !errors.Is(gerr, werr) {
					t.Fatalf("%s in %v: %v, %v; want %v, %v", name, n.ID, got.Node, gerr, want.Node, werr)
				}
			}
			got, gerr := s.tree.Xattr(n.ID, "user."+name)
			want, werr := plain.Xattr(n.ID, "user."+name)
			if !slices.Equal(got, want) || !errors.Is(gerr, werr) {
				t.Fatalf("attribute %s of %v: %q, %v; want %q, %v", name, n.ID, got, gerr, want, werr)
			}
		}
	}
}

// TestFreshOfWhatCameToNothing: an ID that a failed update gave a file may be a directory's next.
func TestFreshOfWhatCameToNothing(t *testing.T) {
	f, id := newFresh(), NodeID{1}
	f.made(id, KindFile)
	f.made(id, KindDir)
	if f.isBare(id) || !f.lacksName(id, "a") {
		t.Error("a directory passes for a file")
	}
	f.made(id, KindFile)
	if !f.isBare(id) || f.lacksName(id, "a") {
		t.Error("a file passes for a directory")
	}
}
