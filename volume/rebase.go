package volume

import (
	"context"
	"errors"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/namespace"
)

// state is one state of a file: all of its content as a version, whose chunks are
// stored but not flushed.
type state struct {
	version chunk.Version
	gen     uint64
	on      namespace.OpID // the content of the tree that it was made on
}

// rebuildTries is how often a file is rebuilt beside its writers before they have to wait.
const rebuildTries = 3

// rebuild makes the whole content of a file what fn makes of it, whole blocks at a time and as one change. fn is
// called without a lock, maybe several times; then lay, if not nil, writes the rest, with in.mu held.
//
// The result is not journalled: its new nodes are only stored. The next fsync enters it into the tree.
func (v *Volume) rebuild(ctx context.Context, in *inode, fn func(old chunk.Version) (chunk.Version, error), lay func()) error {
	if err := v.lockToSeal(ctx, in); err != nil {
		return err
	}
	defer in.fold.Unlock()
	for range rebuildTries {
		old, err := v.stored(ctx, in)
		if err != nil {
			return err
		}
		next, err := fn(old.version)
		if err != nil {
			return err
		}
		in.mu.Lock()
		if in.is(old) {
			v.rebase(in, next, lay)
			in.mu.Unlock()
			return nil
		}
		in.mu.Unlock()
	}
	return v.rebuildAlone(ctx, in, fn, lay)
}

// rebuildAlone is rebuild while everybody else waits: somebody writes all the time.
func (v *Volume) rebuildAlone(ctx context.Context, in *inode, fn func(old chunk.Version) (chunk.Version, error), lay func()) error {
	for {
		if err := v.sealDirty(ctx, in); err != nil {
			return err
		}
		in.mu.Lock()
		err := v.sealRest(ctx, in)
		if errors.Is(err, errNotCached) {
			in.mu.Unlock()
			continue
		}
		var next chunk.Version
		if err == nil {
			next, err = v.buildVersion(ctx, in.base, in.cut, in.size, in.sealed)
		}
		if err == nil {
			next, err = fn(next)
		}
		if err == nil {
			v.rebase(in, next, lay)
		}
		in.mu.Unlock()
		return err
	}
}

// stored returns a state of the file, of this moment or a little later; in.fold is held.
func (v *Volume) stored(ctx context.Context, in *inode) (state, error) {
	for try := 1; ; try++ {
		if err := v.makeCandidate(ctx, in); err != nil {
			return state{}, err
		}
		gone, err := v.orphan(in)
		if err != nil {
			return state{}, err
		}
		in.mu.Lock()
		s, ok := v.storedState(in, try == rebuildTries)
		if ok && gone {
			in.withdraw()
		}
		in.mu.Unlock()
		if ok {
			return s, nil
		}
	}
}

// withdraw gives up the candidate, if there is one: it is not to enter the tree. in.mu is held.
func (in *inode) withdraw() {
	if in.ready != nil {
		in.ready, in.rebased = nil, true
	}
}

// storedState returns the file's state if all of it is stored, or else, with older, that of its candidate; in.mu is held.
func (v *Volume) storedState(in *inode, older bool) (state, bool) {
	switch c := in.ready; {
	case !in.changed:
		return state{in.base, in.gen, in.baseID}, in.loaded
	case c != nil && (older || c.gen == in.gen):
		return state{c.version, c.gen, in.baseID}, true
	}
	return state{}, false
}

// isStored reports whether storedNow would seal nothing.
func (v *Volume) isStored(in *inode) bool {
	in.mu.RLock()
	defer in.mu.RUnlock()
	_, ok := v.storedState(in, false)
	return ok || !in.loaded
}

// storedNow is stored for somebody who only reads.
func (v *Volume) storedNow(ctx context.Context, in *inode) (chunk.Version, error) {
	if err := v.lockToSeal(ctx, in); err != nil {
		return chunk.Version{}, err
	}
	defer in.fold.Unlock()
	s, err := v.stored(ctx, in)
	return s.version, err
}

// is reports whether the file is still in a state; in.mu is held.
func (in *inode) is(s state) bool { return in.loaded && in.gen == s.gen && in.baseID == s.on }

// rebase makes a version the whole content of a file, and lets lay write over it; in.fold and in.mu are held.
// A candidate from before comes to nothing, even one that waits in the queue: what it
// held is in the version.
func (v *Volume) rebase(in *inode, version chunk.Version, lay func()) {
	for _, o := range in.dirty {
		v.dirty.add(-o.held())
	}
	in.dirty, in.sealed, in.unsaved, in.ready = nil, nil, nil, nil
	in.base, in.cut, in.size = version, version.Size, version.Size
	in.minSize, in.saveMin = version.Size, version.Size
	in.rebased = true
	v.touched(in)
	if lay != nil {
		lay()
	}
}
