package chunk

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestSpliceAgainstMap: the blocks of a splice are those of a map that went through the
// same, and the tree is the canonical one.
func TestSpliceAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		io := newMemIO()
		log := rapid.Uint8Range(MinBlockLog, MaxBlockLog).Draw(t, "log")
		draw := func(name string) (Version, map[int64]ID) {
			blocks := rapid.OneOf(rapid.Int64Range(0, 5), rapid.Int64Range(100, 300), rapid.Int64Range(16000, 17000), rapid.Int64Range(0, 1<<22)).Draw(t, name)
			size := max(0, blocks<<log-rapid.Int64Range(0, 1<<log-1).Draw(t, name+" less"))
			ids := map[int64]ID{}
			for range rapid.IntRange(0, 30).Draw(t, name+" set") {
				if end := blocksFor(size, log); end > 0 {
					ids[rapid.Int64Range(0, end-1).Draw(t, "at")] = blockID(rapid.Uint64Range(1, 9).Draw(t, "id"))
				}
			}
			v, err := Update(bg, io, Version{BlockLog: log}, size, ids)
			if err != nil {
				t.Fatal(err)
			}
			return v, ids
		}
		v, want := draw("to")
		src, there := draw("from")
		end := v.Blocks() + rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, 20000)).Draw(t, "more")
		at := rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, end)).Draw(t, "at")
		from := rapid.OneOf(rapid.Just(int64(0)), rapid.Just(at), rapid.Int64Range(0, src.Blocks()+3)).Draw(t, "from")
		n := rapid.OneOf(rapid.Just(end-at), rapid.Int64Range(0, end-at)).Draw(t, "n")
		size := max(v.Size, end<<log-rapid.Int64Range(0, 1<<log-1).Draw(t, "less"))
		maps.DeleteFunc(want, func(i int64, _ ID) bool { return i >= at && i < at+n })
		for i, id := range there {
			if i >= from && i < from+n {
				want[at+i-from] = id
			}
		}
		got, err := Splice(bg, io, v, size, at, src, from, n)
		if err != nil {
			t.Fatal(err)
		}
		checkVersion(t, io, got, model{size, want})
		plain, err := Update(bg, io, Version{BlockLog: log}, size, want)
		if err != nil || got.Root != plain.Root || got.Height != plain.Height {
			t.Fatalf("not the canonical tree: %v, want %v, %v", got, plain, err)
		}
	})
}

// TestSpliceShares: copying a whole file costs nothing, a hole in the middle of a large one the paths to its edges.
func TestSpliceShares(t *testing.T) {
	io := newMemIO()
	ids := map[int64]ID{}
	for i := range int64(163840) { // 10 GiB
		ids[i] = blockID(uint64(i + 1))
	}
	src, err := Update(bg, io, Version{BlockLog: 16}, 10<<30-5, ids)
	if err != nil {
		t.Fatal(err)
	}
	io.loads, io.saves = 0, 0
	got, err := Splice(bg, io, Version{BlockLog: 16}, src.Size, 0, src, 0, src.Blocks())
	if err != nil || got.Root != src.Root || io.loads+io.saves != 0 {
		t.Errorf("whole copy: root %v, want %v; %d loads, %d saves, %v", got.Root, src.Root, io.loads, io.saves, err)
	}
	if _, err = Splice(bg, io, src, src.Size, 1000, Version{BlockLog: 16}, 0, 150_000); err != nil || io.loads+io.saves > 2000 {
		t.Errorf("hole: %d loads, %d saves, %v", io.loads, io.saves, err)
	}
	t.Logf("a hole of 9 GiB: %d loads, %d saves", io.loads, io.saves)
}

// TestSpliceOfHoles: holes of a huge file cost the paths to their edges, whichever blocks they begin at.
func TestSpliceOfHoles(t *testing.T) {
	io := newMemIO()
	const size = 1 << 44
	v, err := Update(bg, io, Version{BlockLog: 16}, size, map[int64]ID{0: blockID(1), 1000: blockID(2), size>>16 - 1: blockID(3)})
	if err != nil {
		t.Fatal(err)
	}
	// Should it look at all the 2^28 blocks, it does not take for ever.
	ctx, cancel := context.WithTimeout(bg, 10*time.Second)
	defer cancel()
	end := v.Blocks()
	sparse, err := Update(bg, io, Version{BlockLog: 16}, size, map[int64]ID{5: blockID(4), 1 << 27: blockID(5)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		src  Version
		want map[int64]ID // beside the edges
	}{
		{"an empty file", Version{BlockLog: 16}, nil},
		{"nothing but a hole", Version{Size: size, BlockLog: 16, Height: v.Height}, nil},
		{"two blocks", sparse, map[int64]ID{6: blockID(4), 1<<27 + 1: blockID(5)}},
	} {
		io.loads, io.saves = 0, 0
		got, err := Splice(ctx, io, v, size, 1, c.src, 0, end-2)
		if err != nil || io.loads+io.saves > 8000 {
			t.Fatalf("%s: %d loads, %d saves, %v", c.name, io.loads, io.saves, err)
		}
		t.Logf("%s: %d loads, %d saves", c.name, io.loads, io.saves)
		all := map[int64]ID{0: blockID(1), end - 1: blockID(3)}
		maps.Copy(all, c.want)
		want, err := Update(bg, io, Version{BlockLog: 16}, size, all)
		if err != nil || got.Root != want.Root || got.Height != want.Height {
			t.Errorf("%s: %v, want %v, %v", c.name, got, want, err)
		}
	}
}

func TestSpliceEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(bg)
	cancel()
	v := Version{Size: 1 << 44, BlockLog: 16, Height: heightFor(1 << 28)}
	if _, err := Splice(ctx, newMemIO(), v, v.Size, 1, v, 0, 1000); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestSpliceRefuses(t *testing.T) {
	v := Version{Size: 10 << 16, BlockLog: 16, Height: 1}
	for _, c := range []struct {
		name        string
		v, src      Version
		size        int64
		at, from, n int64
	}{
		{"other block size", v, Version{BlockLog: 17}, v.Size, 0, 0, 1},
		{"inline", v, Version{Size: 1, BlockLog: 16, Inline: []byte{1}}, v.Size, 0, 0, 1},
		{"smaller", v, v, v.Size - 1, 0, 0, 1},
		{"past the end", v, v, v.Size, 5, 0, 6},
		{"before the start", v, v, v.Size, -1, 0, 1},
		{"impossible", v, Version{Size: 1 << 40, BlockLog: 16}, v.Size, 0, 0, 1},
	} {
		if _, err := Splice(bg, newMemIO(), c.v, c.size, c.at, c.src, c.from, c.n); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
