package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/replica/replicapb"
)

// Two stores are compared by range-based set reconciliation (Meyer, 2022): the
// ranges are prefixes of IDs, which are spread evenly, and each is summed up by the
// number of its IDs and their sum. Prefixes that agree are done with; the others are
// looked at digit by digit, until so few IDs are left that they are named. So what is
// exchanged grows with what differs. Only the asking side learns anything.
const (
	digits = 16
	// maxNamed is how many IDs below one prefix are named instead of summed up.
	maxNamed = 32
	// maxPrefixes bounds the prefixes of one request.
	maxPrefixes = 64
	// maxDiffering ends a comparison of stores that have too little in common.
	maxDiffering = 1 << 16

	sumSize         = 16
	maxCompare      = maxPrefixes * (1 + chunk.IDSize)
	maxCompareReply = maxNamed*chunk.IDSize + digits*(sumSize+8) + 64
)

// errTooDifferent says that two stores have too little in common to be compared.
var errTooDifferent = errors.New("replica: stores differ in too much")

// prefix is the beginning of IDs: their first n hexadecimal digits.
type prefix struct {
	id chunk.ID // zero behind the digits
	n  int
}

// child is the prefix with one more digit.
func (p prefix) child(digit int) prefix {
	shift := 4 * (1 - p.n%2)
	p.id[p.n/2] |= byte(digit << shift)
	p.n++
	return p
}

// bounds returns the IDs with the prefix: from ≤ ID < to; a zero to means no end.
func (p prefix) bounds() (from, to chunk.ID) {
	to = p.id
	// Add one at the last digit.
	for i := p.n - 1; i >= 0; i-- {
		shift := 4 * (1 - i%2)
		if to[i/2]>>shift&15 != 15 {
			to[i/2] += 1 << shift
			return p.id, to
		}
		to[i/2] &^= 15 << shift
	}
	return p.id, chunk.ID{}
}

// digit returns the digit of id that follows the prefix.
func (p prefix) digit(id chunk.ID) int { return int(id[p.n/2] >> (4 * (1 - p.n%2)) & 15) }

func (p prefix) append(b []byte) []byte { return append(append(b, byte(p.n)), p.id[:(p.n+1)/2]...) }

// parsePrefixes reads those of a request.
func parsePrefixes(b []byte) ([]prefix, error) {
	var out []prefix
	for len(b) > 0 {
		p := prefix{n: int(b[0])}
		size := (p.n + 1) / 2
		if p.n >= 2*chunk.IDSize || len(b) < 1+size || len(out) == maxPrefixes {
			return nil, invalid("prefixes of a comparison")
		}
		copy(p.id[:], b[1:1+size])
		if p.n%2 == 1 {
			p.id[size-1] &= 0xf0
		}
		out, b = append(out, p), b[1+size:]
	}
	return out, nil
}

// digest sums up a set of IDs.
type digest struct {
	count uint32
	sum   [4]uint64 // as a number modulo 2^256, lowest first
}

func (d *digest) add(id chunk.ID) {
	d.count++
	var carry uint64
	for i := range d.sum {
		d.sum[i], carry = bits.Add64(d.sum[i], binary.BigEndian.Uint64(id[8*(3-i):]), carry)
	}
}

// short is what is sent of the sum: as many IDs as there are could hardly agree in
// it by chance. Whoever wants to deceive can say that they have chunks anyway.
func (d *digest) short() (b [sumSize]byte) {
	binary.BigEndian.PutUint64(b[:], d.sum[3])
	binary.BigEndian.PutUint64(b[8:], d.sum[2])
	return b
}

// below is what a store has below a prefix: the chunks, if they are few, and digests by
// the next digit in any case.
type below struct {
	items   []Item
	total   int
	digests [digits]digest
}

// look sums up what this store has below a prefix.
func (r *Replica) look(p prefix) (*below, error) {
	b := &below{}
	from, to := p.bounds()
	err := r.cfg.Store.Range(from, to, func(id chunk.ID, size int) bool {
		b.digests[p.digit(id)].add(id)
		if b.total++; b.total <= maxNamed {
			b.items = append(b.items, Item{ID: id, Size: size})
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	return b, nil
}

// reply is what the other side is told of it.
func (b *below) reply() *replicapb.CompareReply {
	m := &replicapb.CompareReply{}
	if b.total <= maxNamed {
		for _, it := range b.items {
			m.Ids = append(m.Ids, it.ID[:]...)
		}
		return m
	}
	for i := range b.digests {
		sum := b.digests[i].short()
		m.Counts = append(m.Counts, b.digests[i].count)
		m.Sums = append(m.Sums, sum[:]...)
	}
	return m
}

// serveCompare answers the peer's questions about this store.
func (s *session) serveCompare(st *stream) error {
	for {
		var m replicapb.CompareRequest
		if err := st.read(&m, maxCompare+64); err != nil {
			return err
		}
		prefixes, err := parsePrefixes(m.GetPrefixes())
		if err != nil {
			return err
		}
		for _, p := range prefixes {
			b, err := s.r.look(p)
			if err != nil {
				return storeError{err}
			}
			if err := st.write(b.reply()); err != nil {
				return err
			}
		}
		if err := st.flush(); err != nil {
			return err
		}
	}
}

// difference is what a comparison found.
type difference struct {
	lacking []Item     // here, and not there
	missing []chunk.ID // there, and not here
	some    *Item      // any that is here
	rounds  int
	bytes   int // exchanged
}

// compare finds out what the peer has and this store has not, and the other way
// round, as far as it is durable on either side.
func (s *session) compare(st *stream) (*difference, error) {
	d := &difference{}
	open := []prefix{{}}
	for len(open) > 0 {
		now := open[:min(len(open), maxPrefixes)]
		open = slices.Clone(open[len(now):])
		if err := d.ask(st, now); err != nil {
			return nil, err
		}
		for _, p := range now {
			var m replicapb.CompareReply
			if err := st.read(&m, maxCompareReply); err != nil {
				return nil, err
			}
			d.bytes += len(m.GetIds()) + len(m.GetSums()) + 4*len(m.GetCounts())
			mine, err := s.r.look(p)
			if err != nil {
				return nil, err
			}
			if d.some == nil && len(mine.items) > 0 {
				d.some = &mine.items[0]
			}
			further, err := d.judge(s.r, p, mine, &m)
			if err != nil {
				return nil, err
			}
			open = append(open, further...)
		}
		if len(d.lacking) > maxDiffering || len(d.missing) > maxDiffering || len(open) > maxDiffering/maxNamed {
			return nil, errTooDifferent
		}
	}
	return d, nil
}

func (d *difference) ask(st *stream, prefixes []prefix) error {
	var m replicapb.CompareRequest
	for _, p := range prefixes {
		m.Prefixes = p.append(m.Prefixes)
	}
	d.rounds++
	d.bytes += len(m.GetPrefixes())
	return errors.Join(st.write(&m), st.flush())
}

// judge takes the peer's word on a prefix and returns what to ask next.
func (d *difference) judge(r *Replica, p prefix, mine *below, m *replicapb.CompareReply) ([]prefix, error) {
	if len(m.GetCounts()) == 0 {
		return nil, d.name(r, p, m.GetIds())
	}
	if len(m.GetCounts()) != digits || len(m.GetSums()) != digits*sumSize || p.n+1 >= 2*chunk.IDSize {
		return nil, invalid("answer to a comparison")
	}
	var total uint64
	var out []prefix
	for i, n := range m.GetCounts() {
		total += uint64(n)
		sum := mine.digests[i].short()
		if n != mine.digests[i].count || [sumSize]byte(m.GetSums()[i*sumSize:]) != sum {
			out = append(out, p.child(i))
		}
	}
	if p.n == 0 && total < uint64(mine.total)/2 {
		return nil, errTooDifferent
	}
	return out, nil
}

// name takes all IDs that the peer has below a prefix.
func (d *difference) name(r *Replica, p prefix, ids []byte) error {
	if len(ids)%chunk.IDSize != 0 || len(ids) > maxNamed*chunk.IDSize {
		return invalid("%d bytes of IDs", len(ids))
	}
	from, to := p.bounds()
	theirs := map[chunk.ID]bool{}
	for ; len(ids) > 0; ids = ids[chunk.IDSize:] {
		id := chunk.ID(ids)
		if bytes.Compare(id[:], from[:]) < 0 || !to.IsZero() && bytes.Compare(id[:], to[:]) >= 0 {
			return invalid("IDs of another prefix")
		}
		theirs[id] = true
	}
	err := r.cfg.Store.Range(from, to, func(id chunk.ID, size int) bool {
		if !theirs[id] {
			d.lacking = append(d.lacking, Item{ID: id, Size: size})
		}
		delete(theirs, id)
		return len(d.lacking) <= maxDiffering
	})
	if err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	for id := range theirs {
		d.missing = append(d.missing, id)
	}
	return nil
}
