package volume

import (
	"context"
	"sync"
	"time"

	"github.com/foreverfs/forever/chunk"
)

const (
	// maxReadAhead is the most chunks read ahead at a time, over all files.
	maxReadAhead = 512
	// minWindow and maxWindow bound how far one handle reads ahead, in blocks;
	// farWindow does while blocks come from other devices: 16 MiB are on their way
	// at 1 Gbit/s and 130 ms.
	minWindow = 4
	maxWindow = 64
	farWindow = 256
	// passBlocks is how many blocks of a sequential read are passed at a time, and how many stay behind it: those the
	// kernel may still ask for out of order.
	passBlocks = 64
	// maxGroups is how many groups of nodes a handle remembers that it looked at: in one are the nodes of 1 GiB.
	maxGroups = 1024
	// aheadIdle is how long a goroutine that read ahead waits for more.
	aheadIdle = 100 * time.Millisecond
	// fetchAheadTimeout bounds one read ahead, so that a dead peer does not hold its place.
	fetchAheadTimeout = 15 * time.Second
)

// readAhead follows one handle's reads and fetches the blocks after them once
// they are sequential.
type readAhead struct {
	mu     sync.Mutex
	next   int64              // where a sequential read would go on
	done   int64              // first block not yet asked for
	passed int64              // first block not yet passed
	window int64              // in blocks
	far    bool               // the last block asked for was not here
	groups map[int64]struct{} // groups of nodes looked at, at most maxGroups
}

// readAhead notes a read and starts fetching what will be read next. It reports whether the read is none of
// a sequence.
func (h *Handle) readAhead(off, n int64) (scattered bool) {
	v, in := h.v, h.in
	in.mu.RLock()
	base, bs, size := in.base, v.blockSize(in), min(in.cut, in.size)
	in.mu.RUnlock()
	if len(base.Inline) > 0 || size <= bs || off >= size {
		return false
	}
	if base.Height >= 2 && h.ahead.enter(off/bs/(chunk.Fanout*chunk.Fanout)) {
		v.early(func() { v.fetchNodes(base, off/bs) })
	}
	// The read itself takes its blocks one after the other.
	for index := off/bs + 1; index <= (off+n-1)/bs && index*bs < size; index++ {
		if !v.early(func() { h.fetch(base, index) }) {
			return false
		}
	}
	from, to, sequential := h.ahead.advance(off, n, bs, (size+bs-1)/bs)
	if !sequential {
		return true
	}
	for index := from; index < to; index++ {
		if !v.early(func() { h.fetch(base, index) }) {
			h.ahead.giveUp(index)
			return false
		}
	}
	if first, last := h.ahead.pass(bs); first < last {
		v.early(func() { v.pass(base, first, last) })
	}
	return false
}

// pass tells the store of blocks that were read.
func (v *Volume) pass(base chunk.Version, first, last int64) {
	var ids [2]chunk.ID
	for i, index := range []int64{first, last} {
		var err error
		if ids[i], err = chunk.Block(v.ctx, localNodes{v}, base, index); err != nil || ids[i].IsZero() {
			return
		}
	}
	v.cfg.Chunks.Passed(ids[0], ids[1])
}

// early runs fn in a goroutine, unless there are many already. One that has just done such work takes it, if any waits: its
// stack has grown as needed.
func (v *Volume) early(fn func()) bool {
	select {
	case v.ahead <- struct{}{}:
	default:
		return false
	}
	select {
	case v.aheadNext <- fn:
		return true
	default:
	}
	started := v.spawn(func() { v.workAhead(fn) })
	if !started {
		<-v.ahead
	}
	return started
}

// workAhead does fn, and what early has to do until there is no more for a while.
func (v *Volume) workAhead(fn func()) {
	idle := time.NewTimer(aheadIdle)
	defer idle.Stop()
	for {
		func() {
			defer func() { <-v.ahead }()
			fn()
		}()
		idle.Reset(aheadIdle)
		select {
		case fn = <-v.aheadNext:
		case <-idle.C:
			return
		case <-v.ctx.Done():
			return
		}
	}
}

// enter reports whether a group of nodes was not looked at yet.
func (r *readAhead) enter(group int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, was := r.groups[group]; was {
		return false
	}
	if r.groups == nil || len(r.groups) >= maxGroups {
		r.groups = map[int64]struct{}{}
	}
	r.groups[group] = struct{}{}
	return true
}

// advance returns the blocks to fetch after a read of n bytes at off. Reads
// that the kernel sends out of order within a window still count as sequential.
func (r *readAhead) advance(off, n, bs, blocks int64) (from, to int64, sequential bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sequential = off >= r.next-8*bs && off <= r.next+8*bs && (off > 0 || r.next == 0)
	if !sequential {
		r.next, r.done, r.passed, r.window = off+n, 0, off/bs, 0
		return 0, 0, false
	}
	limit := int64(maxWindow)
	if r.far {
		limit = farWindow
	}
	r.next = max(r.next, off+n)
	here := r.next / bs
	if r.window == 0 {
		r.window, r.done = minWindow, here
	} else if here+r.window/2 > r.done {
		r.window = min(2*r.window, limit)
	}
	from, to = max(r.done, here), min(here+r.window, blocks)
	if to <= from || to-from < r.window/4 && to < blocks {
		return 0, 0, true
	}
	r.done = to
	return from, to, true
}

// pass returns the blocks that a long sequential read has left behind since the last call, all but the latest.
func (r *readAhead) pass(bs int64) (first, last int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first, last = r.passed, r.next/bs-passBlocks
	if r.far || last-first < passBlocks {
		return 0, 0
	}
	r.passed = last
	return first, last
}

// giveUp notes that fetching stopped before index.
func (r *readAhead) giveUp(index int64) {
	r.mu.Lock()
	r.done = min(r.done, index)
	r.mu.Unlock()
}

// fetch brings one block into the cache if it is on this disk, or else onto this disk;
// errors are left to the read that needs it.
func (h *Handle) fetch(base chunk.Version, index int64) {
	v := h.v
	ctx, cancel := context.WithTimeout(v.ctx, fetchAheadTimeout)
	defer cancel()
	id, err := chunk.Block(ctx, nodeIO{v}, base, index)
	if err != nil || id.IsZero() || v.cache.has(id) {
		return
	}
	here := v.cfg.Chunks.Local(id)
	h.ahead.mu.Lock()
	h.ahead.far = !here
	h.ahead.mu.Unlock()
	if here {
		err = v.cache.use(ctx, id, func([]byte) {})
	} else {
		err = v.cfg.Chunks.Ahead(ctx, id)
	}
	if err != nil {
		v.log.Debug("read ahead failed", "chunk", id, "error", err)
	}
}

// fetchNodes brings the nodes above the blocks around one here, so that a read at
// random costs no more than its block.
func (v *Volume) fetchNodes(base chunk.Version, index int64) {
	ctx, cancel := context.WithTimeout(v.ctx, fetchAheadTimeout)
	defer cancel()
	ids, err := chunk.Siblings(ctx, nodeIO{v}, base, index)
	if err != nil {
		v.log.Debug("read ahead failed", "error", err)
		return
	}
	for _, id := range ids {
		if id.IsZero() || v.cfg.Chunks.Local(id) {
			continue
		}
		if !v.early(func() { v.bring(id) }) {
			return
		}
	}
}

// bring has a chunk brought to this disk.
func (v *Volume) bring(id chunk.ID) {
	ctx, cancel := context.WithTimeout(v.ctx, fetchAheadTimeout)
	defer cancel()
	if err := v.cfg.Chunks.Ahead(ctx, id); err != nil {
		v.log.Debug("read ahead failed", "chunk", id, "error", err)
	}
}
