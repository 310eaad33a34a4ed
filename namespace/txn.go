package namespace

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/foreverfs/forever/internal/kv"
)

// maxCached is how many records a txn holds before it writes them out, so that
// a large batch does not hold all it touches.
const maxCached = 8192

// txn is one update of the tree: the records it read and changed.
type txn struct {
	t       *Tree
	tx      kv.Tx
	meta    meta
	nodes   map[NodeID]*node
	slots   map[Name]*slot
	authors map[AuthorID]authorInfo // changed
	emitted uint64                  // local ops made
	acks    int                     // ops applied that only acknowledge

	// of a merge; nil for local ops, which know everything
	causes  *causes
	later   []*moveRecord // the log of moves above the last op that moved a directory; nil if none did
	changed map[NodeID]struct{}
	names   map[Name]struct{}
	dirs    map[NodeID]struct{}
	buf     []byte
}

// update runs fn and commits what it changed, or nothing if it fails.
func (t *Tree) update(fn func(*txn) error) error {
	x := &t.w
	x.reset(t)
	err := t.db.Update(func(tx kv.Tx) error {
		x.tx = tx
		if err := fn(x); err != nil {
			return err
		}
		return x.flush()
	})
	x.tx = nil
	if err != nil {
		return err
	}
	t.meta = x.meta
	for a, info := range x.authors {
		t.authors[a] = info
	}
	if x.emitted > 0 {
		if t.pendHi == t.pendLo {
			t.pendLo = t.meta.clock - x.emitted + 1
		}
		t.pendHi = t.meta.clock + 1
		if x.acks == 0 {
			t.lastWork = t.meta.clock
		}
	}
	return nil
}

func (x *txn) reset(t *Tree) {
	if x.nodes == nil || len(x.nodes)+len(x.slots) > 64 { // clearing costs what a map once held
		x.nodes, x.slots, x.authors = map[NodeID]*node{}, map[Name]*slot{}, map[AuthorID]authorInfo{}
	} else {
		clear(x.nodes)
		clear(x.slots)
		clear(x.authors)
	}
	x.t, x.meta, x.emitted, x.acks = t, t.meta, 0, 0
	x.causes, x.later, x.changed, x.names, x.dirs = nil, nil, nil, nil, nil
}

// node returns the record of a node, or ErrNotExist. It stays valid until spill.
func (x *txn) node(id NodeID) (*node, error) {
	if n, ok := x.nodes[id]; ok {
		return n, nil
	}
	v, err := x.tx.Get(nodeKey(id))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("read node %v: %w", id, err)
	}
	n := &node{}
	if err := decodeNode(id, v, n); err != nil {
		return nil, fmt.Errorf("read node %v: %w", id, err)
	}
	x.nodes[id] = n
	return n, nil
}

// slot returns the record of a slot, empty if there is none. It stays valid until spill.
func (x *txn) slot(dir NodeID, name string) (*slot, error) {
	k := Name{dir, name}
	if s, ok := x.slots[k]; ok {
		return s, nil
	}
	s, err := x.t.readSlot(x.tx, dir, name)
	if err != nil {
		return nil, fmt.Errorf("read a slot of %v: %w", dir, err)
	}
	x.slots[k] = s
	return s, nil
}

// touch marks a node as changed.
func (x *txn) touch(n *node) {
	n.dirty = true
	if x.changed != nil {
		x.changed[n.id] = struct{}{}
	}
}

// touchName marks what a name leads to as changed, by whatever member of the
// directory's class somebody may know it.
func (x *txn) touchName(dir NodeID, name string) {
	if x.names == nil {
		return
	}
	x.names[Name{dir, name}] = struct{}{}
	if d := x.nodes[dir]; d != nil {
		for _, id := range d.class {
			x.names[Name{id, name}] = struct{}{}
		}
	}
}

// touchDir marks all names of a directory as changed.
func (x *txn) touchDir(dir NodeID) {
	if x.dirs != nil {
		x.dirs[dir] = struct{}{}
	}
}

// device returns the name under which an author's device is known.
func (x *txn) device(a AuthorID) string {
	info, ok := x.authors[a]
	if !ok {
		info = x.t.authors[a]
	}
	return deviceName(info.device, a)
}

func (x *txn) author(a AuthorID) authorInfo {
	if info, ok := x.authors[a]; ok {
		return info
	}
	return x.t.authors[a]
}

func (x *txn) setAuthor(a AuthorID, info authorInfo) error {
	x.authors[a] = info
	return x.put(authorKey(a), info.append(nil))
}

func (x *txn) put(k, v []byte) error {
	if err := x.tx.Put(k, v); err != nil {
		return fmt.Errorf("write the tree: %w", err)
	}
	return nil
}

func (x *txn) delete(k []byte) error {
	if err := x.tx.Delete(k); err != nil {
		return fmt.Errorf("write the tree: %w", err)
	}
	return nil
}

func (x *txn) putUvarint(k []byte, v uint64) error { return x.put(k, binary.AppendUvarint(nil, v)) }

func (x *txn) getUvarint(k []byte) (v uint64, ok bool, err error) {
	b, err := x.tx.Get(k)
	if errors.Is(err, kv.ErrNotFound) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read the tree: %w", err)
	}
	d := decoder{b: b}
	v = d.uvarint()
	return v, true, d.err("counter")
}

// spill writes the records out once there are many.
func (x *txn) spill() error {
	if len(x.nodes)+len(x.slots) < maxCached {
		return nil
	}
	if err := x.flush(); err != nil {
		return err
	}
	x.nodes, x.slots = map[NodeID]*node{}, map[Name]*slot{}
	return nil
}

// flush writes every changed record.
func (x *txn) flush() error {
	for id, n := range x.nodes {
		if !n.dirty {
			continue
		}
		n.dirty = false
		x.buf = n.append(x.buf[:0])
		if err := x.put(nodeKey(id), x.buf); err != nil {
			return err
		}
	}
	for k, s := range x.slots {
		if err := x.flushSlot(k, s); err != nil {
			return err
		}
	}
	x.buf = x.meta.append(x.buf[:0])
	return x.put(key(keyMeta), x.buf)
}

func (x *txn) flushSlot(k Name, s *slot) error {
	if !s.dirty {
		return nil
	}
	s.dirty = false
	if len(s.own) == 0 && len(s.aliases) == 0 {
		return x.delete(slotKey(k.Dir, k.Name))
	}
	x.t.fresh.named(k.Dir, k.Name)
	x.buf = s.append(x.buf[:0])
	return x.put(slotKey(k.Dir, k.Name), x.buf)
}
