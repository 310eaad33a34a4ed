package chunk

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// blocksOf reads a whole version by Blocks.
func blocksOf(t interface{ Fatalf(string, ...any) }, io NodeIO, v Version) map[int64]ID {
	got := map[int64]ID{}
	last := int64(-1)
	err := Blocks(bg, io, v, 0, math.MaxInt64, func(i int64, id ID) error {
		if i <= last {
			t.Fatalf("block %d after %d", i, last)
		}
		last = i
		got[i] = id
		return nil
	})
	if err != nil {
		t.Fatalf("read blocks: %v", err)
	}
	return got
}

var bg = context.Background()

// model is what a version should be.
type model struct {
	size   int64
	blocks map[int64]ID
}

func (m *model) resize(size int64, log uint8) {
	m.size = size
	end := blocksFor(size, log)
	maps.DeleteFunc(m.blocks, func(i int64, _ ID) bool { return i >= end })
}

func TestUpdateAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		io := newMemIO()
		log := rapid.Uint8Range(MinBlockLog, MaxBlockLog).Draw(t, "log")
		v := Version{BlockLog: log}
		m := model{blocks: map[int64]ID{}}
		old, oldBlocks := v, map[int64]ID{}
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			blocks := rapid.OneOf(rapid.Int64Range(0, 5), rapid.Int64Range(100, 300),
				rapid.Int64Range(16000, 17000), rapid.Int64Range(0, 1<<23)).Draw(t, "blocks")
			size := max(0, blocks<<log-rapid.Int64Range(0, 1<<log-1).Draw(t, "less"))
			changes := map[int64]ID{}
			for range rapid.IntRange(0, 20).Draw(t, "changes") {
				if end := blocksFor(size, log); end > 0 {
					at := rapid.Int64Range(0, end-1).Draw(t, "at")
					changes[at] = blockID(rapid.Uint64Range(0, 9).Draw(t, "id"))
				}
			}
			if rapid.Bool().Draw(t, "keep") {
				old, oldBlocks = v, maps.Clone(m.blocks)
			}
			m.resize(size, log)
			for i, id := range changes {
				if m.blocks[i] = id; id.IsZero() {
					delete(m.blocks, i)
				}
			}
			var err error
			if v, err = Update(bg, io, v, size, changes); err != nil {
				t.Fatalf("update: %v", err)
			}
			checkVersion(t, io, v, m)
			if got := blocksOf(t, io, old); !maps.Equal(got, oldBlocks) {
				t.Fatalf("an old version changed: %v, want %v", got, oldBlocks)
			}
		}
	})
}

// checkVersion compares every way of reading v with the model, and v with the same
// content put together at once.
func checkVersion(t *rapid.T, io *memIO, v Version, m model) {
	if err := v.Check(); err != nil || v.Size != m.size {
		t.Fatalf("version %+v, want size %d: %v", v, m.size, err)
	}
	if got := blocksOf(t, io, v); !maps.Equal(got, m.blocks) || v.Data() != int64(len(got)) {
		t.Fatalf("blocks %v, %d of them, want %v", got, v.Data(), m.blocks)
	}
	for i := range m.blocks {
		for _, at := range []int64{i, i + 1, i - 1} {
			if got, err := Block(bg, io, v, at); err != nil || got != m.blocks[at] {
				t.Fatalf("block %d is %v, want %v: %v", at, got, m.blocks[at], err)
			}
		}
	}
	once, err := Update(bg, io, Version{BlockLog: v.BlockLog}, m.size, m.blocks)
	if err != nil || once.Root != v.Root || once.Height != v.Height {
		t.Fatalf("not canonical: %+v, made at once %+v: %v", v, once, err)
	}
	blocks := map[ID]bool{}
	err = All(bg, io, v, func(id ID, isNode bool) error {
		if _, saved := io.nodes[id]; saved != isNode {
			t.Fatalf("%v is node %v, said %v", id, saved, isNode)
		}
		if !isNode {
			blocks[id] = true
		}
		return nil
	})
	if err != nil || !slices.Equal(sorted(maps.Keys(blocks)), sorted(maps.Values(m.blocks))) {
		t.Fatalf("all chunks: %v, blocks %v, want %v", err, blocks, m.blocks)
	}
	if len(m.blocks) == 0 && !v.Root.IsZero() {
		t.Fatalf("a version of holes has a root")
	}
}

func sorted(ids func(func(ID) bool)) []string {
	var out []string
	for id := range ids {
		out = append(out, id.String())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func TestBlocksOfRange(t *testing.T) {
	io := newMemIO()
	changes := map[int64]ID{}
	for i := int64(0); i < 1000; i += 3 {
		changes[i] = blockID(uint64(i) + 1)
	}
	v, err := Update(bg, io, Version{BlockLog: 16}, 1000<<16, changes)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range [][2]int64{{0, 1}, {1, 3}, {127, 129}, {500, 700}, {999, 5000}, {-5, 4}, {700, 500}, {1000, 2000}} {
		want := 0
		for i := range changes {
			if i >= r[0] && i < r[1] {
				want++
			}
		}
		got := 0
		err := Blocks(bg, io, v, r[0], r[1], func(i int64, id ID) error {
			got++
			if i < r[0] || i >= r[1] || changes[i] != id {
				t.Errorf("range %v: block %d is %v", r, i, id)
			}
			return nil
		})
		if err != nil || got != want {
			t.Errorf("range %v: %d blocks, want %d: %v", r, got, want, err)
		}
	}
}

func TestUpdateCost(t *testing.T) {
	io := newMemIO()
	changes := map[int64]ID{}
	for i := range int64(1 << 14) { // 1 GiB in blocks of 64 KiB
		changes[i] = blockID(uint64(i) + 1)
	}
	v, err := Update(bg, io, Version{BlockLog: 16}, 1<<30, changes)
	if err != nil {
		t.Fatal(err)
	}
	if io.saves != 129 || io.loads != 0 {
		t.Errorf("a new GiB: %d saves, %d loads", io.saves, io.loads)
	}
	io.saves, io.loads = 0, 0
	if _, err = Update(bg, io, v, v.Size, map[int64]ID{5000: blockID(1)}); err != nil {
		t.Fatal(err)
	}
	if io.saves != 2 || io.loads != 2 {
		t.Errorf("one block changed: %d saves, %d loads", io.saves, io.loads)
	}
	io.saves, io.loads = 0, 0
	same, err := Update(bg, io, v, v.Size, map[int64]ID{5000: blockID(5001)})
	if err != nil || same.Root != v.Root || io.saves != 0 {
		t.Errorf("nothing changed: %d saves: %v", io.saves, err)
	}
	io.saves, io.loads = 0, 0
	if _, err = Update(bg, io, v, 1<<50, nil); err != nil {
		t.Fatal(err)
	}
	if io.saves > 7 || io.loads > 0 {
		t.Errorf("grown by a hole: %d saves, %d loads", io.saves, io.loads)
	}
}

func TestHugeSizes(t *testing.T) {
	for _, log := range []uint8{MinBlockLog, DefaultBlockLog, MaxBlockLog} {
		io := newMemIO()
		v, err := Update(bg, io, Version{BlockLog: log}, math.MaxInt64, map[int64]ID{
			0: blockID(1), blocksFor(math.MaxInt64, log) - 1: blockID(2),
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := blocksOf(t, io, v); len(got) != 2 {
			t.Errorf("log %d: blocks %v", log, got)
		}
		if v, err = Update(bg, io, v, 1, nil); err != nil || v.Root != blockID(1) || v.Height != 0 {
			t.Errorf("log %d: cut to a byte: %+v: %v", log, v, err)
		}
		if v, err = Update(bg, io, v, 0, nil); err != nil || !v.Root.IsZero() {
			t.Errorf("log %d: cut to nothing: %+v: %v", log, v, err)
		}
	}
}

func TestImpossibleVersions(t *testing.T) {
	one := blockID(1)
	for name, v := range map[string]Version{
		"negative":           {Size: -1, BlockLog: 16},
		"no block size":      {Size: 1},
		"small blocks":       {Size: 1, BlockLog: 13, Root: one},
		"large blocks":       {Size: 1, BlockLog: 21, Root: one},
		"overflowing shift":  {Size: 1, BlockLog: 255, Root: one},
		"too high":           {Size: 1, BlockLog: 16, Height: 1, Root: one},
		"too low":            {Size: 1 << 20, BlockLog: 16, Root: one},
		"empty, with a root": {BlockLog: 16, Root: one},
		"inline and a root":  {Size: 1, Inline: []byte{1}, Root: one},
		"inline too short":   {Size: 2, Inline: []byte{1}},
		"inline too long":    {Size: 1, Inline: []byte{1, 2}},
	} {
		io := newMemIO()
		_, blockErr := Block(bg, io, v, 0)
		_, updateErr := Update(bg, io, v, 1, nil)
		for _, err := range []error{
			v.Check(), blockErr, updateErr,
			Blocks(bg, io, v, 0, 1, func(int64, ID) error { return nil }),
			All(bg, io, v, func(ID, bool) error { return nil }),
		} {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if io.loads > 0 {
			t.Errorf("%s: something was loaded", name)
		}
	}
}

func TestImpossibleUpdates(t *testing.T) {
	io := newMemIO()
	v := Version{Size: 1 << 16, BlockLog: 16}
	for name, try := range map[string]func() error{
		"past the end": func() error { _, err := Update(bg, io, v, 1<<16, map[int64]ID{1: {}}); return err },
		"before it":    func() error { _, err := Update(bg, io, v, 1<<16, map[int64]ID{-1: {}}); return err },
		"negative":     func() error { _, err := Update(bg, io, v, -1, nil); return err },
		"no log":       func() error { _, err := Update(bg, io, Version{}, 1, nil); return err },
		"inline": func() error {
			_, err := Update(bg, io, Version{Size: 1, BlockLog: 16, Inline: []byte{1}}, 1, nil)
			return err
		},
	} {
		if err := try(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestInlineHasNoBlocks(t *testing.T) {
	v := Version{Size: 3, BlockLog: 16, Inline: []byte("abc")}
	if id, err := Block(bg, newMemIO(), v, 0); err != nil || !id.IsZero() {
		t.Errorf("block %v: %v", id, err)
	}
	if got := blocksOf(t, newMemIO(), v); len(got) != 0 {
		t.Errorf("blocks %v", got)
	}
}

func TestErrorsOfIO(t *testing.T) {
	io := newMemIO()
	v, err := Update(bg, io, Version{BlockLog: 14}, 1<<30, map[int64]ID{0: blockID(1), 60000: blockID(2)})
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	if err := Blocks(bg, io, v, 0, 1<<20, func(int64, ID) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Blocks: %v", err)
	}
	if err := All(bg, io, v, func(ID, bool) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("All: %v", err)
	}
	ctx, cancel := context.WithCancel(bg)
	cancel()
	if err := All(ctx, io, v, func(ID, bool) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("All, cancelled: %v", err)
	}
	clear(io.nodes)
	if _, err := Block(bg, io, v, 0); err == nil || errors.Is(err, ErrMalformed) {
		t.Errorf("Block of a missing node: %v", err)
	}
	if _, err := Update(bg, io, v, v.Size, map[int64]ID{0: {}}); err == nil || errors.Is(err, ErrMalformed) {
		t.Errorf("Update of a missing node: %v", err)
	}
}

// A node all of whose children are the same node says little and means much; All
// must not be caught in it.
func TestAllOfRepeats(t *testing.T) {
	io := newMemIO()
	id := blockID(1)
	for h := uint8(1); h <= 5; h++ {
		var n node
		for i := range Fanout {
			n.set(i, subtree{id: id, data: span(h - 1)})
		}
		id, _ = io.SaveNode(bg, n.encode(nil, h))
	}
	v := Version{Size: span(5) << 14, BlockLog: 14, Height: 5, Root: id}
	nodes, blocks := 0, 0
	err := All(bg, io, v, func(_ ID, isNode bool) error {
		if isNode {
			nodes++
		} else {
			blocks++
		}
		return nil
	})
	if err != nil || nodes != 5 || blocks != Fanout {
		t.Errorf("%d nodes, %d blocks: %v", nodes, blocks, err)
	}
}

func BenchmarkBlock(b *testing.B) {
	io := newMemIO()
	changes := map[int64]ID{}
	for i := range int64(1 << 14) {
		changes[i] = blockID(uint64(i) + 1)
	}
	v, err := Update(bg, io, Version{BlockLog: 16}, 1<<30, changes)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Block", func(b *testing.B) {
		b.ReportAllocs()
		for i := int64(0); b.Loop(); i++ {
			if _, err := Block(bg, io, v, i&(1<<14-1)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Update", func(b *testing.B) {
		b.ReportAllocs()
		for i := int64(0); b.Loop(); i++ {
			if _, err := Update(bg, io, v, v.Size, map[int64]ID{i & (1<<14 - 1): blockID(1 << 40)}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
