package casstore

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"

	"github.com/foreverfs/forever/chunk"
)

const (
	indexDir = "index"
	// rebuildMark is a file that asks the next Open to make the index anew.
	rebuildMark = "rebuild"
)

// openIndex opens the index, or an empty one if it is damaged.
func (s *Store) openIndex() error {
	dir, mark := s.fs.PathJoin(s.cfg.Dir, indexDir), s.fs.PathJoin(s.cfg.Dir, rebuildMark)
	_, err := s.fs.Stat(mark)
	marked := err == nil
	if !marked {
		if s.idx, err = openIndex(s.fs, dir, s.log); err == nil || !rebuildable(err) {
			return err
		}
		s.log.Warn("chunk index is damaged, making it anew from the packs", "error", err)
	}
	return s.newIndex()
}

// newIndex puts an empty index in place of the one there is, which is not open.
func (s *Store) newIndex() (err error) {
	dir, mark := s.fs.PathJoin(s.cfg.Dir, indexDir), s.fs.PathJoin(s.cfg.Dir, rebuildMark)
	if s.cfg.Rebuilding != nil {
		if err := s.cfg.Rebuilding(); err != nil {
			return err
		}
	}
	if err := s.fs.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove damaged index: %w", err)
	}
	if s.idx, err = openIndex(s.fs, dir, s.log); err != nil {
		return err
	}
	if err := s.fs.Remove(mark); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// rebuildable reports whether an index that fails to open with err may be
// thrown away: it may unless the disk is to blame rather than what is on it.
func rebuildable(err error) bool {
	var errno syscall.Errno
	return !errors.As(err, &errno) || errno == syscall.ENOENT
}

// markRebuild asks for a new index at the next Open.
func (s *Store) markRebuild() (err error) {
	s.markOnce.Do(func() {
		s.log.Error("chunk index is damaged; the next start makes it anew")
		var f vfs.File
		if f, err = s.fs.Create(s.fs.PathJoin(s.cfg.Dir, rebuildMark), writeKind); err == nil {
			err = errors.Join(f.Close(), syncDir(s.fs, s.cfg.Dir))
		}
	})
	return err
}

// recover enters what the packs hold behind the index's cursor, and finds out
// where to go on.
func (s *Store) recover() error {
	cursor := s.idx.meta.cursor
	numbers := s.packs.numbers()
	var end Position
	if len(numbers) > 0 {
		last := numbers[len(numbers)-1]
		size, err := s.packs.size(last)
		if err != nil {
			return err
		}
		end = Position{last, uint64(size)}
	}
	s.end = end
	if cursor.Compare(end) > 0 {
		s.end = cursor
	}
	s.synced, s.lastPack = s.end, s.end.Pack
	if end.Compare(cursor) > 0 {
		return s.recoverFrom(cursor, end, numbers)
	}
	if end == cursor && s.idx.meta.clean && int64(end.Offset) < s.cfg.PackSize {
		s.resume = end.Pack
	}
	return nil
}

// recoverFrom verifies and enters every record between cursor and end.
func (s *Store) recoverFrom(cursor, end Position, numbers []uint32) error {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, n := range numbers {
		if n < cursor.Pack {
			continue
		}
		from := int64(packHeaderSize)
		if n == cursor.Pack {
			from = int64(cursor.Offset)
		}
		g.Go(func() error { return s.recoverPack(n, from) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	c := s.idx.begin()
	c.meta.cursor, c.meta.clean = end, false
	if err := c.commit(); err != nil {
		return err
	}
	return s.idx.flush()
}

// recoverPack verifies and enters the records of one pack from an offset on.
func (s *Store) recoverPack(number uint32, from int64) (err error) {
	p, err := s.packs.acquire(number)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.packs.release(p)) }()
	size, err := s.packs.size(number)
	if err != nil {
		return err
	}
	// After kill -9 the records may be in the page cache only; what is in the
	// index must be on the disk.
	if err := s.syncPack(number); err != nil {
		return err
	}
	sc, err := newScanner(p.file, number, from, size)
	if err != nil {
		return err
	}
	found, err := s.enterVerified(p, sc)
	if sc.skipped > 0 {
		s.log.Warn("bytes in a pack are no chunks: an unfinished write, or damage", "pack", number, "bytes", sc.skipped)
	}
	if found > 0 {
		s.log.Info("chunks entered from a pack", "pack", number, "chunks", found)
	}
	return err
}

// syncPack flushes a pack through a handle of its own: flushing needs one
// opened for writing on some systems.
func (s *Store) syncPack(number uint32) error {
	f, err := s.fs.OpenReadWrite(s.packs.path(number), writeKind)
	if err != nil {
		return fmt.Errorf("open pack %d: %w", number, err)
	}
	err = f.Sync()
	if err == nil {
		// If a flush failed in the last run, the kernel has taken what was to be written for written, and this one succeeds
		// (fsyncgate). So what is verified next must come from the disk.
		err = uncache(f, 0, 0)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("flush pack %d: %w", number, err)
	}
	return nil
}

// enterVerified enters every record of sc whose bytes are its chunk, in groups.
func (s *Store) enterVerified(p *pack, sc *scanner) (found int, err error) {
	const group = 4096
	batch := make(map[chunk.ID]loc, group)
	buf := make([]byte, 0, 128<<10)
	for {
		rec, ok, err := sc.next()
		if err != nil {
			return found, err
		}
		if ok {
			l := rec.in(p.number)
			buf, err = s.read(buf[:0], rec.id, l)
			switch {
			case err == nil:
				batch[rec.id] = l
			case errors.Is(err, syscall.EIO): // it keeps its place, and counts as absent until it can be read
				s.log.Warn("a chunk cannot be read from the disk", "chunk", rec.id, "pack", l.pack, "offset", l.off, "error", err)
				batch[rec.id] = l
				s.mu.Lock()
				s.suspect[rec.id] = struct{}{}
				s.mu.Unlock()
			case errors.Is(err, ErrDamaged):
				sc.distrust(rec)
			default:
				return found, err
			}
		}
		if len(batch) >= group || !ok {
			n, err := s.enter(batch)
			if found += n; err != nil || !ok {
				return found, err
			}
			clear(batch)
		}
	}
}

// enter adds verified chunks that the index lacks, or has in an earlier place,
// which may have been found damaged.
func (s *Store) enter(found map[chunk.ID]loc) (n int, err error) {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	c := s.idx.begin()
	for id, l := range found {
		old, err := s.idx.get(id)
		if err == nil && old.pos().Compare(l.pos()) >= 0 {
			continue
		}
		if err == nil || errors.Is(err, ErrNotFound) {
			err = c.set(id, l, s.frontOf(id, l))
		}
		if err != nil {
			return 0, errors.Join(err, c.abort())
		}
		n++
	}
	return n, c.commit()
}
