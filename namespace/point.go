package namespace

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/foreverfs/forever/internal/kv"
)

// Point is what a tree is folded to: what every device that takes part has
// seen, and how long what was removed is kept.
type Point struct {
	// Seen has up to which batch each author was seen.
	Seen map[AuthorID]uint64
	Retention
}

// Retention is how long what was replaced and removed is kept. Both are Unix ns, as an author believes the time to be; 0 forgets nothing.
type Retention struct {
	// Horizon is when something must have been removed or replaced to be forgotten:
	// before it, by the clock of who did.
	Horizon int64
	// Now is what time it is: the older a content that was replaced, the fewer of its like are kept.
	Now int64
}

func (r Retention) isZero() bool { return r == Retention{} }

func (r Retention) min(o Retention) Retention {
	return Retention{min(r.Horizon, o.Horizon), min(r.Now, o.Now)}
}

func (r Retention) max(o Retention) Retention {
	return Retention{max(r.Horizon, o.Horizon), max(r.Now, o.Now)}
}

// Covers reports whether p is nowhere behind q.
func (p Point) Covers(q Point) bool {
	for a, seq := range q.Seen {
		if p.Seen[a] < seq {
			return false
		}
	}
	return p.Horizon >= q.Horizon && p.Now >= q.Now
}

func (p Point) equal(q Point) bool { return p.Retention == q.Retention && maps.Equal(p.Seen, q.Seen) }

// meet returns what both of two vectors have.
func meetVectors(a, b map[AuthorID]uint64) map[AuthorID]uint64 {
	out := map[AuthorID]uint64{}
	for id, seq := range a {
		if seq = min(seq, b[id]); seq > 0 {
			out[id] = seq
		}
	}
	return out
}

// readPoint reads the point kept under a prefix: the retention there, each author below it.
func readPoint(r kv.Reader, prefix []byte) (p Point, err error) {
	p.Seen = map[AuthorID]uint64{}
	var inner error
	err = r.Scan(prefix, kv.PrefixEnd(prefix), func(k, v []byte) bool {
		d := decoder{b: v}
		switch len(k) - len(prefix) {
		case 0:
			p.Horizon, p.Now = d.i64(), d.i64()
		case 16:
			p.Seen[AuthorID(k[len(prefix):])] = d.uvarint()
		default:
			d.bad = true
		}
		inner = d.err("point")
		return inner == nil
	})
	if err := errors.Join(inner, err); err != nil {
		return Point{}, fmt.Errorf("read a point: %w", err)
	}
	return p, nil
}

// raisePoint writes what of p is above what is kept under a prefix.
func (x *txn) raisePoint(prefix []byte, p Point) error {
	for _, a := range sortedAuthors(p.Seen) {
		k := append(slices.Clone(prefix), a[:]...)
		was, _, err := x.getUvarint(k)
		if err != nil {
			return err
		}
		if p.Seen[a] <= was {
			continue
		}
		if err := x.putUvarint(k, p.Seen[a]); err != nil {
			return err
		}
	}
	if p.isZero() {
		return nil
	}
	was, err := readRetention(x.tx, prefix)
	if err != nil {
		return err
	}
	if next := was.max(p.Retention); next != was {
		return x.put(prefix, appendI64(appendI64(nil, next.Horizon), next.Now))
	}
	return nil
}

func readRetention(r kv.Reader, k []byte) (out Retention, err error) {
	v, err := r.Get(k)
	if errors.Is(err, kv.ErrNotFound) {
		return out, nil
	}
	if err != nil {
		return out, fmt.Errorf("read a horizon: %w", err)
	}
	d := decoder{b: v}
	out = Retention{Horizon: d.i64(), Now: d.i64()}
	return out, d.err("horizon")
}

func sortedAuthors(m map[AuthorID]uint64) []AuthorID {
	return slices.SortedFunc(maps.Keys(m), func(a, b AuthorID) int { return slices.Compare(a[:], b[:]) })
}
