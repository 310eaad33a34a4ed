package namespace

import (
	"errors"
	"fmt"
	"time"

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

// expireReplaced forgets contents that were replaced before the horizon, as a
// later one of the same file was written before it, and of those that are old all but the last of a span of time.
func (f *folding) expireReplaced(x *txn, n int) (int, error) {
	if f.to.isZero() {
		f.cursor = nil
		return 0, nil
	}
	prefix := key(keyPast)
	return f.sweep(x, prefix, kv.PrefixEnd(prefix), n, func(rest, v []byte) error {
		if len(rest) != 16+opIDSize {
			return fmt.Errorf("read a content: %w", ErrDamaged)
		}
		id := NodeID(rest[:16])
		d := decoder{b: v}
		c := d.content()
		if err := d.err("content"); err != nil {
			return err
		}
		if f.past.node != id {
			if err := f.findPast(x, id); err != nil {
				return err
			}
		}
		if !f.known(c.ID) || !f.past.drops(&c, f.to.Retention) {
			return nil
		}
		return x.delete(pastKey(id, c.ID))
	})
}

// past is which contents of one file, up to the point, are kept for being the last of something.
type past struct {
	node NodeID
	// newest is the newest that was written before the horizon.
	newest OpID
	// last has the last content of each span of time.
	last map[span]stamp
}

// span is a minute, an hour or a day: so many ns, and how many of them since 1970.
type span struct{ unit, n int64 }

// stamp orders the contents of a file in time, by the clocks of who wrote them.
type stamp struct {
	time int64
	op   OpID
}

func (s stamp) after(o stamp) bool {
	return s.time > o.time || s.time == o.time && s.op.Compare(o.op) > 0
}

// thinning says of which spans one content is kept, by how old it is. Each unit is a multiple of
// those before it: so what an earlier fold took is not missed by a later one.
var thinning = []struct{ age, unit int64 }{
	{int64(time.Hour), int64(time.Minute)}, {24 * int64(time.Hour), int64(time.Hour)}, {30 * 24 * int64(time.Hour), 24 * int64(time.Hour)},
}

// spanOf returns the span of which only the last content is kept at a time; false if all are.
func spanOf(written, now int64) (s span, ok bool) {
	for _, t := range thinning {
		if now-written >= t.age {
			s, ok = span{t.unit, floorDiv(written, t.unit)}, true
		}
	}
	return s, ok
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// drops reports whether a content that was replaced is not kept.
func (p *past) drops(c *Content, keep Retention) bool {
	if keep.Horizon > 0 && c.ID.Compare(p.newest) < 0 {
		return true
	}
	if keep.Now == 0 {
		return false
	}
	s, thin := spanOf(c.Time, keep.Now)
	return thin && p.last[s].after(stamp{c.Time, c.ID})
}

// findPast finds what is kept of a file's past.
func (f *folding) findPast(x *txn, id NodeID) error {
	f.past = past{node: id, last: map[span]stamp{}}
	n, err := x.node(id)
	if err != nil {
		return fmt.Errorf("find the file of a content: %w", err)
	}
	for i := range n.heads {
		f.countPast(&n.heads[i])
	}
	var inner error
	prefix := key(keyPast, id[:])
	err = x.tx.Scan(prefix, kv.PrefixEnd(prefix), func(_, v []byte) bool {
		d := decoder{b: v}
		c := d.content()
		f.countPast(&c)
		inner = d.err("content")
		return inner == nil
	})
	if err := errors.Join(inner, err); err != nil {
		return fmt.Errorf("read the contents of %v: %w", id, err)
	}
	return nil
}

// countPast lets a content take its place among those that are kept.
func (f *folding) countPast(c *Content) {
	if !f.known(c.ID) {
		return
	}
	if c.Time < f.to.Horizon && c.ID.Compare(f.past.newest) > 0 {
		f.past.newest = c.ID
	}
	for _, t := range thinning {
		s, at := span{t.unit, floorDiv(c.Time, t.unit)}, stamp{c.Time, c.ID}
		if at.after(f.past.last[s]) {
			f.past.last[s] = at
		}
	}
}
