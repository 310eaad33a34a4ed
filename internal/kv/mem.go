package kv

import (
	"maps"
	"slices"
	"sort"
	"sync"
)

// Mem is a DB in memory, for tests and tools: a map and its sorted keys.
type Mem struct {
	mu   sync.RWMutex
	vals map[string][]byte
	keys []string // sorted

	before func() error // or nil
}

var _ DB = (*Mem)(nil)

// NewMem returns an empty Mem.
func NewMem() *Mem { return &Mem{vals: map[string][]byte{}} }

// Get implements Reader.
func (m *Mem) Get(key []byte) ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	v, ok := m.vals[string(key)]
	if !ok {
		return nil, ErrNotFound
	}
	return v, nil
}

// Scan implements Reader. It reads a copy of the range, so fn may call m.
func (m *Mem) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	m.mu.RLock()
	type pair struct {
		k string
		v []byte
	}
	var found []pair
	for i := sort.SearchStrings(m.keys, string(lo)); i < len(m.keys); i++ {
		k := m.keys[i]
		if hi != nil && k >= string(hi) {
			break
		}
		found = append(found, pair{k, m.vals[k]})
	}
	m.mu.RUnlock()
	for _, p := range found {
		if !fn([]byte(p.k), p.v) {
			break
		}
	}
	return nil
}

// Update implements DB. Updates run one after the other.
func (m *Mem) Update(fn func(Tx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	tx := &memTx{m: m, writes: map[string][]byte{}}
	if err := fn(tx); err != nil {
		return err
	}
	for k, v := range tx.writes {
		m.set(k, v)
	}
	return nil
}

func (m *Mem) set(k string, v []byte) {
	_, had := m.vals[k]
	i := sort.SearchStrings(m.keys, k)
	switch {
	case v == nil && had:
		delete(m.vals, k)
		m.keys = append(m.keys[:i], m.keys[i+1:]...)
	case v != nil:
		m.vals[k] = v
		if !had {
			m.keys = append(m.keys, "")
			copy(m.keys[i+1:], m.keys[i:])
			m.keys[i] = k
		}
	}
}

// Snapshot implements DB. It is a copy of the map; values are never changed in place.
func (m *Mem) Snapshot() Snapshot {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return &Mem{vals: maps.Clone(m.vals), keys: slices.Clone(m.keys)}
}

// Sync implements DB; memory itself has nothing to flush.
func (m *Mem) Sync() error {
	m.mu.RLock()
	before := m.before
	m.mu.RUnlock()
	if before == nil {
		return nil
	}
	return before()
}

// Before implements DB. Only Sync counts.
func (m *Mem) Before(fn func() error) {
	m.mu.Lock()
	m.before = fn
	m.mu.Unlock()
}

// Close implements DB.
func (m *Mem) Close() error { return nil }

// memTx is an open update of a Mem; m.mu is held. A nil value marks a deletion.
type memTx struct {
	m      *Mem
	writes map[string][]byte
}

func (t *memTx) Get(key []byte) ([]byte, error) {
	v, ok := t.writes[string(key)]
	if !ok {
		v = t.m.vals[string(key)]
	}
	if v == nil {
		return nil, ErrNotFound
	}
	return v, nil
}

func (t *memTx) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	in := func(k string) bool { return k >= string(lo) && (hi == nil || k < string(hi)) }
	var keys []string
	for i := sort.SearchStrings(t.m.keys, string(lo)); i < len(t.m.keys) && in(t.m.keys[i]); i++ {
		if _, shadowed := t.writes[t.m.keys[i]]; !shadowed {
			keys = append(keys, t.m.keys[i])
		}
	}
	for k, v := range t.writes {
		if v != nil && in(k) {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	for _, k := range keys {
		v, err := t.Get([]byte(k))
		if err != nil {
			return err
		}
		if !fn([]byte(k), v) {
			break
		}
	}
	return nil
}

func (t *memTx) Put(key, value []byte) error {
	t.writes[string(key)] = append(make([]byte, 0, len(value)), value...)
	return nil
}

func (t *memTx) Delete(key []byte) error {
	t.writes[string(key)] = nil
	return nil
}
