package kv

import (
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/tidwall/btree"
)

// Updates gather in memory, in a sorted map, and go into the database many at a time: one
// batch instead of hundreds, and what is written again and again, such as the record of the directory
// that files are made in, goes in once. A batch holds whole updates and all of
// them up to some moment, so what a crash leaves is still a prefix.

const (
	// gatherDelay is how long updates gather before they go into the database's log, if no Sync
	// comes first. What of that log no flush has handed to the kernel dies with the process too.
	gatherDelay = 200 * time.Millisecond
	// gatherBytes is how much gathers before it goes at once, and gatherMax how much there may be at
	// all: then updates wait.
	gatherBytes = 2 << 20
	gatherMax   = 8 << 20
	// pairCost is what a key and a value take beside their bytes, roughly.
	pairCost = 64
)

// layer is a part of the state that lies over the database. A nil value says
// that the key is deleted.
type layer struct {
	vals  btree.Map[string, []byte]
	bytes int
}

func (l *layer) set(key string, value []byte) {
	l.bytes += pairCost + len(key) + len(value)
	if old, had := l.vals.Set(key, value); had {
		l.bytes -= pairCost + len(key) + len(old)
	}
}

func (l *layer) get(key string) (value []byte, ok bool) {
	if l == nil {
		return nil, false
	}
	return l.vals.Get(key)
}

// commit makes the writes of one update visible. p.updates is held.
func (p *Pebble) commit(writes map[string][]byte) error {
	if err := p.broken.Get(); err != nil {
		return err
	}
	p.mu.Lock()
	for k, v := range writes {
		p.recent.set(k, v)
	}
	p.made++
	first, size := len(writes) > 0 && !p.gathering, p.recent.bytes
	p.gathering = p.gathering || first
	p.mu.Unlock()
	if first || size > gatherBytes {
		p.wake()
	}
	if size > gatherMax {
		return p.pour(false)
	}
	return nil
}

func (p *Pebble) wake() {
	select {
	case p.waker <- struct{}{}:
	default:
	}
}

// pourer brings what has gathered into the database, until Close.
func (p *Pebble) pourer() {
	defer close(p.ended)
	for {
		select {
		case <-p.waker:
		case <-p.quit:
			return
		}
		wait := time.NewTimer(gatherDelay)
		for full := p.isFull(); !full; {
			select {
			case <-wait.C:
				full = true
			case <-p.waker:
				full = p.isFull()
			case <-p.quit:
				wait.Stop()
				return
			}
		}
		wait.Stop()
		_ = p.pour(false) // an error stays, and every update after it has it
	}
}

func (p *Pebble) isFull() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.recent.bytes > gatherBytes
}

// pour brings all updates made before into the database, and if flush is set onto the disk.
// Those who wait meanwhile share the next flush.
func (p *Pebble) pour(flush bool) error {
	p.mu.RLock()
	want := p.made
	p.mu.RUnlock()
	p.pouring.Lock()
	defer p.pouring.Unlock()
	if flush && p.synced >= want {
		return nil
	}
	return p.pourLocked(flush)
}

// pourLocked is pour with p.pouring held.
func (p *Pebble) pourLocked(flush bool) error {
	if err := p.broken.Get(); err != nil {
		return err
	}
	p.mu.Lock()
	going, upTo := p.recent, p.made
	p.leaving, p.recent, p.gathering = going, &layer{}, false
	p.mu.Unlock()
	var err error
	if p.before != nil && going.vals.Len() > 0 {
		err = p.before()
	}
	if err == nil {
		err = p.stuck.Await(func() error { return p.write(going, flush) })
	}
	if err != nil {
		// What has left stays where readers find it; nothing is accepted on top of it.
		return p.broken.Set(why(err))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaving = nil
	p.pours++
	p.lately.changed(going)
	if flush {
		p.synced = upTo
	}
	return nil
}

// write writes a layer as one batch.
func (p *Pebble) write(l *layer, flush bool) (err error) {
	how := pebble.NoSync
	if flush {
		how = pebble.Sync
	}
	if l.vals.Len() == 0 {
		if flush {
			return p.db.LogData(nil, how)
		}
		return nil
	}
	b := p.db.NewBatchWithSize(l.bytes)
	l.vals.Scan(func(k string, v []byte) bool {
		if v == nil {
			err = b.Delete([]byte(k), nil)
		} else {
			err = b.Set([]byte(k), v, nil)
		}
		return err == nil
	})
	if err == nil {
		err = b.Commit(how)
	}
	return errors.Join(err, b.Close())
}
