package fusefs

import (
	"sync"
	"sync/atomic"
	"time"

	"bazil.org/fuse"
)

// The kernel drops by itself what it keeps of an inode that is changed through this mount. But it may yet take in an answer with
// attributes from before: where chmod, write, truncate or link changed the inode it throws that away, where setxattr, rename or a new
// or removed name in a directory did, it keeps it for as long as the answer allows. So such changes are compared with what is on its way.

const (
	// inFlightFor is how long after it was sent the kernel may still be about to take in an answer.
	inFlightFor = 5 * echoDelay
	// inFlightSlots is how many inodes are told apart. To take one for another costs telling the kernel what it need not know.
	inFlightSlots = 4096
)

// inFlight knows which attributes may be on their way to the kernel.
type inFlight struct {
	lasts   time.Duration // inFlightFor; tests wait longer
	start   time.Time     // nothing was sent before, nor within lasts after
	changes atomic.Uint64 // of inodes, so far
	slots   [inFlightSlots]inFlightSlot
}

// inFlightSlot is what is known of some inodes.
type inFlightSlot struct {
	mu      sync.Mutex
	changed uint64        // the number of the last change
	thread  uint32        // that was sent attributes last
	sent    time.Duration // when that was
	others  time.Duration // when any other thread was sent some
}

func (f *inFlight) begin(lasts time.Duration) { f.lasts, f.start = lasts, time.Now().Add(-lasts) }

func (f *inFlight) slot(ino uint64) *inFlightSlot { return &f.slots[ino%inFlightSlots] }

// sending notes that a thread is sent attributes of an inode. It returns false, and notes nothing, if the inode was changed since
// changes was read, which is before the attributes were.
func (f *inFlight) sending(ino, changes uint64, thread uint32) bool {
	now := time.Since(f.start)
	s := f.slot(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed > changes {
		return false
	}
	if thread != s.thread {
		s.thread, s.others = thread, s.sent
	}
	s.sent = now
	return true
}

// change notes that a thread has changed an inode, and reports whether attributes from before may be on their way. What the thread
// itself was sent has arrived. Thread 0 is any that is not known here.
func (f *inFlight) change(ino uint64, thread uint32) bool {
	since := time.Since(f.start) - f.lasts
	s := f.slot(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = f.changes.Add(1)
	return s.others > since || s.sent > since && (thread != s.thread || thread == 0)
}

// changed is called when a request has changed inodes in a way of which the kernel does not know that it makes older attributes
// void, and has not been answered: whoever looks after that finds the new ones.
func (c *call) changed(inodes ...fuse.NodeID) {
	for _, ino := range inodes {
		if c.s.notes.inFlight.change(uint64(ino), c.hdr.Pid) {
			_ = c.s.conn.InvalidateNode(ino, -1, 0) // waits for nothing: who made the request holds the inode
		}
	}
}
