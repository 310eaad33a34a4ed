package volume

import (
	"context"
	"fmt"

	"github.com/foreverfs/forever/chunk"
)

// isLocal reports whether a range can be read without the network: it is in memory, or its
// chunks are in the cache or the store. Nodes of the block tree must be in the cache.
func (v *Volume) isLocal(in *inode, off, n int64) bool {
	if !in.mu.TryRLock() {
		return false // somebody changes the file: that may take a moment
	}
	defer in.mu.RUnlock()
	if !in.loaded {
		return false
	}
	bs := v.blockSize(in)
	for end := min(off+n, in.size); off < end; off = (off/bs + 1) * bs {
		index := off / bs
		pc := piece{index: index, off: off % bs, limit: min(bs, max(0, in.cut-index*bs))}
		id, sealed := in.sealed[index]
		if sealed {
			pc.id = id
		}
		if o := in.dirty[index]; o != nil && o.covers(int(pc.off), int(min(bs, end-index*bs))) || sealed && id.IsZero() {
			continue
		}
		if !v.pieceLocal(in.base, pc) {
			return false
		}
	}
	return true
}

// belowLocal reports whether what lies below all that was written is here, and what lies above it in the block tree, so that a version of the
// file can be made without waiting for the network.
func (v *Volume) belowLocal(in *inode) bool {
	in.mu.RLock()
	defer in.mu.RUnlock()
	return v.belowLocalHeld(in)
}

// belowLocalHeld is belowLocal with in.mu held.
func (v *Volume) belowLocalHeld(in *inode) bool {
	for index := range in.dirty {
		if !v.pieceLocal(in.base, v.below(in, index)) {
			return false
		}
	}
	return v.readPaths(context.Background(), localNodes{v}, in.base, in.paths()) == nil
}

// fetchPaths has the nodes of the block tree here that a version of the file as it is now is made from.
func (v *Volume) fetchPaths(ctx context.Context, in *inode) error {
	in.mu.RLock()
	base, paths := in.base, in.paths()
	in.mu.RUnlock()
	return v.readPaths(ctx, nodeIO{v}, base, paths)
}

// readPaths reads the nodes above some blocks of base.
func (v *Volume) readPaths(ctx context.Context, io chunk.NodeIO, base chunk.Version, blocks map[int64]int64) error {
	for _, index := range blocks {
		if _, err := chunk.Block(ctx, io, base, index); err != nil {
			return fmt.Errorf("read the block tree above block %d: %w", index, err)
		}
	}
	return nil
}

// paths returns blocks of base above which all nodes lie that buildVersion reads, one for each of the lowest nodes; in.mu is held.
func (in *inode) paths() map[int64]int64 {
	if in.base.Height == 0 || in.cut == 0 {
		return nil
	}
	bs := in.base.BlockSize()
	last := (min(in.cut, in.base.Size) - 1) / bs
	out := map[int64]int64{}
	add := func(index int64) {
		index = min(index, last) // what grows does so beside the last block
		out[index/chunk.Fanout] = index
	}
	if in.cut < in.base.Size {
		add(last)
	}
	for index := range in.sealed {
		add(index)
	}
	for index := range in.dirty {
		add(index)
	}
	return out
}

// pieceLocal reports whether a piece can be filled without the network.
func (v *Volume) pieceLocal(base chunk.Version, pc piece) bool {
	if pc.off >= pc.limit && pc.id.IsZero() || pc.id.IsZero() && len(base.Inline) > 0 {
		return true
	}
	id := pc.id
	if id.IsZero() {
		var err error
		if id, err = chunk.Block(context.Background(), localNodes{v}, base, pc.index); err != nil {
			return false
		}
	}
	return id.IsZero() || v.cache.holds(id) || v.cfg.Chunks.Local(id)
}

// localNodes reads block-tree nodes from the cache alone, and fetches those in
// the store into it.
type localNodes struct{ v *Volume }

var _ chunk.NodeIO = localNodes{}

// LoadNode implements chunk.NodeIO; it returns errNotCached for a node that is not here.
func (l localNodes) LoadNode(ctx context.Context, id chunk.ID) ([]byte, error) {
	b, err := l.v.cache.peek(id)
	if err != nil && l.v.cfg.Chunks.Local(id) {
		return l.v.cache.get(ctx, id)
	}
	return b, err
}

// SaveNode implements chunk.NodeIO; nothing is saved here.
func (l localNodes) SaveNode(context.Context, []byte) (chunk.ID, error) {
	return chunk.ID{}, ErrNotSupported
}
