package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/go-hclog"

	"github.com/foreverfs/forever/casstore"
	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/volume"
)

// fetcher gets chunks from other devices; replica.Replica is one.
type fetcher interface {
	// Fetch returns the verified sealed bytes of id within a bounded time.
	Fetch(ctx context.Context, id chunk.ID) ([]byte, error)
	// FetchAhead is Fetch for what is not urgent.
	FetchAhead(ctx context.Context, id chunk.ID) ([]byte, error)
	// Connected returns how many devices there are to push to.
	Connected() int
	// Stored says that a chunk is in the store now.
	Stored(id chunk.ID)
}

// chunks is the store of this disk with the other devices behind it.
type chunks struct {
	store  *casstore.Store
	peers  fetcher
	recent *recent
	log    hclog.Logger
}

var _ volume.Chunks = (*chunks)(nil)

// Get implements volume.Chunks. What is missing or damaged here is fetched and
// kept.
func (c *chunks) Get(ctx context.Context, dst []byte, id chunk.ID) ([]byte, error) {
	out, err := c.store.Get(ctx, dst, id)
	if err == nil {
		return out, nil
	}
	switch {
	case errors.Is(err, casstore.ErrNotFound):
	case errors.Is(err, casstore.ErrDamaged):
		c.log.Warn("chunk damaged on disk, fetching it again", "chunk", id)
	case errors.Is(err, casstore.ErrIndex):
		c.log.Warn("index of chunks damaged on disk, fetching a chunk", "chunk", id)
	default:
		return dst, err
	}
	sealed, err := c.peers.Fetch(ctx, id)
	if err != nil {
		return dst, err
	}
	c.keep(ctx, id, sealed)
	return append(dst, sealed...), nil
}

// Ahead implements volume.Chunks.
func (c *chunks) Ahead(ctx context.Context, id chunk.ID) error {
	if c.Local(id) {
		return nil
	}
	sealed, err := c.peers.FetchAhead(ctx, id)
	if err != nil {
		return err
	}
	c.keep(ctx, id, sealed)
	return nil
}

// keep stores what was fetched. The reader has its bytes whether or not that
// works; only the next read will have to fetch again.
func (c *chunks) keep(ctx context.Context, id chunk.ID, sealed []byte) {
	if _, err := c.store.Put(ctx, id, sealed); err != nil {
		c.log.Warn("cannot keep a fetched chunk", "chunk", id, "error", err)
		return
	}
	c.peers.Stored(id)
}

// Put implements volume.Chunks.
func (c *chunks) Put(ctx context.Context, sealed []byte) (chunk.ID, error) {
	id, _, err := c.store.Add(ctx, sealed)
	if err != nil {
		return chunk.ID{}, err
	}
	if c.peers.Connected() > 0 {
		c.recent.add(id, sealed)
	}
	c.peers.Stored(id)
	return id, nil
}

// Sync implements volume.Chunks.
func (c *chunks) Sync(ctx context.Context) error {
	if err := c.store.Sync(ctx); err != nil {
		return fmt.Errorf("flush chunks: %w", err)
	}
	return nil
}

// Passed implements volume.Chunks.
func (c *chunks) Passed(first, last chunk.ID) {
	if err := c.store.Uncache(first, last); err != nil {
		c.log.Debug("cannot let go of cached chunks", "error", err)
	}
}

// Local implements volume.Chunks. An index that cannot be read says no: the
// read that follows tells why.
func (c *chunks) Local(id chunk.ID) bool {
	has, err := c.store.Has(id)
	return err == nil && has
}
