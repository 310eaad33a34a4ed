package namespace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/foreverfs/forever/internal/kv"
)

// editSlot changes the own entries of a slot and lets the conflict names of
// the directory follow.
func (x *txn) editSlot(dir NodeID, name string, fn func(*slot)) error {
	s, err := x.slot(dir, name)
	if err != nil {
		return err
	}
	before := s.losers()
	fn(s)
	s.dirty = true
	x.touchName(dir, name)
	after := s.losers()
	for _, e := range before {
		if !slices.ContainsFunc(after, func(o slotEntry) bool { return o.id == e.id }) {
			if err := x.editAlias(dir, name, e, false); err != nil {
				return err
			}
		}
	}
	for _, e := range after {
		if !slices.ContainsFunc(before, func(o slotEntry) bool { return o.id == e.id }) {
			if err := x.editAlias(dir, name, e, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// editAlias shows or hides an entry under its conflict name.
func (x *txn) editAlias(dir NodeID, name string, e slotEntry, show bool) error {
	under := conflictName(name, x.device(e.id.Op.Author), e.id, e.time)
	s, err := x.slot(dir, under)
	if err != nil {
		return err
	}
	i, found := slices.BinarySearchFunc(s.aliases, e.id, func(a alias, id EntryID) int { return a.id.Compare(id) })
	switch {
	case show && !found:
		s.aliases = slices.Insert(s.aliases, i, alias{name, e.id, e.node, e.kind})
	case !show && found:
		s.aliases = slices.Delete(s.aliases, i, i+1)
	}
	s.dirty = true
	x.touchName(dir, under)
	return nil
}

// addEntry makes an entry live.
func (x *txn) addEntry(dir *node, name string, e slotEntry, n *node) error {
	fresh := false
	err := x.editSlot(dir.id, name, func(s *slot) {
		fresh = !s.holds(e.node)
		s.add(e)
	})
	if err != nil || !fresh {
		return err
	}
	if n.kind != KindDir {
		if n.links++; n.links == 1 {
			x.meta.files++
			x.meta.bytes += n.size()
		}
		x.touch(n)
	}
	return x.countChild(dir, n.kind, 1)
}

// removeEntry ends an entry, and reports whether it was live.
func (x *txn) removeEntry(dir *node, name string, id EntryID, n *node) (e slotEntry, ok bool, err error) {
	s, err := x.slot(dir.id, name)
	if err != nil || !slices.ContainsFunc(s.own, func(o slotEntry) bool { return o.id == id && o.node == n.id }) {
		return e, false, err
	}
	last := false
	err = x.editSlot(dir.id, name, func(s *slot) {
		e, ok = s.remove(id)
		last = !s.holds(n.id)
	})
	if err != nil || !last {
		return e, ok, err
	}
	if n.kind != KindDir {
		if n.links--; n.links == 0 {
			x.meta.files--
			x.meta.bytes -= n.size()
		}
		x.touch(n)
	}
	return e, ok, x.countChild(dir, n.kind, -1)
}

// countChild counts a node in a directory's slots, and attaches or detaches
// the directory if it was removed and that is what decides.
func (x *txn) countChild(dir *node, kind Kind, by int) error {
	was := dir.attached()
	dir.children = uint64(int64(dir.children) + int64(by))
	if kind == KindDir {
		dir.subdirs = uint64(int64(dir.subdirs) + int64(by))
	}
	x.touch(dir)
	return x.reattach(dir, was)
}

// reattach brings a directory's entry in line with whether it is attached.
func (x *txn) reattach(d *node, was bool) error {
	switch is := d.attached(); {
	case is && !was:
		return x.attach(d)
	case !is && was:
		return x.detach(d)
	}
	return nil
}

// attach puts a directory into the slot it is placed in.
func (x *txn) attach(d *node) error {
	parent, err := x.node(d.place.parent)
	if err != nil {
		return fmt.Errorf("find the parent of %v: %w", d.id, err)
	}
	demoted, err := x.demoted(d.place.parent, d.place.name, d.place.id)
	if err != nil {
		return err
	}
	x.meta.dirs++
	x.touch(d)
	return x.addEntry(parent, d.place.name, slotEntry{d.place.id, d.id, KindDir, d.place.time, demoted}, d)
}

// detach takes a directory out of the slot it is placed in.
func (x *txn) detach(d *node) error {
	parent, err := x.node(d.place.parent)
	if err != nil {
		return fmt.Errorf("find the parent of %v: %w", d.id, err)
	}
	x.meta.dirs--
	x.touch(d)
	_, ok, err := x.removeEntry(parent, d.place.name, d.place.id, d)
	if err == nil && !ok {
		err = fmt.Errorf("entry of directory %v is missing: %w", d.id, ErrDamaged)
	}
	return err
}

// keepAlive counts an op that keeps a directory alive, whatever removals did
// not know of it. A removal that did know comes after it and finds it counted.
func (x *txn) keepAlive(d *node) error {
	was := d.attached()
	d.rev++
	d.removed = false
	x.touch(d)
	return x.reattach(d, was)
}

// demoted reports whether an op demoted an entry of a slot.
func (x *txn) demoted(dir NodeID, name string, id EntryID) (bool, error) {
	_, err := x.tx.Get(demotionKey(dir, name, id))
	if errors.Is(err, kv.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read a demotion: %w", err)
	}
	return true, nil
}

// demote lets entries of a slot keep their conflict names for good.
func (x *txn) demote(dir NodeID, name string, ids []EntryID) error {
	if len(ids) == 0 {
		return nil
	}
	for _, id := range ids {
		if err := x.put(demotionKey(dir, name, id), nil); err != nil {
			return err
		}
	}
	return x.editSlot(dir, name, func(s *slot) {
		for i := range s.own {
			if slices.Contains(ids, s.own[i].id) {
				s.own[i].demoted = true
			}
		}
	})
}

// tomb is an entry that removals ended, kept in case an edit turns up that they did not know.
type tomb struct {
	dir   NodeID
	name  string
	time  int64
	kills []OpID // ascending
}

func (t *tomb) append(b []byte) []byte {
	b = append(b, t.dir[:]...)
	b = appendI64(appendBytes(b, t.name), t.time)
	b = binary.AppendUvarint(b, uint64(len(t.kills)))
	for _, k := range t.kills {
		b = k.Append(b)
	}
	return b
}

func decodeTomb(b []byte) (t tomb, err error) {
	d := decoder{b: b}
	t.dir, t.name, t.time = d.id(), string(d.bytes()), d.i64()
	t.kills = make([]OpID, d.count(opIDSize))
	for i := range t.kills {
		t.kills[i] = d.op()
	}
	return t, d.err("tomb")
}

// tomb reads a tomb, if it is there.
func (x *txn) tomb(k []byte) (t tomb, ok bool, err error) {
	v, err := x.tx.Get(k)
	if errors.Is(err, kv.ErrNotFound) {
		return t, false, nil
	}
	if err != nil {
		return t, false, fmt.Errorf("read a tomb: %w", err)
	}
	t, err = decodeTomb(v)
	return t, err == nil, err
}

// kill ends the entries of a file that a removal names, and keeps tombs of them.
func (x *txn) kill(op OpID, dir *node, name string, n *node, ids []EntryID) error {
	for _, id := range ids {
		e, live, err := x.removeEntry(dir, name, id, n)
		if err != nil {
			return err
		}
		k := tombKey(n.id, id)
		if live {
			t := tomb{dir.id, name, e.time, []OpID{op}}
			n.tombs++
			x.touch(n)
			if err := x.put(k, t.append(nil)); err != nil {
				return err
			}
			continue
		}
		if err := x.killAgain(op, dir.id, name, k); err != nil {
			return err
		}
	}
	return nil
}

// killAgain adds a removal to the tomb of an entry; an entry that was renamed away has none.
func (x *txn) killAgain(op OpID, dir NodeID, name string, k []byte) error {
	t, ok, err := x.tomb(k)
	if err != nil || !ok || t.dir != dir || t.name != name {
		return err
	}
	i, found := slices.BinarySearchFunc(t.kills, op, OpID.Compare)
	if found {
		return nil
	}
	t.kills = slices.Insert(t.kills, i, op)
	return x.put(k, t.append(nil))
}

// supersede ends entries for good: the node goes on under another name.
func (x *txn) supersede(dir *node, name string, n *node, ids []EntryID) error {
	for _, id := range ids {
		_, live, err := x.removeEntry(dir, name, id, n)
		if err != nil {
			return err
		}
		if live || n.tombs == 0 {
			continue
		}
		k := tombKey(n.id, id)
		t, ok, err := x.tomb(k)
		if err != nil {
			return err
		}
		if !ok || t.dir != dir.id || t.name != name {
			continue
		}
		n.tombs--
		x.touch(n)
		if err := x.delete(k); err != nil {
			return err
		}
	}
	return nil
}

// revive brings back the entries of a file whose removals did not know of an
// edit that did not know of them.
func (x *txn) revive(n *node) error {
	if x.causes == nil || n.tombs == 0 {
		return nil
	}
	type found struct {
		id EntryID
		t  tomb
	}
	var all []found
	var inner error
	prefix := key(keyTomb, n.id[:])
	err := x.tx.Scan(prefix, kv.PrefixEnd(prefix), func(k, v []byte) bool {
		id, ok := parseEntryID(k[len(prefix):])
		t, err := decodeTomb(v)
		if !ok && err == nil {
			err = ErrDamaged
		}
		inner = err
		all = append(all, found{id, t})
		return err == nil
	})
	if err := errors.Join(inner, err); err != nil {
		return fmt.Errorf("read the tombs of %v: %w", n.id, err)
	}
	for _, f := range all {
		if err := x.reviveEntry(n, f.id, f.t); err != nil {
			return err
		}
	}
	return nil
}

func (x *txn) reviveEntry(n *node, id EntryID, t tomb) error {
	known := t.kills[:0:0]
	for _, k := range t.kills {
		ok, err := x.causes.knows(k)
		if err != nil {
			return err
		}
		if ok {
			known = append(known, k)
		}
	}
	if len(known) == len(t.kills) {
		return nil
	}
	k := tombKey(n.id, id)
	if t.kills = known; len(known) > 0 {
		return x.put(k, t.append(nil))
	}
	dir, err := x.node(t.dir)
	if err != nil {
		return fmt.Errorf("find the directory of a tomb: %w", err)
	}
	demoted, err := x.demoted(t.dir, t.name, id)
	if err != nil {
		return err
	}
	n.tombs--
	x.touch(n)
	if err := x.delete(k); err != nil {
		return err
	}
	return x.addEntry(dir, t.name, slotEntry{id, n.id, n.kind, t.time, demoted}, n)
}
