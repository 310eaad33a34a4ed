package node

import (
	"sync"

	"github.com/foreverfs/forever/chunk"
)

// maxRecent is how many chunks written here last are remembered.
const maxRecent = 128

// recent holds the sealed bytes of chunks that were just made here, so that they can
// be pushed without being read back from the disk and verified.
type recent struct {
	mu    sync.Mutex
	bytes map[chunk.ID][]byte
	order [maxRecent]chunk.ID // a ring
	next  int
}

// add copies a chunk, in place of the oldest.
func (r *recent) add(id chunk.ID, sealed []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.bytes[id]; ok {
		return
	}
	if r.bytes == nil {
		r.bytes = map[chunk.ID][]byte{}
	}
	old := r.order[r.next]
	buf := r.bytes[old]
	delete(r.bytes, old)
	r.bytes[id] = append(buf[:0], sealed...)
	r.order[r.next] = id
	r.next = (r.next + 1) % maxRecent
}

// get appends a chunk to dst if it is remembered.
func (r *recent) get(dst []byte, id chunk.ID) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, ok := r.bytes[id]
	return append(dst, b...), ok
}
