package namespace

import (
	"errors"
	"fmt"

	"github.com/foreverfs/forever/internal/kv"
)

// gate says which batches are still taken: those of incarnations that were not
// known to be over, whose authors knew everything up to a vector.
type gate struct {
	floor  map[AuthorID]uint64
	closed map[AuthorID]bool // incarnations that are over by what is below the floor
	passed map[AuthorID]bool // authors whose merged batches know the floor
}

// gates are what a tree keeps of them. It holds itself to what any device promised, as it may have been
// let in, or have begun anew, after the others promised that; a merge that changes the state behind them makes them stale.
type gates struct {
	stale    bool
	folded   gate
	promised gate
	// givenUp are earlier incarnations of this device whose work was carried over.
	givenUp map[AuthorID]bool
	// wanted has batches that others build on who were free to merge them.
	wanted map[AuthorID]uint64
}

func (t *Tree) loadGates() error {
	heirs, err := t.heirs()
	if err != nil {
		return err
	}
	folded, err := readPoint(t.db, key(keyFolded))
	if err != nil {
		return err
	}
	promised, err := t.promises()
	if err != nil {
		return err
	}
	if t.gates.wanted == nil {
		t.gates.wanted = map[AuthorID]uint64{}
	}
	t.gates.folded, t.gates.promised = newGate(folded.Seen, heirs), newGate(promised, heirs)
	t.gates.givenUp = map[AuthorID]bool{}
	err = t.scan(key(keyGivenUp), func(k, _ []byte) error { t.gates.givenUp[AuthorID(k)] = true; return nil }, 16)
	if err != nil {
		return fmt.Errorf("read what was carried over: %w", err)
	}
	t.gates.stale = false
	return nil
}

func newGate(floor map[AuthorID]uint64, heirs map[AuthorID][]heir) gate {
	g := gate{floor: floor, closed: map[AuthorID]bool{}, passed: map[AuthorID]bool{}}
	for a, list := range heirs {
		for _, h := range list {
			if h.by == (AuthorID{}) || floor[h.by] >= h.seq {
				g.closed[a] = true
			}
		}
	}
	return g
}

// claim is what the author of a batch says it had seen.
type claim struct {
	t      *Tree
	author AuthorID
	seq    uint64
	delta  map[AuthorID]uint64
}

func (c *claim) vector(of AuthorID) (uint64, error) {
	if of == c.author {
		return c.seq - 1, nil
	}
	if seq, ok := c.delta[of]; ok {
		return seq, nil
	}
	v, err := c.t.db.Get(vectorKey(c.author, of))
	if errors.Is(err, kv.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read what %v has seen: %w", c.author, err)
	}
	d := decoder{b: v}
	return d.uvarint(), d.err("vector")
}

// passes reports whether a batch is one that is taken.
func (g *gate) passes(c *claim) (bool, error) {
	if c.seq <= g.floor[c.author] {
		return true, nil // others promised it, and it just did not come this way yet
	}
	if g.closed[c.author] {
		return false, nil
	}
	if g.passed[c.author] {
		return true, nil
	}
	for a, seq := range g.floor {
		seen, err := c.vector(a)
		if err != nil || seen < seq {
			return false, err
		}
	}
	return true, nil
}

// admit says whether a batch may be merged: ErrFolded if never, ErrNotReady if
// only should somebody turn up who merged it before promising not to. If it may, and is
// merged, the caller calls what is returned.
func (t *Tree) admit(author AuthorID, seq uint64, b *batch) (merged func(), err error) {
	if t.gates.stale {
		if err := t.loadGates(); err != nil {
			return nil, err
		}
	}
	g := &t.gates
	c := &claim{t: t, author: author, seq: seq, delta: make(map[AuthorID]uint64, len(b.delta))}
	for _, s := range b.delta {
		c.delta[s.author] = s.seq
	}
	folded, err := g.folded.passes(c)
	if err != nil {
		return nil, err
	}
	if !folded {
		return nil, fmt.Errorf("batch %d of %v: %w", seq, author, ErrFolded)
	}
	promised, err := g.promised.passes(c)
	if err != nil {
		return nil, err
	}
	promised = promised && !g.givenUp[author]
	if !promised && !t.repeats && g.wanted[author] < seq {
		return nil, fmt.Errorf("batch %d of %v: %w", seq, author, ErrUnknowing)
	}
	t.want(author, b)
	return func() {
		g.folded.passed[author] = true
		if promised {
			g.promised.passed[author] = true
		}
		if g.wanted[author] <= seq {
			delete(g.wanted, author)
		}
	}, nil
}

// want notes the batches that one builds on which is taken. Those of its author's own device are not
// among them: that it merged its own says nothing of whether it was free to.
func (t *Tree) want(author AuthorID, b *batch) {
	for _, s := range b.delta {
		if !s.author.sameDevice(author) && t.authors[s.author].seq < s.seq {
			t.gates.wanted[s.author] = max(t.gates.wanted[s.author], s.seq)
		}
	}
}
