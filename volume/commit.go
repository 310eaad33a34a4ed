package volume

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// closeDelay is how long content of closed files waits before it enters the tree: what is removed
// meanwhile, such as a database's journal, never does.
const closeDelay = 20 * time.Millisecond

// foldDelay is the same for files that are journalled, while nothing else waits and no other mount is to be kept in step
// with: sealing them takes a flush of the store, which whoever calls fsync next waits for as well.
const foldDelay = 200 * time.Millisecond

// closeBlocks is the most blocks that a close leaves for later to seal while other mounts are connected: one that
// begins to watch waits until they are. More are sealed while nothing else of the file, nor others, wait for that.
const closeBlocks = 256

// waiting is a file in the queue to enter the tree, with its candidate if that is made.
type waiting struct {
	in *inode
	c  *candidate
}

// flushClosed is flush for a close. What an fsync has journalled is sealed after it, unless it is removed before.
func (v *Volume) flushClosed(ctx context.Context, in *inode) error {
	if v.sealsLater(in) {
		v.queue(waiting{in: in})
		return nil
	}
	err := v.flush(ctx, in)
	if err == nil && v.closedUnsealed(in) {
		v.setFailed(waiting{in: in})
	}
	return err
}

// closedUnsealed marks a file as closed, and reports true, if its content is only in the journal.
func (v *Volume) closedUnsealed(in *inode) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.changed || !in.saved() {
		return false
	}
	in.closedGen = in.gen
	return true
}

func (v *Volume) queue(w waiting) {
	v.mu.Lock()
	v.ready = append(v.ready, w)
	v.mu.Unlock()
	wake(v.commit)
}

// sealsLater marks a file as closed, and reports true, if its content need not be sealed at once: it
// is journalled, and sealing it will not wait for the network.
func (v *Volume) sealsLater(in *inode) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.settled() || !in.journals || in.savedGen != in.gen || in.manyHeld() && !v.cfg.Peers.Alone() {
		return false
	}
	if !v.belowLocalHeld(in) {
		return false
	}
	in.closedGen, in.published = in.gen, v.uptime()
	return true
}

// flush seals the file's content, or keeps in the journal what cannot be sealed. If that is no way either the error is reported here. That
// the store is full is so in any case: a program that goes on would fill the journal.
func (v *Volume) flush(ctx context.Context, in *inode) error {
	err := v.seal(ctx, in)
	if err == nil {
		return nil
	}
	kept := v.keepUnsealed(ctx, in, err)
	if ctx.Err() != nil && v.ctx.Err() == nil { // nobody waits for it any more; others are to see it all the same
		_ = v.publishAside(in)
	}
	if kept == nil && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) {
		return err
	}
	return kept
}

// seal makes a candidate of the file's content and sees to it that it enters
// the tree soon. Errors of sealing and storing are reported here.
func (v *Volume) seal(ctx context.Context, in *inode) error {
	if !v.changedHere(in) {
		return nil
	}
	return v.sealThen(ctx, in, v.enqueue)
}

// sealThen makes a candidate of the file's content, and does something with it while in.fold is held. Once that is locked ctx ends only what waits for
// the network: the close of a program that a signal has ended is like any other.
func (v *Volume) sealThen(ctx context.Context, in *inode, fn func(*inode) error) error {
	if err := v.lockToSeal(ctx, in); err != nil {
		return err
	}
	defer in.fold.Unlock()
	if err := v.prepare(v.ifFar(in, context.WithoutCancel(ctx), ctx), in); err != nil {
		return err
	}
	return fn(in)
}

// lockToSeal locks in.fold when what sealing the file takes is here: who holds it waits for the network no more, but for what is
// written or evicted meanwhile.
func (v *Volume) lockToSeal(ctx context.Context, in *inode) error {
	if err := v.sealAhead(ctx, in); err != nil {
		return err
	}
	return in.fold.LockFor(ctx)
}

// sealAhead seals a file's dirty blocks if there are many, or if what that takes is not all here, and fetches then the nodes that its block tree
// is made from. Either may take longer than a crash is to cost: it goes on without in.fold, so that what is written meanwhile can be journalled.
func (v *Volume) sealAhead(ctx context.Context, in *inode) error {
	if !v.belowLocal(in) {
		return v.sealBeside(ctx, in, func() error {
			if err := v.sealDirty(ctx, in); err != nil {
				return err
			}
			return v.fetchPaths(ctx, in)
		})
	}
	if !in.many() {
		return nil
	}
	if err := in.ahead.LockFor(ctx); err != nil {
		return err
	}
	defer in.ahead.Unlock()
	if !in.many() { // any more
		return nil
	}
	return v.sealBeside(ctx, in, func() error { return v.sealMost(context.WithoutCancel(ctx), in) })
}

// sealBeside has fn seal blocks of a file while in.fold is free. What was written before is journalled first, if it is little or scattered.
func (v *Volume) sealBeside(ctx context.Context, in *inode, fn func() error) error {
	if err := in.fold.LockFor(ctx); err != nil {
		return err
	}
	gone, _, err := v.saveHeld(in)
	in.fold.Unlock()
	if gone || err != nil {
		return err
	}
	return in.counted(fn)
}

// counted calls what seals blocks without in.fold: what is sealed meanwhile may be journalled.
func (in *inode) counted(fn func() error) error {
	add := func(n int) {
		in.mu.Lock()
		in.beside += n
		in.mu.Unlock()
	}
	add(1)
	defer add(-1)
	return fn()
}

// many reports whether sealing the dirty blocks takes a while.
func (in *inode) many() bool {
	in.mu.RLock()
	defer in.mu.RUnlock()
	return in.manyHeld()
}

// manyHeld is many with in.mu held.
func (in *inode) manyHeld() bool { return len(in.dirty) > closeBlocks }

// enqueue commits a candidate that is kept in its op, and queues others; in.fold is held.
func (v *Volume) enqueue(in *inode) error {
	in.mu.Lock()
	c := in.ready
	in.published = v.uptime()
	in.mu.Unlock()
	if c == nil {
		return nil
	}
	if !c.chunks {
		return v.commitReady(in)
	}
	v.queue(waiting{in, c})
	return nil
}

func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// committer enters the content of all files that wait.
func (v *Volume) committer() {
	for {
		select {
		case <-v.commit:
		case <-v.ctx.Done():
			return
		}
		began := time.Now()
		for v.pause(closeDelay) && time.Since(began) < foldDelay && v.mayFoldLater() {
		}
		if v.ctx.Err() != nil {
			return
		}
		if err := v.commitQueue(v.ctx); err != nil && v.ctx.Err() == nil {
			v.log.Error("cannot enter the content of closed files; will try again", "error", err)
		}
	}
}

// pause waits, and reports false if the volume closes first.
func (v *Volume) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-v.ctx.Done():
		return false
	}
}

// every calls fn again and again, until the volume closes.
func (v *Volume) every(d time.Duration, fn func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			fn()
		case <-v.ctx.Done():
			return
		}
	}
}

// mayFoldLater reports whether all that is queued is journalled, and nobody else is to see it soon.
func (v *Volume) mayFoldLater() bool {
	if !v.cfg.Peers.Alone() {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return !slices.ContainsFunc(v.ready, func(w waiting) bool { return w.c != nil })
}

// later wakes ch after d, or never if the volume closes first.
func (v *Volume) later(d time.Duration, ch chan struct{}) {
	v.spawn(func() {
		if v.pause(d) {
			wake(ch)
		}
	})
}

// commitQueue enters all that is queued, but for files that somebody holds, who may wait for the network: those stay in the
// queue. Nor does it wait for the network itself. The publisher queues again what cannot be entered.
func (v *Volume) commitQueue(ctx context.Context) error {
	lock(ctx, &v.queueMu)
	defer v.queueMu.Unlock()
	v.mu.Lock()
	list := v.ready
	v.ready = nil
	v.mu.Unlock()
	if len(list) > 0 { // there may be something to seal
		before(ctx)()
	}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	var errs []error
	for _, w := range list {
		if w.c == nil {
			g.Go(func() error { return v.enter(w) })
		} else {
			errs = append(errs, v.enter(w))
		}
	}
	err := errors.Join(append(errs, g.Wait())...)
	if v.queued() {
		v.later(foldDelay, v.commit)
	}
	return err
}

// queued reports whether the queue is not empty.
func (v *Volume) queued() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.ready) > 0
}

// enter brings one file of the queue into the tree.
func (v *Volume) enter(w waiting) error {
	in := w.in
	if w.c == nil && in.many() { // others would wait
		v.setFailed(w)
		v.startAside(in) // or the publisher comes to it
		return nil
	}
	if !in.fold.TryLock() {
		v.mu.Lock()
		v.ready = append(v.ready, w)
		v.mu.Unlock()
		return nil
	}
	defer in.fold.Unlock()
	if w.c == nil {
		if !v.belowLocal(in) { // any more
			v.setFailed(w)
			return nil
		}
		return v.tried(w, v.settleHeld(v.ctx, in))
	}
	in.mu.RLock()
	current := in.ready == w.c // else a newer one has its own place in the queue
	in.mu.RUnlock()
	if !current {
		return nil
	}
	return v.tried(w, v.commitReady(in))
}

// commitAll enters also what commitQueue leaves and what could not be entered before, however long that takes. On return
// nothing that was queued before is still under way elsewhere. It does not end with ctx: that only says who is to know before it waits.
func (v *Volume) commitAll(ctx context.Context) error { return v.commitWithin(ctx, v.ctx, false) }

// commitWithin is commitAll that waits for the network no longer than far lasts. With leave it is no error if that is not enough, and what could
// not be had before is not waited for.
func (v *Volume) commitWithin(ctx, far context.Context, leave bool) error {
	err := v.commitQueue(ctx)
	v.mu.Lock()
	left := slices.AppendSeq(slices.Clone(v.ready), maps.Values(v.failed))
	v.mu.Unlock()
	if len(left) > 0 {
		before(ctx)()
	}
	var g errgroup.Group
	g.SetLimit(maxAside) // most wait for the network
	for _, w := range left {
		g.Go(func() error {
			if v.belowLocal(w.in) {
				return v.tried(w, v.settle(v.ctx, w.in))
			}
			if leave && w.in.isKept() {
				return nil
			}
			err := v.tried(w, v.settle(far, w.in))
			if leave {
				return nil
			}
			return err
		})
	}
	return errors.Join(err, g.Wait())
}

// commitLocal enters all that is queued and need not wait for the network, but for what somebody holds.
func (v *Volume) commitLocal(ctx context.Context) error {
	err := v.commitQueue(ctx)
	v.mu.Lock()
	aside := slices.Collect(maps.Keys(v.failed))
	v.mu.Unlock()
	for _, in := range aside {
		err = errors.Join(err, v.settleHere(ctx, in))
	}
	return err
}

// tried notes what came of a file in the queue: one that failed is no trouble of the next close, but whoever is to see
// everything that was closed still waits for it.
func (v *Volume) tried(w waiting, err error) error {
	if err != nil {
		v.setFailed(w)
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.failed, w.in)
	return nil
}

// setFailed notes a file that is to enter the tree later, unless all of it is there by now.
func (v *Volume) setFailed(w waiting) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, changed := v.changed[w.in]; changed {
		v.failed[w.in] = w
	}
}

// settle brings a closed file's content into the tree now, before an
// operation that must not overtake it.
func (v *Volume) settle(ctx context.Context, in *inode) error {
	if in.closedAt() != 0 {
		before(ctx)() // sealing may take a moment, wherever its blocks are
		if err := v.sealAhead(ctx, in); err != nil {
			return err
		}
	}
	if err := in.fold.LockFor(ctx); err != nil {
		return err
	}
	defer in.fold.Unlock()
	return v.settleHeld(ctx, in)
}

// settleHeld is settle with in.fold held.
func (v *Volume) settleHeld(ctx context.Context, in *inode) error {
	if gen := in.closedAt(); gen != 0 {
		if err := v.prepare(ctx, in); err != nil {
			return err
		}
		in.mu.Lock()
		if in.closedGen == gen {
			in.closedGen = 0
		}
		in.mu.Unlock()
	}
	return v.commitReady(in)
}

// settleHere is settle unless that would wait for the network: then what was closed is in the journal, which brings it back after a crash.
func (v *Volume) settleHere(ctx context.Context, in *inode) error {
	if in.closedAt() != 0 && !v.belowLocal(in) {
		return nil
	}
	return v.settle(ctx, in)
}

// closedAt returns the generation of content that was closed and is not sealed, or 0.
func (in *inode) closedAt() uint64 {
	in.mu.RLock()
	defer in.mu.RUnlock()
	return in.closedGen
}
