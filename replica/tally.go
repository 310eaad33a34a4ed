package replica

import (
	"fmt"
	"sync"
)

// tally counts the chunks between two positions of the store. Both move forward,
// so each chunk is looked at twice: when it enters and when it leaves.
type tally struct {
	mu       sync.Mutex
	from, to Position
	chunks   int64
	bytes    int64
}

// tallies are kept per device, for one goal each; guarded by Replica.mu.
type tallies map[DeviceID]*tally

func (ts tallies) of(id DeviceID) *tally {
	if ts[id] == nil {
		ts[id] = &tally{}
	}
	return ts[id]
}

// count returns the chunks behind from, up to to, and their bytes.
func (t *tally) count(store Store, from, to Position) (chunks, bytes uint64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !to.after(from) {
		return 0, 0, nil
	}
	if t.from.after(from) || t.to.after(to) || from.after(t.to) {
		t.from, t.to, t.chunks, t.bytes = from, from, 0, 0
	}
	if err := t.scan(store, &t.to, to, +1); err != nil {
		return 0, 0, err
	}
	if err := t.scan(store, &t.from, from, -1); err != nil {
		return 0, 0, err
	}
	// Chunks deleted in between were counted once only.
	return uint64(max(t.chunks, 0)), uint64(max(t.bytes, 0)), nil
}

// scan moves pos up to end, adding or taking away what lies between.
func (t *tally) scan(store Store, pos *Position, end Position, sign int64) error {
	for end.after(*pos) {
		items, err := store.Since(*pos, 1024)
		if err != nil {
			return fmt.Errorf("count chunks: %w", err)
		}
		for _, it := range items {
			if it.Pos.after(end) {
				items = nil
				break
			}
			*pos = it.Pos
			t.chunks += sign
			t.bytes += sign * int64(it.Size)
		}
		if len(items) == 0 {
			*pos = end
		}
	}
	return nil
}
