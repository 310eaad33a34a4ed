package replica

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/replica/replicapb"
)

// readKV calls a function before a scan from a key, once that is set.
type readKV struct {
	kv.DB
	from   atomic.Pointer[[]byte]
	before func()
}

func (d *readKV) Scan(from, to []byte, fn func(key, value []byte) bool) error {
	if key := d.from.Load(); key != nil && bytes.Equal(from, *key) {
		d.before()
	}
	return d.DB.Scan(from, to, fn)
}

// TestLogsShortenWhileTheyAreSent: whoever needs what was dropped just now is told so, and is not sent the rest, which it
// would have to take for a breach of the protocol.
func TestLogsShortenWhileTheyAreSent(t *testing.T) {
	const floor, end = 5, 10
	a := newTestNode(t, "a", memNet()).found()
	author := AuthorOf(a.id(), [8]byte{1})
	db := &readKV{DB: a.kv}
	db.before = sync.OnceFunc(func() { // as DropLogs does
		a.Replica.mu.Lock()
		a.floors = map[AuthorID]uint64{author: floor}
		a.Replica.mu.Unlock()
		var keys [][]byte
		for seq := uint64(1); seq <= floor; seq++ {
			keys = append(keys, envelopeKey(author, seq))
		}
		if err := db.Update(func(tx kv.Tx) error { return deleteAll(tx, keys) }); err != nil {
			t.Error(err)
		}
	})
	a.kv = db
	a.start()
	for range end {
		a.write("x")
	}
	st := evil(t, a).stream(replicapb.Stream_KIND_LOG)
	first := envelopeKey(author, 1)
	db.from.Store(&first)
	if err := errors.Join(st.write(&replicapb.LogMessage{State: &replicapb.State{}}), st.flush()); err != nil {
		t.Fatal(err)
	}
	for {
		var m replicapb.LogMessage
		if err := st.read(&m, maxMessage); err != nil {
			t.Fatal(err)
		}
		if n := len(m.GetEnvelopes()); n > 0 {
			t.Fatalf("%d batches were sent, without those before", n)
		}
		if m.GetOutrun() != nil {
			return
		}
	}
}
