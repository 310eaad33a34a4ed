package volume

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// TestOverlayModel holds the overlay against a plain array with a written mask.
func TestOverlayModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const bs = 64
		var (
			o       overlay
			data    [bs]byte
			written [bs]bool
		)
		for range rapid.IntRange(1, 30).Draw(t, "ops") {
			off := rapid.IntRange(0, bs-1).Draw(t, "off")
			if rapid.IntRange(0, 9).Draw(t, "kind") == 0 {
				o.truncate(off)
				clear(data[off:])
				clear(written[off:])
			} else {
				p := rapid.SliceOfN(rapid.Byte(), 1, bs-off).Draw(t, "data")
				o.write(off, p, bs)
				for i, b := range p {
					data[off+i], written[off+i] = b, true
				}
			}
			checkOverlay(t, &o, data[:], written[:])
		}
	})
}

func checkOverlay(t *rapid.T, o *overlay, data []byte, written []bool) {
	got := make([]byte, len(data))
	o.copyTo(got, 0)
	if !bytes.Equal(got, data) {
		t.Fatalf("bytes: got %x, want %x", got, data)
	}
	for i := 1; i < len(o.ext); i++ {
		if o.ext[i-1].end() >= o.ext[i].off {
			t.Fatalf("extents touch: %v", o.ext)
		}
	}
	lo, hi := rapid.IntRange(0, len(data)).Draw(t, "lo"), rapid.IntRange(0, len(data)).Draw(t, "hi")
	lo, hi = min(lo, hi), max(lo, hi)
	gap := make([]bool, len(data))
	o.gaps(lo, hi, func(a, b int) {
		for ; a < b; a++ {
			gap[a] = true
		}
	})
	all := true
	for i := lo; i < hi; i++ {
		all = all && written[i]
		if gap[i] == written[i] {
			t.Fatalf("byte %d of [%d, %d): gap %v, written %v", i, lo, hi, gap[i], written[i])
		}
	}
	if o.covers(lo, hi) != all {
		t.Fatalf("covers(%d, %d) = %v", lo, hi, !all)
	}
}

func TestAddSpanJoinsNeighbours(t *testing.T) {
	var s []span
	for _, n := range []span{{0, 10}, {10, 20}, {5, 8}, {30, 40}, {25, 30}} {
		s = addSpan(s, n)
	}
	if len(s) != 2 || s[0] != (span{0, 20}) || s[1] != (span{25, 40}) {
		t.Fatalf("got %v", s)
	}
}
