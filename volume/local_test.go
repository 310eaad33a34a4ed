package volume

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
)

// TestPathsAreAllThatIsRead: with the nodes above the blocks that paths gives here, a version of the file is made without any other.
func TestPathsAreAllThatIsRead(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 0))
	const blocks = 3 * chunk.Fanout * chunk.Fanout / 2
	ids := func(n, below int64) map[int64]chunk.ID {
		out := map[int64]chunk.ID{}
		for range n {
			out[rnd.Int64N(below)] = chunk.ID{byte(rnd.IntN(3)), 1: byte(rnd.IntN(3))} // some are holes
		}
		return out
	}
	for range 200 {
		chunks := newMemChunks()
		maker := startRig(t, 1, kv.NewMem(), chunks, smallBlocks)
		size := 1 + rnd.Int64N(blocks<<14)
		base, err := maker.buildVersion(ctx, chunk.Version{}, 0, size, ids(100, (size-1)>>14+1))
		must(t, err)
		in := &inode{}
		in.base, in.cut, in.size = base, size, size
		if rnd.IntN(2) == 0 {
			in.cut = rnd.Int64N(size + 1)
			in.size = in.cut
		}
		in.size += rnd.Int64N(blocks << 14)
		if in.size > 0 {
			in.sealed = ids(rnd.Int64N(4), (in.size-1)>>14+1)
		}
		chunks.sendAway()
		r := startRig(t, 1, kv.NewMem(), chunks, smallBlocks)
		must(t, r.fetchPaths(ctx, in))
		if !r.belowLocal(in) {
			t.Errorf("seed %d: what was fetched is not here", seed)
		}
		chunks.fail(nil, errAway)
		if _, err := r.buildVersion(ctx, in.base, in.cut, in.size, in.sealed); err != nil {
			t.Fatalf("seed %d: %d bytes cut to %d, then %d with %d blocks: %v", seed, size, in.cut, in.size, len(in.sealed), err)
		}
		chunks.fail(nil, nil)
	}
}
