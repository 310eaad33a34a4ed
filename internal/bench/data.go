package main

import (
	"crypto/rand"
	mrand "math/rand/v2"
)

// source makes content that cannot be compressed and never comes twice.
type source struct {
	gen *mrand.ChaCha8
	rng *mrand.Rand
	buf []byte
}

func newSource() *source {
	var seed [32]byte
	_, _ = rand.Read(seed[:]) // never fails
	gen := mrand.NewChaCha8(seed)
	return &source{gen: gen, rng: mrand.New(gen)}
}

// bytes returns n new bytes, which last until the next call.
func (s *source) bytes(n int64) []byte {
	if int64(cap(s.buf)) < n {
		s.buf = make([]byte, n)
	}
	_, _ = s.gen.Read(s.buf[:n]) // never fails
	return s.buf[:n]
}

const block = 4 << 10

// offsets returns n different offsets of blocks in a file of the given size, in no order.
func (s *source) offsets(n int, size int64) []int64 {
	all := s.rng.Perm(int(size / block))
	at := make([]int64, min(n, len(all)))
	for i := range at {
		at[i] = int64(all[i]) * block
	}
	return at
}
