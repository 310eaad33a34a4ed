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
// is shared: readers must not write to it. The memory of a chunk that leaves the cache
// serves the next load, unless somebody may have kept it.
type blockCache struct {
	// load appends the plaintext of id to dst.
	load func(ctx context.Context, dst []byte, id chunk.ID) ([]byte, error)
	max  int64

	mu    sync.Mutex
	size  int64
	items map[chunk.ID]*list.Element
	order *list.List // of *cached, most recent first
	loads map[chunk.ID]*cacheLoad
	spare [][]byte // of chunks that left; at most maxSpare
}

// maxSpare is how many buffers wait for the next load.
const maxSpare = 16

// errNotCached says that a peek found nothing.
var errNotCached = errors.New("volume: not in the cache")

// cached is an opened chunk; blockCache.mu guards it, save data, which does not change.
type cached struct {
	id    chunk.ID
	data  []byte
	users int  // that look at data now
	kept  bool // somebody may look at data for ever
	gone  bool // no longer in the cache
}

// cacheLoad is a load under way; done closes when item or err is set.
type cacheLoad struct {
	done chan struct{}
	item *cached
	err  error
}

func newBlockCache(limit int64, load func(context.Context, []byte, chunk.ID) ([]byte, error)) *blockCache {
	return &blockCache{load: load, max: limit, items: map[chunk.ID]*list.Element{}, order: list.New(), loads: map[chunk.ID]*cacheLoad{}}
}

// get returns the plaintext of id, loading it if need be; the caller may keep it. A
// waiter whose own context ends leaves early; a load that fails because its first
// asker left is tried again by the next.
func (c *blockCache) get(ctx context.Context, id chunk.ID) ([]byte, error) {
	item, err := c.take(ctx, id, true)
	if err != nil {
		return nil, err
	}
	return item.data, nil
}

// use is get for fn alone: the plaintext is valid until fn returns.
func (c *blockCache) use(ctx context.Context, id chunk.ID, fn func(plain []byte)) error {
	item, err := c.take(ctx, id, false)
	if err != nil {
		return err
	}
	defer c.leave(item)
	fn(item.data)
	return nil
}

// once copies the plaintext of id to dst, as much as fits, and returns how much that is. What is not here is
// not kept either: for files of one block, which the kernel reads whole and keeps.
func (c *blockCache) once(ctx context.Context, dst []byte, id chunk.ID) (n int, err error) {
	if !c.has(id) {
		awaits(ctx, id)
		plain, err := c.load(ctx, dst[:0:len(dst)], id)
		return copy(dst, plain), err // mostly onto itself
	}
	err = c.use(ctx, id, func(plain []byte) { n = copy(dst, plain) })
	return n, err
}

// take returns the chunk id: for good if keep is set, else until leave.
func (c *blockCache) take(ctx context.Context, id chunk.ID, keep bool) (*cached, error) {
	for {
		c.mu.Lock()
		if item := c.find(id); item != nil {
			item.taken(keep)
			c.mu.Unlock()
			return item, nil
		}
		l, ok := c.loads[id]
		if !ok {
			l = &cacheLoad{done: make(chan struct{})}
			c.loads[id] = l
			c.mu.Unlock()
			awaits(ctx, id)
			c.fill(ctx, id, l, keep)
			return l.item, l.err
		}
		c.mu.Unlock()
		awaits(ctx, id)
		select {
		case <-l.done:
			// Looked up again, as it may have left the cache meanwhile. If it is there it is taken, whatever has become of ctx.
			if l.err != nil && !isContextErr(l.err) {
				return nil, l.err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// find returns the chunk id if it is here; mu is held.
func (c *blockCache) find(id chunk.ID) *cached {
	el, ok := c.items[id]
	if !ok {
		return nil
	}
	c.order.MoveToFront(el)
	return el.Value.(*cached)
}

// taken notes a user; blockCache.mu is held.
func (item *cached) taken(keep bool) {
	if keep {
		item.kept = true
	} else {
		item.users++
	}
}

// leave ends a use.
func (c *blockCache) leave(item *cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	item.users--
	c.recycle(item)
}

// recycle keeps the memory of a chunk that left the cache and that nobody looks at; mu is held.
func (c *blockCache) recycle(item *cached) {
	if item.gone && item.users == 0 && !item.kept && len(c.spare) < maxSpare {
		c.spare = append(c.spare, item.data[:0])
		item.data = nil
	}
}

// buffer returns memory for a load, or nil; mu is not held.
func (c *blockCache) buffer() (b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.spare); n > 0 {
		b, c.spare = c.spare[n-1], c.spare[:n-1]
	}
	return b
}

func (c *blockCache) fill(ctx context.Context, id chunk.ID, l *cacheLoad, keep bool) {
	defer func() {
		c.mu.Lock()
		delete(c.loads, id)
		c.mu.Unlock()
		close(l.done)
	}()
	l.err = ErrClosed // stands if load panics: waiters must not hang
	var buf []byte
	if !keep { // what is kept is small: nodes
		buf = c.buffer()
	}
	var data []byte
	if data, l.err = c.load(ctx, buf, id); l.err == nil {
		l.item = c.put(id, data, keep)
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

// holds reports whether id is here.
func (c *blockCache) holds(id chunk.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, here := c.items[id]
	return here
}

// peek returns the plaintext of id if it is here.
func (c *blockCache) peek(id chunk.ID) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.items[id]
	if !ok {
		return nil, errNotCached
	}
	item := el.Value.(*cached)
	item.taken(true)
	return item.data, nil
}

// put adds data, which the cache keeps, and returns what it has now under id, taken.
func (c *blockCache) put(id chunk.ID, data []byte, keep bool) *cached {
	c.mu.Lock()
	defer c.mu.Unlock()
	item := c.find(id)
	if item != nil {
		c.recycle(&cached{data: data, gone: true, kept: keep})
	} else {
		item = &cached{id: id, data: data}
		c.items[id] = c.order.PushFront(item)
		c.size += int64(cap(data))
	}
	item.taken(keep)
	for c.size > c.max && c.order.Len() > 1 {
		old := c.order.Remove(c.order.Back()).(*cached)
		delete(c.items, old.id)
		c.size -= int64(cap(old.data))
		old.gone = true
		c.recycle(old)
	}
	return item
}
