package kv

import "sync/atomic"

// lately holds what was read from the database lately, and what is not there, so that a record looked at again
// and again is found without a search; and of what was written what is likely to be read. Its owner guards it and tells it what changes in
// the database.
type lately struct {
	vals  map[string]*readValue
	bytes int
	max   int
	again func(key string) bool // whether what is written under a key is likely to be read; nil: it is not
}

const (
	// latelyBytes bounds what a database remembers, roughly.
	latelyBytes = 12 << 20
	// latelyValue is the longest value worth it.
	latelyValue = 2 << 10
)

// readValue is a value; nil: the key is not there.
type readValue struct {
	val  []byte
	used atomic.Bool // since it was last passed over
}

// get returns what is known of a key. Several may call it at once.
func (l *lately) get(key string) (val []byte, ok bool) {
	r := l.vals[key]
	if r == nil {
		return nil, false
	}
	r.used.Store(true)
	return r.val, true
}

// add notes what the database has under a key, which must not be changed any more; nil: nothing.
func (l *lately) add(key string, val []byte) {
	if len(val) > latelyValue {
		l.forget(key)
		return
	}
	if r := l.vals[key]; r != nil {
		l.bytes += len(val) - len(r.val)
		r.val = val
	} else {
		if l.vals == nil {
			l.vals = map[string]*readValue{}
		}
		l.vals[key] = &readValue{val: val}
		l.bytes += pairCost + len(key) + len(val)
	}
	// What was not used since is passed over first; a map gives its keys in no order.
	for l.bytes > l.max {
		for k, r := range l.vals {
			if k != key && !r.used.Swap(false) {
				l.forget(k)
			}
			if l.bytes <= l.max {
				return
			}
		}
	}
}

func (l *lately) forget(key string) {
	if r := l.vals[key]; r != nil {
		l.bytes -= pairCost + len(key) + len(r.val)
		delete(l.vals, key)
	}
}

// changed notes what a layer has changed in the database.
func (l *lately) changed(by *layer) {
	if len(l.vals) == 0 && l.again == nil {
		return
	}
	by.vals.Scan(func(k string, v []byte) bool {
		if l.vals[k] != nil || v != nil && l.again != nil && l.again(k) {
			l.add(k, v)
		}
		return true
	})
}
