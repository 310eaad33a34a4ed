package casstore

import (
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// writebackStep is how many bytes of a pack gather before the kernel is told to begin to write them.
const writebackStep = 4 << 20

// writeback has the kernel write a pack to the disk while chunks are still appended, long before a flush asks for it: the
// disk and the processor then work at the same time, and the flush waits for the last of it only. It promises
// nothing and reports nothing: what could not be written the flush says.
type writeback struct {
	packs *packs

	mu     sync.Mutex
	number uint32 // the pack appended to
	begun  int64  // how much of it was looked at
	busy   bool   // a goroutine waits for the kernel, which takes long where the disk has enough to do
	done   sync.WaitGroup
}

// appended notes that a pack now ends at an offset.
func (w *writeback) appended(number uint32, end int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if number != w.number {
		w.number, w.begun = number, end&^(writebackStep-1)
	}
	if end-w.begun < writebackStep || w.busy {
		return
	}
	from, to := w.begun, end&^(writebackStep-1)
	w.begun, w.busy = to, true
	w.done.Go(func() { w.begin(number, from, to-from) })
}

// begin has the kernel begin to write n bytes of a pack.
func (w *writeback) begin(number uint32, off, n int64) {
	if p, err := w.packs.acquire(number); err == nil { // otherwise it is gone
		if fd := p.file.Fd(); fd != vfs.InvalidFd {
			_ = unix.SyncFileRange(int(fd), off, n, unix.SYNC_FILE_RANGE_WRITE) // without waiting, which would take errors away from the flush
		}
		_ = w.packs.release(p)
	}
	w.mu.Lock()
	w.busy = false
	w.mu.Unlock()
}

// wait waits until nothing is under way; nothing may be appended meanwhile.
func (w *writeback) wait() { w.done.Wait() }
