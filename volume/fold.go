package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/namespace"
)

// sealJob asks a worker to seal one full block.
type sealJob struct {
	in    *inode
	index int64
	full  *overlay // what fills the block; nothing is done if that was sealed already
}

// sealLater hands a full block to the workers and waits while they are all busy.
func (v *Volume) sealLater(job sealJob) {
	in := job.in
	v.mu.Lock()
	in.pins++
	v.mu.Unlock()
	v.sealing.Add(1)
	select {
	case v.seals <- job:
	case <-v.ctx.Done():
		v.sealing.Add(-1)
		v.release(in)
	}
}

// sealWorker seals blocks as they fill. A block that cannot be sealed stays
// dirty; the next flush tries it again and reports the error.
func (v *Volume) sealWorker() {
	for {
		select {
		case job := <-v.seals:
			if err := v.sealBlock(v.ctx, job.in, job.index, job.full); err != nil && !isContextErr(err) {
				v.log.Debug("cannot seal a block yet", "inode", job.in.ino, "block", job.index, "error", err)
			}
			v.sealing.Add(-1)
			v.release(job.in)
		case <-v.ctx.Done():
			return
		}
	}
}

// sealBlock seals what a block holds now and stores the chunk. If the block is
// written meanwhile it stays dirty and the chunk is left unused. If only is given,
// nothing else is sealed.
func (v *Volume) sealBlock(ctx context.Context, in *inode, index int64, only *overlay) error {
	buf := sealedPool.Get().(*[]byte)
	defer sealedPool.Put(buf)

	in.mu.RLock()
	o := in.dirty[index]
	bs := v.blockSize(in)
	length := min(bs, in.size-index*bs)
	if o == nil || length <= 0 || only != nil && o != only {
		in.mu.RUnlock()
		return nil
	}
	gen := o.gen
	plain := sized(buf, int(length))
	base := in.base
	pieces := v.gather(in, plain, index*bs, nil)
	in.mu.RUnlock()

	for _, pc := range pieces {
		if err := v.fill(ctx, base, pc); err != nil {
			return fmt.Errorf("read block %d below what was written: %w", index, err)
		}
	}
	id, err := v.storeBlock(ctx, plain)
	if err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.dirty[index] == o && o.gen == gen {
		v.putSealed(in, index, id)
	}
	return nil
}

// putSealed replaces a block's overlay by the chunk it was sealed into; in.mu is held.
func (v *Volume) putSealed(in *inode, index int64, id chunk.ID) {
	if o := in.dirty[index]; o != nil {
		v.dirty.add(-o.held())
		delete(in.dirty, index)
	}
	if in.sealed == nil {
		in.sealed = map[int64]chunk.ID{}
	}
	in.sealed[index] = id
}

// sized returns buf's memory with n bytes, of any content.
func sized(buf *[]byte, n int) []byte {
	if cap(*buf) < n {
		*buf = make([]byte, n)
	}
	*buf = (*buf)[:n]
	return *buf
}

func allZero(p []byte) bool {
	for len(p) >= 8 {
		if p[0]|p[1]|p[2]|p[3]|p[4]|p[5]|p[6]|p[7] != 0 {
			return false
		}
		p = p[8:]
	}
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// sealDirty seals every dirty block of a file, several at once.
func (v *Volume) sealDirty(ctx context.Context, in *inode) error {
	in.mu.RLock()
	indexes := make([]int64, 0, len(in.dirty))
	for index := range in.dirty {
		indexes = append(indexes, index)
	}
	in.mu.RUnlock()
	if len(indexes) == 1 {
		return v.sealBlock(ctx, in, indexes[0], nil)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * runtime.GOMAXPROCS(0))
	for _, index := range indexes {
		g.Go(func() error { return v.sealBlock(ctx, in, index, nil) })
	}
	return g.Wait()
}

// room waits until there is memory for another write, sealing what is dirty if
// nobody else is at it. It fails if sealing does.
func (v *Volume) room(ctx context.Context, in *inode) error {
	for {
		full, moved := v.dirty.full()
		if !full {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if v.ctx.Err() != nil { // nobody seals what is queued any more
			return ErrClosed
		}
		if v.sealing.Load() > 0 {
			short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			_ = waitFor(short, moved) // woken or not, look again
			cancel()
			continue
		}
		if err := in.counted(func() error { return v.sealDirty(ctx, in) }); err != nil {
			return err
		}
		if full, _ := v.dirty.full(); !full {
			return nil
		}
		if err := v.sealOthers(ctx); err != nil {
			return err
		}
	}
}

// sealOthers seals what is dirty in all files. What cannot be sealed counts only if
// there is no memory even so: a writer must not wait for blocks that may never come.
func (v *Volume) sealOthers(ctx context.Context) error {
	var first error
	for _, other := range v.changedInodes() {
		if err := other.counted(func() error { return v.sealDirty(ctx, other) }); err != nil && first == nil {
			first = err
		}
		v.release(other)
	}
	if full, _ := v.dirty.full(); !full {
		return nil
	}
	return first
}

// changedInodes returns the inodes whose content is not all in the tree, each with a pin.
func (v *Volume) changedInodes() []*inode {
	v.mu.Lock()
	defer v.mu.Unlock()
	list := make([]*inode, 0, len(v.changed))
	for in := range v.changed {
		in.pins++
		list = append(list, in)
	}
	return list
}

// allInTree reports whether there is no such inode.
func (v *Volume) allInTree() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.changed) == 0
}

// prepare makes the candidate for the file's content as it is now: its blocks
// sealed and stored, its block tree written. in.fold is held, in.mu is not.
func (v *Volume) prepare(ctx context.Context, in *inode) error {
	in.mu.RLock()
	settled := in.settled()
	in.mu.RUnlock()
	if settled {
		return nil
	}
	if gone, err := v.orphan(in); gone || err != nil {
		return err
	}
	return v.makeCandidate(ctx, in)
}

// settled reports whether nothing has changed that is neither in the tree nor in the candidate; in.mu is held.
func (in *inode) settled() bool {
	return !in.changed || in.ready != nil && in.ready.gen == in.gen
}

// makeCandidate is prepare for a file that may have no name.
func (v *Volume) makeCandidate(ctx context.Context, in *inode) error {
	if err := v.roomFor(in); err != nil {
		return err
	}
	in.mu.Lock()
	err := v.load(in)
	settled, inline := in.settled(), in.size <= int64(v.cfg.InlineMax)
	in.mu.Unlock()
	switch {
	case err != nil || settled:
		return err
	case inline:
		return v.prepareInline(ctx, in)
	}
	return v.prepareSealed(ctx, in)
}

// prepareSealed seals the dirty blocks and takes the snapshot. What was written meanwhile onto a block
// that is not here has to be sealed first too, so it goes round until there is none.
func (v *Volume) prepareSealed(ctx context.Context, in *inode) error {
	for {
		if err := v.sealMost(ctx, in); err != nil {
			return err
		}
		if err := v.prepareBlocks(ctx, in); !errors.Is(err, errNotCached) {
			return err
		}
	}
}

// sealMost seals the dirty blocks, and again what was written meanwhile, until few are left or it gets no
// nearer to that: a writer waits while those are sealed.
func (v *Volume) sealMost(ctx context.Context, in *inode) error {
	for last := math.MaxInt; ; {
		in.mu.RLock()
		n := len(in.dirty)
		in.mu.RUnlock()
		if n == 0 || n > last/2 {
			return nil
		}
		last = n
		if err := v.sealDirty(ctx, in); err != nil {
			return err
		}
	}
}

// orphan reports whether the file has no name left, and will not get one back for what was written to it. Its
// content then stays in memory and in the store as long as somebody holds the file, but not in the journal: after a crash it would give the
// file a name back that others had removed. ErrStale if that is not what the program asked for, which has it open. in.fold is held.
func (v *Volume) orphan(in *inode) (bool, error) {
	v.treeMu.RLock()
	n, err := v.cfg.Tree.Node(in.id)
	gone := err != nil || n.Nlink == 0 && in.nameless.Load()
	v.treeMu.RUnlock()
	if err != nil && !errors.Is(err, namespace.ErrNotExist) {
		return false, fmt.Errorf("look up inode %d: %w", in.ino, err)
	}
	if !gone {
		return false, nil
	}
	v.mu.Lock()
	open, held := in.opens > 0, v.held(in)
	v.mu.Unlock()
	// A content that lost its file's name is there only until somebody removes it: then nothing is left that could keep what was
	// written to it.
	swept := err != nil && !in.nameless.Load()
	switch {
	case open && swept:
		return true, ErrStale
	case held && err == nil, open:
		return true, v.unjournal(in)
	case swept:
		v.log.Warn("what was written to a conflict file is dropped: another device has removed that file", "inode", in.ino)
	}
	in.mu.Lock()
	journals := in.journals
	v.discard(in)
	in.mu.Unlock()
	if !journals {
		return true, nil
	}
	return true, v.clearJournal(in.id)
}

// unjournal takes what the journal holds of a file out of it. What is written to the file from then on enters the tree, if at all, with all that was
// written before. in.fold is held.
func (v *Volume) unjournal(in *inode) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.journals {
		return nil
	}
	if err := v.clearJournal(in.id); err != nil {
		return err
	}
	in.journals, in.rebased, in.savedGen = false, true, 0
	in.recorded.Store(0)
	return nil
}

// discard forgets what was written to a file that is gone; in.mu is held.
func (v *Volume) discard(in *inode) {
	for _, o := range in.dirty {
		v.dirty.add(-o.held())
	}
	in.dirty, in.sealed, in.ready, in.unsaved = nil, nil, nil, nil
	in.loaded, in.journals = false, false
	v.settled(in)
}

func (v *Volume) prepareInline(ctx context.Context, in *inode) error {
	in.mu.Lock()
	if in.size > int64(v.cfg.InlineMax) {
		in.mu.Unlock()
		return v.prepareSealed(ctx, in)
	}
	plain := make([]byte, in.size)
	base := in.base
	pieces := v.gather(in, plain, 0, nil)
	c := &candidate{gen: in.gen, mtime: in.mtime, wrote: in.wrote}
	c.version = chunk.Version{Size: in.size, BlockLog: v.blockLogOf(base), Inline: plain} // what is dirty goes by this block size
	restore := in.snapshotTaken()
	in.mu.Unlock()
	for _, pc := range pieces {
		if err := v.fill(ctx, base, pc); err != nil {
			restore()
			return err
		}
	}
	in.offer(c)
	return nil
}

// prepareBlocks takes the snapshot when no block is dirty, sealing under the lock the
// few that were written since sealDirty: a version is one state of the file,
// never a mixture.
func (v *Volume) prepareBlocks(ctx context.Context, in *inode) error {
	in.mu.Lock()
	if err := v.sealRest(ctx, in); err != nil {
		in.mu.Unlock()
		return err
	}
	c := &candidate{gen: in.gen, mtime: in.mtime, wrote: in.wrote, sealed: maps.Clone(in.sealed), chunks: true}
	base, cut, size := in.base, in.cut, in.size
	restore := in.snapshotTaken()
	in.mu.Unlock()

	var err error
	c.version, err = v.buildVersion(ctx, base, cut, size, c.sealed)
	if err != nil {
		restore()
		return err
	}
	in.offer(c)
	return nil
}

// offer makes c the file's candidate, with the time that was set while it was made;
// in.mu is not held.
func (in *inode) offer(c *candidate) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.gen == c.gen { // utimes alone does not count as a change of content
		c.mtime = in.mtime
	}
	in.ready = c
}

// snapshotTaken notes that a candidate holds everything up to now; the result
// takes that back if the candidate comes to nothing. in.mu is held for the first, not for the second.
func (in *inode) snapshotTaken() (restore func()) {
	unsaved, saveMin, minSize := in.unsaved, in.saveMin, in.minSize
	in.unsaved, in.saveMin, in.minSize = nil, in.size, in.size
	in.unsavedBytes.Store(0)
	return func() {
		in.mu.Lock()
		in.unsaved = append(unsaved, in.unsaved...)
		in.saveMin = min(in.saveMin, saveMin)
		in.minSize = min(in.minSize, minSize) // the candidate before may still be committed
		in.mu.Unlock()
	}
}

// sealRest seals the dirty blocks that are left; in.mu is held, so that nobody writes meanwhile.
// It does not wait for the network under that lock: it returns errNotCached instead.
// A base kept inline has no block tree below it: all its blocks are sealed too.
func (v *Volume) sealRest(ctx context.Context, in *inode) error {
	bs := v.blockSize(in)
	for off := int64(0); off < int64(len(in.base.Inline)) && off < in.cut; off += bs {
		if _, ok := in.sealed[off/bs]; !ok {
			in.overlayOf(off / bs)
		}
	}
	for index := range in.dirty {
		length := min(bs, in.size-index*bs)
		if length <= 0 {
			continue
		}
		plain := make([]byte, length)
		for _, pc := range v.gather(in, plain, index*bs, nil) {
			if !v.pieceLocal(in.base, pc) {
				return errNotCached
			}
			if err := v.fill(ctx, in.base, pc); err != nil {
				return err
			}
		}
		id, err := v.storeBlock(ctx, plain)
		if err != nil {
			return err
		}
		v.putSealed(in, index, id)
	}
	return nil
}

// storeBlock seals and stores a block; one of zeros alone is a hole and has the zero ID.
func (v *Volume) storeBlock(ctx context.Context, plain []byte) (chunk.ID, error) {
	if allZero(plain) {
		return chunk.ID{}, nil
	}
	return v.store(ctx, plain)
}

// buildVersion writes the block tree of base cut to cut bytes, then sized to size
// with the sealed blocks in place.
func (v *Volume) buildVersion(ctx context.Context, base chunk.Version, cut, size int64, sealed map[int64]chunk.ID) (chunk.Version, error) {
	if len(base.Inline) > 0 || base.BlockLog == 0 || cut == 0 {
		base = chunk.Version{BlockLog: v.blockLogOf(base)}
		cut = 0
	}
	var err error
	if cut < base.Size {
		if base, err = chunk.Update(ctx, nodeIO{v}, base, cut, nil); err != nil {
			return base, fmt.Errorf("cut the block tree: %w", err)
		}
	}
	if base, err = chunk.Update(ctx, nodeIO{v}, base, size, sealed); err != nil {
		return base, fmt.Errorf("write the block tree: %w", err)
	}
	return base, nil
}

func (v *Volume) blockLogOf(base chunk.Version) uint8 {
	if base.BlockLog != 0 {
		return base.BlockLog
	}
	return v.cfg.BlockLog
}

// commitReady brings the candidate into the tree, if there is one. Its chunks are in the store; they are durable before
// the op is. in.fold is held, in.mu is not.
func (v *Volume) commitReady(in *inode) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	c := in.ready
	if c == nil {
		return nil
	}
	var clean func(kv.Tx) error
	if in.journals {
		clean = func(tx kv.Tx) error { return clearRecords(tx, in.id) }
	}
	v.treeMu.LockInPlace()
	if c.chunks {
		v.named.Add(1)
	}
	set, when := v.cfg.Tree.SetContent, c.wrote
	if n, err := v.cfg.Tree.Node(in.id); err == nil {
		// What the kernel has shown as the time of the change must not move because the change is entered later.
		when = max(when, n.Ctime)
		if n.Nlink == 0 && !in.nameless.Load() {
			set = v.cfg.Tree.Revive
			v.treeMu.moved()
		}
	}
	got, err := set(when, in.id, c.version, c.mtime, []namespace.OpID{in.baseID}, clean)
	v.treeMu.Unlock()
	if err != nil {
		return fmt.Errorf("enter new content of inode %d: %w", in.ino, err)
	}
	v.wroteTree()
	in.ready, in.journals, in.kept, in.rebased = nil, false, false, false
	in.recorded.Store(0)
	in.base, in.baseID = c.version, got.ID
	in.cut = min(c.version.Size, in.minSize)
	if in.gen == c.gen {
		for _, o := range in.dirty {
			v.dirty.add(-o.held())
		}
		in.dirty, in.sealed = nil, nil
		v.settled(in)
		return nil
	}
	bs := v.blockSize(in)
	for index, id := range c.sealed {
		// A block that was cut meanwhile and written anew with what it had is the same chunk, but base's counts no more.
		counts := in.cut == c.version.Size || (index+1)*bs <= in.cut
		if in.sealed[index] == id && counts {
			delete(in.sealed, index)
		}
	}
	return nil
}
