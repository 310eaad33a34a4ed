package chunk

import (
	"errors"
	"fmt"
)

const (
	// MaxPlain is the greatest length of what is sealed into one chunk, in bytes.
	MaxPlain = 1 << 20
	// MaxSealed is the greatest length of a chunk, in bytes: MaxPlain and room for
	// the envelope of sealing, of which today's format needs 75 bytes.
	MaxSealed = MaxPlain + 256

	// MinBlockLog, MaxBlockLog and DefaultBlockLog are the logarithms (base 2) of
	// the least, the greatest and the usual block size: 16 KiB, 1 MiB, 64 KiB.
	MinBlockLog     = 14
	MaxBlockLog     = 20
	DefaultBlockLog = 16
)

// ErrMalformed is returned for a version or a node that cannot be one.
var ErrMalformed = errors.New("malformed block tree")

// Version is one content of a file. The zero Version is the empty file with no
// block size chosen yet.
type Version struct {
	Size     int64 // bytes
	BlockLog uint8 // log2 of the block size; 0 only if there are no blocks

	// Height of the tree: at 0, Root is the only block; at h, Root is a node whose
	// children are roots of height h-1. It is the least at which all blocks of Size
	// have room.
	Height uint8
	Root   ID // zero: all holes

	// Holes is how many blocks are holes, or 0 if Root is zero. It tells how much space a file takes, and nothing depends on it: versions of older programs
	// have 0 whatever they hold.
	Holes int64

	// Inline is the whole content if it is so small that it needs no chunk; then
	// Root is zero. It is read only.
	Inline []byte
}

// Check reports whether v can be a version at all, without looking at its nodes.
// Errors wrap ErrMalformed.
func (v Version) Check() error {
	switch {
	case v.Size < 0:
		return fmt.Errorf("%w: size %d", ErrMalformed, v.Size)
	case len(v.Inline) > 0:
		if int64(len(v.Inline)) != v.Size || v.Height != 0 || !v.Root.IsZero() || v.Holes != 0 {
			return fmt.Errorf("%w: %d inline bytes beside a tree or another size", ErrMalformed, len(v.Inline))
		}
		return nil
	case v.BlockLog == 0 && v.Size == 0 && v.Height == 0 && v.Root.IsZero():
		return nil
	case v.BlockLog < MinBlockLog || v.BlockLog > MaxBlockLog:
		return fmt.Errorf("%w: block size 2^%d", ErrMalformed, v.BlockLog)
	case v.Size == 0 && !v.Root.IsZero():
		return fmt.Errorf("%w: empty, with a root", ErrMalformed)
	case v.Height != heightFor(v.Blocks()):
		return fmt.Errorf("%w: height %d for %d blocks", ErrMalformed, v.Height, v.Blocks())
	case v.Holes != 0 && v.Root.IsZero(), v.Holes < 0, v.Holes > 0 && v.Holes >= v.Blocks():
		return fmt.Errorf("%w: %d holes in %d blocks", ErrMalformed, v.Holes, v.Blocks())
	}
	return nil
}

// BlockSize returns the size of v's blocks in bytes, or 0 if none was chosen.
// The last block may hold less.
func (v Version) BlockSize() int64 {
	if v.BlockLog == 0 {
		return 0
	}
	return 1 << v.BlockLog
}

// Blocks returns the number of blocks that v's size takes, holes included. An
// inline version has none.
func (v Version) Blocks() int64 {
	if v.BlockLog == 0 || len(v.Inline) > 0 {
		return 0
	}
	return blocksFor(v.Size, v.BlockLog)
}

// Data returns the number of blocks of v that are no holes.
func (v Version) Data() int64 {
	if v.Root.IsZero() {
		return 0
	}
	return v.Blocks() - v.Holes
}

// setData gives v its root, below which there are so many blocks that are no holes.
func (v *Version) setData(root subtree) {
	v.Root = root.id
	if !root.id.IsZero() {
		v.Holes = max(0, v.Blocks()-root.data)
	}
}

func blocksFor(size int64, log uint8) int64 {
	n := size >> log
	if size&(1<<log-1) != 0 {
		n++
	}
	return n
}

// heightFor returns the least height of a tree with room for n blocks. It is at
// most 7, as sizes end at 2^63.
func heightFor(n int64) uint8 {
	h := uint8(0)
	for room := int64(1); room < n; room *= Fanout {
		h++
	}
	return h
}

// span returns the number of blocks below one root of height h.
func span(h uint8) int64 { return 1 << (fanoutLog * h) }
