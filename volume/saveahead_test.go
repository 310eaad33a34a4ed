package volume

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foreverfs/forever/internal/kv"
)

// journalBytes returns how many bytes the journal has.
func (r *rig) journalBytes() (bytes int) {
	lo := []byte{journalPrefix}
	must(r.t, r.state.Scan(lo, kv.PrefixEnd(lo), func(_, v []byte) bool {
		bytes += len(v)
		return true
	}))
	return bytes
}

// TestMuchIsJournalledAsItIsWritten: what is written all over a file is journalled by the amount, however soon that is; what is written in a row
// is not.
func TestMuchIsJournalledAsItIsWritten(t *testing.T) {
	const block, blocks = 1 << 14, 2 * saveAhead >> 12
	for name, step := range map[string]int64{"all over": block, "in a row": 1 << 12} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1, func(c *Config) {
				smallBlocks(c)
				c.DirtyMax = 1 << 30
				c.Uptime = func() time.Duration { return 0 } // it is never time
			})
			h := r.create("f")
			piece := strings.Repeat("x", 1<<12)
			for i := int64(0); i < blocks; i++ {
				r.write(h, piece, i*step)
			}
			await(t, "it goes on being journalled", func(in *inode) bool { return in.saving == nil }, h)
			if got := r.journalBytes(); step == block && got < saveAhead || step < block && got > 0 {
				t.Errorf("%d MiB of %d are journalled", got>>20, 2*saveAhead>>20)
			}
		})
	}
}

// TestFullBudgetIsJournalled: that a file has filled what may be dirty does not keep it from being journalled.
func TestFullBudgetIsJournalled(t *testing.T) {
	var hours atomic.Int64
	r := newRig(t, 1, func(c *Config) {
		smallBlocks(c)
		c.DirtyMax = 4<<20 - 2000
		c.Uptime = func() time.Duration { return time.Duration(hours.Load()) * time.Hour }
	})
	h := r.create("f")
	r.write(h, strings.Repeat("0123456789abcdef", 1<<20), 0)
	r.sync()
	hours.Add(1)
	for i := range int64(1024) {
		r.write(h, strings.Repeat("x", 1<<12), i<<14)
	}
	hours.Add(1)
	must(t, r.publishDue(h.in))
	if r.journalBytes() < 4<<20 {
		t.Errorf("%d bytes are journalled of what overdraws the budget", r.journalBytes())
	}
}
