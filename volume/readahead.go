package volume

import (
	"context"
	"sync"
	"time"

	"github.com/foreverfs/forever/chunk"
)

const (
	// maxReadAhead is the most blocks read ahead at a time, over all files.
	maxReadAhead = 64
	// minWindow and maxWindow bound how far one handle reads ahead, in blocks.
	minWindow = 4
	maxWindow = 64
	// fetchAheadTimeout bounds one read ahead, so that a dead peer does not hold its place.
	fetchAheadTimeout = 15 * time.Second
)

// readAhead follows one handle's reads and fetches the blocks after them once
// they are sequential.
type readAhead struct {
	mu     sync.Mutex
	next   int64 // where a sequential read would go on
	done   int64 // first block not yet asked for
	window int64 // in blocks
}

// readAhead notes a read and starts fetching what will be read next.
func (h *Handle) readAhead(off, n int64) {
	v, in := h.v, h.in
	in.mu.RLock()
	base, bs, size := in.base, v.blockSize(in), min(in.cut, in.size)
	in.mu.RUnlock()
	if len(base.Inline) > 0 || size <= bs {
		return
	}
	from, to := h.ahead.advance(off, n, bs, (size+bs-1)/bs)
	for index := from; index < to; index++ {
		select {
		case v.ahead <- struct{}{}:
		default:
			h.ahead.giveUp(index)
			return
		}
		started := v.spawn(func() {
			defer func() { <-v.ahead }()
			v.fetch(base, index)
		})
		if !started {
			<-v.ahead
			return
		}
	}
}

// advance returns the blocks to fetch after a read of n bytes at off. Reads
// that the kernel sends out of order within a window still count as sequential.
func (r *readAhead) advance(off, n, bs, blocks int64) (from, to int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sequential := off >= r.next-8*bs && off <= r.next+8*bs && (off > 0 || r.next == 0)
	if !sequential {
		r.next, r.done, r.window = off+n, 0, 0
		return 0, 0
	}
	r.next = max(r.next, off+n)
	here := r.next / bs
	if r.window == 0 {
		r.window, r.done = minWindow, here
	} else if here+r.window/2 > r.done {
		r.window = min(2*r.window, maxWindow)
	}
	from, to = max(r.done, here), min(here+r.window, blocks)
	if to <= from || to-from < r.window/4 && to < blocks {
		return 0, 0
	}
	r.done = to
	return from, to
}

// giveUp notes that fetching stopped before index.
func (r *readAhead) giveUp(index int64) {
	r.mu.Lock()
	r.done = min(r.done, index)
	r.mu.Unlock()
}

// fetch brings one block into the cache; errors are left to the read that needs it.
func (v *Volume) fetch(base chunk.Version, index int64) {
	ctx, cancel := context.WithTimeout(v.ctx, fetchAheadTimeout)
	defer cancel()
	id, err := chunk.Block(ctx, nodeIO{v}, base, index)
	if err != nil || id.IsZero() || v.cache.has(id) {
		return
	}
	if _, err := v.cache.get(ctx, id); err != nil {
		v.log.Debug("read ahead failed", "chunk", id, "error", err)
	}
}
