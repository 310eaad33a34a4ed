package namespace

import (
	"hash/maphash"
	"sync"
)

// maxFresh is how many nodes and names a tree's fresh remembers at most: beyond, it begins anew.
const maxFresh = 32 << 10

// fresh knows of nodes that were made here since the tree was opened what they do not have: which files have no
// extended attributes, and what names can be in directories. Programs that make many files ask for both before
// each, and to find in the database that something is not there costs more than the rest of the answer.
//
// A node that is new has a new ID, so nothing was kept under that before; and whatever writes a slot or an attribute
// tells fresh first. It may name what came to nothing. Safe for concurrent use.
type fresh struct {
	seed maphash.Seed
	max  int // nodes and names

	mu    sync.RWMutex
	bare  map[NodeID]struct{}            // files without extended attributes
	names map[NodeID]map[uint64]struct{} // of directories: hashes of names whose slots may be there
	size  int                            // entries added since the maps were empty
}

func newFresh() *fresh {
	f := &fresh{seed: maphash.MakeSeed(), max: maxFresh}
	f.clear()
	return f
}

// clear forgets everything; mu is held, or nobody else knows f.
func (f *fresh) clear() {
	f.bare, f.names, f.size = map[NodeID]struct{}{}, map[NodeID]map[uint64]struct{}{}, 0
}

// grown counts an entry that was added; mu is held.
func (f *fresh) grown() {
	if f.size++; f.size > f.max {
		f.clear()
	}
}

// made notes a node that was just made without extended attributes.
func (f *fresh) made(id NodeID, kind Kind) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.bare, id) // what came to nothing may have been something else
	delete(f.names, id)
	if kind == KindDir {
		f.names[id] = map[uint64]struct{}{}
	} else { // a directory may be shown as one with others, and have theirs
		f.bare[id] = struct{}{}
	}
	f.grown()
}

// named notes that a slot is about to be written.
func (f *fresh) named(dir NodeID, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if names, ok := f.names[dir]; ok {
		names[maphash.String(f.seed, name)] = struct{}{}
		f.grown()
	}
}

// dressed notes that an extended attribute is about to be written.
func (f *fresh) dressed(id NodeID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.bare, id)
}

// lacksName reports whether a directory is known to have no slot of that name.
func (f *fresh) lacksName(dir NodeID, name string) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	names, ok := f.names[dir]
	if !ok {
		return false
	}
	_, maybe := names[maphash.String(f.seed, name)]
	return !maybe
}

// isBare reports whether a node is known to have no extended attributes.
func (f *fresh) isBare(id NodeID) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	_, bare := f.bare[id]
	return bare
}
