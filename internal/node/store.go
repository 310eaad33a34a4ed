package node

import (
	"context"
	"fmt"

	"github.com/foreverfs/forever/casstore"
	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/replica"
)

// replicaStore shows the chunk store as the replica knows stores: positions are
// bytes to it.
type replicaStore struct {
	*casstore.Store
	recent *recent
	budget *budget
}

var _ replica.Store = replicaStore{}

// Get implements replica.Store.
func (s replicaStore) Get(ctx context.Context, dst []byte, id chunk.ID) ([]byte, error) {
	if b, ok := s.recent.get(dst, id); ok {
		return b, nil
	}
	return s.Store.Get(ctx, dst, id)
}

// Put implements replica.Store. It keeps to the quota.
func (s replicaStore) Put(ctx context.Context, id chunk.ID, sealed []byte) (bool, error) {
	if err := s.budget.take(len(sealed)); err != nil {
		return false, err
	}
	added, err := s.Store.Put(ctx, id, sealed)
	s.budget.note(err)
	return added, err
}

// Full implements replica.Store.
func (s replicaStore) Full() bool { return s.budget.full() }

// End implements replica.Store.
func (s replicaStore) End() replica.Position { return replica.Position(s.Store.End().Bytes()) }

// Since implements replica.Store.
func (s replicaStore) Since(pos replica.Position, limit int) ([]replica.Item, error) {
	from, err := casstore.ParsePosition(pos[:])
	if err != nil {
		return nil, err
	}
	items, err := s.Store.Since(from, limit)
	if err != nil {
		return nil, fmt.Errorf("list chunks: %w", err)
	}
	out := make([]replica.Item, len(items))
	for i, it := range items {
		out[i] = replica.Item{ID: it.ID, Size: it.Size, Pos: replica.Position(it.Pos.Bytes())}
	}
	return out, nil
}
