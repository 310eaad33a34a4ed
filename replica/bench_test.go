package replica

import (
	"fmt"
	"testing"
	"time"

	"github.com/foreverfs/forever/transport"
)

func tcpNode(t testing.TB, name string) *testNode {
	n := newTestNode(t, name, transport.NewTCP)
	n.addr = "127.0.0.1:0"
	return n
}

// BenchmarkReplicate takes what a copied source tree makes of itself over
// loopback to another device: 11,500 batches and 12,000 chunks, about 150 MB.
func BenchmarkReplicate(b *testing.B) {
	const batches, chunks, size = 11500, 12000, 12500
	for range b.N {
		b.StopTimer()
		a := tcpNode(b, "a").found().start()
		c := tcpNode(b, "b").joinBy(a, RoleMember).start()
		eventually(b, "connection", func() bool { return a.connectedTo(c) && c.connectedTo(a) })
		for range chunks {
			a.store.put(b, size)
		}
		b.StartTimer()
		began := time.Now()
		for i := range batches {
			a.write(fmt.Sprintf("batch %d", i))
			if i%10 == 0 {
				a.Poke()
			}
		}
		wrote := time.Since(began)
		eventually(b, "all there", func() bool { return c.store.len() == chunks && c.Vector()[a.author] == batches })
		there := time.Since(began)
		if err := waitFor(a, 1, time.Minute); err != nil {
			b.Fatal(err)
		}
		b.Logf("written in %v, there after %v, acknowledged after %v", wrote, there, time.Since(began))
		b.StopTimer()
		a.stop()
		c.stop()
	}
}

func BenchmarkFetch(b *testing.B) {
	a := tcpNode(b, "a").found().start()
	c := tcpNode(b, "b").joinBy(a, RoleMember).start()
	eventually(b, "connection", func() bool { return a.connectedTo(c) && c.connectedTo(a) })
	id := a.store.put(b, 64<<10)
	b.Run("one", func(b *testing.B) {
		b.SetBytes(64 << 10)
		for range b.N {
			if _, err := c.Fetch(b.Context(), id); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("many", func(b *testing.B) {
		b.SetBytes(64 << 10)
		b.SetParallelism(16)
		ids := make(chan int, 64)
		go func() {
			for i := range b.N {
				ids <- i
			}
			close(ids)
		}()
		list := [64]int{}
		chunks := make([]func() error, len(list))
		for i := range chunks {
			id := a.store.put(b, 64<<10)
			chunks[i] = func() error { _, err := c.Fetch(b.Context(), id); return err }
		}
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := chunks[(<-ids)%len(chunks)](); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// BenchmarkAppend is one batch of a kilobyte, signed and stored.
func BenchmarkAppend(b *testing.B) {
	a := tcpNode(b, "a").found().start()
	text := make([]byte, 1000)
	for range b.N {
		if _, err := a.Append(a.author, testEpoch, text); err != nil {
			b.Fatal(err)
		}
	}
}
