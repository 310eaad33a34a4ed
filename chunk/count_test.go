package chunk

import (
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// forgetful stores nodes as programs did that counted no blocks.
type forgetful struct{ *memIO }

// uncounted returns a version with the given blocks as such a program made it.
func uncounted(t *rapid.T, io *memIO, size int64, ids map[int64]ID) Version {
	v := Version{BlockLog: 14}
	var err error
	if v, err = Update(bg, io, v, size, ids); err != nil {
		t.Fatal(err)
	}
	v.Root = forgetful{io}.copy(t, v.Root, v.Height, v.Blocks())
	v.Holes = 0
	return v
}

// copy writes a tree anew without counts.
func (f forgetful) copy(t *rapid.T, id ID, h uint8, room int64) ID {
	if h == 0 || id.IsZero() {
		return id
	}
	n, err := load(bg, f, id, h, room)
	if err != nil {
		t.Fatal(err)
	}
	for i := range Fanout {
		n.child[i] = f.copy(t, n.child[i], h-1, room-int64(i)*span(h-1))
	}
	b := n.encode(nil, h)
	b = append([]byte{idsFormat}, b[1:nodeHeader+n.count()*IDSize]...)
	out, err := f.SaveNode(bg, b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestUpdateOfUncounted: whatever is done to a version whose blocks nobody counted, or somebody counted wrong, the result is a version
// with the right blocks, and no more holes than there are.
func TestUpdateOfUncounted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		io := newMemIO()
		blocks := rapid.OneOf(rapid.Int64Range(1, 300), rapid.Int64Range(16000, 17000)).Draw(t, "blocks")
		draw := func(n int64, most int) map[int64]ID {
			ids := map[int64]ID{}
			for range rapid.IntRange(0, most).Draw(t, "changes") {
				if n > 0 {
					ids[rapid.Int64Range(0, n-1).Draw(t, "at")] = blockID(rapid.Uint64Range(1, 9).Draw(t, "id"))
				}
			}
			return ids
		}
		want := draw(blocks, 10)
		v := uncounted(t, io, blocks<<14, want)
		if rapid.Bool().Draw(t, "wrong") && !v.Root.IsZero() {
			v.Holes = rapid.Int64Range(0, blocks-1).Draw(t, "holes")
		}
		for range rapid.IntRange(1, 4).Draw(t, "steps") {
			end := rapid.OneOf(rapid.Int64Range(0, blocks), rapid.Int64Range(0, 17000)).Draw(t, "end")
			changes := draw(end, 3)
			var err error
			if v, err = Update(bg, io, v, end<<14, changes); err != nil {
				t.Fatal(err)
			}
			maps.DeleteFunc(want, func(i int64, _ ID) bool { return i >= end })
			maps.Copy(want, changes)
			if err := v.Check(); err != nil {
				t.Fatal(err)
			}
			if got := blocksOf(t, io, v); !maps.Equal(got, want) {
				t.Fatalf("blocks %v, want %v", got, want)
			}
		}
	})
}
