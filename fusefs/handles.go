package fusefs

import (
	"sync"

	"bazil.org/fuse"
)

// table gives open things the numbers under which the kernel names them.
type table[T any] struct {
	mu    sync.RWMutex
	slots []*T
	free  []int
}

// add stores v and returns its number, which is not 0.
func (t *table[T]) add(v *T) fuse.HandleID {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.free); n > 0 {
		i := t.free[n-1]
		t.free = t.free[:n-1]
		t.slots[i] = v
		return fuse.HandleID(i + 1)
	}
	t.slots = append(t.slots, v)
	return fuse.HandleID(len(t.slots))
}

// get returns what id names, or nil.
func (t *table[T]) get(id fuse.HandleID) *T {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if id == 0 || uint64(id) > uint64(len(t.slots)) {
		return nil
	}
	return t.slots[id-1]
}

// remove returns what id named, or nil, and frees the number.
func (t *table[T]) remove(id fuse.HandleID) *T {
	t.mu.Lock()
	defer t.mu.Unlock()
	if id == 0 || uint64(id) > uint64(len(t.slots)) {
		return nil
	}
	v := t.slots[id-1]
	if v != nil {
		t.slots[id-1] = nil
		t.free = append(t.free, int(id-1))
	}
	return v
}

// clear removes everything and returns it.
func (t *table[T]) clear() []*T {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*T
	for _, v := range t.slots {
		if v != nil {
			all = append(all, v)
		}
	}
	t.slots, t.free = nil, nil
	return all
}
