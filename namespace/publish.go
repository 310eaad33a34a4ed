package namespace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/foreverfs/forever/namespace/namespacepb"
)

const (
	batchVersion = 1
	fieldOps     = 7 // of pb.Batch
	// cutSize and cutOps are where Cut ends a batch, in bytes of ops and in ops:
	// whoever merges it can do nothing else meanwhile, some 20 ms.
	cutSize = 1 << 20
	cutOps  = 2048
)

// cutState is what the last Cut took.
type cutState struct {
	hi    uint64 // its end; 0 if there was none
	own   uint64 // counter of the last op that is this author's own, 0 if none
	runs  []run
	delta []seen
}

// run is a run of ops of an earlier incarnation.
type run struct {
	author AuthorID
	device string
	last   uint64 // counter
	count  uint32
}

// seen is one entry of a vector.
type seen struct {
	author AuthorID
	seq    uint64
}

// Pending returns the number of ops that were not committed to a log.
func (t *Tree) Pending() int { return int(t.pendHi - t.pendLo) }

// Cut encodes pending ops, oldest first, as the payload of one batch, all of
// them unless that grew too large. It changes nothing: until Committed the
// same ops, and later ones, come again. Nil means that nothing is pending.
func (t *Tree) Cut() ([]byte, error) {
	if t.Pending() == 0 {
		return nil, nil
	}
	c := cutState{hi: t.pendLo, delta: t.unsent()}
	var ops []byte
	var inner error
	err := t.db.Scan(pendingKey(t.pendLo), pendingKey(t.pendHi), func(k, v []byte) bool {
		if len(v) < 16 || binary.BigEndian.Uint64(k[2:]) != c.hi {
			inner = fmt.Errorf("read pending op %d: %w", c.hi, ErrDamaged)
			return false
		}
		c.take(t, AuthorID(v[:16]))
		ops = protowire.AppendTag(ops, fieldOps, protowire.BytesType)
		ops = protowire.AppendBytes(ops, v[16:])
		return len(ops) < cutSize && c.hi-t.pendLo < cutOps
	})
	if c.hi == t.pendLo && inner == nil { // or who wants to have none pending would go on for ever
		inner = fmt.Errorf("read pending op %d: %w", c.hi, ErrDamaged)
	}
	if err := errors.Join(inner, err); err != nil {
		return nil, fmt.Errorf("cut a batch: %w", err)
	}
	head, err := proto.MarshalOptions{Deterministic: true}.Marshal(t.header(&c))
	if err != nil {
		return nil, fmt.Errorf("encode a batch: %w", err)
	}
	t.cut = c
	return append(head, ops...), nil
}

// take counts the next op in.
func (c *cutState) take(t *Tree, a AuthorID) {
	switch {
	case a == t.author:
		c.own = c.hi
	case len(c.runs) > 0 && c.runs[len(c.runs)-1].author == a:
		r := &c.runs[len(c.runs)-1]
		r.count, r.last = r.count+1, c.hi
	default:
		c.runs = append(c.runs, run{a, deviceName(t.authors[a].device, a), c.hi, 1})
	}
	c.hi++
}

// unsent returns what of the vector the author's log does not say yet, by author.
func (t *Tree) unsent() (delta []seen) {
	for a, info := range t.authors {
		if a != t.author && info.seq > t.sent[a] {
			delta = append(delta, seen{a, info.seq})
		}
	}
	slices.SortFunc(delta, func(a, b seen) int { return slices.Compare(a.author[:], b.author[:]) })
	return delta
}

// header returns the batch without its ops.
func (t *Tree) header(c *cutState) *pb.Batch {
	b := &pb.Batch{Version: batchVersion, First: t.pendLo}
	for i := range c.delta {
		b.Vector = append(b.Vector, &pb.Seen{Author: c.delta[i].author[:], Seq: c.delta[i].seq})
	}
	if me := t.authors[t.author]; me.seq == 0 {
		b.Device = []byte(me.device)
		if p := t.authors[me.pred]; p.seq > 0 {
			b.Predecessor = &pb.Seen{Author: me.pred[:], Seq: p.seq}
		}
	}
	for i := range c.runs {
		r := &c.runs[i]
		b.Adopted = append(b.Adopted, &pb.Adopted{Author: r.author[:], Device: []byte(r.device), Count: r.count})
	}
	return b
}

// Committed forgets the ops of the last Cut: the log holds them as batch seq of
// this author, in the same state and before this. A crash in between is harmless:
// the ops come again, under a new incarnation, and have no second effect anywhere.
func (t *Tree) Committed(seq uint64) error {
	c := t.cut
	if me := t.authors[t.author]; c.hi == 0 || seq != me.seq+1 {
		return fmt.Errorf("commit batch %d after %d: %w", seq, me.seq, ErrInvalidArgument)
	}
	err := t.update(func(x *txn) error {
		for l := t.pendLo; l < c.hi; l++ {
			if err := x.delete(pendingKey(l)); err != nil {
				return err
			}
		}
		me := x.author(t.author)
		me.applied = max(me.applied, c.own)
		x.authors[t.author] = me
		return x.logged(t.author, seq, c.hi-1, c.delta, c.runs)
	})
	if err != nil {
		return fmt.Errorf("commit batch %d: %w", seq, err)
	}
	for _, s := range c.delta {
		t.sent[s.author] = s.seq
	}
	if t.lastWork >= t.pendLo {
		t.worked[t.author] = seq
	}
	t.pendLo, t.cut = c.hi, cutState{}
	if t.pendLo == t.pendHi {
		t.pendLo, t.pendHi = 0, 0
	}
	return nil
}

// logged enters a batch, its own or a merged one, into what is known of logs.
func (x *txn) logged(author AuthorID, seq, last uint64, delta []seen, runs []run) error {
	info := x.author(author)
	info.seq, info.last = seq, last
	if err := x.setAuthor(author, info); err != nil {
		return err
	}
	if err := x.putUvarint(batchKey(author, seq), last); err != nil {
		return err
	}
	for _, s := range delta {
		if err := x.putUvarint(vectorKey(author, s.author), s.seq); err != nil {
			return err
		}
		if err := x.inherit(author, seq, s.author); err != nil {
			return err
		}
	}
	for _, r := range runs {
		info := x.author(r.author)
		if info.device == "" {
			info.device = r.device
		}
		info.applied = max(info.applied, r.last)
		if err := x.setAuthor(r.author, info); err != nil {
			return err
		}
		if err := x.putUvarint(adoptedKey(r.author, author, seq), r.last); err != nil {
			return err
		}
		if err := x.inherit(author, seq, r.author); err != nil {
			return err
		}
	}
	return nil
}
