package volume

import (
	"container/list"
	"context"
	"errors"
	"sync"

	"github.com/foreverfs/forever/chunk"
)

// blockCache holds opened chunks, least recently used out first, within a
// number of bytes. Concurrent loads of one chunk are one load. What it hands out
// is shared: readers must not write to it.
type blockCache struct {
	load func(ctx context.Context, id chunk.ID) ([]byte, error)
	max  int64

	mu    sync.Mutex
	size  int64
	items map[chunk.ID]*list.Element
	order *list.List // of *cached, most recent first
	loads map[chunk.ID]*cacheLoad
}

// errNotCached says that a peek found nothing.
var errNotCached = errors.New("volume: not in the cache")

type cached struct {
	id   chunk.ID
	data []byte
}

// cacheLoad is a load under way; done closes when data or err is set.
type cacheLoad struct {
	done chan struct{}
	data []byte
	err  error
}

func newBlockCache(limit int64, load func(context.Context, chunk.ID) ([]byte, error)) *blockCache {
	return &blockCache{load: load, max: limit, items: map[chunk.ID]*list.Element{}, order: list.New(), loads: map[chunk.ID]*cacheLoad{}}
}

// get returns the plaintext of id, loading it if need be. A waiter whose own
// context ends leaves early; a load that fails because its first asker
// left is tried again by the next.
func (c *blockCache) get(ctx context.Context, id chunk.ID) ([]byte, error) {
	for {
		c.mu.Lock()
		if el, ok := c.items[id]; ok {
			c.order.MoveToFront(el)
			data := el.Value.(*cached).data
			c.mu.Unlock()
			return data, nil
		}
		l, ok := c.loads[id]
		if !ok {
			l = &cacheLoad{done: make(chan struct{})}
			c.loads[id] = l
			c.mu.Unlock()
			c.fill(ctx, id, l)
			return l.data, l.err
		}
		c.mu.Unlock()
		select {
		case <-l.done:
			if l.err == nil || ctx.Err() != nil {
				return l.data, l.err
			}
			if !isContextErr(l.err) {
				return nil, l.err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c *blockCache) fill(ctx context.Context, id chunk.ID, l *cacheLoad) {
	defer func() {
		c.mu.Lock()
		delete(c.loads, id)
		c.mu.Unlock()
		close(l.done)
	}()
	l.err = ErrClosed // stands if load panics: waiters must not hang
	l.data, l.err = c.load(ctx, id)
	if l.err == nil {
		c.put(id, l.data)
	}
}

// has reports whether id is here or on its way.
func (c *blockCache) has(id chunk.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, here := c.items[id]
	_, coming := c.loads[id]
	return here || coming
}

// peek returns the plaintext of id if it is here.
func (c *blockCache) peek(id chunk.ID) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.items[id]
	if !ok {
		return nil, errNotCached
	}
	return el.Value.(*cached).data, nil
}

// put adds data, which the cache keeps.
func (c *blockCache) put(id chunk.ID, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.items[id]; ok {
		return
	}
	c.items[id] = c.order.PushFront(&cached{id, data})
	c.size += int64(cap(data))
	for c.size > c.max && c.order.Len() > 1 {
		el := c.order.Back()
		old := c.order.Remove(el).(*cached)
		delete(c.items, old.id)
		c.size -= int64(cap(old.data))
	}
}
