package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
)

// damagePrefix begins the keys of chunks that the disk has damaged: their IDs follow, and no value.
var damagePrefix = []byte("mD")

// maxDamage is how many of them are remembered: as many as a whole pack of chunks of 4 KiB has.
const maxDamage = 1 << 16

// damage is the chunks that the disk has damaged and that are not known to be there again. The store forgets them at once, so
// that they can be put again; without this, whoever came upon one first would be the last to hear of it.
type damage struct {
	mu      sync.Mutex
	ids     map[chunk.ID]bool
	unsaved []chunk.ID
	wake    chan struct{} // capacity 1
}

// loadDamage reads what was damaged before.
func (n *Node) loadDamage() error {
	n.damage.ids, n.damage.wake = map[chunk.ID]bool{}, make(chan struct{}, 1)
	err := n.state.Scan(damagePrefix, kv.PrefixEnd(damagePrefix), func(k, _ []byte) bool {
		if id := k[len(damagePrefix):]; len(id) == len(chunk.ID{}) {
			n.damage.ids[chunk.ID(id)] = true
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("read what is damaged: %w", err)
	}
	return nil
}

// note remembers a damaged chunk. It writes nothing, since whoever reads the chunk may be in the midst of an update of the state.
func (d *damage) note(id chunk.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ids[id] || len(d.ids) >= maxDamage {
		return
	}
	d.ids[id] = true
	d.unsaved = append(d.unsaved, id)
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// keepDamage writes down what is damaged.
func (n *Node) keepDamage(ctx context.Context) error {
	for {
		select {
		case <-n.damage.wake:
		case <-ctx.Done():
			return nil
		}
		if err := n.saveDamage(); err != nil {
			return err
		}
	}
}

func (n *Node) saveDamage() error {
	n.damage.mu.Lock()
	defer n.damage.mu.Unlock()
	if len(n.damage.unsaved) == 0 {
		return nil
	}
	err := n.state.Update(func(tx kv.Tx) error {
		for _, id := range n.damage.unsaved {
			if err := tx.Put(damageKey(id), nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write down what is damaged: %w", err)
	}
	n.damage.unsaved = nil
	return nil
}

func damageKey(id chunk.ID) []byte { return slices.Concat(damagePrefix, id[:]) }

// stillDamaged returns the chunks that are damaged and not held again, and forgets the others.
func (n *Node) stillDamaged(ctx context.Context) (ids []chunk.ID, err error) {
	d := &n.damage
	d.mu.Lock()
	all := slices.Collect(maps.Keys(d.ids))
	d.mu.Unlock()
	held := map[chunk.ID]bool{}
	for _, id := range all {
		has, err := n.store.Has(id)
		if err != nil {
			return nil, fmt.Errorf("look for damaged chunks: %w", err)
		}
		if held[id] = has; !has {
			ids = append(ids, id)
		}
	}
	if len(ids) == len(all) {
		return ids, nil
	}
	if err := n.store.Sync(ctx); err != nil { // before it is forgotten that they were not there
		return nil, fmt.Errorf("flush chunks: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	err = n.state.Update(func(tx kv.Tx) error {
		for _, id := range all {
			if held[id] {
				if err := tx.Delete(damageKey(id)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("forget chunks that are there again: %w", err)
	}
	maps.DeleteFunc(d.ids, func(id chunk.ID, _ bool) bool { return held[id] })
	d.unsaved = slices.DeleteFunc(d.unsaved, func(id chunk.ID) bool { return held[id] })
	return ids, nil
}
