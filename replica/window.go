package replica

import "time"

const (
	// maxFlight is the most on the way from one peer, in bytes.
	maxFlight = 8 << 20
	// minFlight is what a window shrinks to, in bytes: less than a chunk, of which
	// one is always allowed.
	minFlight = 32 << 10
	// startFlight is what a window begins with.
	startFlight = 256 << 10
	// queueing is how much later than without a queue chunks may arrive, besides a
	// quarter of that time.
	queueing = 10 * time.Millisecond
	// probeEvery is how often the time without a queue is measured again.
	probeEvery = 10 * time.Second
)

// window bounds the bytes that are on their way from a peer, so that they fill the
// link and no queue before it: what is urgent would wait behind that queue, be it
// another chunk or a word that keeps a lease alive. It compares the time that chunks
// take with the shortest seen and sets its size by the ratio, as FAST TCP does (Jin,
// Wei and Low, 2004). From time to time it lets the queue run dry to see
// whether that shortest time still holds, as BBR does (Cardwell and others, 2016).
// It does no I/O and needs a lock around it.
type window struct {
	size   int // in bytes
	limit  int
	base   time.Duration // the shortest time seen
	probed time.Time     // when that was measured with little on its way

	// The round under way: first what was asked for under another size comes, then
	// half a window is measured.
	drain   int // bytes still to come of the former
	arrived int // bytes of the latter
	least   time.Duration
	filled  bool // something had to wait for the window
	probing bool
	held    int // the size after probing
}

func newWindow(limit int) *window { return &window{size: min(startFlight, limit), limit: limit} }

// room reports whether size more bytes may be asked for while some are on their way.
func (w *window) room(onWay, size int) bool {
	if onWay == 0 || onWay+size <= w.size {
		return true
	}
	w.filled = true
	return false
}

// took notes that a chunk of size bytes has come, and how long after it was asked for.
func (w *window) took(size int, took time.Duration, now time.Time) {
	took = max(took, time.Microsecond)
	if w.base == 0 || took < w.base {
		w.base = took
	}
	if w.drain > 0 {
		w.drain -= size
		return
	}
	if w.least == 0 || took < w.least {
		w.least = took
	}
	if w.arrived += size; w.arrived < w.size/2 {
		return
	}
	before := w.size
	w.adjust(now)
	w.drain, w.arrived, w.least, w.filled = before, 0, 0, false
}

// adjust ends a round.
func (w *window) adjust(now time.Time) {
	if w.probing {
		w.probing, w.base, w.probed, w.size = false, w.least, now, w.held
		return
	}
	ratio := float64(w.base+w.base/4+queueing) / float64(w.least)
	if ratio < 1 || w.filled {
		w.size = int(float64(w.size) * max(0.5, min(ratio, 2)))
		w.size = max(minFlight, min(w.size, w.limit))
	}
	if w.probed.IsZero() {
		w.probed = now
	}
	if now.Sub(w.probed) > probeEvery {
		// What the link alone holds, and a quarter less.
		w.held = max(minFlight, int(float64(w.size)*float64(w.base)/float64(w.least)))
		w.probing, w.size = true, max(minFlight, w.held*3/4)
	}
}
