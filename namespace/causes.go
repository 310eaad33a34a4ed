package namespace

import (
	"errors"
	"fmt"

	"github.com/foreverfs/forever/internal/kv"
)

// causes is what the author of a batch had seen when it made the ops.
type causes struct {
	x      *txn
	author AuthorID
	seq    uint64 // of the batch
	delta  map[AuthorID]uint64
	// known and adopted are the greatest counters the author had seen of
	// others: by their own batches (and this one so far), and by batches that adopted ops of theirs.
	known   map[AuthorID]uint64
	adopted map[AuthorID]uint64
}

// knows reports whether an op came before the one that is being applied.
func (c *causes) knows(o OpID) (bool, error) {
	if o.IsZero() {
		return true, nil
	}
	upTo, ok := c.known[o.Author]
	if !ok {
		var err error
		if upTo, err = c.own(o.Author); err != nil {
			return false, err
		}
		c.known[o.Author] = upTo
	}
	if o.Lamport <= upTo {
		return true, nil
	}
	if upTo, ok = c.adopted[o.Author]; !ok {
		var err error
		if upTo, err = c.byAdoption(o.Author); err != nil {
			return false, err
		}
		c.adopted[o.Author] = upTo
	}
	return o.Lamport <= upTo, nil
}

// vector returns how many batches of another the author had seen.
func (c *causes) vector(of AuthorID) (uint64, error) {
	if of == c.author {
		return c.seq - 1, nil
	}
	if seq, ok := c.delta[of]; ok {
		return seq, nil
	}
	seq, _, err := c.x.getUvarint(vectorKey(c.author, of))
	return seq, err
}

func (c *causes) own(of AuthorID) (uint64, error) {
	seq, err := c.vector(of)
	if err != nil || seq == 0 {
		return 0, err
	}
	return c.x.lastOf(of, seq)
}

// lastOf returns the counter of the last op in a batch that was merged.
func (x *txn) lastOf(a AuthorID, seq uint64) (uint64, error) {
	last, ok, err := x.getUvarint(batchKey(a, seq))
	if err == nil && !ok {
		err = fmt.Errorf("find batch %d of %v: %w", seq, a, ErrDamaged)
	}
	return last, err
}

// adoption says that a batch adopted ops of another author, and up to which counter.
type adoption struct {
	by        AuthorID
	seq, last uint64
}

// adoptions returns the batches that adopted ops of an author. What a fold made one of is batch 0 of nobody.
func (x *txn) adoptions(of AuthorID) (all []adoption, err error) {
	prefix := key(keyAdopted, of[:])
	var inner error
	err = x.tx.Scan(prefix, kv.PrefixEnd(prefix), func(k, v []byte) bool {
		d, e := decoder{b: k[len(prefix):]}, decoder{b: v}
		all = append(all, adoption{d.id(), uint64(d.i64()), e.uvarint()})
		inner = errors.Join(d.err("adoption"), e.err("adoption"))
		return inner == nil
	})
	if err := errors.Join(inner, err); err != nil {
		return nil, fmt.Errorf("read adoptions of %v: %w", of, err)
	}
	return all, nil
}

func (c *causes) byAdoption(of AuthorID) (upTo uint64, err error) {
	all, err := c.x.adoptions(of)
	if err != nil {
		return 0, err
	}
	for _, a := range all {
		seq, err := c.vector(a.by)
		if err != nil {
			return 0, err
		}
		if a.seq <= seq {
			upTo = max(upTo, a.last)
		}
	}
	return upTo, nil
}
