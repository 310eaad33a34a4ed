package volume

import (
	"context"
	"fmt"

	"github.com/foreverfs/forever/chunk"
)

// piece is a part of a read that comes from a chunk, to be filled in after the
// inode's lock is gone: chunks never change.
type piece struct {
	dst   []byte
	off   int64 // inside the block
	index int64 // block of base, if id is zero
	id    chunk.ID
	limit int64 // bytes of the block that count; the rest is zeros
	// scattered: the block's other bytes will hardly be asked for.
	scattered bool
}

// readAt fills p from off with one state of the file, and returns how
// many bytes there were; fewer than len(p) only at the end of the file. scattered says that
// the read is none of a sequence.
func (v *Volume) readAt(ctx context.Context, in *inode, p []byte, off int64, scattered bool) (int, error) {
	in.mu.RLock()
	if !in.loaded {
		in.mu.RUnlock()
		in.mu.Lock()
		err := v.load(in)
		in.mu.Unlock()
		if err != nil {
			return 0, err
		}
		in.mu.RLock()
	}
	if off >= in.size {
		in.mu.RUnlock()
		return 0, nil
	}
	p = p[:min(int64(len(p)), in.size-off)]
	base := in.base
	pieces := v.gather(in, p, off, nil)
	in.mu.RUnlock()
	for _, pc := range pieces {
		pc.scattered = scattered
		if err := v.fill(ctx, base, pc); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// gather copies what is in memory of p and lists the pieces that must be
// read; in.mu is held for reading.
func (v *Volume) gather(in *inode, p []byte, off int64, pieces []piece) []piece {
	bs := v.blockSize(in)
	for len(p) > 0 {
		index, in0 := off/bs, off%bs
		n := min(int64(len(p)), bs-in0)
		part := p[:n]
		below := v.below(in, index)
		add := func(lo, hi int) {
			pc := below
			pc.dst, pc.off = part[int64(lo)-in0:int64(hi)-in0], int64(lo)
			pieces = append(pieces, pc)
		}
		if o := in.dirty[index]; o != nil {
			o.copyTo(part, int(in0))
			o.gaps(int(in0), int(in0+n), add)
		} else {
			add(int(in0), int(in0+n))
		}
		p, off = p[n:], off+n
	}
	return pieces
}

// below returns the whole block that lies below what was written to it; in.mu is held.
func (v *Volume) below(in *inode, index int64) piece {
	bs := v.blockSize(in)
	pc := piece{index: index, limit: min(bs, max(0, in.cut-index*bs))}
	if id, ok := in.sealed[index]; ok {
		pc.id, pc.limit = id, bs
		if id.IsZero() {
			pc.limit = 0
		}
	}
	return pc
}

// isWhole reports whether a piece is all of a file that is one block of base.
func (pc *piece) isWhole(base chunk.Version) bool {
	return pc.index == 0 && pc.off == 0 && int64(len(pc.dst)) == pc.limit && pc.id.IsZero() && base.Height == 0 && !base.Root.IsZero()
}

// fill reads one piece.
func (v *Volume) fill(ctx context.Context, base chunk.Version, pc piece) error {
	n := 0
	switch {
	case pc.off >= pc.limit:
	case pc.isWhole(base):
		var err error
		if n, err = v.cache.once(ctx, pc.dst, base.Root); err != nil {
			return err
		}
	default:
		var err error
		if n, err = v.copyBlock(ctx, base, pc); err != nil {
			return err
		}
	}
	clear(pc.dst[n:])
	return nil
}

// copyBlock copies what the block below a piece has of it, and returns how much that is: the block may be shorter than the
// block size.
func (v *Volume) copyBlock(ctx context.Context, base chunk.Version, pc piece) (n int, err error) {
	wanted := pc.dst[:min(int64(len(pc.dst)), pc.limit-pc.off)]
	take := func(plain []byte) {
		if pc.off < int64(len(plain)) {
			n = copy(wanted, plain[pc.off:])
		}
	}
	id := pc.id
	if id.IsZero() {
		if len(base.Inline) > 0 {
			off := pc.index << v.blockLogOf(base)
			take(base.Inline[min(off, int64(len(base.Inline))):])
			return n, nil
		}
		if id, err = chunk.Block(ctx, nodeIO{v}, base, pc.index); err != nil {
			return 0, fmt.Errorf("find block %d: %w", pc.index, err)
		}
		if id.IsZero() {
			return 0, nil
		}
	}
	if pc.scattered && v.part(ctx, wanted, id, pc.off) {
		return len(wanted), nil
	}
	err = v.cache.use(ctx, id, take)
	return n, err
}

// writeAt lays p over the file at off.
func (v *Volume) writeAt(ctx context.Context, in *inode, p []byte, off int64) error {
	_, err := v.write(ctx, in, p, off, false)
	return err
}

// write lays p over the file at off, or if atEnd is set behind all that is in it, and returns where that was.
func (v *Volume) write(ctx context.Context, in *inode, p []byte, off int64, atEnd bool) (int64, error) {
	if off < 0 {
		return 0, ErrInvalid
	}
	if off > MaxFileSize-int64(len(p)) { // the sum might overflow
		return 0, ErrTooLarge
	}
	if len(p) == 0 { // write(2) of nothing changes nothing, not even the size
		return off, nil
	}
	v.saveMuch(ctx, in)
	if err := v.room(ctx, in); err != nil {
		return 0, err
	}
	return v.writeNow(in, p, off, atEnd)
}

// writeNow is write without waiting for memory.
func (v *Volume) writeNow(in *inode, p []byte, off int64, atEnd bool) (int64, error) {
	at, full, err := v.layAt(in, p, off, atEnd)
	for _, job := range full {
		v.sealLater(job)
	}
	return at, err
}

// layAt is lay at off, or at the end.
func (v *Volume) layAt(in *inode, p []byte, off int64, atEnd bool) (at int64, full []sealJob, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := v.load(in); err != nil {
		return 0, nil, err
	}
	if atEnd {
		off = in.size
	}
	if off > MaxFileSize-int64(len(p)) {
		return 0, nil, ErrTooLarge
	}
	return off, v.lay(in, p, off), nil
}

// manySpans is from how many unsaved spans on they are joined before there are more.
const manySpans = 1024

// lay lays p over the file at off, and returns the blocks that are now full; in.mu is held.
func (v *Volume) lay(in *inode, p []byte, off int64) (full []sealJob) {
	v.touched(in)
	bs := v.blockSize(in)
	if n := len(in.unsaved); n == cap(in.unsaved) && n >= manySpans { // nobody may ever journal them
		in.unsaved = mergeSpans(in.unsaved)
	}
	in.unsaved = addSpan(in.unsaved, span{off, off + int64(len(p))})
	in.unsavedBytes.Add(int64(len(p)))
	in.size = max(in.size, off+int64(len(p)))
	for len(p) > 0 {
		index, at := off/bs, off%bs
		n := min(int64(len(p)), bs-at)
		o := in.overlayOf(index)
		before := o.held()
		o.write(int(at), p[:n], int(bs))
		o.gen = in.gen
		v.dirty.add(o.held() - before)
		if at+n == bs && o.covers(0, int(bs)) {
			full = append(full, sealJob{in, index, o})
		}
		p, off = p[n:], off+n
	}
	return full
}

// overlayOf returns the overlay of a block, made if missing; in.mu is held.
func (in *inode) overlayOf(index int64) *overlay {
	o := in.dirty[index]
	if o == nil {
		o = &overlay{}
		if in.dirty == nil {
			in.dirty = map[int64]*overlay{}
		}
		in.dirty[index] = o
	}
	return o
}

// truncate sets the size of the file.
func (v *Volume) truncate(ctx context.Context, in *inode, size int64) error {
	if size < 0 {
		return ErrInvalid
	}
	if size > MaxFileSize {
		return ErrTooLarge
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := v.load(in); err != nil {
		return err
	}
	if size == in.size {
		v.touched(in)
		return nil
	}
	if size < in.size {
		if err := v.shrink(ctx, in, size); err != nil {
			return err
		}
	}
	v.touched(in)
	in.size = size
	in.minSize, in.saveMin = min(in.minSize, size), min(in.saveMin, size)
	return nil
}

// shrink drops what lies past size; in.mu is held. A block cut in the middle is
// marked, so that it is sealed anew without its tail.
func (v *Volume) shrink(ctx context.Context, in *inode, size int64) error {
	bs := v.blockSize(in)
	last, tail := size/bs, size%bs
	if id := in.sealed[last]; tail > 0 && !id.IsZero() {
		data, err := v.cache.get(ctx, id)
		if err != nil {
			return fmt.Errorf("read the block to cut: %w", err)
		}
		v.layUnder(in, last, data[:min(int64(len(data)), tail)])
		delete(in.sealed, last)
	}
	for index := range in.sealed {
		if index*bs >= size {
			delete(in.sealed, index)
		}
	}
	for index, o := range in.dirty {
		before := o.held()
		switch {
		case index*bs >= size:
			delete(in.dirty, index)
			v.dirty.add(-before)
		case index == last:
			o.truncate(int(tail))
			o.gen = in.gen + 1 // a seal under way is of the old length
			v.dirty.add(o.held() - before)
		}
	}
	if tail > 0 && in.cut > size {
		in.overlayOf(last).gen = in.gen + 1
	}
	in.cut = min(in.cut, size)
	return nil
}

// layUnder makes data the whole content below a block's overlay; in.mu is held.
func (v *Volume) layUnder(in *inode, index int64, data []byte) {
	o := in.overlayOf(index)
	before := o.held()
	above := *o
	bs := int(v.blockSize(in))
	o.ext = nil
	// The block's tail past data reads as zeros, whatever base has there.
	whole := make([]byte, bs)
	copy(whole, data)
	above.copyTo(whole, 0)
	o.write(0, whole, bs)
	o.gen = in.gen + 1
	v.dirty.add(o.held() - before)
}
