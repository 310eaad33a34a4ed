package main

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestReadsAtRandom reads files at random from a disk that nothing is cached of, before and after bytes on it were damaged: what
// is read is right, or EIO.
func TestReadsAtRandom(t *testing.T) {
	needMount(t)
	m := newMachine(t)
	t.Cleanup(func() { m.run(nil, "umount", m.mount) })
	begin := func() {
		t.Helper()
		m.must("--daemon", "--listen", "127.0.0.1:0", m.mount)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	noise := make([]byte, 8<<20+123)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	text := bytes.Repeat([]byte("what is compressed, "), 100000)
	copy(text[1<<20:], noise[:300000]) // and what is not
	files := map[string][]byte{"noise": noise, "text": text}

	begin()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(m.mount, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.must("umount", m.mount)
	// readAll reports whether a read failed.
	readAll := func() (failed bool) {
		t.Helper()
		begin()
		for name, data := range files {
			f, err := os.Open(filepath.Join(m.mount, name))
			if err != nil {
				t.Fatal(err)
			}
			for range 400 {
				p := make([]byte, 1+rng.IntN(9000))
				off := rng.IntN(len(data))
				n, err := f.ReadAt(p, int64(off))
				switch want := data[off:min(off+len(p), len(data))]; {
				case errors.Is(err, syscall.EIO):
					failed = true
				case !bytes.Equal(p[:n], want):
					t.Errorf("%s: %d bytes at %d are wrong: %v", name, len(p), off, err)
				}
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
		m.must("umount", m.mount)
		return failed
	}
	if readAll() {
		t.Error("a read failed")
	}
	packs, err := filepath.Glob(filepath.Join(m.data, "chunks", "*.pack"))
	if err != nil || len(packs) == 0 {
		t.Fatalf("packs %v: %v", packs, err)
	}
	// The first half only: behind it lie the nodes of the trees, without which no block is found.
	for _, path := range packs {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := 1000; at < len(raw)/2; at += 2000 + rng.IntN(2000) {
			raw[at] ^= 1 << rng.IntN(8)
		}
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if !readAll() {
		t.Error("no read noticed the damage")
	}
}
