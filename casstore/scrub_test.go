package casstore

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Any bit of a pack that is flipped while the store is closed is noticed by the next scrub, and mended once
// the chunks that were lost are put again.
func TestScrubNoticesAnyBit(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 200 {
		fs := vfs.NewMem()
		cfg := Config{Dir: "store", FS: fs, PackSize: 4 << 10}
		s, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		const chunks = 20
		for n := range chunks {
			put(t, s, n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		names, err := fs.List("store")
		if err != nil {
			t.Fatal(err)
		}
		var packs []string
		for _, name := range names {
			if _, ok := parsePackName(name); ok {
				packs = append(packs, fs.PathJoin("store", name))
			}
		}
		raw, err := fs.UnsafeGetFileDataBuffer(packs[rng.IntN(len(packs))])
		if err != nil {
			t.Fatal(err)
		}
		at, bit := rng.IntN(len(raw)), rng.IntN(8)
		if rng.IntN(2) == 0 { // a header of a record, or of the pack
			at = rng.IntN(packHeaderSize)
			if i := bytes.Index(raw, []byte(magicStart)); i >= 0 && rng.IntN(2) == 0 {
				at = i + rng.IntN(recordHeaderSize)
			}
		}
		raw[at] ^= 1 << bit

		if s, err = Open(cfg); err != nil {
			t.Fatalf("byte %d bit %d: %v", at, bit, err)
		}
		rep, err := s.Scrub(bg, nil)
		if err != nil {
			t.Fatalf("byte %d bit %d: %v", at, bit, err)
		}
		if len(rep.Damaged)+rep.Records+len(rep.Packs) == 0 {
			t.Fatalf("byte %d bit %d flipped, and nothing noticed: %+v", at, bit, rep)
		}
		for n := range chunks {
			id, data := blob(n)
			if _, err := s.Put(bg, id, data); err != nil {
				t.Fatal(err)
			}
		}
		if rep, err := s.Scrub(bg, nil); err != nil || rep.Chunks != chunks || len(rep.Damaged)+rep.Records+len(rep.Packs) != 0 {
			t.Fatalf("byte %d bit %d: after mending %+v, %v", at, bit, rep, err)
		}
		for n := range chunks {
			wantHeld(t, s, n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
