package namespace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/foreverfs/forever/internal/kv"
)

// What a fold takes away no batch can ask for that is still to come, because
// each of those knows everything up to the point (see Acknowledge):
//
//   - Moves. An op that is still to come has a greater counter than any op its author knew, so greater
//     than every counter up to the point. It undoes and does again only moves above itself. So a
//     move whose counter is not above the greatest up to the point is never undone again, whether it is
//     up to the point itself or not, and whether it was done or left out is settled.
//   - Counters of batches are asked for when a vector names them: one below the point is named no more.
//   - Adoptions up to the point are known to everybody: one counter per author says them all.
//   - Vectors of incarnations that are known to be over up to the point: no batch of theirs is taken.
//   - Tombs are asked for by edits that do not know the removals. All that are to come know those up to the point.
//     But a tomb is also how history tells what was removed, and how a file is brought back
//     that was being written. So they stay until the horizon, which everybody promised as
//     well: since then nobody makes an op that names what expired. The same goes for nodes without a name, and for
//     contents that were replaced by one written before the horizon. Of contents that were replaced later, the older
//     they are, the fewer are kept: the last of each minute, hour, day.
//
// Each of these is decided by the batches merged and the point alone, and stays
// so as both grow. So the state after a fold is a function of those two, whatever was folded, and when, before.

// folding is a fold on its way.
type folding struct {
	to     Point
	closed map[AuthorID]bool
	clock  uint64              // the greatest counter up to the point
	upTo   map[AuthorID]uint64 // the greatest counter of each author up to the point, adopted ops included
	moved  map[NodeID]bool     // directories that moves above the point name
	phase  int
	cursor []byte
	past   past
}

// Fold drops what no batch still to come can need, once all devices that take
// part promised the point (Stable): from then on Merge refuses batches that do not know it. Each call looks at
// about max records, in one update of the state, and reports whether that was all; until then the caller calls again,
// and may merge and work in between. The same set of merged batches, folded to
// the same point by one fold without merges in between, is the same state on every device.
func (t *Tree) Fold(to Point, max int) (done bool, err error) {
	if max < 1 {
		return false, fmt.Errorf("fold by %d records: %w", max, ErrInvalidArgument)
	}
	if t.folding == nil || !t.folding.to.equal(to) {
		if err := t.startFold(to); err != nil {
			return false, fmt.Errorf("fold: %w", err)
		}
	}
	f := t.folding
	err = t.update(func(x *txn) error {
		for left := max; left > 0 && f.phase < len(foldPhases); {
			seen, err := foldPhases[f.phase](f, x, left)
			if err != nil {
				return err
			}
			if left -= seen; f.cursor == nil {
				f.phase++
			}
		}
		return nil
	})
	if err != nil {
		t.folding = nil
		return false, fmt.Errorf("fold: %w", err)
	}
	if done = f.phase == len(foldPhases); done {
		t.folding = nil
	}
	return done, nil
}

// Folded returns the point that the tree is, or is being, folded to.
func (t *Tree) Folded() (Point, error) { return readPoint(t.db, key(keyFolded)) }

// startFold checks the point, closes the gate and finds out what the point means here.
func (t *Tree) startFold(to Point) error {
	was, err := t.Folded()
	if err != nil {
		return err
	}
	if !to.Covers(was) || to.Horizon < 0 || to.Now < 0 {
		return fmt.Errorf("to less than before: %w", ErrInvalidArgument)
	}
	for a, seq := range to.Seen {
		if t.authors[a].seq < seq {
			return fmt.Errorf("batch %d of %v is not merged: %w", seq, a, ErrNotReady)
		}
	}
	t.gates.stale = true
	if err := t.update(func(x *txn) error { return x.raisePoint(key(keyFolded), to) }); err != nil {
		return err
	}
	if err := t.loadGates(); err != nil {
		return err
	}
	f := &folding{to: to, closed: t.gates.folded.closed, upTo: map[AuthorID]uint64{}, moved: map[NodeID]bool{}}
	if err := f.count(t); err != nil {
		return err
	}
	if err := f.findMoved(t); err != nil {
		return err
	}
	t.folding = f
	return nil
}

// count finds the counters up to the point.
func (f *folding) count(t *Tree) error {
	for a, seq := range f.to.Seen {
		v, err := t.db.Get(batchKey(a, seq))
		if err != nil {
			return fmt.Errorf("find batch %d of %v: %w", seq, a, err)
		}
		d := decoder{b: v}
		f.upTo[a] = d.uvarint()
		if err := d.err("counter"); err != nil {
			return err
		}
		f.clock = max(f.clock, f.upTo[a])
	}
	return t.scan(key(keyAdopted), func(k, v []byte) error {
		a, by, seq := AuthorID(k[:16]), AuthorID(k[16:32]), binary.BigEndian.Uint64(k[32:])
		d := decoder{b: v}
		last := d.uvarint()
		if f.to.Seen[by] >= seq { // also what an earlier fold left: batch 0 of nobody
			f.upTo[a] = max(f.upTo[a], last)
		}
		return d.err("adoption")
	}, 40)
}

// findMoved finds the directories that must not be forgotten as a move may bring them back or into use.
func (f *folding) findMoved(t *Tree) error {
	prefix := key(keyMove)
	var inner error
	err := t.db.Scan(moveKey(OpID{Lamport: f.clock + 1}), kv.PrefixEnd(prefix), func(k, v []byte) bool {
		r, err := decodeMoveRecord(OpID{}, v)
		if inner = err; err != nil {
			return false
		}
		for i := range r.moves {
			m := &r.moves[i]
			f.moved[m.node], f.moved[m.to.parent], f.moved[m.old.parent] = true, true, true
		}
		return true
	})
	if err := errors.Join(inner, err); err != nil {
		return fmt.Errorf("read the log of moves: %w", err)
	}
	return nil
}

// known reports whether an op is up to the point.
func (f *folding) known(o OpID) bool { return o.Lamport <= f.upTo[o.Author] }

// foldPhases look at so many records of one kind from the cursor on, return how
// many they looked at, and leave no cursor at the end.
var foldPhases = []func(*folding, *txn, int) (int, error){
	(*folding).foldMoves, (*folding).foldBatches, (*folding).foldAdoptions, (*folding).foldHeirs, (*folding).foldVectors,
	(*folding).expireRemoved, (*folding).expireReplaced,
}

// sweep calls fn for up to n records below a prefix, beginning at the cursor, and moves that on. fn may write.
func (f *folding) sweep(x *txn, prefix, hi []byte, n int, fn func(rest, v []byte) error) (seen int, err error) {
	lo := f.cursor
	if lo == nil {
		lo = prefix
	}
	type record struct{ k, v []byte }
	var page []record
	err = x.tx.Scan(lo, hi, func(k, v []byte) bool {
		page = append(page, record{bytes.Clone(k), bytes.Clone(v)})
		return len(page) < n
	})
	if err != nil {
		return 0, fmt.Errorf("read the tree: %w", err)
	}
	for _, r := range page {
		if err := fn(r.k[len(prefix):], r.v); err != nil {
			return 0, err
		}
	}
	f.cursor = nil
	if len(page) == n {
		f.cursor = append(page[n-1].k, 0)
	}
	return max(1, len(page)), nil
}

func (f *folding) foldMoves(x *txn, n int) (int, error) {
	prefix := key(keyMove)
	return f.sweep(x, prefix, moveKey(OpID{Lamport: f.clock + 1}), n, func(rest, _ []byte) error {
		return x.delete(append(prefix[:len(prefix):len(prefix)], rest...))
	})
}

func (f *folding) foldBatches(x *txn, n int) (int, error) {
	prefix := key(keyBatch)
	return f.sweep(x, prefix, kv.PrefixEnd(prefix), n, func(rest, _ []byte) error {
		if len(rest) != 24 {
			return fmt.Errorf("read a counter: %w", ErrDamaged)
		}
		a, seq := AuthorID(rest[:16]), binary.BigEndian.Uint64(rest[16:])
		if seq >= f.to.Seen[a] {
			return nil
		}
		return x.delete(batchKey(a, seq))
	})
}

// foldAdoptions says all adoptions of an author's ops up to the point by one record: batch 0 of nobody, which everybody knows.
func (f *folding) foldAdoptions(x *txn, n int) (int, error) {
	prefix := key(keyAdopted)
	return f.sweep(x, prefix, kv.PrefixEnd(prefix), n, func(rest, _ []byte) error {
		if len(rest) != 40 {
			return fmt.Errorf("read an adoption: %w", ErrDamaged)
		}
		a, by, seq := AuthorID(rest[:16]), AuthorID(rest[16:32]), binary.BigEndian.Uint64(rest[32:])
		if by == (AuthorID{}) || f.to.Seen[by] < seq {
			return nil
		}
		if err := x.putUvarint(adoptedKey(a, AuthorID{}, 0), f.upTo[a]); err != nil {
			return err
		}
		return x.delete(adoptedKey(a, by, seq))
	})
}

// foldHeirs leaves one record of an incarnation that is known to be over.
func (f *folding) foldHeirs(x *txn, n int) (int, error) {
	prefix := key(keyHeir)
	return f.sweep(x, prefix, kv.PrefixEnd(prefix), n, func(rest, _ []byte) error {
		if len(rest) != 32 {
			return fmt.Errorf("read which incarnations are over: %w", ErrDamaged)
		}
		a, by := AuthorID(rest[:16]), AuthorID(rest[16:])
		if !f.closed[a] || by == (AuthorID{}) {
			return nil
		}
		if err := x.putUvarint(heirKey(a, AuthorID{}), 0); err != nil {
			return err
		}
		return x.delete(heirKey(a, by))
	})
}

func (f *folding) foldVectors(x *txn, n int) (int, error) {
	prefix := key(keyVector)
	return f.sweep(x, prefix, kv.PrefixEnd(prefix), n, func(rest, _ []byte) error {
		if len(rest) != 32 {
			return fmt.Errorf("read a vector: %w", ErrDamaged)
		}
		if !f.closed[AuthorID(rest[:16])] {
			return nil
		}
		return x.delete(vectorKey(AuthorID(rest[:16]), AuthorID(rest[16:])))
	})
}
