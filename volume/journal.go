package volume

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/namespace"
)

// A journal record holds what one fsync found written since the last: see
// docs/format/journal.md. Its key is 'j', the node, and a counter.
const (
	journalPrefix  = 'j'
	journalVersion = 1
	journalBase    = 1 + 24 + 8 + 1 + 1 + chunk.IDSize + 4 // the inline content of the base follows
	journalFile    = 8 + 8 + 8 + 4
	journalExtent  = 8 + 4

	// holesBit is set beside the log2 of the block size of the base if its number of holes follows its inline content.
	holesBit  = 0x80
	holesSize = 8
)

// errJournal says that a journal record is malformed.
var errJournal = errors.New("volume: malformed journal record")

// record is a decoded journal record.
type record struct {
	base    namespace.Content // the version the writes lie on
	size    int64             // of the file at the fsync
	minSize int64             // the smallest size since the record before
	mtime   int64
	extents []fileExtent
}

// fileExtent is a run of bytes at an offset of a file.
type fileExtent struct {
	off  int64
	data []byte
}

func recordKey(node namespace.NodeID, n uint64) []byte {
	key := append([]byte{journalPrefix}, node[:]...)
	return binary.BigEndian.AppendUint64(key, n)
}

// clearRecords removes all journal records of a node.
func clearRecords(tx kv.Tx, node namespace.NodeID) error {
	lo := append([]byte{journalPrefix}, node[:]...)
	var keys [][]byte
	err := tx.Scan(lo, kv.PrefixEnd(lo), func(k, _ []byte) bool {
		keys = append(keys, append([]byte(nil), k...))
		return true
	})
	for _, k := range keys {
		if err == nil {
			err = tx.Delete(k)
		}
	}
	if err != nil {
		return fmt.Errorf("clear the journal of a file: %w", err)
	}
	return nil
}

// clearJournal removes the records of a file in an update of its own.
func (v *Volume) clearJournal(node namespace.NodeID) error {
	return v.cfg.State.Update(func(tx kv.Tx) error { return clearRecords(tx, node) })
}

func (r record) encode() []byte {
	n := journalBase + len(r.base.Inline) + holesSize + journalFile
	for _, e := range r.extents {
		n += journalExtent + len(e.data)
	}
	b := append(make([]byte, 0, n), journalVersion)
	b = binary.BigEndian.AppendUint64(b, r.base.ID.Lamport)
	b = append(b, r.base.ID.Author[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.base.Size))
	log := r.base.BlockLog
	if r.base.Holes > 0 {
		log |= holesBit
	}
	b = append(b, log, r.base.Height)
	b = append(b, r.base.Root[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.base.Inline)))
	b = append(b, r.base.Inline...)
	if r.base.Holes > 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(r.base.Holes))
	}
	for _, v := range []int64{r.size, r.minSize, r.mtime} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.extents)))
	for _, e := range r.extents {
		b = binary.BigEndian.AppendUint64(b, uint64(e.off))
		b = binary.BigEndian.AppendUint32(b, uint32(len(e.data)))
		b = append(b, e.data...)
	}
	return b
}

// decodeRecord reads a record; its extents alias b.
func decodeRecord(b []byte) (record, error) {
	var r record
	b, ok := r.decodeBase(b)
	if !ok || len(b) < journalFile {
		return record{}, errJournal
	}
	r.size = int64(binary.BigEndian.Uint64(b))
	r.minSize = int64(binary.BigEndian.Uint64(b[8:]))
	r.mtime = int64(binary.BigEndian.Uint64(b[16:]))
	count := binary.BigEndian.Uint32(b[24:])
	b = b[journalFile:]
	if r.size < 0 || r.size > MaxFileSize || r.minSize < 0 || r.minSize > r.size {
		return record{}, errJournal
	}
	for ; count > 0; count-- {
		if len(b) < journalExtent {
			return record{}, errJournal
		}
		off, n := int64(binary.BigEndian.Uint64(b)), int(binary.BigEndian.Uint32(b[8:]))
		b = b[journalExtent:]
		if n > len(b) || off < 0 || off > r.size-int64(n) {
			return record{}, errJournal
		}
		r.extents = append(r.extents, fileExtent{off, b[:n]})
		b = b[n:]
	}
	if len(b) != 0 {
		return record{}, errJournal
	}
	return r, nil
}

// decodeBase reads what a record says of the version below, and returns the rest.
func (r *record) decodeBase(b []byte) ([]byte, bool) {
	if len(b) < journalBase || b[0] != journalVersion {
		return nil, false
	}
	r.base.ID.Lamport = binary.BigEndian.Uint64(b[1:])
	copy(r.base.ID.Author[:], b[9:25])
	r.base.Size = int64(binary.BigEndian.Uint64(b[25:]))
	r.base.BlockLog, r.base.Height = b[33], b[34]
	copy(r.base.Root[:], b[35:])
	n := binary.BigEndian.Uint32(b[35+chunk.IDSize:])
	b = b[journalBase:]
	if uint64(n) > uint64(len(b)) {
		return nil, false
	}
	if n > 0 {
		r.base.Inline = append([]byte(nil), b[:n]...)
	}
	b = b[n:]
	if r.base.BlockLog&holesBit != 0 {
		if len(b) < holesSize {
			return nil, false
		}
		r.base.BlockLog &^= holesBit
		r.base.Holes = int64(binary.BigEndian.Uint64(b))
		b = b[holesSize:]
	}
	empty := r.base.ID.IsZero() && r.base.Size == 0 && r.base.Root.IsZero() && n == 0
	return b, empty || r.base.Check() == nil
}

// fsync makes the file's content and everything before it durable.
func (v *Volume) fsync(ctx context.Context, in *inode) error {
	if err := v.fsyncContent(ctx, in); err != nil {
		return err
	}
	return v.syncHere(ctx)
}

// syncHere makes what is in the state durable on this device, and sees to it that others hold it where that is wanted.
func (v *Volume) syncHere(ctx context.Context) error {
	if v.cfg.Elsewhere == nil {
		if err := v.cfg.State.Sync(); err != nil {
			return fmt.Errorf("flush the state: %w", err)
		}
		return nil
	}
	_, err := v.cutBatch()
	if err = errors.Join(err, v.cfg.State.Sync()); err != nil {
		return fmt.Errorf("flush the state: %w", err)
	}
	return v.cfg.Elsewhere(ctx)
}

// fsyncContent puts the file's content into the state: as a journal record if
// it is little, else as chunks and an op. It is durable when the state is.
func (v *Volume) fsyncContent(ctx context.Context, in *inode) error {
	if done, err := v.fsyncUnsealed(ctx, in); done || err != nil {
		return err
	}
	if v.cfg.Elsewhere == nil && v.fsyncFar(ctx, in) {
		return nil
	}
	err := v.enterNow(ctx, in)
	if err == nil {
		return nil
	}
	kept := v.keepUnsealed(ctx, in, err)
	if v.cfg.Elsewhere != nil {
		return err
	}
	return kept
}

// fsyncFar is fsyncContent of a file that has to wait for the network, and reports whether it did it. What is not here in a moment it has in the
// journal instead: as long as an fsync lasts the kernel lets nobody write to the file, cut or rename it, whatever signal they get.
func (v *Volume) fsyncFar(ctx context.Context, in *inode) bool {
	if v.belowLocal(in) {
		return false
	}
	far, cancel := context.WithTimeout(ctx, saveFor)
	defer cancel()
	err := v.enterNow(far, in)
	return err == nil || v.keepUnsealed(ctx, in, err) == nil
}

// fsyncUnsealed is fsyncContent where nothing needs to be sealed.
func (v *Volume) fsyncUnsealed(ctx context.Context, in *inode) (done bool, err error) {
	if err := in.fold.LockFor(ctx); err != nil {
		return false, err
	}
	defer in.fold.Unlock()
	if err := v.commitReady(in); err != nil {
		return false, err
	}
	if !v.changedHere(in) {
		return true, nil
	}
	if gone, err := v.orphan(in); gone || err != nil {
		return gone, err
	}
	if v.cfg.Elsewhere != nil { // others do not see the journal
		return false, nil
	}
	return v.journal(in)
}

// journal writes records of what is not yet saved, if none of it is sealed, but by who does that beside, and it is
// little, or so scattered that sealing the blocks around it would cost much more; in.fold is held. What gives a file its name back enters
// the tree at once: after a crash nobody could tell that it is to.
func (v *Volume) journal(in *inode) (done bool, err error) {
	if n, err := v.node(in); err != nil || n.Nlink == 0 {
		return false, err
	}
	if err := v.roomFor(in); err != nil {
		return false, err
	}
	records, restore, err := v.journalRecords(in)
	if records == nil || err != nil {
		return false, err
	}
	if err := v.cfg.State.Update(func(tx kv.Tx) error { return in.putRecords(tx, records) }); err != nil {
		restore()
		return false, fmt.Errorf("write a journal record: %w", err)
	}
	v.wroteRecords(in, records)
	return true, nil
}

// putRecords writes records together, so that no crash leaves a part; in.fold is held.
func (in *inode) putRecords(tx kv.Tx, records [][]byte) error {
	for i, r := range records {
		if err := tx.Put(recordKey(in.id, in.saves+uint64(i)), r); err != nil {
			return err
		}
	}
	return nil
}

// wroteRecords notes that putRecords is done; in.fold is held.
func (v *Volume) wroteRecords(in *inode, records [][]byte) {
	in.saves += uint64(len(records))
	for _, r := range records {
		in.recorded.Add(int64(len(r)))
	}
	v.unsynced.Store(true)
}

// journalRecords returns the records that journal writes, or nil if it is not to. They are
// copies, so that nobody who writes to the file waits while they are written. If that fails, restore has them made again.
func (v *Volume) journalRecords(in *inode) (records [][]byte, restore func(), err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.unsaved = mergeSpans(in.unsaved)
	total := int64(0)
	for _, s := range in.unsaved {
		total += s.end - s.off
	}
	if in.rebased || len(in.sealed) > 0 && in.beside == 0 || total >= v.blockSize(in) && v.anyFull(in) || in.size <= int64(v.cfg.InlineMax) {
		return nil, nil, nil
	}
	if total > int64(v.cfg.JournalMax) && !v.journalsMuch(in, total) {
		return nil, nil, nil
	}
	extents, err := v.unsavedExtents(in)
	if err != nil {
		return nil, nil, err
	}
	r := record{base: namespace.Content{ID: in.baseID, Version: in.base}, size: in.size, minSize: min(in.saveMin, in.size), mtime: in.mtime}
	return r.encodeAll(extents), in.takeUnsaved(), nil
}

// takeUnsaved notes that all of the file is in records that are about to be written; in.mu is held. If that fails, restore takes it back.
func (in *inode) takeUnsaved() (restore func()) {
	unsaved, saveMin := in.unsaved, in.saveMin
	in.journals = true
	in.unsaved, in.saveMin, in.savedGen = nil, in.size, in.gen
	in.unsavedBytes.Store(0)
	return func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.unsaved, in.saveMin, in.savedGen = append(unsaved, in.unsaved...), min(saveMin, in.saveMin), 0
	}
}

// encodeAll encodes a record with some extents, as several if they are much: the later ones cut nothing.
func (r record) encodeAll(extents []fileExtent) (records [][]byte) {
	for {
		n := fitRecord(extents)
		r.extents = extents[:n]
		records = append(records, r.encode())
		if extents = extents[n:]; len(extents) == 0 {
			return records
		}
		r.minSize = r.size
	}
}

// recordMax is about how many bytes of a file go into one record.
const recordMax = 1 << 20

// fitRecord returns how many of the extents go into one record.
func fitRecord(extents []fileExtent) (n int) {
	for bytes := 0; n < len(extents) && bytes < recordMax; n++ {
		bytes += len(extents[n].data)
	}
	return n
}

// anyFull reports whether a dirty block is about to be sealed; in.mu is held.
func (v *Volume) anyFull(in *inode) bool {
	for _, o := range in.dirty {
		if o.covers(0, int(v.blockSize(in))) {
			return true
		}
	}
	return false
}

// foldFactor is how many times as much as what was written the blocks around it must be for
// a file to count as scattered.
const foldFactor = 4

// scattered reports whether sealing the dirty blocks of a file costs much more than journalling
// what was written to them; in.mu is held.
func (v *Volume) scattered(in *inode) bool {
	written := int64(0)
	for _, o := range in.dirty {
		written += o.held()
	}
	return int64(len(in.dirty))*v.blockSize(in) >= foldFactor*written
}

// journalsMuch reports whether what is not yet saved is journalled although it is more than JournalMax: it is scattered, and of
// a file of which some is sealed already also over the sealed blocks; to read that back must then also fit the disk. in.mu is held.
func (v *Volume) journalsMuch(in *inode, total int64) bool {
	if total > v.muchToJournal() || !v.scattered(in) {
		return false
	}
	if len(in.sealed) == 0 {
		return true
	}
	return int64(len(in.dirty)+len(in.sealed))*v.blockSize(in) >= foldFactor*total && v.leftToJournal(total)
}

// muchToJournal bounds what is journalled of a file at once: all that may be dirty, which is overdrawn by what is under way.
func (v *Volume) muchToJournal() int64 { return 2 * v.cfg.DirtyMax }

// saveNow journals what was written to a file, if that is possible.
func (v *Volume) saveNow(ctx context.Context, in *inode) (done bool, err error) {
	if err := in.fold.LockFor(ctx); err != nil {
		return false, err
	}
	defer in.fold.Unlock()
	gone, done, err := v.saveHeld(in)
	return gone || done, err
}

// saveHeld is saveNow with in.fold held. Of a file that is gone nothing is to be saved.
func (v *Volume) saveHeld(in *inode) (gone, done bool, err error) {
	if err := v.commitReady(in); err != nil {
		return false, false, err
	}
	if gone, err := v.orphan(in); gone || err != nil {
		return gone, false, err
	}
	in.mu.RLock()
	done = !in.changed || in.saved()
	in.mu.RUnlock()
	if !done {
		done, err = v.journal(in)
	}
	return false, done, err
}

// unsavedExtents returns what lies in the unsaved spans, oldest first; in.mu is held. The
// data may alias the overlays.
func (v *Volume) unsavedExtents(in *inode) ([]fileExtent, error) {
	bs := v.blockSize(in)
	var out []fileExtent
	for _, s := range in.unsaved {
		for end := min(s.end, in.size); s.off < end; {
			index := s.off / bs
			stop := min(end, (index+1)*bs)
			o := in.dirty[index]
			if id, ok := in.sealed[index]; ok && (o == nil || !o.covers(int(s.off-index*bs), int(stop-index*bs))) {
				data := make([]byte, stop-s.off)
				if err := v.copySealed(data, id, s.off-index*bs); err != nil {
					return nil, err
				}
				out = append(out, fileExtent{s.off, data})
			}
			if o != nil {
				for _, e := range o.ext {
					lo, hi := max(s.off, index*bs+int64(e.off)), min(stop, index*bs+int64(e.end()))
					if lo < hi {
						out = append(out, fileExtent{lo, e.data[lo-index*bs-int64(e.off) : hi-index*bs-int64(e.off)]})
					}
				}
			}
			s.off = stop
		}
	}
	return out, nil
}

// copySealed copies a part of a block that was sealed here over zeros.
func (v *Volume) copySealed(dst []byte, id chunk.ID, off int64) error {
	if id.IsZero() {
		return nil
	}
	plain, err := v.loadChunk(context.Background(), nil, id) // it was put here
	if err == nil && off < int64(len(plain)) {
		copy(dst, plain[off:])
	}
	return err
}

// replay lays what the journal holds over the files it belongs to, and brings the
// result into the tree.
func (v *Volume) replay() error {
	found := map[namespace.NodeID][]uint64{} // the counters of each file's records, in order
	var bad error
	lo := []byte{journalPrefix}
	err := v.cfg.State.Scan(lo, kv.PrefixEnd(lo), func(k, _ []byte) bool {
		if len(k) != 1+len(namespace.NodeID{})+8 {
			bad = fmt.Errorf("record %x: %w", k, errJournal)
			return false
		}
		node := namespace.NodeID(k[1:17])
		found[node] = append(found[node], binary.BigEndian.Uint64(k[17:]))
		return true
	})
	if err = errors.Join(err, bad); err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	v.setReplaying(found)
	defer v.setReplaying(nil)
	cramped := false // what lies below a file may be on other devices, which are there later: rather too much in memory than no volume
	for node, counters := range found {
		if err := v.replayFile(node, counters, &cramped); err != nil {
			return err
		}
	}
	return nil
}

func (v *Volume) setReplaying(files map[namespace.NodeID][]uint64) {
	v.mu.Lock()
	v.replaying = files
	v.mu.Unlock()
}

// readRecord returns a journal record.
func (v *Volume) readRecord(node namespace.NodeID, n uint64) (record, error) {
	b, err := v.cfg.State.Get(recordKey(node, n))
	if err != nil {
		return record{}, fmt.Errorf("read the journal: %w", err)
	}
	r, err := decodeRecord(b)
	if err != nil {
		return record{}, fmt.Errorf("read the journal: record %d of %v: %w", n, node, err)
	}
	return r, nil
}

// replayFile brings one file's records back. If a chunk below them is not here, or cannot be had, the file stays as it is in memory, and the
// publisher brings it into the tree: nobody is connected yet.
func (v *Volume) replayFile(node namespace.NodeID, counters []uint64, cramped *bool) error {
	n, err := v.cfg.Tree.Node(node)
	gone := errors.Is(err, namespace.ErrNotExist)
	if err == nil && n.Nlink == 0 { // if it was not this device, it was others, who did not know what the records hold
		if gone, err = v.cfg.Tree.RemovedHere(node); err != nil {
			return fmt.Errorf("find who removed the file of a journal record: %w", err)
		}
	}
	if gone {
		return v.clearJournal(node)
	}
	if err != nil {
		return fmt.Errorf("find the file of a journal record: %w", err)
	}
	in := v.acquireNode(node)
	defer v.release(in)
	for i, counter := range counters { // one at a time: they may be much more than what they come to
		r, err := v.readRecord(node, counter)
		if err != nil {
			return err
		}
		if i == 0 {
			in.mu.Lock()
			n.Content = r.base // not the tree's: somebody else's edit may have won meanwhile
			in.adopt(n)
			in.journals, in.saves = true, counters[len(counters)-1]+1
			in.mu.Unlock()
		}
		if !*cramped {
			if err := v.room(v.ctx, in); err != nil {
				v.log.Warn("what is journalled takes more memory than it should: it cannot be sealed yet", "inode", in.ino, "error", err)
				*cramped = true
			}
		}
		if err := v.replayRecord(in, r); err != nil {
			return err
		}
	}
	if !v.belowLocal(in) {
		return nil
	}
	in.fold.Lock()
	defer in.fold.Unlock()
	err = v.prepare(v.ctx, in)
	if err == nil {
		err = v.commitReady(in)
	}
	if err != nil {
		v.log.Error("cannot bring a journalled file into the tree yet", "inode", in.ino, "error", err)
	}
	return nil
}

func (v *Volume) replayRecord(in *inode, r record) error {
	if r.minSize < in.size {
		if err := v.truncate(v.ctx, in, r.minSize); err != nil {
			return fmt.Errorf("replay a truncation: %w", err)
		}
	}
	for _, e := range r.extents {
		if _, err := v.writeNow(in, e.data, e.off, false); err != nil {
			return fmt.Errorf("replay a write: %w", err)
		}
	}
	if err := v.truncate(v.ctx, in, r.size); err != nil {
		return fmt.Errorf("replay a size: %w", err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.mtime = r.mtime
	in.unsaved, in.saveMin, in.savedGen = nil, in.size, in.gen // the records hold it
	return nil
}
