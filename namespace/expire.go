package namespace

import (
	"errors"
	"fmt"

	"github.com/foreverfs/forever/internal/kv"
)

// expired reports whether removals are up to the point and before the horizon.
func (f *folding) expired(kills ...kill) bool {
	for _, k := range kills {
		if k.time >= f.to.Horizon || !f.known(k.op) {
			return false
		}
	}
	return true
}

// expireRemoved forgets what was removed before the horizon.
func (f *folding) expireRemoved(x *txn, n int) (int, error) {
	if f.to.Horizon == 0 {
		f.cursor = nil
		return 0, nil
	}
	prefix := key(keyDead)
	return f.sweep(x, prefix, kv.PrefixEnd(prefix), n, func(rest, v []byte) error {
		at := len(rest) - entryIDSize
		if at < 18 || len(v) != 17 {
			return fmt.Errorf("read what was removed: %w", ErrDamaged)
		}
		id, _ := parseEntryID(rest[at:])
		if Kind(v[16]) == KindDir {
			return f.expireDir(x, NodeID(v[:16]))
		}
		return f.expireEntry(x, NodeID(v[:16]), id)
	})
}

// expireEntry forgets a tomb, and the node if that was its last.
func (f *folding) expireEntry(x *txn, id NodeID, e EntryID) error {
	k := tombKey(id, e)
	tb, ok, err := x.tomb(k)
	if err != nil || !ok || !f.expired(tb.kills...) {
		return err
	}
	n, err := x.node(id)
	if err != nil {
		return fmt.Errorf("find the node of a tomb: %w", err)
	}
	if err := x.unbury(n, e, &tb); err != nil {
		return err
	}
	if err := x.delete(demotionKey(tb.dir, tb.name, e)); err != nil {
		return err
	}
	if n.links == 0 && n.tombs == 0 {
		if err := x.forget(n); err != nil {
			return err
		}
	}
	return f.expireDir(x, tb.dir)
}

// forget drops a node and what is kept of it alone.
func (x *txn) forget(n *node) error {
	delete(x.nodes, n.id)
	for _, kind := range []byte{keyXattr, keyPast, keyDemotion} { // demotions: in a directory
		if err := x.deleteAll(key(kind, n.id[:])); err != nil {
			return err
		}
	}
	return x.delete(nodeKey(n.id))
}

func (x *txn) deleteAll(prefix []byte) error {
	var keys [][]byte
	err := x.tx.Scan(prefix, kv.PrefixEnd(prefix), func(k, _ []byte) bool {
		keys = append(keys, append([]byte(nil), k...))
		return true
	})
	if err != nil {
		return fmt.Errorf("read the tree: %w", err)
	}
	for _, k := range keys {
		if err := x.delete(k); err != nil {
			return err
		}
	}
	return nil
}

// expireDir forgets a directory that was removed before the horizon and in which
// nothing is kept any more, and then those above it.
func (f *folding) expireDir(x *txn, id NodeID) error {
	for id != Root && !f.moved[id] {
		d, err := x.node(id)
		if errors.Is(err, ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !d.removed || d.attached() || !f.expired(kill{d.removal.op, d.removal.val}) {
			return nil
		}
		for _, kind := range []byte{keySlot, keyDead} {
			if used, err := x.any(key(kind, id[:])); used || err != nil {
				return err
			}
		}
		p := d.place
		if err := x.forget(d); err != nil {
			return err
		}
		for _, k := range [][]byte{deadKey(p.parent, p.name, p.id), demotionKey(p.parent, p.name, p.id)} {
			if err := x.delete(k); err != nil {
				return err
			}
		}
		id = p.parent
	}
	return nil
}

// any reports whether there is a key with a prefix.
func (x *txn) any(prefix []byte) (found bool, err error) {
	if err := x.tx.Scan(prefix, kv.PrefixEnd(prefix), func(_, _ []byte) bool { found = true; return false }); err != nil {
		return false, fmt.Errorf("read the tree: %w", err)
	}
	return found, nil
}

// newest is the newest content of a file that was written before the horizon.
type newest struct {
	node NodeID
	op   OpID
}

// expireReplaced forgets contents that were replaced before the horizon: a
// later one of the same file was written before it.
func (f *folding) expireReplaced(x *txn, n int) (int, error) {
	if f.to.Horizon == 0 {
		f.cursor = nil
		return 0, nil
	}
	prefix := key(keyPast)
	return f.sweep(x, prefix, kv.PrefixEnd(prefix), n, func(rest, _ []byte) error {
		if len(rest) != 16+opIDSize {
			return fmt.Errorf("read a content: %w", ErrDamaged)
		}
		id := NodeID(rest[:16])
		o, _ := parseOpID(rest[16:])
		if f.newest.node != id {
			if err := f.findNewest(x, id); err != nil {
				return err
			}
		}
		if o.Compare(f.newest.op) >= 0 || !f.known(o) {
			return nil
		}
		return x.delete(pastKey(id, o))
	})
}

func (f *folding) findNewest(x *txn, id NodeID) error {
	f.newest = newest{node: id}
	n, err := x.node(id)
	if err != nil {
		return fmt.Errorf("find the file of a content: %w", err)
	}
	count := func(c *Content) {
		if c.Time < f.to.Horizon && f.known(c.ID) && c.ID.Compare(f.newest.op) > 0 {
			f.newest.op = c.ID
		}
	}
	for i := range n.heads {
		count(&n.heads[i])
	}
	var inner error
	prefix := key(keyPast, id[:])
	err = x.tx.Scan(prefix, kv.PrefixEnd(prefix), func(_, v []byte) bool {
		d := decoder{b: v}
		c := d.content()
		count(&c)
		inner = d.err("content")
		return inner == nil
	})
	if err := errors.Join(inner, err); err != nil {
		return fmt.Errorf("read the contents of %v: %w", id, err)
	}
	return nil
}
