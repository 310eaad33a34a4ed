package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// wroteTree notes that the tree has ops that are neither published nor durable.
func (v *Volume) wroteTree() {
	v.unsynced.Store(true)
	v.wakeBatcher()
}

func (v *Volume) wakeBatcher() { wake(v.batch) }

// busyBatches is how many times as long ops gather while there is a stream of them: each batch costs every device
// a signature, a flush of the log and a merge.
const busyBatches = 5

// batcher publishes ops shortly after they were made, many at once. Who waits for one of them does not
// wait for this.
func (v *Volume) batcher() {
	var last time.Time
	for {
		select {
		case <-v.batch:
		case <-v.ctx.Done():
			return
		}
		delay := v.cfg.BatchDelay
		if time.Since(last) < 2*busyBatches*delay {
			delay *= busyBatches
		}
		if !v.pause(delay) {
			return
		}
		last = time.Now()
		if _, err := v.cutBatch(); err != nil {
			v.log.Error("cannot publish changes; will try again", "error", err)
			v.later(time.Second, v.batch)
		}
	}
}

// cutBatch hands all pending ops to the log, and returns how many batches that has then.
func (v *Volume) cutBatch() (seq uint64, err error) {
	if err := v.flushNamed(); err != nil { // while others may read the tree
		return 0, err
	}
	v.treeMu.LockInPlace()
	defer v.treeMu.Unlock()
	err = v.cutLocked()
	return v.logged, err
}

// cutLocked is cutBatch with treeMu held for writing.
func (v *Volume) cutLocked() error {
	if err := v.flushNamed(); err != nil {
		return err
	}
	for v.cfg.Tree.Pending() > 0 {
		payload, err := v.cfg.Tree.Cut()
		if err != nil {
			return fmt.Errorf("cut a batch: %w", err)
		}
		seq, err := v.cfg.Log.Append(payload)
		if err != nil {
			return fmt.Errorf("append a batch to the log: %w", err)
		}
		v.logged = seq
		if err := v.cfg.Tree.Committed(seq); err != nil {
			return fmt.Errorf("note batch %d as logged: %w", seq, err)
		}
	}
	return nil
}

// flusher makes durable what nobody fsyncs.
func (v *Volume) flusher() {
	v.every(v.cfg.FlushInterval, func() {
		if err := v.syncState(); err != nil {
			v.log.Error("cannot flush the state", "error", err)
		}
	})
}

// syncState makes every op in the tree durable.
func (v *Volume) syncState() error {
	if !v.unsynced.Swap(false) {
		return nil
	}
	if err := v.cfg.State.Sync(); err != nil {
		v.unsynced.Store(true)
		return fmt.Errorf("flush the state: %w", err)
	}
	return nil
}

// SyncAll brings all content into the tree, publishes it and makes it durable.
func (v *Volume) SyncAll(ctx context.Context) error {
	return errors.Join(v.flushAll(ctx, ctx), v.commitAll(ctx), v.syncLog())
}

// saveFor is how long an fsync waits for what is not here, and somebody who ends for that of all files together.
const saveFor = 2 * time.Second

// SaveAll is SyncAll for somebody who ends: it is content with what cannot be sealed, or not soon, being in the journal.
func (v *Volume) SaveAll(ctx context.Context) error {
	far, cancel := context.WithTimeout(ctx, saveFor)
	defer cancel()
	err := errors.Join(v.flushAll(ctx, far), v.commitWithin(ctx, far, false))
	if err != nil && v.allSaved() {
		v.log.Warn("what was written cannot be sealed now; it is in the journal, and will be at the next start", "error", err)
		err = nil
	}
	return errors.Join(err, v.syncLog())
}

// flushAll seals all content, and waits for the network no longer than far lasts. The error is of what cannot be sealed, be it kept in the
// journal or not.
func (v *Volume) flushAll(ctx, far context.Context) error {
	list := v.changedInodes()
	errs := make([]error, len(list))
	var g errgroup.Group
	g.SetLimit(maxAside)
	for i, in := range list {
		seal := func(within context.Context) {
			defer v.release(in)
			if err := v.seal(within, in); err != nil {
				_ = v.keepUnsealed(ctx, in, err)
				errs[i] = fmt.Errorf("inode %d: %w", in.ino, err)
			}
		}
		if v.belowLocal(in) {
			seal(ctx)
			continue
		}
		g.Go(func() error { // many wait together
			seal(v.ifFar(in, ctx, far))
			return nil
		})
	}
	_ = g.Wait()
	return errors.Join(errs...)
}

// ifFar returns far if sealing a file may wait for the network, or else here.
func (v *Volume) ifFar(in *inode, here, far context.Context) context.Context {
	if v.belowLocal(in) {
		return here
	}
	return far
}

// syncLog publishes all that is in the tree and makes it durable.
func (v *Volume) syncLog() error {
	_, err := v.cutBatch()
	return errors.Join(err, v.cfg.State.Sync())
}
