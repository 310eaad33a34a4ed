package casstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/zeebo/blake3"

	"github.com/foreverfs/forever/chunk"
)

var benchSizes = []int{4 << 10, 64 << 10, 1 << 20}

func benchStore(b *testing.B) *Store {
	b.Helper()
	s, err := Open(Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

// numbered makes data another chunk and returns its ID.
func numbered(data []byte, n int) chunk.ID {
	binary.BigEndian.PutUint64(data, uint64(n))
	return blake3.Sum256(data)
}

func random(size int) []byte {
	b := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(b)
	return b
}

func BenchmarkBLAKE3(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			data := random(size)
			b.SetBytes(int64(size))
			for b.Loop() {
				blake3.Sum256(data)
			}
		})
	}
}

func benchPut(b *testing.B, put func(s *Store, id chunk.ID, data []byte) error) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := benchStore(b)
			data := random(size)
			b.SetBytes(int64(size))
			n := 0
			for b.Loop() {
				b.StopTimer()
				id := numbered(data, n)
				n++
				b.StartTimer()
				if err := put(s, id, data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAdd(b *testing.B) {
	benchPut(b, func(s *Store, _ chunk.ID, data []byte) error {
		_, _, err := s.Add(context.Background(), data)
		return err
	})
}

func BenchmarkPut(b *testing.B) {
	benchPut(b, func(s *Store, id chunk.ID, data []byte) error {
		_, err := s.Put(context.Background(), id, data)
		return err
	})
}

func BenchmarkPutSync(b *testing.B) {
	benchPut(b, func(s *Store, id chunk.ID, data []byte) error {
		if _, err := s.Put(context.Background(), id, data); err != nil {
			return err
		}
		return s.Sync(context.Background())
	})
}

// benchFilled returns a store of about 256 MiB in chunks of a size.
func benchFilled(b *testing.B, size int) (*Store, []chunk.ID) {
	b.Helper()
	s := benchStore(b)
	data := random(size)
	ids := make([]chunk.ID, (256<<20)/size)
	for i := range ids {
		ids[i] = numbered(data, i)
		if _, err := s.Put(context.Background(), ids[i], data); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Sync(context.Background()); err != nil {
		b.Fatal(err)
	}
	return s, ids
}

func BenchmarkGet(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s, ids := benchFilled(b, size)
			buf := make([]byte, 0, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := s.Get(context.Background(), buf, ids[rand.IntN(len(ids))]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkHasAbsent(b *testing.B) {
	s, _ := benchFilled(b, 4<<10)
	var id chunk.ID
	n := uint64(0)
	for b.Loop() {
		n++
		binary.BigEndian.PutUint64(id[:], n*0x9e3779b97f4a7c15)
		if has, err := s.Has(id); has || err != nil {
			b.Fatal(has, err)
		}
	}
}

func BenchmarkSince(b *testing.B) {
	s, _ := benchFilled(b, 64<<10)
	var pos Position
	for b.Loop() { // 512 at a time, as they are offered to a peer
		items, err := s.Since(pos, 512)
		if err != nil {
			b.Fatal(err)
		}
		if pos = (Position{}); len(items) == 512 {
			pos = items[511].Pos
		}
	}
}
