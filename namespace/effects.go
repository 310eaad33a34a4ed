package namespace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/foreverfs/forever/internal/kv"
)

// addEntry makes an entry live.
func (x *txn) addEntry(dir *node, name string, e slotEntry, n *node) error {
	fresh := false
	err := x.editSlot(dir.id, name, n, func(s *slot) error {
		fresh = !s.holds(e.node)
		if !s.add(e) || n.kind == KindDir {
			return nil
		}
		return x.addPlace(n, place{dir.id, name, e.id})
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
	err = x.editSlot(dir.id, name, n, func(s *slot) error {
		e, ok = s.remove(id)
		last = !s.holds(n.id)
		if !ok || n.kind == KindDir {
			return nil
		}
		return x.dropPlace(n, id)
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
	return x.addEntry(parent, d.place.name, slotEntry{id: d.place.id, node: d.id, kind: KindDir, time: d.place.time, demoted: demoted}, d)
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
	if d.removed {
		d.removed, d.removal = false, register[int64]{}
		if err := x.delete(deadKey(d.place.parent, d.place.name, d.place.id)); err != nil {
			return err
		}
	}
	x.touch(d)
	return x.reattach(d, was)
}

// removeDir ends a directory, unless something in it is there.
func (x *txn) removeDir(op OpID, now int64, d *node) error {
	was := d.attached()
	d.removed = true
	d.removal.set(op, now)
	x.touch(d)
	if err := x.bury(d.place.parent, d.place.name, d.place.id, d); err != nil {
		return err
	}
	return x.reattach(d, was)
}

// demoted returns the first op that demoted an entry of a slot; zero if none did.
func (x *txn) demoted(dir NodeID, name string, id EntryID) (OpID, error) {
	v, err := x.tx.Get(demotionKey(dir, name, id))
	if errors.Is(err, kv.ErrNotFound) {
		return OpID{}, nil
	}
	if err != nil {
		return OpID{}, fmt.Errorf("read a demotion: %w", err)
	}
	o, ok := parseOpID(v)
	if !ok {
		return OpID{}, fmt.Errorf("read a demotion: %w", ErrDamaged)
	}
	return o, nil
}

// demote lets entries of a slot keep their conflict names for good.
func (x *txn) demote(op OpID, dir NodeID, name string, ids []EntryID) error {
	first := map[EntryID]OpID{}
	for _, id := range ids {
		was, err := x.demoted(dir, name, id)
		if err != nil {
			return err
		}
		if first[id] = was; !was.IsZero() && was.Compare(op) < 0 {
			continue
		}
		first[id] = op
		if err := x.put(demotionKey(dir, name, id), op.Append(nil)); err != nil {
			return err
		}
	}
	if len(ids) == 0 {
		return nil
	}
	us, err := x.addName(nil, dir, name)
	if err != nil {
		return err
	}
	s, err := x.slot(dir, name)
	if err != nil {
		return err
	}
	x.touchName(dir, name)
	return x.around(us, func() error {
		for i := range s.own {
			if o, ok := first[s.own[i].id]; ok {
				s.own[i].demoted, s.dirty = o, true
			}
		}
		return nil
	})
}

// tomb is an entry that removals ended, kept in case an edit turns up that they did not know.
type tomb struct {
	dir   NodeID
	name  string
	time  int64
	kills []kill // ascending
}

// kill is a removal and when it was.
type kill struct {
	op   OpID
	time int64
}

func (k kill) compare(o kill) int { return k.op.Compare(o.op) }

func (t *tomb) append(b []byte) []byte {
	b = append(b, t.dir[:]...)
	b = appendI64(appendBytes(b, t.name), t.time)
	b = binary.AppendUvarint(b, uint64(len(t.kills)))
	for _, k := range t.kills {
		b = appendI64(k.op.Append(b), k.time)
	}
	return b
}

func decodeTomb(b []byte) (t tomb, err error) {
	d := decoder{b: b}
	t.dir, t.name, t.time = d.id(), string(d.bytes()), d.i64()
	t.kills = make([]kill, d.count(opIDSize+8))
	for i := range t.kills {
		t.kills[i] = kill{d.op(), d.i64()}
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
func (x *txn) kill(op kill, dir *node, name string, n *node, ids []EntryID) error {
	for _, id := range ids {
		e, live, err := x.removeEntry(dir, name, id, n)
		if err != nil {
			return err
		}
		k := tombKey(n.id, id)
		if live {
			t := tomb{dir.id, name, e.time, []kill{op}}
			n.tombs++
			x.touch(n)
			if err := x.put(k, t.append(nil)); err != nil {
				return err
			}
			if err := x.bury(dir.id, name, id, n); err != nil {
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
func (x *txn) killAgain(op kill, dir NodeID, name string, k []byte) error {
	t, ok, err := x.tomb(k)
	if err != nil || !ok || t.dir != dir || t.name != name {
		return err
	}
	i, found := slices.BinarySearchFunc(t.kills, op, kill.compare)
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
		if err := x.unbury(n, id, &t); err != nil {
			return err
		}
	}
	return nil
}

// bury enters what a removal ended into the history of its name.
func (x *txn) bury(dir NodeID, name string, id EntryID, n *node) error {
	return x.put(deadKey(dir, name, id), append(n.id[:len(n.id):len(n.id)], byte(n.kind)))
}

// unbury takes the tomb of an entry away.
func (x *txn) unbury(n *node, id EntryID, t *tomb) error {
	n.tombs--
	x.touch(n)
	if err := x.delete(deadKey(t.dir, t.name, id)); err != nil {
		return err
	}
	return x.delete(tombKey(n.id, id))
}

// revive brings back the entries of a file whose removals did not know of an
// edit that did not know of them, and those that the edit names. It is for the edit to name them: which
// of them went last, say, is not the same everywhere, as another edit may have brought back some before. Edits of older programs
// bring back all.
func (x *txn) revive(n *node, named []EntryID, all bool) error {
	if n.tombs == 0 || x.causes == nil && len(named) == 0 && !all {
		return nil
	}
	graves, err := x.graves(n)
	if err != nil {
		return err
	}
	for _, g := range graves {
		if err := x.reviveEntry(n, g.id, g.tomb, all || slices.Contains(named, g.id)); err != nil {
			return err
		}
	}
	return nil
}

// knownKills returns the removals of an entry that an edit knew and does not undo.
func (x *txn) knownKills(t *tomb, named bool) (known []kill, err error) {
	if named {
		return nil, nil
	}
	for _, k := range t.kills {
		ok := x.causes == nil
		if !ok {
			if ok, err = x.causes.knows(k.op); err != nil {
				return nil, err
			}
		}
		if ok {
			known = append(known, k)
		}
	}
	return known, nil
}

// maxRevived is how many entries one op brings back, so that it stays below MaxOp.
const maxRevived = 2048

// comingBack returns the entries that a content brings back which is written to a file without a name: those that
// it has where the content comes from, else those that went last. If others took some alone, these: what
// this device took part in removing it has not to be told of. None is among what it promised to forget.
func (x *txn) comingBack(n *node, had []place) (out [][]byte, err error) {
	if n.links > 0 {
		return nil, nil
	}
	graves, err := x.rememberedGraves(n)
	if err != nil {
		return nil, err
	}
	back := slices.DeleteFunc(slices.Clone(graves), func(g grave) bool {
		return !slices.ContainsFunc(had, func(p place) bool { return p.id == g.id })
	})
	if len(back) == 0 {
		back = x.lastGraves(graves)
	}
	for _, g := range back[:min(len(back), maxRevived)] {
		out = append(out, g.id.Append(nil))
	}
	return out, nil
}

// lastGraves returns those of the removal that is the last.
func (x *txn) lastGraves(list []grave) []grave {
	mine := func(g grave) bool { return g.by(x.t.author.Device()) }
	if slices.ContainsFunc(list, func(g grave) bool { return !mine(g) }) {
		list = slices.DeleteFunc(list, mine)
	}
	last := kill{}
	for i := range list {
		if first := list[i].kills[0]; first.compare(last) > 0 {
			last = first
		}
	}
	return slices.DeleteFunc(list, func(g grave) bool { return g.kills[0] != last })
}

// rememberedGraves returns the tombs of a file that no device may have forgotten.
func (x *txn) rememberedGraves(n *node) ([]grave, error) {
	p, err := readPoint(x.tx, horizonKey(x.t.author.Device()))
	if err != nil {
		return nil, err
	}
	graves, err := x.graves(n)
	if err != nil {
		return nil, err
	}
	kept := graves[:0]
	for _, g := range graves {
		old, err := x.forgets(&p, g.kills...)
		if err != nil {
			return nil, err
		}
		if !old {
			kept = append(kept, g)
		}
	}
	return kept, nil
}

// grave is a tomb and the entry it is of.
type grave struct {
	id EntryID
	tomb
}

// graves returns the tombs of a file.
func (x *txn) graves(n *node) ([]grave, error) { return readGraves(x.tx, n.id) }

func readGraves(r kv.Reader, id NodeID) (list []grave, err error) {
	prefix := key(keyTomb, id[:])
	var inner error
	err = r.Scan(prefix, kv.PrefixEnd(prefix), func(k, v []byte) bool {
		e, ok := parseEntryID(k[len(prefix):])
		t, err := decodeTomb(v)
		if err == nil && (!ok || len(t.kills) == 0) {
			err = ErrDamaged
		}
		inner = err
		list = append(list, grave{e, t})
		return err == nil
	})
	if err := errors.Join(inner, err); err != nil {
		return nil, fmt.Errorf("read the tombs of %v: %w", id, err)
	}
	return list, nil
}

func (x *txn) reviveEntry(n *node, id EntryID, t tomb, named bool) error {
	known, err := x.knownKills(&t, named)
	if err != nil || len(known) == len(t.kills) {
		return err
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
	if err := x.unbury(n, id, &t); err != nil {
		return err
	}
	return x.addEntry(dir, t.name, slotEntry{id: id, node: n.id, kind: n.kind, time: t.time, demoted: demoted}, n)
}
