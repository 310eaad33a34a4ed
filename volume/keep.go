package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/namespace"
)

// What cannot be sealed is kept in the journal: a block that it lies over may be on devices alone that are not to be reached, or the
// store has no room. It is sealed when that is over.

// keep journals what was written to a file and could not be sealed, for the reason why. It returns nil if that is done. in.fold is held.
func (v *Volume) keep(in *inode, why error) error {
	if v.ctx.Err() != nil {
		return why
	}
	gone, done, err := v.saveHeld(in)
	if gone {
		return err // that, if anything, is what the program is to hear
	}
	if err == nil && (!done || in.recorded.Load() >= putOffBytes) {
		var whole bool
		whole, err = v.journalWhole(in)
		done = done || whole
	}
	if !done || err != nil {
		return errors.Join(why, err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.published = v.uptime() // that was a try
	// That somebody did not wait says nothing of the file.
	if !in.kept && !isContextErr(why) {
		in.kept = true
		v.log.Warn("what was written to a file cannot be sealed yet; it is journalled", "inode", in.ino, "error", why)
	}
	return nil
}

// keepUnsealed is keep for who does not hold in.fold, and waits for that no longer than ctx lasts.
func (v *Volume) keepUnsealed(ctx context.Context, in *inode, why error) error {
	if in.fold.LockFor(ctx) != nil {
		return why
	}
	defer in.fold.Unlock()
	return v.keep(in, why)
}

// isKept reports whether something of a file could not be sealed when that was last tried.
func (in *inode) isKept() bool {
	in.mu.RLock()
	defer in.mu.RUnlock()
	return in.kept
}

// saved reports whether all of a file that is not in the tree is in the journal; in.mu is held.
func (in *inode) saved() bool { return in.ready == nil && in.journals && in.savedGen == in.gen }

// allSaved reports whether all that is not in the tree and has a name is in the journal.
func (v *Volume) allSaved() bool {
	all := true
	for _, in := range v.changedInodes() {
		in.mu.RLock()
		all = all && (!in.changed || in.nameless.Load() || in.saved())
		in.mu.RUnlock()
		v.release(in)
	}
	return all
}

// journalWhole replaces a file's records by such of all that is not in the tree, be it sealed or not, on a base that the tree may not have either. It
// does nothing if that is more than fits into memory, or takes too much of what is left of the disk. in.fold is held.
func (v *Volume) journalWhole(in *inode) (done bool, err error) {
	if n, err := v.node(in); err != nil || n.Nlink == 0 {
		return false, err
	}
	records, restore, err := v.wholeRecords(in)
	if records == nil || err != nil {
		return false, err
	}
	err = v.cfg.State.Update(func(tx kv.Tx) error {
		if err := clearRecords(tx, in.id); err != nil {
			return err
		}
		return in.putRecords(tx, records)
	})
	if err != nil {
		restore()
		return false, fmt.Errorf("journal a whole file: %w", err)
	}
	v.wroteRecords(in, records)
	in.recorded.Store(0)
	return true, nil
}

// wholeRecords returns the records that journalWhole writes, or nil if it is not to. If writing them fails, restore has them made again.
func (v *Volume) wholeRecords(in *inode) (records [][]byte, restore func(), err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	total := int64(len(in.sealed)) * v.blockSize(in)
	for _, o := range in.dirty {
		total += o.held()
	}
	if total > v.muchToJournal() || !v.leftToJournal(total) {
		return nil, nil, nil
	}
	extents, err := v.wholeExtents(in)
	if err != nil {
		return nil, nil, err
	}
	if in.rebased { // the chunks of base are durable before the records are
		v.named.Add(1)
	}
	r := record{base: namespace.Content{ID: in.baseID, Version: in.base}, size: in.size, minSize: min(in.cut, in.size), mtime: in.mtime}
	rebased, notSaved := in.rebased, in.takeUnsaved()
	in.rebased = false
	return r.encodeAll(extents), func() {
		notSaved()
		in.mu.Lock()
		in.rebased = rebased
		in.mu.Unlock()
	}, nil
}

// wholeExtents returns what was written to a file and is not in its base, oldest first; in.mu is held. The data may alias the overlays.
func (v *Volume) wholeExtents(in *inode) ([]fileExtent, error) {
	bs := v.blockSize(in)
	var out []fileExtent
	for index, id := range in.sealed {
		data := make([]byte, max(0, min(bs, in.size-index*bs)))
		if err := v.copySealed(data, id, 0); err != nil {
			return nil, err
		}
		out = append(out, fileExtent{index * bs, data})
	}
	for index, o := range in.dirty {
		for _, e := range o.ext {
			off := index*bs + int64(e.off)
			out = append(out, fileExtent{off, e.data[:max(0, min(int64(len(e.data)), in.size-off))]})
		}
	}
	return out, nil
}
