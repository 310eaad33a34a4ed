package volume

import (
	"context"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/foreverfs/forever/chunk"
)

// TestPassed: the store hears of the blocks that a long sequential read has left behind, in order and without
// gaps; but not of others.
func TestPassed(t *testing.T) {
	r := newRig(t, 1, nil)
	ctx := context.Background()
	const blocks, bs = 400, 1 << chunk.DefaultBlockLog
	h := r.create("f")
	data := make([]byte, bs)
	for i := range int64(blocks) {
		data[0], data[1] = byte(i), byte(i>>8)+1
		r.write(h, string(data), i*bs)
	}
	must(t, h.Flush(ctx))
	h.Release()
	r.sync()
	n, err := r.node(h.in)
	must(t, err)
	index := map[chunk.ID]int64{}
	for i := range int64(blocks) {
		id, err := chunk.Block(ctx, nodeIO{r.Volume}, n.Content.Version, i)
		must(t, err)
		index[id] = i
	}
	read := func(offs []int64) (passed [][2]int64) {
		h := r.open("f", syscall.O_RDONLY)
		defer h.Release()
		for _, off := range offs {
			if _, err := h.Read(ctx, data, off); err != nil {
				t.Fatal(err)
			}
			for len(r.ahead) > 0 { // what was begun in the background
				syscall.Syscall(syscall.SYS_SCHED_YIELD, 0, 0, 0)
			}
		}
		for _, p := range r.chunks.takePassed() {
			passed = append(passed, [2]int64{index[p[0]], index[p[1]]})
		}
		return passed
	}
	var offs []int64
	for i := range int64(blocks) {
		offs = append(offs, i*bs)
	}
	passed := read(offs)
	next := int64(0)
	for _, p := range passed {
		if p[0] != next || p[1] <= p[0] {
			t.Errorf("passed %v after %d", p, next)
		}
		next = p[1]
	}
	if next < blocks-2*passBlocks || next > blocks-passBlocks {
		t.Errorf("of %d blocks %d were passed", blocks, next)
	}
	rand.Shuffle(len(offs), func(i, j int) { offs[i], offs[j] = offs[j], offs[i] })
	if passed := read(offs); passed != nil {
		t.Errorf("read at random: passed %v", passed)
	}
	if passed := read([]int64{0, bs, 2 * bs}); passed != nil {
		t.Errorf("read a little: passed %v", passed)
	}
}

// The nodes of a part of a file are looked at once, also if reads go to and fro.
func TestNodesAreLookedAtOnce(t *testing.T) {
	var r readAhead
	for _, c := range []struct {
		group int64
		want  bool
	}{{0, true}, {0, false}, {7, true}, {0, false}, {7, false}} {
		if got := r.enter(c.group); got != c.want {
			t.Errorf("group %d: %v", c.group, got)
		}
	}
	for g := range int64(10 * maxGroups) {
		r.enter(g)
	}
	if len(r.groups) > maxGroups {
		t.Errorf("%d groups are remembered", len(r.groups))
	}
}
