package chunk

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"
)

// TestGoldenNodes holds the encoding: these bytes never change.
func TestGoldenNodes(t *testing.T) {
	text, err := os.ReadFile("testdata/nodes.txt")
	if err != nil {
		t.Fatal(err)
	}
	var full, all node
	for i := range Fanout {
		full.set(i, subtree{id: blockID(uint64(i) + 1), data: span(1)})
		all.set(i, leaf(blockID(uint64(i)+1)))
	}
	var counts node
	counts.set(1, subtree{id: blockID(2), data: 1})
	counts.set(3, subtree{id: blockID(3), data: span(2)})
	for name, want := range map[string]struct {
		n      node
		height uint8
		old    bool // of a version before there were counts: all below a child is data
	}{
		"first":  {nodeOf(1, map[int]uint64{0: 1}), 1, false},
		"all":    {all, 1, false},
		"counts": {counts, 3, false},
		"holes":  {nodeOf(3, map[int]uint64{1: 2, 3: 0xfedcba9876543210}), 3, true},
		"full":   {full, 2, true},
	} {
		golden := line(t, string(text), name)
		if got := want.n.encode(nil, want.height); !want.old && !bytes.Equal(got, golden) {
			t.Errorf("%s: encoded %x, want %x", name, got, golden)
		}
		got, err := decodeNode(golden, want.height, span(want.height))
		if err != nil || *got != want.n {
			t.Errorf("%s: decoded %v: %v", name, got, err)
		}
	}
}

// nodeOf returns a node of a height with the children with some numbers, below which there are no holes.
func nodeOf(height uint8, children map[int]uint64) (n node) {
	for i, number := range children {
		n.set(i, subtree{id: blockID(number), data: span(height - 1)})
	}
	return n
}

func encoded(height uint8, children map[int]uint64) []byte {
	n := nodeOf(height, children)
	return n.encode(nil, height)
}

// line returns the bytes of a line "name hex" of a file.
func line(t *testing.T, text, name string) []byte {
	t.Helper()
	for l := range strings.Lines(text) {
		if digits, ok := strings.CutPrefix(l, name+" "); ok {
			b, err := hex.DecodeString(strings.TrimSpace(digits))
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	t.Fatalf("no golden %s", name)
	return nil
}

func TestMalformedNodes(t *testing.T) {
	good := encoded(2, map[int]uint64{1: 7})
	with := func(change func(b []byte) []byte) []byte { return change(bytes.Clone(good)) }
	for name, b := range map[string][]byte{
		"empty":         nil,
		"header alone":  good[:3],
		"cut":           good[:len(good)-1],
		"longer":        append(bytes.Clone(good), 0),
		"other format":  with(func(b []byte) []byte { b[0] = 3; return b }),
		"no counts":     with(func(b []byte) []byte { b[0] = 1; return b }),
		"other height":  with(func(b []byte) []byte { b[1] = 1; return b }),
		"count 0":       with(func(b []byte) []byte { b[2] = 0; return b }),
		"count 1":       with(func(b []byte) []byte { b[2] = 1; return b }),
		"count 255":     with(func(b []byte) []byte { b[2] = 255; return b }),
		"count 129":     append([]byte{1, 2, 129}, bytes.Repeat([]byte{1}, 129*IDSize)...),
		"ends in hole":  append([]byte{1, 2, 2}, append(bytes.Repeat([]byte{1}, 32), make([]byte, 32)...)...),
		"nothing but 0": append([]byte{1, 2, 1}, make([]byte, 32)...),
	} {
		if _, err := decodeNode(b, 2, span(2)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := decodeNode(good, 2, span(1)); !errors.Is(err, ErrMalformed) {
		t.Errorf("past the end: %v", err)
	}
	for count, blocks := range map[byte]int64{0: 1, 1: 1, 5: 5, 255: 100} {
		b := with(func(b []byte) []byte { b[len(b)-1] = count; return b })
		if n, err := decodeNode(b, 2, span(1)+100); err != nil || n.data[1] != blocks {
			t.Errorf("%d blocks below a child with room for 100: taken for %d, %v", count, n.data[1], err)
		}
	}
	if _, err := decodeNode(good, 2, span(1)+1); err != nil {
		t.Errorf("up to the end: %v", err)
	}
}

// FuzzNode reads foreign bytes as the only node of a version, by every way there
// is. A node that is taken must be the one encoding of what it says.
func FuzzNode(f *testing.F) {
	f.Add(encoded(1, map[int]uint64{0: 1}), int64(100))
	f.Add(encoded(1, map[int]uint64{1: 1, 127: 2}), int64(128))
	f.Add(encoded(2, map[int]uint64{5: 1}), int64(4))
	f.Add([]byte{1, 1, 1}, int64(2))
	f.Fuzz(func(t *testing.T, b []byte, blocks int64) {
		if n, err := decodeNode(b, 2, span(2)); err == nil {
			if again, err := decodeNode(n.encode(nil, 2), 2, span(2)); err != nil || *again != *n {
				t.Fatalf("taken, but encoded as %x: %v", n.encode(nil, 2), err)
			}
		}
		blocks = 2 + (blocks%Fanout+Fanout)%Fanout%(Fanout-1)
		io := newMemIO()
		id, _ := io.SaveNode(bg, bytes.Clone(b))
		v := Version{Size: blocks << 14, BlockLog: 14, Height: 1, Root: id}
		n, err := decodeNode(b, 1, blocks)
		if err == nil && !bytes.Equal(n.encode(nil, 1), b) {
			t.Fatalf("taken, but encoded as %x", n.encode(nil, 1))
		}
		if allErr := All(bg, io, v, func(ID, bool) error { return nil }); (allErr == nil) != (err == nil) {
			t.Fatalf("decode: %v, all: %v", err, allErr)
		}
		if _, blockErr := Block(bg, io, v, blocks-1); (blockErr == nil) != (err == nil) {
			t.Fatalf("decode: %v, block: %v", err, blockErr)
		}
		next, updateErr := Update(bg, io, v, v.Size, map[int64]ID{0: blockID(9)})
		if (updateErr == nil) != (err == nil) {
			t.Fatalf("decode: %v, update: %v", err, updateErr)
		}
		if err == nil {
			if got, err := Block(bg, io, next, 0); err != nil || got != blockID(9) {
				t.Fatalf("updated block is %v: %v", got, err)
			}
		}
	})
}
