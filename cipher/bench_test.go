package cipher

import (
	"crypto/aes"
	stdcipher "crypto/cipher"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/zeebo/blake3"
)

// corpus returns size bytes that zstd cannot, or can, make smaller; the latter are
// prose from a vocabulary, which halves or so.
func corpus(size int, compressible bool) []byte {
	var seed [32]byte
	r := rand.NewChaCha8(seed)
	b := make([]byte, size)
	if !compressible {
		_, _ = r.Read(b)
		return b
	}
	list, _ := words()
	for n := 0; n < size; {
		n += copy(b[n:], list[r.Uint64()%uint64(len(list))])
		n += copy(b[n:], " ")
	}
	return b
}

var benchSizes = []int{4 << 10, 64 << 10, 128 << 10, 1 << 20}

// benchmark runs fn over blocks of each size and kind.
func benchmark(b *testing.B, fn func(b *testing.B, block []byte)) {
	for _, size := range benchSizes {
		for _, compressible := range []bool{false, true} {
			name := fmt.Sprintf("%dK/random", size>>10)
			if compressible {
				name = fmt.Sprintf("%dK/text", size>>10)
			}
			b.Run(name, func(b *testing.B) {
				block := corpus(size, compressible)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				fn(b, block)
			})
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	k := fixedRing()
	benchmark(b, func(b *testing.B, block []byte) {
		var dst []byte
		var err error
		for b.Loop() {
			if dst, err = k.Seal(dst[:0], block); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(block))/float64(len(dst)), "ratio")
	})
}

func BenchmarkOpen(b *testing.B) {
	k := fixedRing()
	benchmark(b, func(b *testing.B, block []byte) {
		sealed, err := k.Seal(nil, block)
		if err != nil {
			b.Fatal(err)
		}
		var dst []byte
		for b.Loop() {
			if dst, err = k.Open(dst[:0], sealed); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkDedupKey(b *testing.B) {
	k := fixedRing()
	benchmark(b, func(b *testing.B, block []byte) {
		for b.Loop() {
			k.DedupKey(block)
		}
	})
}

// BenchmarkBareGCM is what the cipher alone takes, with one key for all.
func BenchmarkBareGCM(b *testing.B) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	aead, err := stdcipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	benchmark(b, func(b *testing.B, block []byte) {
		var dst []byte
		for b.Loop() {
			dst = aead.Seal(dst[:0], zeroNonce[:], block, nil)
		}
	})
}

// BenchmarkBareBLAKE3 is what one hash takes; sealing needs two, opening one and
// the store's own.
func BenchmarkBareBLAKE3(b *testing.B) {
	benchmark(b, func(b *testing.B, block []byte) {
		for b.Loop() {
			blake3.Sum256(block)
		}
	})
}
