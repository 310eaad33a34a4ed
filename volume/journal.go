package volume

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/namespace"
)

// A journal record holds what one fsync found written since the last: see
// docs/format/journal.md. Its key is 'j', the node, and a counter.
const (
	journalPrefix  = 'j'
	journalVersion = 1
	journalHeader  = 1 + 24 + 8 + 8 + 8 + 4
	journalExtent  = 8 + 4
)

// errJournal says that a journal record is malformed.
var errJournal = errors.New("volume: malformed journal record")

// record is a decoded journal record.
type record struct {
	base    namespace.OpID // the version the writes lie on
	size    int64          // of the file at the fsync
	minSize int64          // the smallest size since the record before
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

func (r record) encode() []byte {
	n := journalHeader
	for _, e := range r.extents {
		n += journalExtent + len(e.data)
	}
	b := make([]byte, 0, n)
	b = append(b, journalVersion)
	b = binary.BigEndian.AppendUint64(b, r.base.Lamport)
	b = append(b, r.base.Author[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.size))
	b = binary.BigEndian.AppendUint64(b, uint64(r.minSize))
	b = binary.BigEndian.AppendUint64(b, uint64(r.mtime))
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
	if len(b) < journalHeader || b[0] != journalVersion {
		return record{}, errJournal
	}
	var r record
	r.base.Lamport = binary.BigEndian.Uint64(b[1:])
	copy(r.base.Author[:], b[9:25])
	r.size = int64(binary.BigEndian.Uint64(b[25:]))
	r.minSize = int64(binary.BigEndian.Uint64(b[33:]))
	r.mtime = int64(binary.BigEndian.Uint64(b[41:]))
	count := binary.BigEndian.Uint32(b[49:])
	b = b[journalHeader:]
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

// fsync makes the file's content and everything before it durable.
func (v *Volume) fsync(ctx context.Context, in *inode) error {
	if err := v.fsyncContent(ctx, in); err != nil {
		return err
	}
	if err := v.cfg.State.Sync(); err != nil {
		return fmt.Errorf("flush the state: %w", err)
	}
	return nil
}

// fsyncContent puts the file's content into the state: as a journal record if
// it is little, else as chunks and an op.
func (v *Volume) fsyncContent(ctx context.Context, in *inode) error {
	in.fold.Lock()
	defer in.fold.Unlock()
	if err := v.commitNow(ctx, in); err != nil {
		return err
	}
	if !v.changedHere(in) {
		return nil
	}
	if gone, err := v.orphan(in); gone || err != nil {
		return err
	}
	if done, err := v.journal(in); done || err != nil {
		return err
	}
	if err := v.prepare(ctx, in); err != nil {
		return err
	}
	return v.commitNow(ctx, in)
}

// journal writes a record of what is not yet saved, if it is little enough and
// none of it was sealed meanwhile; in.fold is held.
func (v *Volume) journal(in *inode) (done bool, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	total := int64(0)
	for _, s := range in.unsaved {
		total += s.end - s.off
	}
	if len(in.sealed) > 0 || in.size <= int64(v.cfg.InlineMax) || total > int64(v.cfg.JournalMax) {
		return false, nil
	}
	r := record{base: in.baseID, size: in.size, minSize: min(in.saveMin, in.size), mtime: in.mtime, extents: v.unsavedExtents(in)}
	key := recordKey(in.id, in.saves)
	if err := v.cfg.State.Update(func(tx kv.Tx) error { return tx.Put(key, r.encode()) }); err != nil {
		return false, fmt.Errorf("write a journal record: %w", err)
	}
	in.saves++
	in.journals = true
	in.unsaved, in.saveMin = nil, in.size
	v.unsynced.Store(true)
	return true, nil
}

// unsavedExtents returns what lies in the unsaved spans; in.mu is held. The
// data aliases the overlays.
func (v *Volume) unsavedExtents(in *inode) []fileExtent {
	bs := v.blockSize(in)
	var out []fileExtent
	for _, s := range in.unsaved {
		for end := min(s.end, in.size); s.off < end; {
			index := s.off / bs
			stop := min(end, (index+1)*bs)
			if o := in.dirty[index]; o != nil {
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
	return out
}

// replay lays what the journal holds over the files it belongs to, and brings the
// result into the tree.
func (v *Volume) replay() error {
	type entry struct {
		node namespace.NodeID
		key  []byte
		rec  []byte
	}
	var found []entry
	lo := []byte{journalPrefix}
	err := v.cfg.State.Scan(lo, kv.PrefixEnd(lo), func(k, val []byte) bool {
		e := entry{key: append([]byte(nil), k...), rec: append([]byte(nil), val...)}
		copy(e.node[:], k[1:])
		found = append(found, e)
		return true
	})
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	for len(found) > 0 {
		node := found[0].node
		var recs []record
		for len(found) > 0 && found[0].node == node {
			r, err := decodeRecord(found[0].rec)
			if err != nil {
				return fmt.Errorf("record %x: %w", found[0].key, err)
			}
			recs = append(recs, r)
			found = found[1:]
		}
		if err := v.replayFile(node, recs); err != nil {
			return err
		}
	}
	return nil
}

// replayFile brings one file's records back.
func (v *Volume) replayFile(node namespace.NodeID, recs []record) error {
	n, err := v.cfg.Tree.Node(node)
	if errors.Is(err, namespace.ErrNotExist) || err == nil && n.Nlink == 0 {
		return v.cfg.State.Update(func(tx kv.Tx) error { return clearRecords(tx, node) })
	}
	if err != nil {
		return fmt.Errorf("find the file of a journal record: %w", err)
	}
	in := v.acquireNode(node)
	defer v.release(in)
	in.mu.Lock()
	in.adopt(n)
	for _, h := range n.Heads {
		if h.ID == recs[0].base { // not the visible one: somebody else's edit won meanwhile
			in.base, in.baseID, in.size, in.cut = h.Version, h.ID, h.Size, h.Size
		}
	}
	in.journals = true
	in.mu.Unlock()
	ctx := v.ctx
	for _, r := range recs {
		if r.minSize < in.size {
			if err := v.truncate(ctx, in, r.minSize); err != nil {
				return fmt.Errorf("replay a truncation: %w", err)
			}
		}
		for _, e := range r.extents {
			if err := v.writeAt(ctx, in, e.data, e.off); err != nil {
				return fmt.Errorf("replay a write: %w", err)
			}
		}
		if err := v.truncate(ctx, in, r.size); err != nil {
			return fmt.Errorf("replay a size: %w", err)
		}
		in.mu.Lock()
		in.mtime = r.mtime
		in.mu.Unlock()
	}
	in.fold.Lock()
	defer in.fold.Unlock()
	if err := v.prepare(ctx, in); err != nil {
		return fmt.Errorf("bring a journalled file into the tree: %w", err)
	}
	return v.commitNow(ctx, in)
}
