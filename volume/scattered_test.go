package volume

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/foreverfs/forever/chunk"
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
		c.Uptime = func() time.Duration { return time.Duration(hours.Load()) * time.Hour }
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

// TestMuchIsNotJournalledForLong: a file that is fsynced again and again while it is written all over does not fill the journal.
func TestMuchIsNotJournalledForLong(t *testing.T) {
	var hours atomic.Int64
	r := newRig(t, 1, func(c *Config) {
		c.BlockLog = 14
		c.Uptime = func() time.Duration { return time.Duration(hours.Load()) * time.Hour }
	})
	h := big(r)
	hours.Add(100)
	scatter(r, h, rand.New(rand.NewPCG(5, 6)))
	must(t, h.Fsync(ctx))
	if h.in.recorded.Load() < 256*512 {
		t.Errorf("%d bytes are said to be journalled", h.in.recorded.Load())
	}
	h.in.recorded.Store(putOffBytes)
	hours.Add(1)
	must(t, r.publishDue(h.in))
	h.in.mu.RLock()
	if h.in.changed && h.in.ready == nil {
		t.Error("not published while much is journalled")
	}
	h.in.mu.RUnlock()
	r.sync()
	if n := h.in.recorded.Load(); n != 0 {
		t.Errorf("%d bytes are said to be journalled of what is published", n)
	}
}

// TestReplayOverWhatIsAway: more is journalled than memory is for, and what lies below is on other devices, which are there
// only once the volume is open: it opens, and has the content when they come.
func TestReplayOverWhatIsAway(t *testing.T) {
	r := newRig(t, 1, func(c *Config) { c.BlockLog = 14 })
	h := big(r)
	scatter(r, h, rand.New(rand.NewPCG(7, 8)))
	must(t, h.Fsync(ctx))
	want := r.read(h)
	state := r.state.Snapshot().(*kv.Mem)
	r.chunks.fail(nil, errors.New("nobody has the chunk"))
	again := startRig(t, 1, state, r.chunks, func(c *Config) { c.DirtyMax = 64 << 10 })
	r.chunks.fail(nil, nil)
	again.sync()
	if got := again.content("f"); got != want {
		t.Errorf("got %d bytes, want %d, first difference at %d", len(got), len(want), firstDiff([]byte(got), []byte(want)))
	}
}

// TestUnsavedSpansAreFew: what nobody journals, as of a file without a name, is not noted write by write.
func TestUnsavedSpansAreFew(t *testing.T) {
	r := newRig(t, 1, nil)
	h := r.create("f")
	defer h.Release()
	must(t, r.Unlink(ctx, RootIno, "f"))
	for i := range int64(3 * manySpans) {
		r.write(h, "x", i%2*9000)
	}
	h.in.mu.RLock()
	defer h.in.mu.RUnlock()
	if n := len(h.in.unsaved); n > 2*manySpans {
		t.Errorf("%d spans for two bytes", n)
	}
}

// everyPut is a chunk store that has something done before each n-th chunk is put into it.
type everyPut struct {
	*memChunks
	n    int64
	puts atomic.Int64
	turn chan struct{} // held while do is under way, or is set
	do   func()
}

// does has something else done from now on.
func (e *everyPut) does(do func()) {
	e.turn <- struct{}{}
	e.do = do
	<-e.turn
}

func (e *everyPut) Put(ctx context.Context, sealed []byte) (chunk.ID, error) {
	select {
	case e.turn <- struct{}{}:
		if e.puts.Add(1)%e.n == 0 {
			e.do()
		}
		<-e.turn
	case <-time.After(5 * time.Second): // do may wait for this one
	}
	return e.memChunks.Put(ctx, sealed)
}

// sealedBeside reports whether many blocks of a file are left to be sealed, and nobody holds it for that.
func sealedBeside(in *inode) bool {
	if !in.fold.TryLock() {
		return false
	}
	in.fold.Unlock()
	return in.many()
}

// everyPutRig returns a volume on such a store that does nothing so far, and publishes each hour of a clock, when it is asked to.
func everyPutRig(t *testing.T, n int64, hours *atomic.Int64) (*rig, *everyPut) {
	t.Helper()
	chunks := &everyPut{n: n, turn: make(chan struct{}, 1), do: func() {}}
	r := newRig(t, 1, func(c *Config) {
		smallBlocks(c)
		chunks.memChunks = c.Chunks.(*memChunks)
		c.Chunks = chunks
		c.Uptime = func() time.Duration { return time.Duration(hours.Load()) * time.Hour }
	})
	return r, chunks
}

// TestWritesAreJournalledWhileManyBlocksAreSealed: that may take longer than a crash is to cost. What is written meanwhile, over what is
// sealed already or is about to be, is safe once the publisher has looked.
func TestWritesAreJournalledWhileManyBlocksAreSealed(t *testing.T) {
	for name, seal := range map[string]func(r *rig, h *Handle) error{
		"published": func(r *rig, h *Handle) error { return r.flush(ctx, h.in) },
		"fsynced":   func(r *rig, h *Handle) error { return r.enterNow(ctx, h.in) },
		"closed":    func(r *rig, h *Handle) error { return h.Flush(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(9, 10))
			var hours atomic.Int64
			r, chunks := everyPutRig(t, 5, &hours)
			const blocks = closeBlocks + 150
			h := r.create("f")
			r.write(h, strings.Repeat("0123456789abcdef", blocks<<10), 0)
			r.sync()
			hours.Add(100)
			for block := range int64(blocks) {
				r.write(h, "first", block<<14+rng.Int64N(1<<14-5))
			}
			type crash struct {
				state *kv.Mem
				want  string
			}
			var crashes []crash
			wrote := 0
			chunks.does(func() {
				if len(crashes) == 2 || !sealedBeside(h.in) { // the last few are sealed while nobody journals, and maybe nobody writes
					return
				}
				for range 20 {
					r.write(h, "later", rng.Int64N(blocks<<14-5))
				}
				if wrote++; wrote%4 != 0 { // some of it is sealed before the publisher looks
					return
				}
				hours.Add(1)
				must(t, r.publishDue(h.in))
				crashes = append(crashes, crash{r.state.(*kv.Mem).Snapshot().(*kv.Mem), r.read(h)})
			})
			must(t, seal(r, h))
			chunks.does(func() {})
			if len(crashes) < 2 {
				t.Errorf("only %d looks while it was sealed", len(crashes))
			}
			for _, c := range crashes {
				if got := startRig(t, 1, c.state, r.chunks, smallBlocks).content("f"); got != c.want {
					t.Errorf("a crash while it is sealed takes what is journalled; first difference at %d", firstDiff([]byte(got), []byte(c.want)))
				}
			}
			want := r.read(h)
			r.sync()
			wantAfterCrash(r, "f", want)
			if got := r.content("f"); got != want {
				t.Errorf("other content once it is in the tree; first difference at %d", firstDiff([]byte(got), []byte(want)))
			}
		})
	}
}

// TestMuchInARowIsNotJournalled: what is written in a row is sealed soon, and not journalled as well by a publisher that looks meanwhile.
func TestMuchInARowIsNotJournalled(t *testing.T) {
	var hours atomic.Int64
	r, chunks := everyPutRig(t, 10, &hours)
	h := r.create("f")
	hours.Add(100)
	for block := range int64(closeBlocks + 150) { // none is full, or it would be sealed by itself
		r.write(h, strings.Repeat("x", 15_000), block<<14)
	}
	looks := 0
	chunks.does(func() {
		if !sealedBeside(h.in) {
			return
		}
		looks++
		hours.Add(1)
		must(t, r.publishDue(h.in))
		lo := []byte{journalPrefix}
		must(t, r.state.Scan(lo, kv.PrefixEnd(lo), func(_, v []byte) bool {
			t.Errorf("%d bytes are journalled", len(v))
			return false
		}))
	})
	h.in.aside.Store(true)
	must(t, r.flush(ctx, h.in))
	h.in.aside.Store(false)
	if looks == 0 {
		t.Error("nobody looked")
	}
}

// TestDirectoryRenameComesAfterContent: what was closed in a directory before it is renamed enters the tree first, be it many blocks.
func TestDirectoryRenameComesAfterContent(t *testing.T) {
	r := newRig(t, 1, smallBlocks)
	d, err := r.Mkdir(ctx, Caller{}, RootIno, "d", 0o755)
	must(t, err)
	_, h, err := r.Create(ctx, Caller{}, d.Ino, "f", 0o644, syscall.O_RDWR)
	must(t, err)
	r.write(h, strings.Repeat("x", (closeBlocks+50)<<14), 0)
	r.sync()
	for block := range int64(closeBlocks + 50) {
		r.write(h, "y", block<<14+100)
	}
	must(t, h.Fsync(ctx))
	must(t, h.Flush(ctx))
	h.Release()
	must(t, r.Rename(ctx, RootIno, "d", RootIno, "e", 0))
	if r.changedHere(h.in) {
		t.Error("the directory is renamed, and the content of its file is not in the tree")
	}
	r.Volume.mu.Lock()
	defer r.Volume.mu.Unlock()
	if n := len(r.failed); n > 0 {
		t.Errorf("%d files wait though all is in the tree", n)
	}
}
