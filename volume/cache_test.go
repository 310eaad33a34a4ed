package volume

import (
	"bytes"
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/foreverfs/forever/chunk"
)

// TestCacheMemory: what somebody looks at, or kept, is never given to another load.
func TestCacheMemory(t *testing.T) {
	const size = 1 << 10
	c := newBlockCache(8*size, func(_ context.Context, dst []byte, id chunk.ID) ([]byte, error) {
		return append(dst, bytes.Repeat(id[:1], size)...), nil
	})
	check := func(id chunk.ID, p []byte) {
		if len(p) != size || bytes.Count(p, id[:1]) != size {
			t.Errorf("chunk %v holds something else", id)
		}
	}
	var wg sync.WaitGroup
	for seed := range uint64(4) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 0))
			kept := map[chunk.ID][]byte{}
			for range 5000 {
				id := chunk.ID{byte(rng.IntN(64))}
				if rng.IntN(50) == 0 {
					p, err := c.get(ctx, id)
					if err != nil {
						t.Error(err)
					}
					kept[id] = p
				}
				if err := c.use(ctx, id, func(p []byte) { check(id, p) }); err != nil {
					t.Error(err)
				}
			}
			for id, p := range kept {
				check(id, p)
			}
		})
	}
	wg.Wait()
}

// lateEnd is a context that ends just when nobody waits for it any more.
type lateEnd struct{ context.Context }

func (lateEnd) Err() error { return context.Canceled }

// TestCacheTakesWhatIsHere: a wait that ends as the chunk arrives has the chunk.
func TestCacheTakesWhatIsHere(t *testing.T) {
	begun, arrive := make(chan struct{}), make(chan struct{})
	c := newBlockCache(1<<20, func(context.Context, []byte, chunk.ID) ([]byte, error) {
		close(begun)
		<-arrive
		return []byte("content"), nil
	})
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = c.get(ctx, chunk.ID{1}) })
	<-begun
	w := &Wait{local: func(chunk.ID) bool { return false }}
	wg.Go(func() {
		if p, err := c.get(context.WithValue(lateEnd{ctx}, waitKey{}, w), chunk.ID{1}); err != nil || string(p) != "content" {
			t.Errorf("%q, %v", p, err)
		}
	})
	for !w.Far(0) {
		runtime.Gosched()
	}
	time.Sleep(time.Millisecond)
	close(arrive)
	wg.Wait()
}

func BenchmarkCacheLoad(b *testing.B) {
	k := testKeyring()
	plain := make([]byte, 64<<10)
	for i := range plain {
		plain[i] = byte(rand.Uint32())
	}
	sealed, err := k.Seal(nil, plain)
	if err != nil {
		b.Fatal(err)
	}
	c := newBlockCache(48<<20, func(_ context.Context, dst []byte, _ chunk.ID) ([]byte, error) { return k.Open(dst, sealed) })
	b.SetBytes(int64(len(plain)))
	n := uint32(0)
	for b.Loop() {
		n++
		if err := c.use(ctx, chunk.ID{byte(n), byte(n >> 8), byte(n >> 16)}, func([]byte) {}); err != nil {
			b.Fatal(err)
		}
	}
}

// A file of one block that is read whole is not kept here, as the kernel has it then; a part of one is.
func TestWholeFileIsNotKept(t *testing.T) {
	r := newRig(t, 1, nil)
	want := bytes.Repeat([]byte("0123456789"), 1000)
	h := r.create("f")
	defer h.Release()
	r.write(h, string(want), 0)
	r.sync()
	kept := func() int { return len(r.cache.items) }
	before := kept()
	got := make([]byte, len(want)+10)
	n, err := h.Read(ctx, got, 0)
	if err != nil || !bytes.Equal(got[:n], want) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if kept() != before {
		t.Errorf("%d chunks are kept, %d before", kept(), before)
	}
	for range 2 { // the second finds it
		if n, err = h.Read(ctx, got[:100], 50); err != nil || !bytes.Equal(got[:n], want[50:150]) {
			t.Fatalf("%d bytes, %v", n, err)
		}
	}
	if n, err = h.Read(ctx, got, 0); err != nil || !bytes.Equal(got[:n], want) || kept() != before+1 {
		t.Fatalf("%d bytes, %v, %d chunks are kept", n, err, kept())
	}
}
