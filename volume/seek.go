package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/chunk"
)

// ErrNoSuchOffset says that a file has nothing of what is sought from there on.
var ErrNoSuchOffset = errors.New("volume: no such offset")

// Seek returns the first offset from off on that holds data (SEEK_DATA) or lies in a hole
// (SEEK_HOLE), where the file's end counts as one: ErrNoSuchOffset if off is not in the file, or no data follows. It is
// exact to the block, what is not flushed included: a block of which something
// was written is data until it turns out to be all zeros when it is flushed.
//
// It reads nodes of the block tree: to find data a few, past data one for each 128 blocks.
func (h *Handle) Seek(ctx context.Context, off int64, whence int) (int64, error) {
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, ErrInvalid
	}
	m, err := h.v.mapOf(h.in, off)
	if err != nil {
		return 0, err
	}
	if off < 0 || off >= m.size {
		return 0, ErrNoSuchOffset
	}
	index := off / m.bs
	if whence == unix.SEEK_DATA {
		index, err = m.data(ctx, nodeIO{h.v}, index)
	} else {
		index, err = m.hole(ctx, nodeIO{h.v}, index)
	}
	if err != nil {
		return 0, fmt.Errorf("seek in inode %d: %w", h.in.ino, err)
	}
	switch off = max(off, index*m.bs); {
	case off < m.size:
		return off, nil
	case whence == unix.SEEK_DATA:
		return 0, ErrNoSuchOffset
	}
	return m.size, nil
}

// fileMap says which blocks of a file are data.
type fileMap struct {
	base     chunk.Version
	cut      int64 // blocks of base that count
	bs, size int64
	over     map[int64]bool // blocks that differ from base: whether they are data
	order    []int64        // of over
}

// mapOf returns the map of a file from an offset on.
func (v *Volume) mapOf(in *inode, off int64) (fileMap, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := v.load(in); err != nil {
		return fileMap{}, err
	}
	m := fileMap{base: in.base, bs: v.blockSize(in), size: in.size, over: map[int64]bool{}}
	m.cut = (in.cut + m.bs - 1) / m.bs
	for index, id := range in.sealed {
		if index >= off/m.bs {
			m.over[index] = !id.IsZero()
		}
	}
	for index := range in.dirty {
		if index >= off/m.bs {
			m.over[index] = true
		}
	}
	for index := range m.over {
		m.order = append(m.order, index)
	}
	slices.Sort(m.order)
	return m, nil
}

// errFound ends a walk over blocks.
var errFound = errors.New("volume: found")

// data returns the first block from index on that is data, or one past the end.
func (m *fileMap) data(ctx context.Context, io chunk.NodeIO, index int64) (int64, error) {
	found := m.size/m.bs + 1
	for _, i := range m.order {
		if m.over[i] && i >= index {
			found = i
			break
		}
	}
	err := m.blocks(ctx, io, index, found, func(i int64) bool {
		if _, ok := m.over[i]; ok { // not data, or it would be found
			return false
		}
		found = i
		return true
	})
	return found, err
}

// hole returns the first block from index on that is a hole, or one past the end.
func (m *fileMap) hole(ctx context.Context, io chunk.NodeIO, index int64) (int64, error) {
	end := m.size/m.bs + 1
	upTo := func(i int64) bool { // no hole of over before i
		for ; index < i; index++ {
			if !m.over[index] {
				return false
			}
		}
		return true
	}
	err := m.blocks(ctx, io, index, end, func(i int64) bool {
		if !upTo(i) {
			return true
		}
		if data, ok := m.over[i]; ok && !data {
			return true
		}
		index = i + 1
		return false
	})
	if err == nil {
		upTo(end)
	}
	return index, err
}

// blocks calls fn for the blocks of base that are data, until it returns true.
func (m *fileMap) blocks(ctx context.Context, io chunk.NodeIO, from, to int64, fn func(index int64) bool) error {
	to = min(to, m.cut)
	if len(m.base.Inline) > 0 {
		for ; from < to; from++ {
			if fn(from) {
				return nil
			}
		}
		return nil
	}
	err := chunk.Blocks(ctx, io, m.base, from, to, func(i int64, _ chunk.ID) error {
		if fn(i) {
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return nil
	}
	return err
}
