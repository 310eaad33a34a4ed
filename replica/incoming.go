package replica

import (
	"sync"
	"time"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/replica/replicapb"
)

// Bounds on offers: how many may be open at once, and chunks in one.
const (
	maxOffers   = 4
	maxOfferIDs = 512
)

// takeover is how long a chunk wanted from one peer keeps another from being
// asked for it.
const takeover = 5 * time.Second

// incoming is the receiving side of chunk pushes from all peers together, so that
// a chunk offered by several is taken from one. It does no I/O and starts no
// goroutine; time is what its callers say.
type incoming struct {
	mu     sync.Mutex
	wanted map[chunk.ID]wanted
	recvs  map[*receiver]struct{}
}

type wanted struct {
	from  *receiver
	since time.Time
	size  int
}

// receiver is the receiving side of one peer's push; guarded by incoming.mu.
type receiver struct {
	from    DeviceID
	next    uint64 // number of the next offer
	open    []*inOffer
	lacking map[chunk.ID][]*inOffer
	queue   []queued // lacking, in order of offering
	bytes   int      // on their way
	window  *window
	acked   uint64 // to be told
	told    uint64
	wake    chan struct{}
}

type queued struct {
	id   chunk.ID
	size int
}

// inOffer is an offer not acknowledged yet.
type inOffer struct {
	number  uint64
	end     []byte
	missing int
}

// filled says that a receiver has all chunks of its offers up to number.
type filled struct {
	recv   *receiver
	number uint64
	end    []byte
}

func newIncoming() *incoming {
	return &incoming{wanted: map[chunk.ID]wanted{}, recvs: map[*receiver]struct{}{}}
}

func (in *incoming) join(from DeviceID, limit int) *receiver {
	v := &receiver{from: from, next: 1, lacking: map[chunk.ID][]*inOffer{}, window: newWindow(limit), wake: make(chan struct{}, 1)}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.recvs[v] = struct{}{}
	return v
}

// leave forgets a receiver; what was wanted from it is free for others.
func (in *incoming) leave(v *receiver) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.recvs, v)
	for id, w := range in.wanted {
		if w.from == v {
			delete(in.wanted, id)
		}
	}
	in.wakeAll()
}

func (in *incoming) wakeAll() {
	for v := range in.recvs {
		wake(v.wake)
	}
}

// parseOffer checks an offer by itself.
func parseOffer(p *replicapb.Offer) ([]queued, error) {
	n := len(p.GetSizes())
	if n == 0 || n > maxOfferIDs || len(p.GetIds()) != n*chunk.IDSize || len(p.GetEnd()) != len(Position{}) {
		return nil, invalid("offer of %d chunks, %d bytes of IDs, position of %d bytes", n, len(p.GetIds()), len(p.GetEnd()))
	}
	out := make([]queued, n)
	for i := range out {
		out[i] = queued{chunk.ID(p.GetIds()[i*chunk.IDSize:]), int(p.GetSizes()[i])}
		if out[i].id.IsZero() || out[i].size > maxChunk {
			return nil, invalid("offer of a chunk of %d bytes", out[i].size)
		}
	}
	return out, nil
}

// offer takes an offer of which lacking is not here.
func (in *incoming) offer(v *receiver, number uint64, end []byte, lacking []queued) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if number != v.next || len(v.open) >= maxOffers {
		return invalid("offer %d with %d open, expected %d", number, len(v.open), v.next)
	}
	v.next++
	o := &inOffer{number: number, end: end}
	for _, q := range lacking {
		if _, ok := v.lacking[q.id]; !ok {
			v.queue = append(v.queue, q)
		}
		v.lacking[q.id] = append(v.lacking[q.id], o)
		o.missing++
	}
	v.open = append(v.open, o)
	wake(v.wake)
	return nil
}

// demand is what readers wait for, which goes before what is pushed.
type demand interface {
	// fetching reports whether somebody is reading what is not here, now or a moment ago.
	fetching() bool
	// has reports whether a chunk is being fetched.
	has(id chunk.ID) bool
}

// want returns the chunks to ask the peer for now: one at a time while readers
// wait for others. later says that some wait for another peer, or for readers, and
// should be looked at again in a while.
func (in *incoming) want(v *receiver, now time.Time, readers demand) (ids []byte, later bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	keep := v.queue[:0]
	quiet := readers.fetching()
	for i, q := range v.queue {
		if _, ok := v.lacking[q.id]; !ok {
			continue
		}
		w, busy := in.wanted[q.id]
		if busy && w.from != v && now.Sub(w.since) < takeover || readers.has(q.id) {
			keep = append(keep, q)
			later = true
			continue
		}
		if quiet && v.bytes > 0 || !v.window.room(v.bytes, q.size) {
			later = later || quiet
			keep = append(keep, v.queue[i:]...)
			break
		}
		if busy {
			w.from.bytes -= w.size
		}
		in.wanted[q.id] = wanted{v, now, q.size}
		v.bytes += q.size
		ids = append(ids, q.id[:]...)
	}
	v.queue = keep
	return ids, later
}

// expects reports whether id was lacking when last looked at.
func (in *incoming) expects(v *receiver, id chunk.ID) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	_, ok := v.lacking[id]
	return ok
}

// arrived notes that id is here now; ready says that some offer is filled. from is
// who pushed it; nil: it came otherwise.
func (in *incoming) arrived(id chunk.ID, from *receiver, now time.Time) (ready bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if w, ok := in.wanted[id]; ok && w.from == from {
		from.window.took(w.size, now.Sub(w.since), now)
	}
	in.free(id)
	for v := range in.recvs {
		ready = v.have(id) || ready
	}
	return ready
}

// gone notes that the peer no longer has what it offered.
func (in *incoming) gone(v *receiver, id chunk.ID) (ready bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.wanted[id].from == v {
		in.free(id)
		in.wakeAll()
	}
	return v.have(id)
}

func (in *incoming) free(id chunk.ID) {
	if w, ok := in.wanted[id]; ok {
		w.from.bytes -= w.size
		delete(in.wanted, id)
		wake(w.from.wake)
	}
}

func (v *receiver) have(id chunk.ID) (ready bool) {
	for _, o := range v.lacking[id] {
		o.missing--
		ready = ready || o.missing == 0
	}
	delete(v.lacking, id)
	return ready
}

// filled returns for each receiver how far its offers are filled.
func (in *incoming) filled() []filled {
	in.mu.Lock()
	defer in.mu.Unlock()
	var out []filled
	for v := range in.recvs {
		var last *inOffer
		for _, o := range v.open {
			if o.missing > 0 {
				break
			}
			last = o
		}
		if last != nil {
			out = append(out, filled{v, last.number, last.end})
		}
	}
	return out
}

// ack has the peer told that its offers up to f are durable here.
func (in *incoming) ack(f filled) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(f.recv.open) > 0 && f.recv.open[0].number <= f.number {
		f.recv.open = f.recv.open[1:]
	}
	f.recv.acked = max(f.recv.acked, f.number)
	wake(f.recv.wake)
}

// takeAck returns the acknowledgement to be sent, or 0.
func (in *incoming) takeAck(v *receiver) uint64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	if v.acked == v.told {
		return 0
	}
	v.told = v.acked
	return v.acked
}
