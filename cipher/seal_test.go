package cipher

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/foreverfs/forever/chunk"
)

// plaintext draws bytes of all kinds of sizes that may or may not compress.
func plaintext(t *rapid.T, limit int) []byte {
	size := rapid.OneOf(rapid.IntRange(0, 600), rapid.IntRange(0, 70000), rapid.SampledFrom([]int{limit, limit - 1, 1 << 14})).Draw(t, "size")
	b := bytes.Clone(corpus(size, rapid.Bool().Draw(t, "compressible")))
	if size > 0 {
		b[rapid.IntRange(0, size-1).Draw(t, "at")] ^= rapid.Byte().Draw(t, "change")
	}
	return b
}

func TestSealOpen(t *testing.T) {
	k := fixedRing()
	rapid.Check(t, func(t *rapid.T) {
		plain := plaintext(t, chunk.MaxPlain)
		before := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "before")
		room := rapid.SampledFrom([]int{0, 10, len(plain), len(plain) + overhead, 3 * chunk.MaxSealed}).Draw(t, "room")
		dst := slices.Concat(make([]byte, 0, room), before)
		sealed, err := k.Seal(dst, plain)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(sealed, before) {
			t.Fatal("what was in dst is gone")
		}
		sealed = sealed[len(before):]
		if len(sealed) > chunk.MaxSealed || len(sealed) > overhead+padded(len(plain)) {
			t.Fatalf("%d bytes sealed into %d", len(plain), len(sealed))
		}
		if again, err := k.Seal(nil, plain); err != nil || !bytes.Equal(again, sealed) {
			t.Fatalf("sealed again as %d other bytes: %v", len(again), err)
		}
		opened, err := k.Open(bytes.Clone(before), sealed)
		if err != nil || !bytes.Equal(opened, slices.Concat(before, plain)) {
			t.Fatalf("opened %d of %d bytes: %v", len(opened), len(plain), err)
		}
	})
}

func TestSealOpenBatch(t *testing.T) {
	k := fixedRing()
	rapid.Check(t, func(t *rapid.T) {
		plain := plaintext(t, 1<<20)
		aad := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "aad")
		sealed, err := k.SealBatch(plain, aad)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := k.OpenBatch(sealed, aad)
		if err != nil || !bytes.Equal(opened, plain) {
			t.Fatalf("opened %d of %d bytes: %v", len(opened), len(plain), err)
		}
		for _, other := range [][]byte{append(bytes.Clone(aad), 0), nil} {
			if _, err := k.OpenBatch(sealed, other); !bytes.Equal(other, aad) && !errors.Is(err, ErrDamaged) {
				t.Fatalf("opened in another place: %v", err)
			}
		}
		if _, err := k.Open(nil, sealed); !errors.Is(err, ErrDamaged) {
			t.Fatalf("a batch opened as a chunk: %v", err)
		}
	})
}

func TestSealLimits(t *testing.T) {
	k := fixedRing()
	if sealed, err := k.Seal([]byte("x"), make([]byte, chunk.MaxPlain+1)); !errors.Is(err, ErrTooLarge) || string(sealed) != "x" {
		t.Errorf("large chunk: %v", err)
	}
	if _, err := k.SealBatch(make([]byte, MaxBatch+1), nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("large batch: %v", err)
	}
	sealed, err := k.SealBatch(corpus(MaxBatch, false), nil)
	if err != nil || len(sealed) != MaxBatch+overhead {
		t.Fatalf("greatest batch: %d bytes: %v", len(sealed), err)
	}
	if opened, err := k.OpenBatch(sealed, nil); err != nil || len(opened) != MaxBatch {
		t.Errorf("greatest batch: %v", err)
	}
	sealed, err = k.SealBatch(make([]byte, MaxBatch), nil)
	if err != nil || len(sealed) > 1<<14 {
		t.Fatalf("greatest batch of zeros: %d bytes: %v", len(sealed), err)
	}
	if opened, err := k.OpenBatch(sealed, nil); err != nil || len(opened) != MaxBatch {
		t.Errorf("greatest batch of zeros: %v", err)
	}
	sealed, err = k.Seal(nil, corpus(chunk.MaxPlain, false))
	if err != nil || len(sealed) != chunk.MaxPlain+overhead || len(sealed) > chunk.MaxSealed {
		t.Errorf("greatest chunk: %d bytes: %v", len(sealed), err)
	}
}

// Every single changed, missing or added byte shows, and leaves dst as it was.
func TestDamage(t *testing.T) {
	k := fixedRing()
	for _, plain := range [][]byte{nil, counted(100), corpus(2000, true)} {
		sealed, err := k.Seal(nil, plain)
		if err != nil {
			t.Fatal(err)
		}
		check := func(bad []byte) {
			t.Helper()
			dst, err := k.Open([]byte("before"), bad)
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnknownEpoch) || string(dst) != "before" {
				t.Fatalf("opened damage as %q: %v", dst, err)
			}
		}
		for i := range sealed {
			bad := bytes.Clone(sealed)
			bad[i] ^= 1 << (i % 8)
			check(bad)
			check(sealed[:i])
		}
		check(append(bytes.Clone(sealed), 0))
		check(make([]byte, chunk.MaxSealed+1))
		check(nil)
	}
}

// Who has the key can seal frames that Seal never makes. They cost an error and no
// more memory than the greatest chunk.
func TestForgedFrames(t *testing.T) {
	k := fixedRing()
	e, err := k.sealing()
	if err != nil {
		t.Fatal(err)
	}
	bomb := newEncoder().EncodeAll(make([]byte, 8<<20), nil)
	small := newEncoder().EncodeAll(make([]byte, 1000), nil)
	for name, frame := range map[string][]byte{
		"bomb":               frameOf(withZstd, 8<<20, bomb),
		"bomb, said small":   frameOf(withZstd, 900, bomb),
		"length 2^32-1":      frameOf(withZstd, 1<<32-1, small),
		"too short a length": frameOf(withZstd, 999, small),
		"too long a length":  frameOf(withZstd, 1001, small),
		"not zstd":           frameOf(withZstd, 1000, counted(200)),
		"empty zstd":         frameOf(withZstd, 1000, nil),
		"zstd that grows":    frameOf(withZstd, len(small), small),
		"compression 2":      frameOf(2, 100, counted(100)),
		"stored, longer":     frameOf(asIs, 101, counted(100)),
		"stored, shorter":    frameOf(asIs, 99, counted(100)),
		"not padded":         frameOf(asIs, 300, counted(300))[:prefixSize+300],
		"padded too far":     append(frameOf(asIs, 300, counted(300)), 0),
		"padded with ones":   append(frameOf(asIs, 5, counted(5))[:prefixSize+255], 1),
		"prefix alone":       frameOf(asIs, 0, nil)[:prefixSize],
	} {
		got, err := k.Open([]byte("x"), sealFrame(t, e, frame, kindChunk, nil))
		if !errors.Is(err, ErrDamaged) || string(got) != "x" {
			t.Errorf("%s: opened as %d bytes: %v", name, len(got), err)
		}
	}
	if got, err := k.Open(nil, sealFrame(t, e, frameOf(withZstd, 1000, small), kindChunk, nil)); err != nil || len(got) != 1000 {
		t.Errorf("an honest frame: %d bytes: %v", len(got), err)
	}
}

// frameOf makes a frame that may say anything.
func frameOf(how byte, length int, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{how}, uint32(length))
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, payload...)
	return append(b, make([]byte, padded(len(payload))-len(payload))...)
}

func TestKeyring(t *testing.T) {
	var k Keyring
	if _, err := k.Seal(nil, nil); !errors.Is(err, ErrUnknownEpoch) {
		t.Errorf("sealed without a key: %v", err)
	}
	if _, err := k.SealBatch(nil, nil); !errors.Is(err, ErrUnknownEpoch) {
		t.Errorf("sealed without a key: %v", err)
	}
	a, b := EpochKey{ID: EpochID{1}, Secret: [32]byte{1}}, EpochKey{ID: EpochID{2}, Secret: [32]byte{2}}
	k.Add(a)
	if _, err := k.Seal(nil, nil); !errors.Is(err, ErrUnknownEpoch) {
		t.Errorf("sealed without a current epoch: %v", err)
	}
	k.SetCurrent(b.ID)
	if _, err := k.Seal(nil, nil); !errors.Is(err, ErrUnknownEpoch) {
		t.Errorf("sealed without the current key: %v", err)
	}
	k.Add(b)
	underB, err := k.Seal(nil, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	dedupB := k.DedupKey([]byte("x"))
	k.SetCurrent(a.ID)
	underA, err := k.Seal(nil, []byte("x"))
	if err != nil || bytes.Equal(underA, underB) || k.DedupKey([]byte("x")) == dedupB {
		t.Errorf("two epochs seal alike: %v", err)
	}
	for _, sealed := range [][]byte{underA, underB} {
		if plain, err := k.Open(nil, sealed); err != nil || string(plain) != "x" {
			t.Errorf("opened %q: %v", plain, err)
		}
	}
	if got := k.load().epochs; len(got) != 2 || got[a.ID] == nil || got[b.ID] == nil || k.Current() != a.ID {
		t.Errorf("epochs %v, current %v", got, k.Current())
	}
	k.Add(EpochKey{ID: a.ID, Secret: [32]byte{9}})
	if plain, err := k.Open(nil, underA); err != nil || string(plain) != "x" {
		t.Errorf("the second key of an epoch replaced the first: %v", err)
	}
	var other Keyring
	other.Add(EpochKey{ID: a.ID, Secret: [32]byte{9}})
	if _, err := other.Open(nil, underA); !errors.Is(err, ErrDamaged) {
		t.Errorf("opened under another key: %v", err)
	}
	if _, err := other.Open(nil, underB); !errors.Is(err, ErrUnknownEpoch) {
		t.Errorf("opened without a key: %v", err)
	}
}

func TestKeyringConcurrently(t *testing.T) {
	k := fixedRing()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			plain := corpus(20000+g, g%2 == 0)
			want, _ := k.Seal(nil, plain)
			var sealed, opened []byte
			for i := range 30 {
				k.Add(EpochKey{ID: EpochID{byte(g), byte(i), 1}})
				var err error
				if sealed, err = k.Seal(sealed[:0], plain); err != nil || !bytes.Equal(sealed, want) {
					t.Errorf("sealed as %d other bytes: %v", len(sealed), err)
					return
				}
				if opened, err = k.Open(opened[:0], sealed); err != nil || !bytes.Equal(opened, plain) {
					t.Errorf("opened wrongly: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := len(k.load().epochs); n != 4*30+1 {
		t.Errorf("%d epochs", n)
	}
}

func TestPadded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, MaxBatch).Draw(t, "n")
		p := padded(n)
		if p < n || p < minPadded || n > minPadded && float64(p) > 1.12*float64(n) {
			t.Fatalf("%d is padded to %d", n, p)
		}
		if padded(p) != p || n > 0 && padded(n-1) > p {
			t.Fatalf("padding is not stable or not rising at %d", n)
		}
	})
	for n, want := range map[int]int{0: 256, 256: 256, 257: 272, 4099: 4352, 1 << 16: 1 << 16, 1<<16 + 1: 1<<16 + 2048, 1 << 20: 1 << 20} {
		if got := padded(n); got != want {
			t.Errorf("%d is padded to %d, not %d", n, got, want)
		}
	}
}

func TestCompressionPays(t *testing.T) {
	k := fixedRing()
	text := corpus(1<<16, true)
	sealed, err := k.Seal(nil, text)
	if err != nil || len(sealed) > len(text)*2/3 {
		t.Errorf("64 KiB of text take %d bytes: %v", len(sealed), err)
	}
	mixed := append(corpus(1<<15, false), make([]byte, 1<<15)...)
	if sealed, err = k.Seal(nil, mixed); err != nil || len(sealed) > 1<<15+4096 {
		t.Errorf("64 KiB, half of them zeros, take %d bytes: %v", len(sealed), err)
	}
	if maybeCompressible(corpus(1<<16, false)) || maybeCompressible(corpus(1000, false)) {
		t.Error("random bytes look compressible")
	}
}
