package volume

import (
	"context"
	"sync"

	"github.com/foreverfs/forever/chunk"
)

const (
	// maxPart is the longest read that opens a part of a block, in bytes: a page of most databases. More is not much
	// cheaper than all of it.
	maxPart = 16 << 10
	// maxAsked is how many blocks of which a part was read are remembered.
	maxAsked = 256
)

// asked are the blocks of which a part was read lately. One that is asked for again is worth to be kept whole.
type asked struct {
	mu     sync.Mutex
	blocks map[chunk.ID]struct{}
	order  [maxAsked]chunk.ID // a ring
	next   int
}

// again notes that a part of a block is asked for, and reports whether that is not the first time.
func (a *asked) again(id chunk.ID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, was := a.blocks[id]; was {
		return true
	}
	if a.blocks == nil {
		a.blocks = make(map[chunk.ID]struct{}, maxAsked)
	}
	delete(a.blocks, a.order[a.next])
	a.blocks[id] = struct{}{}
	a.order[a.next] = id
	a.next = (a.next + 1) % maxAsked
	return false
}

// part fills dst with what the block id has at off, without the rest of the block, and reports whether it could: for reads at random,
// which are rarely about one block twice.
func (v *Volume) part(ctx context.Context, dst []byte, id chunk.ID, off int64) bool {
	if v.cfg.Parts == nil || len(dst) > maxPart || v.cache.has(id) || v.asked.again(id) {
		return false
	}
	return v.cfg.Parts.Part(ctx, dst, id, int(off)) == nil // else the whole block will do, or tell why not
}
