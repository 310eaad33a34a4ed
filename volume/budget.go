package volume

import (
	"context"
	"sync"
)

// budget bounds the bytes of dirty data. It may be overdrawn by what is under way.
type budget struct {
	mu    sync.Mutex
	used  int64
	max   int64
	moved chan struct{} // closed and replaced when used shrinks
}

func newBudget(limit int64) *budget {
	return &budget{max: limit, moved: make(chan struct{})}
}

// add changes what is in use by n, which may be negative.
func (b *budget) add(n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used += n
	if n < 0 {
		close(b.moved)
		b.moved = make(chan struct{})
	}
}

// full reports whether the budget is used up, and the channel that closes when it shrinks.
func (b *budget) full() (bool, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used >= b.max, b.moved
}

// half reports whether half of the budget is used up.
func (b *budget) half() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used >= b.max/2
}

// waitFor returns when the budget shrank, or ctx ended.
func waitFor(ctx context.Context, ch <-chan struct{}) error {
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
