package cipher

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/foreverfs/forever/chunk"
)

// TestOpenPart: any part of a chunk opens as it does with the whole, or says that it can't.
func TestOpenPart(t *testing.T) {
	k := fixedRing()
	rapid.Check(t, func(t *rapid.T) {
		plain := plaintext(t, chunk.MaxPlain)
		sealed, err := k.Seal(nil, plain)
		if err != nil {
			t.Fatal(err)
		}
		off := rapid.IntRange(0, len(plain)).Draw(t, "off")
		n := rapid.IntRange(0, len(plain)-off).Draw(t, "n")
		stored := len(sealed) == overhead+padded(len(plain))
		part := make([]byte, n)
		if stored {
			copy(part, sealed[PartOffset+off:])
		}
		got, err := k.OpenPart([]byte("before"), part, sealed[:PartOffset+rapid.IntRange(0, 5).Draw(t, "more")], len(sealed), off)
		if !stored {
			if !errors.Is(err, ErrCompressed) || string(got) != "before" {
				t.Fatalf("part of what is compressed: %q, %v", got, err)
			}
			return
		}
		if err != nil || !bytes.Equal(got, slices.Concat([]byte("before"), plain[off:off+n])) {
			t.Fatalf("%d bytes at %d of %d: %v", n, off, len(plain), err)
		}
	})
}

// TestOpenPartOfDamagedHead: a part is never opened by a head that is not the chunk's.
func TestOpenPartOfDamagedHead(t *testing.T) {
	k := fixedRing()
	plain := corpus(20000, false)
	sealed, err := k.Seal(nil, plain)
	if err != nil {
		t.Fatal(err)
	}
	part := sealed[PartOffset+5000:][:100]
	for at := range PartOffset {
		for bit := range 8 {
			head := bytes.Clone(sealed[:PartOffset])
			head[at] ^= 1 << bit
			got, err := k.OpenPart([]byte("x"), part, head, len(sealed), 5000)
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnknownEpoch) || string(got) != "x" {
				t.Errorf("byte %d, bit %d: %v", at, bit, err)
			}
		}
	}
	for _, c := range []struct{ head, size, off int }{
		{PartOffset - 1, len(sealed), 5000}, {0, len(sealed), 5000}, {PartOffset, len(sealed) - 1, 5000}, {PartOffset, 0, 0},
		{PartOffset, len(sealed), -1}, {PartOffset, len(sealed), len(plain) - 99}, {PartOffset, 1 << 40, 0},
	} {
		if _, err := k.OpenPart(nil, part, sealed[:c.head], c.size, c.off); !errors.Is(err, ErrDamaged) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
