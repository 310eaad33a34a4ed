package casstore

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/foreverfs/forever/chunk"
)

var recordBufs = sync.Pool{New: func() any { return new([]byte) }}

// append stores a chunk that lookup found missing when s.commits was commits.
// It reports whether it did, and whether too much is waiting for a flush.
func (s *Store) append(id chunk.ID, hashes, sealed []byte, commits uint64) (added, crowded bool, err error) {
	buf := recordBufs.Get().(*[]byte)
	defer recordBufs.Put(buf)
	// The copy is made outside the lock; the check is filled in below, since
	// the pack is not known yet.
	*buf = appendRecord((*buf)[:0], salt{}, id, hashes, sealed)

	s.appendMu.Lock()
	defer s.appendMu.Unlock()
	if has, err := s.heldSince(id, commits); has || err != nil {
		return false, false, err
	}
	if err := s.space.take(len(*buf), false); err != nil {
		return false, false, err
	}
	return s.write(record{id: id, size: len(sealed), grouped: len(hashes) > 0}, *buf, false)
}

// heldSince repeats lookup under s.appendMu: another may have put the chunk.
func (s *Store) heldSince(id chunk.ID, commits uint64) (bool, error) {
	s.mu.RLock()
	_, has := s.recent[id]
	_, bad := s.suspect[id]
	changed := s.commits != commits
	err := s.failed
	if s.closed {
		err = ErrClosed
	}
	s.mu.RUnlock()
	if err != nil || has && !bad || !changed {
		return has && !bad, err
	}
	has, _, err = s.lookup(id)
	return has, err
}

// write appends record r, whose bytes are rec, to the active pack and enters it; again says that the index has the
// chunk in another place. s.appendMu is held.
func (s *Store) write(r record, rec []byte, again bool) (added, crowded bool, err error) {
	if err := s.makeRoom(int64(len(rec))); err != nil {
		return false, false, err
	}
	p := s.active
	setCheck(rec, p.salt)
	// At a fixed offset: what a failed write leaves is written over by the next.
	if _, err := p.file.WriteAt(rec, int64(s.end.Offset)); err != nil {
		return false, false, fmt.Errorf("append to pack %d: %w", p.number, err)
	}
	s.mu.Lock()
	r.off = int64(s.end.Offset)
	s.recent[r.id] = r.in(p.number)
	if _, bad := s.suspect[r.id]; bad || again {
		s.again[r.id] = true
	}
	delete(s.suspect, r.id)
	s.end.Offset += uint64(len(rec))
	crowded = s.crowd.added(len(rec)) || len(s.recent) >= maxRecent
	s.mu.Unlock()
	s.writeback.appended(p.number, r.off+int64(len(rec)))
	return true, crowded, nil
}

// makeRoom sees to an active pack with room for n bytes; s.appendMu is held.
func (s *Store) makeRoom(n int64) error {
	if s.active != nil && int64(s.end.Offset)+n <= max(s.cfg.PackSize, packHeaderSize+n) {
		return nil
	}
	if s.active == nil && s.resume != 0 {
		if err := s.continuePack(); err != nil || s.active != nil {
			return err
		}
	}
	p, err := s.packs.create(s.lastPack + 1)
	if err != nil {
		return err
	}
	s.lastPack = p.number
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active != nil {
		s.full = append(s.full, s.active)
	}
	s.active = p
	s.end = Position{p.number, packHeaderSize}
	if len(s.full) == 0 {
		s.synced = s.end
	}
	return nil
}

// continuePack goes on with the pack that the last run closed cleanly. First
// it is noted that this is so no more: after a crash positions beyond what was
// durable must not be given out again for other chunks.
func (s *Store) continuePack() error {
	s.commitMu.Lock()
	c := s.idx.begin()
	c.meta.clean = false
	err := c.commit()
	if err == nil {
		err = s.idx.flush()
	}
	s.commitMu.Unlock()
	if err != nil && s.Err() != nil { // nor will it ever be noted
		s.resume = 0
		return nil
	}
	if err != nil {
		return err
	}
	p, err := s.packs.reopen(s.resume)
	if errors.Is(err, ErrDamaged) || errors.Is(err, errOldPack) {
		s.log.Warn("the last pack cannot be continued, beginning another", "error", err)
		s.resume = 0
		return nil
	}
	if err != nil {
		return err
	}
	s.resume = 0
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active = p
	return nil
}

// space keeps watch over the free space of the disk, under Store.appendMu.
type space struct {
	fs      vfs.FS
	dir     string
	reserve uint64
	// allowed is how many bytes may be written before looking again.
	allowed int64
}

// lookEvery is how many bytes are written between two looks at the free space.
const lookEvery = 4 << 20

func newSpace(fs vfs.FS, dir string, reserve int64) space {
	sp := space{fs: fs, dir: dir}
	u, err := fs.GetDiskUsage(dir)
	switch {
	case reserve > 0:
		sp.reserve = uint64(reserve)
	case reserve == 0 && err == nil:
		sp.reserve = DefaultReserve(u.TotalBytes)
	}
	return sp
}

// DefaultReserve is what Config.Reserve means by 0 on a disk of a size.
func DefaultReserve(disk uint64) uint64 { return min(64<<20, disk/20) }

// take accounts for n bytes about to be written; an error is syscall.ENOSPC. A
// writer that is about to free space may use the reserve.
func (sp *space) take(n int, useReserve bool) error {
	if sp.allowed >= int64(n) {
		sp.allowed -= int64(n)
		return nil
	}
	sp.allowed = 0
	u, err := sp.fs.GetDiskUsage(sp.dir)
	if err != nil {
		// Unknown: the write itself will tell.
		sp.allowed = lookEvery
		return nil
	}
	keep := sp.reserve
	if useReserve {
		keep = 0
	}
	if u.AvailBytes < keep+uint64(n) {
		return fmt.Errorf("%d MiB free, %d MiB are kept for the journal: %w",
			u.AvailBytes>>20, keep>>20, syscall.ENOSPC)
	}
	sp.allowed = int64(min(lookEvery, u.AvailBytes-keep-uint64(n)))
	return nil
}

// fail notes that durability can no longer be promised.
func (s *Store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = fmt.Errorf("%w: %w", ErrFailed, err)
		s.log.Error("chunk store failed; restart to verify and go on", "error", err)
	}
}
