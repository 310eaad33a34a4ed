package replica

import (
	"testing"
	"time"
)

// TestWaitForWhatCameFromThere has all chunks of a device come from another: that
// one holds them, and a wait must learn it without anything else happening.
func TestWaitForWhatCameFromThere(t *testing.T) {
	a, b := pair(t)
	for range 20 {
		b.store.put(t, 1000)
	}
	b.Poke()
	eventually(t, "chunks", func() bool { return a.store.len() == 20 })
	if err := waitFor(a, 1, 10*time.Second); err != nil {
		t.Fatal(err)
	}
}
