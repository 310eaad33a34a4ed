package volume

import (
	"context"
	"sync"
	"time"

	"github.com/foreverfs/forever/namespace"
)

// leavingPatience is how long a handle takes to go that was closed, unless a copy of the descriptor is left.
const leavingPatience = 20 * time.Millisecond

// leaving are handles through which something was locked and that were closed since. A close(2) returns when
// the kernel has had the handle flushed; that the handle is gone, and its locks with it, the
// kernel says a moment later, unless a copy of the descriptor is left. Whoever is
// about to be refused for such a lock waits for that moment.
type leaving struct {
	patience time.Duration

	mu sync.Mutex
	by map[uint64]leaver // by handle
}

type leaver struct {
	file namespace.NodeID
	gone chan struct{} // closed when the handle is
}

// closed notes that a descriptor of a handle was closed.
func (l *leaving) closed(h *Handle) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.by[h.id]; !ok {
		l.by[h.id] = leaver{h.in.id, make(chan struct{})}
	}
}

// over says that a handle is not leaving any more: it is gone, or stays since there is a copy.
func (l *leaving) over(handle uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h, ok := l.by[handle]; ok {
		close(h.gone)
		delete(l.by, handle)
	}
}

// await waits for handles that were leaving. Those that do not go in time stay.
func (l *leaving) await(ctx context.Context, list map[uint64]leaver) {
	if len(list) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	for handle, h := range list {
		select {
		case <-h.gone:
		case <-ctx.Done():
			l.over(handle)
		}
	}
}

// of returns the handles of a file that are leaving.
func (l *leaving) of(file namespace.NodeID) map[uint64]leaver {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list map[uint64]leaver
	for handle, h := range l.by {
		if h.file == file {
			if list == nil {
				list = map[uint64]leaver{}
			}
			list[handle] = h
		}
	}
	return list
}
