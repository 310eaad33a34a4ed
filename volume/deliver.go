package volume

import (
	"fmt"

	"github.com/foreverfs/forever/namespace"
)

// Deliver applies one batch that came from a log: that of another device, or of
// an earlier run of this one. A batch already applied has no effect. It
// returns namespace.ErrNotReady if batches it builds on are still missing, and
// namespace.ErrInvalid if it can never be applied.
func (v *Volume) Deliver(author namespace.AuthorID, seq uint64, payload []byte) error {
	if err := v.flushNamed(); err != nil { // while others may read the tree
		return err
	}
	v.treeMu.Lock()
	// What was done here before must not claim to have known this batch.
	if err := v.cutLocked(); err != nil {
		v.treeMu.Unlock()
		return err
	}
	changes, err := v.cfg.Tree.Merge(author, seq, payload)
	v.treeMu.Unlock()
	if err != nil {
		return fmt.Errorf("merge batch %d of %x: %w", seq, author, err)
	}
	v.unsynced.Store(true)
	v.follow(changes)
	return nil
}

// Vector returns the number of batches applied, by author.
func (v *Volume) Vector() map[namespace.AuthorID]uint64 {
	v.treeMu.RLock()
	defer v.treeMu.RUnlock()
	return v.cfg.Tree.Vector()
}

// follow lets open files and kernel caches see changes from elsewhere.
func (v *Volume) follow(changes namespace.Changes) {
	v.notifyMu.Lock()
	defer v.notifyMu.Unlock()
	for _, id := range changes.Nodes {
		in := v.known(id)
		if in == nil {
			continue
		}
		in.strayed.Store(true)
		in.xattrRoom.Store(0)
		content := v.reload(in)
		switch {
		case v.notifier == nil:
		case content:
			v.notifier.InvalidateContent(in.ino)
		default:
			v.notifier.InvalidateAttr(in.ino)
		}
		v.release(in)
	}
	for _, id := range changes.Dirs {
		if in := v.known(id); in != nil {
			if v.notifier != nil {
				v.notifier.InvalidateDir(in.ino)
			}
			v.release(in)
		}
	}
	for _, e := range changes.Entries {
		if in := v.known(e.Dir); in != nil {
			if v.notifier != nil {
				v.notifier.InvalidateEntry(in.ino, e.Name)
			}
			v.release(in)
		}
	}
}

// reload makes the tree's content the base of a file that was not changed here,
// and reports whether that content is another than before. What was changed here stays on
// the version it was made on; both versions are kept.
func (v *Volume) reload(in *inode) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	n, err := v.nodeNow(in)
	if err == nil && !in.loaded { // the kernel may have pages, or the length, of a version that is not known any more
		v.uncache(in)
		return n.Kind == namespace.KindFile
	}
	if err != nil || in.changed || in.baseID == n.Content.ID {
		return false
	}
	in.adopt(n)
	v.uncache(in)
	return true
}

// nodeNow is node, and notes whether whoever changes the file from here on knows that it has no name; in.mu is held.
func (v *Volume) nodeNow(in *inode) (namespace.Node, error) {
	v.treeMu.RLock()
	defer v.treeMu.RUnlock()
	n, err := v.cfg.Tree.Node(in.id)
	if err == nil && (n.Nlink > 0 || !in.changed) {
		in.nameless.Store(n.Nlink == 0)
	}
	return n, err
}
