package volume

import (
	"sync/atomic"
	"testing"
	"time"
)

// TestPublishedAnIntervalAfterTheFirstChange: a file that is opened, written and closed within the interval
// is published once, whole, however long ago it was last, or if it never was.
func TestPublishedAnIntervalAfterTheFirstChange(t *testing.T) {
	var minutes atomic.Int64
	minutes.Store(100_000)
	r := newRig(t, 1, func(c *Config) { // which publishes every hour of this clock, when it is asked to
		c.Now = func() time.Time { return time.Unix(0, 0).Add(time.Duration(minutes.Load()) * time.Minute) }
	})
	h := r.create("f")
	r.write(h, "half of ", 0)
	look := func() (published bool) {
		if err := r.publishDue(h.in); err != nil {
			t.Fatal(err)
		}
		h.in.mu.RLock()
		defer h.in.mu.RUnlock()
		return !h.in.changed || h.in.ready != nil
	}
	minutes.Add(59)
	if look() {
		t.Fatal("published before the interval is over")
	}
	minutes.Add(1)
	if !look() {
		t.Fatal("not published when the interval is over")
	}
	r.sync()
	minutes.Add(10_000)
	r.write(h, "the content", 0)
	if look() {
		t.Fatal("published again before the interval is over")
	}
}
