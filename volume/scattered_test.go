package volume

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foreverfs/forever/internal/kv"
)

// scatter writes 512 bytes into each block of 16 KiB of a file of 4 MiB, in some order.
func scatter(r *rig, h *Handle, rng *rand.Rand) {
	r.t.Helper()
	p := make([]byte, 512)
	for _, block := range rng.Perm(256) {
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		r.write(h, string(p), int64(block)<<14+int64(rng.IntN(31))*512)
	}
}

func big(r *rig) *Handle {
	r.t.Helper()
	h := r.create("f")
	p := make([]byte, 4<<20)
	for i := range p {
		p[i] = byte(i >> 9)
	}
	r.write(h, string(p), 0)
	r.sync()
	return h
}

// TestScatteredWritesAreJournalled: many more than an fsync journals otherwise, in several records.
func TestScatteredWritesAreJournalled(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	r := newRig(t, 1, func(c *Config) { c.BlockLog, c.JournalMax = 14, 16<<10 })
	h := big(r)
	before := r.chunks.syncs
	for range 3 { // the last two rewrite what is journalled
		scatter(r, h, rng)
		if err := h.Fsync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if r.chunks.syncs != before {
		t.Errorf("scattered writes flushed the store %d times", r.chunks.syncs-before)
	}
	want := r.read(h)
	again := startRig(t, 1, r.state.Snapshot().(*kv.Mem), r.chunks, nil)
	if got := again.content("f"); got != want {
		t.Fatalf("got %d bytes, want %d, first difference at %d", len(got), len(want), firstDiff([]byte(got), []byte(want)))
	}
}

// TestScatteredWritesArePublishedLater: not while they go on, but journalled; and when they end.
func TestScatteredWritesArePublishedLater(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var hours atomic.Int64
	r := newRig(t, 1, func(c *Config) { // which publishes each hour of this clock, when it is asked to
		c.BlockLog = 14
		c.Now = func() time.Time { return time.Unix(0, 0).Add(time.Duration(hours.Load()) * time.Hour) }
	})
	h := big(r)
	look := func() (inTree bool) {
		if err := r.publishDue(h.in); err != nil {
			t.Fatal(err)
		}
		h.in.mu.RLock()
		defer h.in.mu.RUnlock()
		return !h.in.changed || h.in.ready != nil
	}
	hours.Add(100)
	scatter(r, h, rng)
	hours.Add(1)
	if look() {
		t.Fatal("published while it is written")
	}
	want := r.read(h)
	again := startRig(t, 1, r.state.Snapshot().(*kv.Mem), r.chunks, nil)
	if got := again.content("f"); got != want {
		t.Fatal("not journalled")
	}
	if !look() {
		t.Fatal("not published when nobody writes any more")
	}
	r.sync()
	if got := r.content("f"); got != want {
		t.Fatal("other content after publishing")
	}
}
