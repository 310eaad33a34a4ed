package namespace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/foreverfs/forever/internal/kv"
)

// Directories have one place each. Which one is decided by applying all moves in
// the order of their ops, leaving out every move that would make a cycle, as in
// Kleppmann et al., "A highly-available move operation for replicated trees".
// The log of moves says for each what it found, so that those above a late one can
// be undone and done again. Making a directory is no move: whatever moves it knows it.

// dirMove is one directory's part of a move.
type dirMove struct {
	node NodeID
	to   placement
	old  placement // what it replaced, if the move was done
}

// moveRecord is the log's record of one op: its moves are done together or not at all.
type moveRecord struct {
	op    OpID
	done  bool
	moves []dirMove
}

func appendPlacement(b []byte, p *placement) []byte {
	b = append(b, p.parent[:]...)
	b = appendBytes(b, p.name)
	return appendI64(p.id.Append(b), p.time)
}

func (d *decoder) placement() placement {
	return placement{parent: d.id(), name: string(d.bytes()), id: d.entry(), time: d.i64()}
}

func (r *moveRecord) append(b []byte) []byte {
	done := byte(0)
	if r.done {
		done = 1
	}
	b = binary.AppendUvarint(append(b, done), uint64(len(r.moves)))
	for i := range r.moves {
		m := &r.moves[i]
		b = appendPlacement(append(b, m.node[:]...), &m.to)
		if r.done {
			b = appendPlacement(b, &m.old)
		}
	}
	return b
}

func decodeMoveRecord(op OpID, b []byte) (*moveRecord, error) {
	d := decoder{b: b}
	r := &moveRecord{op: op, done: d.u8() != 0}
	r.moves = make([]dirMove, d.count(16))
	for i := range r.moves {
		r.moves[i] = dirMove{node: d.id(), to: d.placement()}
		if r.done {
			r.moves[i].old = d.placement()
		}
	}
	return r, d.err("move")
}

// moving is the tree of directories while moves are undone and done.
type moving struct {
	x      *txn
	places map[NodeID]placement // where it differs from the records
}

func (m *moving) place(id NodeID) (placement, error) {
	if p, ok := m.places[id]; ok {
		return p, nil
	}
	n, err := m.x.node(id)
	if err != nil {
		return placement{}, fmt.Errorf("find directory %v: %w", id, err)
	}
	return n.place, nil
}

// below reports whether dir is top or lies below it.
func (m *moving) below(dir, top NodeID) (bool, error) {
	for dir != Root {
		if dir == top {
			return true, nil
		}
		p, err := m.place(dir)
		if err != nil {
			return false, err
		}
		dir = p.parent
	}
	return top == Root, nil
}

func (m *moving) undo(r *moveRecord) {
	if !r.done {
		return
	}
	for _, mv := range slices.Backward(r.moves) {
		m.places[mv.node] = mv.old
	}
}

// do does the moves of r unless one would make a cycle, and reports whether
// the record came out another than it was.
func (m *moving) do(r *moveRecord) (bool, error) {
	changed, was := !r.done, r.done
	r.done = true
	for i := range r.moves {
		mv := &r.moves[i]
		cycle, err := m.below(mv.to.parent, mv.node)
		if err != nil {
			return false, err
		}
		if cycle {
			for _, before := range slices.Backward(r.moves[:i]) {
				m.places[before.node] = before.old
			}
			for j := range r.moves {
				r.moves[j].old = placement{}
			}
			r.done = false
			return was, nil
		}
		old, err := m.place(mv.node)
		if err != nil {
			return false, err
		}
		changed = changed || mv.old != old
		mv.old = old
		m.places[mv.node] = mv.to
	}
	return changed, nil
}

// moveDirs enters the moves of one op into the log and brings every directory to its place.
func (x *txn) moveDirs(op OpID, moves []dirMove) error {
	m := &moving{x: x, places: map[NodeID]placement{}}
	later, err := x.movesAfter(op)
	if err != nil {
		return err
	}
	for _, r := range slices.Backward(later) {
		m.undo(r)
	}
	r := &moveRecord{op: op, moves: moves}
	if _, err := m.do(r); err != nil {
		return err
	}
	if err := x.put(moveKey(op), r.append(nil)); err != nil {
		return err
	}
	for _, r := range later {
		changed, err := m.do(r)
		if err != nil {
			return err
		}
		if changed {
			if err := x.put(moveKey(r.op), r.append(nil)); err != nil {
				return err
			}
		}
	}
	return x.relocate(m.places)
}

// movesAfter returns the log above op, ascending. The ops of a batch ascend too, so what was read for one of them
// has all that the next is below.
func (x *txn) movesAfter(op OpID) (out []*moveRecord, err error) {
	if x.causes == nil { // a local op is above all others
		return nil, nil
	}
	if x.later == nil {
		if x.later, err = x.readMoves(op); err != nil {
			return nil, err
		}
	}
	i, _ := slices.BinarySearchFunc(x.later, op, func(r *moveRecord, o OpID) int { return r.op.Compare(o) })
	x.later = x.later[i:]
	return x.later, nil
}

// readMoves reads the log above op; what it returns is never nil.
func (x *txn) readMoves(op OpID) (out []*moveRecord, err error) {
	out = []*moveRecord{}
	prefix := key(keyMove)
	var inner error
	err = x.tx.Scan(moveKey(op), kv.PrefixEnd(prefix), func(k, v []byte) bool {
		id, ok := parseOpID(k[len(prefix):])
		r, err := decodeMoveRecord(id, v)
		if !ok && err == nil {
			err = ErrDamaged
		}
		inner = err
		out = append(out, r)
		return err == nil
	})
	if err := errors.Join(inner, err); err != nil {
		return nil, fmt.Errorf("read the log of moves: %w", err)
	}
	return out, nil
}

// relocate brings directories to their new places. While that goes on the
// places may form cycles; each directory is pinned so that none of them comes
// or goes because of another.
func (x *txn) relocate(places map[NodeID]placement) error {
	var dirs []*node
	for id, p := range places {
		d, err := x.node(id)
		if err != nil {
			return fmt.Errorf("find directory %v: %w", id, err)
		}
		if d.place != p {
			dirs = append(dirs, d)
		}
	}
	for _, d := range dirs {
		if err := x.pin(d, 1); err != nil {
			return err
		}
	}
	// All leave before one arrives: what is there in between is a part of the
	// old tree and of the new one, so it has no cycle.
	for _, d := range dirs {
		if err := x.detach(d); err != nil {
			return err
		}
	}
	for _, d := range dirs {
		if err := x.rebury(d, places[d.id]); err != nil {
			return err
		}
		d.place = places[d.id]
		if err := x.attach(d); err != nil {
			return err
		}
	}
	for _, d := range dirs {
		if err := x.pin(d, -1); err != nil {
			return err
		}
	}
	return nil
}

func (x *txn) pin(d *node, by int) error {
	was := d.attached()
	d.children = uint64(int64(d.children) + int64(by))
	return x.reattach(d, was)
}

// rebury lets the history of names follow a removed directory that is about to get another place.
func (x *txn) rebury(d *node, to placement) error {
	if !d.removed {
		return nil
	}
	if err := x.delete(deadKey(d.place.parent, d.place.name, d.place.id)); err != nil {
		return err
	}
	return x.bury(to.parent, to.name, to.id, d)
}
