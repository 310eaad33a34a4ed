package casstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/foreverfs/forever/chunk"
)

// note appends a chunk to the order of arrival; f.mu is held, so that the order
// of positions is the order in which they appear.
func (f *Files) note(id chunk.ID, size int) error {
	if f.order == nil {
		if err := f.beginOrder(); err != nil {
			return err
		}
	}
	rec := appendOrder(nil, id, size)
	if _, err := f.order.WriteAt(rec, int64(f.end.Offset)); err != nil {
		return fmt.Errorf("write order: %w", err)
	}
	f.end.Offset += uint64(len(rec))
	return nil
}

// beginOrder starts the order file of this run.
func (f *Files) beginOrder() error {
	run := f.end.Pack + 1
	o, err := f.fs.OpenReadWrite(f.orderPath(run), writeKind)
	if err != nil {
		return fmt.Errorf("create order: %w", err)
	}
	if err := errors.Join(o.Sync(), syncDir(f.fs, f.path(orderDir))); err != nil {
		return errors.Join(fmt.Errorf("create order: %w", err), o.Close())
	}
	f.order, f.end = o, Position{run, 0}
	f.runs = append(f.runs, run)
	return nil
}

// appendOrder appends one entry of an order file: a record header whose chunk
// is elsewhere.
func appendOrder(dst []byte, id chunk.ID, size int) []byte {
	head := appendRecord(dst, salt{}, id, nil, nil)
	i := len(dst)
	head[i+4], head[i+5], head[i+6], head[i+7] = byte(size>>24), byte(size>>16), byte(size>>8), byte(size)
	setCheck(head[i:], salt{})
	return head
}

// Sync is Store.Sync.
func (f *Files) Sync(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	f.mu.Lock()
	err := f.usable()
	todo := map[chunk.ID]int{}
	for id, p := range f.pending {
		if isDone(p) {
			todo[id] = p.size
		}
	}
	f.mu.Unlock()
	if err != nil || len(todo) == 0 {
		return err
	}
	if err := f.settle(todo); err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.failed = fmt.Errorf("%w: %w", ErrFailed, err)
		return f.failed
	}
	return nil
}

func isDone(p *pendingFile) bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// settle flushes chunks in new/ and moves them to objects/.
func (f *Files) settle(todo map[chunk.ID]int) error {
	for id := range todo {
		if err := f.syncFile(f.newPath(id)); err != nil {
			return err
		}
	}
	if err := f.order.Sync(); err != nil {
		return fmt.Errorf("flush order: %w", err)
	}
	dirs := map[string]bool{}
	for id, size := range todo {
		dir, err := f.publish(id, size)
		if err != nil {
			return err
		}
		dirs[dir] = true
	}
	for dir := range dirs {
		if err := syncDir(f.fs, dir); err != nil {
			return err
		}
	}
	return nil
}

func (f *Files) syncFile(path string) error {
	w, err := f.fs.OpenReadWrite(path, writeKind)
	if err != nil {
		return fmt.Errorf("open chunk to flush: %w", err)
	}
	if err := errors.Join(w.Sync(), w.Close()); err != nil {
		return fmt.Errorf("flush chunk: %w", err)
	}
	return nil
}

// publish moves a flushed chunk to its place and returns the directory that
// has to be flushed for it.
func (f *Files) publish(id chunk.ID, size int) (dir string, err error) {
	outer, inner := shard(id)
	dir = f.path(objectsDir, outer, inner)
	if !f.shards[dir] {
		for _, d := range []string{f.path(objectsDir, outer), dir} {
			if err := makeDir(f.fs, d); err != nil {
				return "", fmt.Errorf("make directory of chunks: %w", err)
			}
		}
		f.shards[dir] = true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fs.Rename(f.newPath(id), f.objectPath(id)); err != nil {
		return "", fmt.Errorf("move chunk: %w", err)
	}
	delete(f.pending, id)
	f.stats.Chunks++
	f.stats.Bytes += uint64(size)
	return dir, nil
}

// find returns the path and size of a chunk; the caller holds f.mu.
func (f *Files) find(id chunk.ID) (path string, size int, err error) {
	if f.closed {
		return "", 0, ErrClosed
	}
	if p := f.pending[id]; p != nil && isDone(p) {
		return f.newPath(id), p.size, nil
	}
	fi, err := f.fs.Stat(f.objectPath(id))
	if err != nil {
		return "", 0, ErrNotFound
	}
	return f.objectPath(id), int(fi.Size()), nil
}

// Has is Store.Has.
func (f *Files) Has(id chunk.ID) (bool, error) {
	_, err := f.Size(id)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Size is Store.Size.
func (f *Files) Size(id chunk.ID) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, size, err := f.find(id)
	return size, err
}

// Get is Store.Get.
func (f *Files) Get(ctx context.Context, dst []byte, id chunk.ID) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return dst, err
	}
	r, size, err := f.open(id)
	if err != nil {
		return dst, err
	}
	if size > MaxChunk {
		return dst, errors.Join(f.discard(id), r.Close())
	}
	start := len(dst)
	out := slices.Grow(dst, size)[:start+size]
	_, err = r.ReadAt(out[start:], 0)
	if err = errors.Join(err, r.Close()); err != nil && !errors.Is(err, io.EOF) {
		return dst, fmt.Errorf("get chunk %v: %w", id, err)
	}
	if err != nil || !hasID(out[start:], id) {
		return dst, f.discard(id)
	}
	return out, nil
}

func (f *Files) open(id chunk.ID) (vfs.File, int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path, size, err := f.find(id)
	if err != nil {
		return nil, 0, err
	}
	r, err := f.fs.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("open chunk %v: %w", id, err)
	}
	return r, size, nil
}

// discard removes a chunk that turned out damaged and says so.
func (f *Files) discard(id chunk.ID) error {
	f.log.Warn("chunk damaged on disk", "chunk", id)
	return fmt.Errorf("get chunk %v: %w", id, errors.Join(ErrDamaged, f.Delete(context.Background(), id)))
}

// Delete is Store.Delete.
func (f *Files) Delete(ctx context.Context, ids ...chunk.ID) error {
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		path, size, err := f.find(id)
		if err = errors.Join(ctx.Err(), err); errors.Is(err, ErrNotFound) {
			continue
		} else if err != nil {
			return err
		}
		if err := f.fs.Remove(path); err != nil {
			return fmt.Errorf("delete chunk %v: %w", id, err)
		}
		if f.pending[id] != nil {
			delete(f.pending, id)
			continue
		}
		f.stats.Chunks--
		f.stats.Bytes -= uint64(size)
	}
	return nil
}

// End is Store.End.
func (f *Files) End() Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.end
}

// Since is Store.Since.
func (f *Files) Since(pos Position, max int) ([]Item, error) {
	f.mu.Lock()
	runs, end, closed := slices.Clone(f.runs), f.end, f.closed
	f.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	var items []Item
	seen := map[chunk.ID]bool{}
	for _, run := range runs {
		if run < pos.Pack {
			continue
		}
		from := uint64(0)
		if run == pos.Pack {
			from = pos.Offset
		}
		var err error
		if items, err = f.sinceRun(items, seen, Position{run, from}, end, max); err != nil {
			return nil, err
		}
	}
	return items, nil
}

func (f *Files) sinceRun(items []Item, seen map[chunk.ID]bool, pos, end Position, max int) (_ []Item, err error) {
	r, err := f.fs.Open(f.orderPath(pos.Pack))
	if err != nil {
		return items, fmt.Errorf("open order: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	rec := make([]byte, recordHeaderSize)
	for ; len(items) < max && pos.Compare(end) < 0; pos.Offset += recordHeaderSize {
		if _, err := r.ReadAt(rec, int64(pos.Offset)); errors.Is(err, io.EOF) {
			return items, nil
		} else if err != nil {
			return items, fmt.Errorf("read order: %w", err)
		}
		entry, ok := parseRecordHeader(rec, &salt{})
		id, size := entry.id, entry.size
		if !ok || seen[id] { // a torn entry, or a chunk that was deleted and came again
			continue
		}
		if has, err := f.Has(id); err != nil {
			return items, err
		} else if has {
			seen[id] = true
			items = append(items, Item{id, size, Position{pos.Pack, pos.Offset + recordHeaderSize}})
		}
	}
	return items, nil
}

// Scrub is Store.Scrub.
func (f *Files) Scrub(ctx context.Context, progress func(Progress)) (ScrubReport, error) {
	var rep ScrubReport
	if err := f.Sync(ctx); err != nil {
		return rep, err
	}
	st, err := f.Stats()
	if err != nil {
		return rep, err
	}
	var buf []byte
	err = f.each(func(id chunk.ID, size int64) (err error) {
		if buf, err = f.Get(ctx, buf[:0], id); errors.Is(err, ErrDamaged) {
			rep.Damaged = append(rep.Damaged, id)
		} else if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		rep.Chunks++
		rep.Bytes += uint64(size)
		if progress != nil {
			progress(Progress{rep.Chunks, rep.Bytes, st.Chunks})
		}
		return nil
	})
	if err != nil {
		return rep, fmt.Errorf("scrub chunks: %w", err)
	}
	return rep, nil
}

// Stats is Store.Stats; a file counts as a pack.
func (f *Files) Stats() (Stats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return Stats{}, ErrClosed
	}
	st := f.stats
	for _, p := range f.pending {
		st.Chunks++
		st.Bytes += uint64(p.size)
	}
	st.Packs, st.PackBytes = int(st.Chunks), st.Bytes
	return st, nil
}

// Compact is Store.Compact; there is nothing to do.
func (f *Files) Compact(ctx context.Context) (CompactReport, error) {
	return CompactReport{}, ctx.Err()
}

// Close is Store.Close.
func (f *Files) Close() error {
	f.mu.Lock()
	closed := f.closed
	f.mu.Unlock()
	if closed {
		return nil
	}
	err := f.Sync(context.Background())
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if f.order != nil {
		err = errors.Join(err, f.order.Close())
	}
	return errors.Join(err, f.lock.Close())
}
