package volume

import (
	"strings"
	"testing"

	"github.com/foreverfs/forever/internal/kv"
)

// TestExchangeBringsContentAlong: a file is written, closed, and exchanged with another, in either order of their names: whatever a crash
// leaves of that, no name has a file that is still empty.
func TestExchangeBringsContentAlong(t *testing.T) {
	for _, names := range [][2]string{{"new", "f"}, {"f", "new"}} {
		r := newRig(t, 1, smallBlocks)
		r.queueMu.Lock() // nothing enters the tree by itself
		for _, name := range names {
			h := r.create(name)
			r.write(h, strings.Repeat(name, 10000), 0)
			must(t, h.Flush(ctx))
			h.Release()
		}
		must(t, r.Rename(ctx, RootIno, names[0], RootIno, names[1], RenameExchange))
		after := startRig(t, 1, r.state.(*kv.Mem).Snapshot().(*kv.Mem), r.chunks, smallBlocks)
		wantNames(t, map[string]string{"f": strings.Repeat("new", 10000), "new": strings.Repeat("f", 10000)}, after)
		r.queueMu.Unlock()
	}
}
