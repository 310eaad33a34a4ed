package hashtree

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/zeebo/blake3"
	"pgregory.net/rapid"
)

// TestSumIsBLAKE3 holds the root to what another implementation says, and the groups to the root.
func TestSumIsBLAKE3(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		edge := rapid.SampledFrom([]int{0, 1, 1024, GroupSize, 2 * GroupSize, 3 * GroupSize, 4 * GroupSize, 16 * GroupSize, 64 * GroupSize}).Draw(t, "edge")
		size := max(0, edge+rapid.IntRange(-1100, 1100).Draw(t, "more"))
		data := random(size, rapid.Uint64().Draw(t, "seed"))
		root, hashes := Sum([]byte("before"), data)
		if root != blake3.Sum256(data) {
			t.Fatalf("root of %d bytes is wrong", size)
		}
		hashes, ok := bytes.CutPrefix(hashes, []byte("before"))
		if !ok {
			t.Fatal("what was in the slice before is gone")
		}
		n := Groups(size)
		if n < 2 {
			if len(hashes) > 0 {
				t.Fatalf("%d bytes have hashes of groups", size)
			}
			return
		}
		if len(hashes) != n*HashSize || Root(hashes) != root {
			t.Fatalf("hashes of the %d groups of %d bytes do not give the root", n, size)
		}
		i := rapid.IntRange(0, n-1).Draw(t, "group")
		group := data[i*GroupSize : min((i+1)*GroupSize, size)]
		want := [HashSize]byte(hashes[i*HashSize:])
		if Hash(group, i) != want {
			t.Fatalf("hash of group %d is not in its place", i)
		}
		group[rapid.IntRange(0, len(group)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if Hash(group, i) == want {
			t.Fatalf("group %d was changed and has the same hash", i)
		}
	})
}

// TestSumKeyedIsBLAKE3 holds the keyed hash to what another implementation says.
func TestSumKeyedIsBLAKE3(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		edge := rapid.SampledFrom([]int{0, 1, 1024, GroupSize, 2 * GroupSize, 3 * GroupSize, 4 * GroupSize, 64 * GroupSize}).Draw(t, "edge")
		size := max(0, edge+rapid.IntRange(-1100, 1100).Draw(t, "more"))
		data := random(size, rapid.Uint64().Draw(t, "seed"))
		key := [32]byte(random(32, rapid.Uint64().Draw(t, "key")))
		h, err := blake3.NewKeyed(key[:])
		if err != nil {
			t.Fatal(err)
		}
		_, _ = h.Write(data)
		if SumKeyed(&key, data) != [32]byte(h.Sum(nil)) {
			t.Fatalf("keyed hash of %d bytes is wrong", size)
		}
	})
}

func random(size int, seed uint64) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	data := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(data)
	return data
}

func BenchmarkSum(b *testing.B) {
	data := random(65611, 1)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	var hashes []byte
	for b.Loop() {
		_, hashes = Sum(hashes[:0], data)
	}
}

func BenchmarkSumWithoutGroups(b *testing.B) {
	data := random(65611, 1)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		blake3.Sum256(data)
	}
}

func BenchmarkRoot(b *testing.B) {
	_, hashes := Sum(nil, random(65611, 1))
	b.ReportAllocs()
	for b.Loop() {
		Root(hashes)
	}
}
