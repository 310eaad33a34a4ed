package namespace

import (
	"errors"
	"fmt"
	"slices"

	"github.com/foreverfs/forever/internal/kv"
	pb "github.com/foreverfs/forever/namespace/namespacepb"
)

// What can be forgotten is what everybody who takes part has seen, but that
// alone is not enough. What a device had seen it may forget: a power cut takes the end of its state. And a
// batch that knew less may still lie somewhere, in a log whose end its device lost, or in
// a restored backup, and one device may merge it just before another folds what it needs.
//
// So it takes two steps, both of them by an op, Acknowledge. With it a device claims that
// what it had seen is durable. Once it knows that all active devices claimed
// some vector, it promises that: from then on it takes no batch that does not know
// the vector, unless somebody had merged it before promising the same. Whoever has merged everybody's promise
// has merged all that anybody took before, so whatever it does not have
// yet and does not know the vector is taken by nobody: it may fold.

// maxFloor is how many authors one op promises something of, so that it stays below MaxOp.
const maxFloor = 8192

// Acknowledge lets this device say what it has seen, and promise what all
// active devices have seen, if there is something that was not promised yet. It
// reports whether it made an op. Devices that only read call it too, or they hold everything back.
// A retention above the one promised before is promised with it: later operations
// of this device find nothing that was removed before its horizon. A new horizon alone is reason for an op, so it should move in large steps. The active devices must be those that others take for active as well.
// It waits for the state to be durable.
func (t *Tree) Acknowledge(now int64, active []Device, keep Retention) (bool, error) {
	promised, err := t.promise(t.author.Device())
	if err != nil {
		return false, err
	}
	claimed, err := readPoint(t.db, claimKey(t.author.Device()))
	if err != nil {
		return false, err
	}
	all, err := t.claimedByAll(active)
	if err != nil {
		return false, err
	}
	op := &pb.Acknowledge{Own: t.authors[t.author].seq}
	for _, a := range sortedAuthors(all) {
		if all[a] > promised.Seen[a] && len(op.Floor) < maxFloor {
			op.Floor = append(op.Floor, &pb.Seen{Author: a[:], Seq: all[a]})
		}
	}
	if keep.Now > promised.Now {
		op.Age = keep.Now
	}
	if keep.Horizon > promised.Horizon {
		op.Horizon = keep.Horizon
	}
	folded, err := readPoint(t.db, key(keyFolded))
	if err != nil {
		return false, err
	}
	news := len(op.Floor) > 0 || t.workBeyond(claimed)
	if op.Horizon == 0 && !(news && t.workBeyond(promised, folded)) {
		return false, nil
	}
	if err := t.db.Sync(); err != nil {
		return false, fmt.Errorf("make durable what is acknowledged: %w", err)
	}
	err = t.update(func(x *txn) error {
		_, err := x.emit(&pb.Op{Time: now, Body: &pb.Op_Acknowledge{Acknowledge: op}})
		return err
	})
	return err == nil, err
}

// workBeyond reports whether there are batches beyond some points that are more
// than acknowledgements: those alone need no answer, or there would be no end.
func (t *Tree) workBeyond(points ...Point) bool {
	for a, seq := range t.worked {
		if !slices.ContainsFunc(points, func(p Point) bool { return p.Seen[a] >= seq }) {
			return true
		}
	}
	return false
}

// promise returns what a device promised, in any of its incarnations.
func (t *Tree) promise(d Device) (Point, error) { return readPoint(t.db, horizonKey(d)) }

// promises returns, of each author, what any device promised.
func (t *Tree) promises() (map[AuthorID]uint64, error) {
	out := map[AuthorID]uint64{}
	prefix := key(keyPromise)
	var inner error
	err := t.db.Scan(prefix, kv.PrefixEnd(prefix), func(k, v []byte) bool {
		if k = k[len(prefix):]; len(k) != 8+16 {
			return true // a horizon
		}
		d := decoder{b: v}
		a := AuthorID(k[8:])
		out[a] = max(out[a], d.uvarint())
		inner = d.err("promise")
		return inner == nil
	})
	if err := errors.Join(inner, err); err != nil {
		return nil, fmt.Errorf("read what was promised: %w", err)
	}
	return out, nil
}

// Stable returns what may be folded: what all active devices promised. It is a
// function of the batches merged. A device that never wrote anything promised nothing.
func (t *Tree) Stable(active []Device) (Point, error) {
	var out Point
	for i, d := range active {
		p, err := t.promise(d)
		if err != nil {
			return Point{}, err
		}
		if i == 0 {
			out = p
			continue
		}
		out.Seen = meetVectors(out.Seen, p.Seen)
		out.Retention = out.min(p.Retention)
	}
	if out.Seen == nil {
		out.Seen = map[AuthorID]uint64{}
	}
	return out, nil
}

// claimedByAll returns what all active devices said they had seen for good.
func (t *Tree) claimedByAll(active []Device) (out map[AuthorID]uint64, err error) {
	for i, d := range active {
		p, err := readPoint(t.db, claimKey(d))
		if err != nil {
			return nil, err
		}
		if i > 0 {
			p.Seen = meetVectors(out, p.Seen)
		}
		out = p.Seen
	}
	return out, nil
}

// heir is an incarnation that knew an earlier one, and its first batch that did.
type heir struct {
	by  AuthorID
	seq uint64
}

// heirs returns for every incarnation those of the same device that came after it.
func (t *Tree) heirs() (map[AuthorID][]heir, error) {
	out := map[AuthorID][]heir{}
	err := t.scan(key(keyHeir), func(k, v []byte) error {
		d := decoder{b: v}
		a := AuthorID(k[:16])
		out[a] = append(out[a], heir{AuthorID(k[16:]), d.uvarint()})
		return d.err("heir")
	}, 32)
	if err != nil {
		return nil, fmt.Errorf("read which incarnations are over: %w", err)
	}
	return out, nil
}

// inherit notes that a batch of an author knew of another incarnation of its device.
func (x *txn) inherit(author AuthorID, seq uint64, of AuthorID) error {
	if !of.sameDevice(author) || of == author {
		return nil
	}
	k := heirKey(of, author)
	_, err := x.tx.Get(k)
	if errors.Is(err, kv.ErrNotFound) {
		return x.putUvarint(k, seq)
	}
	if err != nil {
		return fmt.Errorf("read which incarnations are over: %w", err)
	}
	return nil
}

// applyAcknowledge enters a claim and a promise. Its author must have seen what they say.
func (x *txn) applyAcknowledge(id OpID, a *pb.Acknowledge) error {
	p := Point{Seen: make(map[AuthorID]uint64, len(a.Floor)), Retention: Retention{a.Horizon, a.Age}}
	for _, e := range a.Floor {
		s, _ := readSeen(e)
		p.Seen[s.author] = s.seq
		if err := x.sawBatch(s); err != nil {
			return err
		}
	}
	if err := x.sawBatch(seen{id.Author, a.Own}); err != nil {
		return err
	}
	claim, err := x.seenBefore()
	if err != nil {
		return err
	}
	// Batches of this incarnation, or of the one that adopts the op, may be younger than the claim.
	delete(claim.Seen, id.Author)
	if a.Own > 0 {
		claim.Seen[id.Author] = a.Own
	}
	x.acks++
	x.t.gates.stale = true
	if err := x.raisePoint(claimKey(id.Author.Device()), claim); err != nil {
		return err
	}
	return x.raisePoint(horizonKey(id.Author.Device()), p)
}

// sawBatch refuses an op whose author had not seen a batch that it speaks of.
func (x *txn) sawBatch(s seen) error {
	if x.causes == nil {
		return nil
	}
	upTo, err := x.causes.vector(s.author)
	if err == nil && upTo < s.seq {
		err = invalid("op speaks of batch %d of %v, of which its author saw %d", s.seq, s.author, upTo)
	}
	return err
}

// seenBefore returns which batches of others the author of the current op had seen.
func (x *txn) seenBefore() (p Point, err error) {
	p.Seen = map[AuthorID]uint64{}
	if x.causes == nil {
		for a, info := range x.t.authors {
			if info.seq > 0 && a != x.t.author {
				p.Seen[a] = info.seq
			}
		}
		return p, nil
	}
	if p, err = readPoint(x.tx, key(keyVector, x.causes.author[:])); err != nil {
		return p, err
	}
	for a, seq := range x.causes.delta {
		p.Seen[a] = seq
	}
	return p, nil
}

// validAcknowledge checks what does not depend on the tree.
func validAcknowledge(a *pb.Acknowledge) bool {
	if a.Horizon < 0 || a.Age < 0 || len(a.Floor) > maxFloor {
		return false
	}
	for i, e := range a.Floor {
		if _, ok := readSeen(e); !ok || i > 0 && slices.Compare(a.Floor[i-1].Author, e.Author) >= 0 {
			return false
		}
	}
	return true
}

// expired reports whether a node without a name may be gone elsewhere, as this
// device promised to forget it: then no operation may name it.
func (x *txn) expired(n *node) (bool, error) {
	if n.kind == KindDir && (!n.removed || n.attached()) || n.kind != KindDir && n.links > 0 {
		return false, nil
	}
	if n.kind == KindDir {
		p, err := readPoint(x.tx, horizonKey(x.t.author.Device()))
		if err != nil {
			return false, err
		}
		return x.forgets(&p, kill{n.removal.op, n.removal.val})
	}
	graves, err := x.rememberedGraves(n)
	return err == nil && len(graves) == 0, err
}

// forgets reports whether a fold to a point may forget what removals ended, as folding.expired does: they
// were before the horizon, by clocks that may be wrong, and everybody knows of them.
func (x *txn) forgets(p *Point, kills ...kill) (bool, error) {
	if p.Horizon == 0 {
		return false, nil
	}
	for _, k := range kills {
		if k.time >= p.Horizon {
			return false, nil
		}
		if known, err := x.covers(p, k.op); err != nil || !known {
			return false, err
		}
	}
	return true, nil
}

// covers reports whether an op is up to a point, by a batch of its author or one that adopted it. Where a fold has gone
// further than that it cannot be told, and counts as not.
func (x *txn) covers(p *Point, o OpID) (bool, error) {
	last, _, err := x.getUvarint(batchKey(o.Author, p.Seen[o.Author]))
	if err != nil || o.Lamport <= last {
		return err == nil, err
	}
	all, err := x.adoptions(o.Author)
	return slices.ContainsFunc(all, func(a adoption) bool { return p.Seen[a.by] >= a.seq && o.Lamport <= a.last }), err
}
