package volume

import (
	"context"
	"time"
)

// What is written all over a file is journalled each saveAhead bytes, not only when it is time: as one update of all that fits into memory it could
// take longer than a crash may cost, and nothing newer would be journalled meanwhile.

const (
	// saveAhead is how much written all over a file is journalled at once.
	saveAhead = 16 << 20
	// saveBehind is how much there may be of that while some is being journalled, before who writes waits for it.
	saveBehind = 2 * saveAhead
	// savePatience is how long a write waits for it.
	savePatience = time.Second
)

// saveMuch has what was written to a file journalled if it is much and scattered. If there is still more, as the journal cannot keep up, it waits
// for that until ctx ends, or a moment.
func (v *Volume) saveMuch(ctx context.Context, in *inode) {
	much := in.unsavedBytes.Load()
	if much < saveAhead {
		return
	}
	saving := v.startSave(in)
	if saving == nil || much < saveBehind {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, savePatience)
	defer cancel()
	_ = waitFor(ctx, saving)
}

// startSave has a file journalled aside, and returns a channel that closes once that is done; nil if it is not to be.
func (v *Volume) startSave(in *inode) <-chan struct{} {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.saving != nil {
		return in.saving
	}
	if len(in.dirty) < putOffBlocks || !v.scattered(in) {
		in.unsavedBytes.Store(0) // it is sealed; look again after as much
		return nil
	}
	done := make(chan struct{})
	v.acquireNode(in.id)
	started := v.spawn(func() {
		defer v.release(in)
		defer func() {
			in.mu.Lock()
			defer in.mu.Unlock()
			in.saving = nil
			close(done)
		}()
		saved, err := v.saveNow(v.ctx, in)
		if !saved {
			in.unsavedBytes.Store(0)
		}
		v.noteUnpublished(in, err)
	})
	if !started {
		v.release(in)
		return nil
	}
	in.saving = done
	return done
}
