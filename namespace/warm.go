package namespace

import (
	"fmt"

	"github.com/foreverfs/forever/internal/kv"
)

// Warm has what Lookup and Node read for entries of a directory in memory, as far as the state can do that: for who will ask for
// them one after the other. It returns how many records were not there yet, of two for each entry.
func (t *Tree) Warm(dir NodeID, entries []Entry) (read int, err error) {
	w, ok := t.db.(kv.Warmer)
	if !ok {
		return 0, nil
	}
	keys := make([][]byte, 0, 2*len(entries))
	for i := range entries {
		keys = append(keys, slotKey(dir, entries[i].Name), nodeKey(entries[i].Node))
	}
	if read, err = w.Warm(keys); err != nil {
		return read, fmt.Errorf("read ahead in %v: %w", dir, err)
	}
	return read, nil
}
