package namespace

import (
	"fmt"
	"testing"
	"time"

	"github.com/foreverfs/forever/chunk"
)

// timesAsLong returns how many times as long fn takes for one rig as for another: the best of five tries each, by turns.
func timesAsLong(large, small *rig, fn func(r *rig)) float64 {
	best := map[*rig]time.Duration{}
	for range 5 {
		for _, r := range []*rig{large, small} {
			start := time.Now()
			fn(r)
			if took := time.Since(start); best[r] == 0 || took < best[r] {
				best[r] = took
			}
		}
	}
	return float64(best[large]) / float64(best[small])
}

// TestWriteOfLinkedFile: what a write costs grows with the file's names, not with their square.
func TestWriteOfLinkedFile(t *testing.T) {
	linked := func(links int) *rig {
		r := newRig(t, 1)
		r.must(r.mkfile("f"))
		id := r.node("f").ID
		for i := range links {
			_, err := r.Link(r.tick(), id, Root, fmt.Sprint("l", i))
			r.must(err)
		}
		return r
	}
	if k := timesAsLong(linked(16000), linked(1000), func(r *rig) { r.must(r.write("f", "x")) }); k > 64 {
		t.Errorf("with 16 times as many links a write takes %.0f times as long", k)
	}
}

// TestWriteBesideManyContents: what a write costs grows with the contents that lie beside it, not with their square.
func TestWriteBesideManyContents(t *testing.T) {
	contents := func(n int) *rig {
		r := newRig(t, 1)
		r.must(r.mkfile("f"))
		for i := range n {
			_, err := r.SetContent(r.tick(), r.node("f").ID, chunk.Version{Size: 4, Inline: fmt.Appendf(nil, "%04d", i)}, 1, nil, nil)
			r.must(err)
		}
		return r
	}
	if k := timesAsLong(contents(800), contents(50), func(r *rig) { r.must(r.write("f", "x")) }); k > 40 {
		t.Errorf("with 16 times as many contents a write takes %.0f times as long", k)
	}
}
