package kv

import (
	"bytes"
	"errors"

	"github.com/cockroachdb/pebble/v2"
	"github.com/tidwall/btree"
)

// view is one state, in [lo, hi): the database at some moment and the layers over it.
type view struct {
	it     *pebble.Iterator
	layers []*btree.Map[string, []byte] // the first counts most
}

// openView opens what a reader of the database has in a range. Who opens it closes its iterator.
func openView(r pebble.Reader, lo, hi []byte) (v view, err error) {
	if len(lo) == 0 {
		lo = nil // pebble takes an empty bound for a key
	}
	v.it, err = r.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
	return v, err
}

// view opens the state in a range as it is now.
func (p *Pebble) view(lo, hi []byte) (view, error) {
	p.mu.Lock() // and not for reading: a copy marks its origin
	defer p.mu.Unlock()
	// Under the lock: what leaves a layer later must not be missing from both.
	v, err := openView(p.db, lo, hi)
	if p.recent.vals.Len() > 0 {
		v.layers = append(v.layers, p.recent.vals.Copy())
	}
	if p.leaving != nil && p.leaving.vals.Len() > 0 {
		v.layers = append(v.layers, &p.leaving.vals) // nobody writes to it
	}
	return v, err
}

// cursor goes through the keys of one layer below end, unless that is empty.
type cursor struct {
	it  btree.MapIter[string, []byte]
	end string
	ok  bool
}

func newCursor(l *btree.Map[string, []byte], lo, hi []byte) cursor {
	c := cursor{it: l.Iter(), end: string(hi)}
	c.moved(c.it.Seek(string(lo)))
	return c
}

func (c *cursor) moved(ok bool) { c.ok = ok && (c.end == "" || c.it.Key() < c.end) }

// least returns the cursor at the smallest key, the first of several; nil if all are at their ends.
func least(cursors []cursor) *cursor {
	var at *cursor
	for i := range cursors {
		if c := &cursors[i]; c.ok && (at == nil || c.it.Key() < at.it.Key()) {
			at = c
		}
	}
	return at
}

// scan calls fn for every key that is not deleted, in order, until it returns false.
func (v view) scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	cursors := make([]cursor, len(v.layers))
	for i, l := range v.layers {
		cursors[i] = newCursor(l, lo, hi)
	}
	var key []byte
	for below := v.it.First(); ; {
		c := least(cursors)
		if c == nil && !below {
			return v.it.Error()
		}
		if c == nil || below && string(v.it.Key()) < c.it.Key() {
			val, err := v.it.ValueAndErr()
			if err != nil || !fn(v.it.Key(), val) {
				return err
			}
			below = v.it.Next()
			continue
		}
		key = append(key[:0], c.it.Key()...)
		value := c.it.Value()
		for i := range cursors {
			if c := &cursors[i]; c.ok && c.it.Key() == string(key) {
				c.moved(c.it.Next())
			}
		}
		if below && bytes.Equal(v.it.Key(), key) {
			below = v.it.Next()
		}
		if value != nil && !fn(key, value) {
			return nil
		}
	}
}

// scanView goes through what open opens, with a layer of one's own on top unless that is nil.
func scanView(open func(lo, hi []byte) (view, error), top *layer, lo, hi []byte, fn func(key, value []byte) bool) (err error) {
	if hi != nil && bytes.Compare(lo, hi) >= 0 {
		return nil
	}
	v, err := open(lo, hi)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.it.Close()) }()
	if top != nil {
		v.layers = append([]*btree.Map[string, []byte]{&top.vals}, v.layers...)
	}
	return v.scan(lo, hi, fn)
}
