package casstore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/hashtree"
)

// Stats says how much a store holds.
type Stats struct {
	Chunks    uint64 // held
	Bytes     uint64 // of the chunks held
	Packs     int    // files
	PackBytes uint64 // of the files, including chunks deleted and not yet compacted
}

// Stats returns how much the store holds.
func (s *Store) Stats() (Stats, error) {
	if s.isClosed() {
		return Stats{}, ErrClosed
	}
	st := s.held()
	for _, n := range s.packs.numbers() {
		size, err := s.packs.size(n)
		if err != nil {
			continue // compacted away meanwhile
		}
		st.Packs++
		st.PackBytes += uint64(size)
	}
	return st, nil
}

// held counts the chunks in the index and those not yet in it.
func (s *Store) held() Stats {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	st := Stats{Chunks: s.idx.meta.chunks, Bytes: s.idx.meta.bytes}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id, l := range s.recent {
		if s.again[id] {
			if _, err := s.idx.get(id); err == nil {
				continue
			}
		}
		st.Chunks++
		st.Bytes += uint64(l.size)
	}
	return st
}

// Progress says how far a long run has come.
type Progress struct {
	Chunks, Bytes uint64 // done
	TotalChunks   uint64 // when it began
}

// ScrubReport says what a scrub found.
type ScrubReport struct {
	Chunks  uint64 // read
	Bytes   uint64
	Damaged []chunk.ID // found damaged; they count as not held now
	// Records are the records whose headers were damaged around a whole chunk, Packs those of which
	// the pack's own header was: their chunks were written anew elsewhere.
	Records int
	Packs   []uint32
}

// placed is a chunk and its place.
type placed struct {
	id chunk.ID
	l  loc
}

// isWhole reports whether head is right: what lies in this place before the chunk.
func (e placed) isWhole(head []byte, s *salt) bool {
	rec, ok := parseRecordHeader(head, s)
	if !ok || rec.id != e.id || rec.size != e.l.size || rec.grouped != e.l.grouped {
		return false
	}
	return !rec.grouped || hashtree.Root(head[recordHeaderSize:]) == e.id
}

// Scrub reads every chunk with its record and verifies both, and every pack's header. What
// is damaged is reported, and counts as not held from then on. progress may be nil; it is called from the
// calling goroutine now and then. If ctx ends the report says what was done.
func (s *Store) Scrub(ctx context.Context, progress func(Progress)) (ScrubReport, error) {
	var rep ScrubReport
	if err := s.Sync(ctx); err != nil {
		return rep, err
	}
	total := s.held().Chunks
	salts := map[uint32]*salt{}
	for _, n := range s.packs.numbers() {
		v, err := s.headerOf(n)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return rep, err
		}
		if salts[n] = v; v == nil {
			rep.Packs = append(rep.Packs, n)
		}
	}
	var buf []byte
	err := s.eachGroup(ctx, func(group []placed) error {
		for _, e := range group {
			if err := ctx.Err(); err != nil {
				return err
			}
			var err error
			buf, err = s.Get(ctx, buf[:0], e.id)
			switch {
			case errors.Is(err, ErrDamaged):
				rep.Damaged = append(rep.Damaged, e.id)
			case errors.Is(err, ErrNotFound): // deleted meanwhile
				continue
			case err != nil:
				return err
			default:
				if err := s.mendRecord(e, buf, salts, &rep); err != nil {
					return err
				}
			}
			rep.Chunks++
			rep.Bytes += uint64(e.l.size)
		}
		if progress != nil {
			progress(Progress{rep.Chunks, rep.Bytes, total})
		}
		return nil
	})
	if err == nil {
		err = s.leavePacks(ctx, rep.Packs)
	}
	if err != nil {
		return rep, fmt.Errorf("scrub chunks: %w", err)
	}
	return rep, nil
}

// headerOf returns the salt in a pack's header; nil if the header is damaged.
func (s *Store) headerOf(number uint32) (*salt, error) {
	head := make([]byte, packHeaderSize)
	n, err := s.readAt(number, head, 0)
	if err != nil {
		return nil, err
	}
	_, v, err := parsePackHeader(head[:n], number)
	if errors.Is(err, ErrDamaged) {
		s.log.Warn("pack header damaged on disk", "pack", number)
		return nil, nil
	}
	return &v, err
}

// readAt reads from a pack, less than asked for where it ends.
func (s *Store) readAt(number uint32, b []byte, off int64) (int, error) {
	p, err := s.packs.acquire(number)
	if err != nil {
		return 0, err
	}
	n, err := p.file.ReadAt(b, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, errors.Join(err, s.packs.release(p))
}

// mendRecord writes a whole chunk anew if its record is damaged around it: an index that was made anew would not
// find it, or its parts could not be read by themselves.
func (s *Store) mendRecord(e placed, sealed []byte, salts map[uint32]*salt, rep *ScrubReport) error {
	head := make([]byte, e.l.chunk()-e.l.off)
	n, err := s.readAt(e.l.pack, head, e.l.off)
	if errors.Is(err, ErrNotFound) {
		return nil // moved meanwhile
	}
	if err != nil {
		return err
	}
	// nil for a pack that was begun after the scrub, too
	if e.isWhole(head[:n], salts[e.l.pack]) {
		return s.mendFront(e, head[recordHeaderSize:], sealed)
	}
	s.log.Warn("record of a chunk damaged on disk, writing it anew", "chunk", e.id, "pack", e.l.pack, "offset", e.l.off)
	rep.Records++
	return s.move(e.id, sealed, e.l)
}

// mendFront enters the front of a chunk whose hashes are right, if the index has another one or none: that of a version which did not
// enter it. It waits for another scrub while the index cannot be written.
func (s *Store) mendFront(e placed, hashes, sealed []byte) error {
	if !e.l.grouped {
		return nil
	}
	want := append(slices.Clip(front(hashes)), sealed[:PartHead]...)
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	has, err := s.idx.front(nil, e.id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if bytes.Equal(has, want) || s.idx.failure() != nil {
		return nil
	}
	if there, err := s.liesAt(e.id, e.l); err != nil || !there {
		return err
	}
	c := s.idx.begin()
	if err := c.setFront(e.id, want); err != nil {
		return errors.Join(err, c.abort())
	}
	s.unflushed++
	return c.commit()
}

// leavePacks moves what is held out of packs with damaged headers.
func (s *Store) leavePacks(ctx context.Context, numbers []uint32) error {
	if len(numbers) == 0 {
		return nil
	}
	if slices.Contains(numbers, s.End().Pack) { // the last pack keeps its number from being given out again
		s.appendMu.Lock()
		s.resume = 0
		err := s.makeRoom(s.cfg.PackSize)
		s.appendMu.Unlock()
		if err != nil {
			return err
		}
	}
	last := s.End().Pack
	numbers = slices.DeleteFunc(slices.Clone(numbers), func(n uint32) bool { return n >= last })
	if _, err := s.empty(ctx, numbers); err != nil {
		return err
	}
	for _, n := range numbers {
		if err := s.packs.remove(n); err != nil {
			return err
		}
	}
	return nil
}

// eachGroup calls fn for all entries of the index in groups, each sorted by
// place so that it is read from front to back.
func (s *Store) eachGroup(ctx context.Context, fn func([]placed) error) error {
	const groupSize = 16 << 10
	var after chunk.ID
	group := make([]placed, 0, groupSize)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		group = group[:0]
		err := s.idx.scan(after, func(id chunk.ID, l loc) bool {
			group = append(group, placed{id, l})
			return len(group) < groupSize
		})
		if err != nil || len(group) == 0 {
			return err
		}
		after = group[len(group)-1].id
		slices.SortFunc(group, func(a, b placed) int {
			return cmp.Or(cmp.Compare(a.l.pack, b.l.pack), cmp.Compare(a.l.off, b.l.off))
		})
		if err := fn(group); err != nil {
			return err
		}
	}
}

// CompactReport says what a compaction did.
type CompactReport struct {
	Packs int   // removed
	Bytes int64 // freed on the disk, what was moved already subtracted
}

// compactGroup is how many packs are emptied in one pass over the index: more
// means fewer passes, fewer means that space is freed sooner.
const compactGroup = 8

// Compact frees the space of deleted chunks: packs of which less than half is
// held are removed after what is held was moved to the end of the store, where
// it arrives anew. Other calls go on meanwhile. Moving may use the reserve.
func (s *Store) Compact(ctx context.Context) (CompactReport, error) {
	var rep CompactReport
	if err := s.Sync(ctx); err != nil {
		return rep, err
	}
	sizes, err := s.compactable(ctx)
	if err != nil {
		return rep, fmt.Errorf("compact chunk store: %w", err)
	}
	for group := range slices.Chunk(slices.Sorted(maps.Keys(sizes)), compactGroup) {
		moved, err := s.empty(ctx, group)
		rep.Bytes -= moved
		if err != nil {
			return rep, fmt.Errorf("compact chunk store: %w", err)
		}
		for _, n := range group {
			if err := s.packs.remove(n); err != nil {
				return rep, fmt.Errorf("compact chunk store: %w", err)
			}
			rep.Packs++
			rep.Bytes += sizes[n]
		}
	}
	return rep, nil
}

// compactable returns the packs worth emptying and their sizes.
func (s *Store) compactable(ctx context.Context) (map[uint32]int64, error) {
	last := s.End().Pack // before it is looked what is held: others put meanwhile
	live, err := s.liveBytes(ctx)
	if err != nil {
		return nil, err
	}
	sizes := map[uint32]int64{}
	for _, n := range s.packs.numbers() {
		size, err := s.packs.size(n)
		if err != nil {
			return nil, err
		}
		// The last pack keeps its number from being given out again.
		if n < last && live[n]*2 < size {
			sizes[n] = size
		}
	}
	return sizes, nil
}

// liveBytes returns how much of each pack is held.
func (s *Store) liveBytes(ctx context.Context) (map[uint32]int64, error) {
	live := map[uint32]int64{}
	err := s.eachGroup(ctx, func(group []placed) error {
		for _, e := range group {
			live[e.l.pack] += e.l.length()
		}
		return nil
	})
	return live, err
}

// empty moves what is held out of some packs, to which nothing is appended any more. On return the index on disk names
// them no more.
func (s *Store) empty(ctx context.Context, numbers []uint32) (moved int64, err error) {
	if err := s.enterAll(ctx); err != nil { // else what was put lately would be overlooked
		return 0, err
	}
	var buf []byte
	err = s.eachGroup(ctx, func(group []placed) error {
		for _, e := range group {
			if !slices.Contains(numbers, e.l.pack) {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			buf, err = s.Get(ctx, buf[:0], e.id)
			if errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged) {
				there, lerr := s.liesAt(e.id, e.l)
				if lerr != nil {
					return lerr
				}
				if !there {
					continue // deleted meanwhile, or forgotten just now; what only cannot be read now may yet be
				}
			}
			if err == nil {
				err = s.move(e.id, buf, e.l)
			}
			if err != nil {
				return err
			}
			moved += e.l.length()
		}
		return nil
	})
	if err != nil {
		return moved, err
	}
	if err := s.enterAll(ctx); err != nil {
		return moved, err
	}
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	return moved, s.idx.flush()
}

// enterAll makes what was put so far durable and enters it in the index.
func (s *Store) enterAll(ctx context.Context) error {
	if err := s.Sync(ctx); err != nil {
		return err
	}
	return s.commitRecent(s.durable())
}

// move appends a chunk held at from anew, unless it was deleted meanwhile.
func (s *Store) move(id chunk.ID, sealed []byte, from loc) error {
	_, hashes := hashtree.Sum(nil, sealed)
	rec := appendRecord(nil, salt{}, id, hashes, sealed)
	s.appendMu.Lock()
	defer s.appendMu.Unlock()
	if err := s.space.take(len(rec), true); err != nil {
		return err
	}
	if err := s.makeRoom(int64(len(rec))); err != nil {
		return err
	}
	// Deletions wait from here on.
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if there, err := s.liesAt(id, from); err != nil || !there {
		return err
	}
	_, _, err := s.write(record{id: id, size: len(sealed), grouped: len(hashes) > 0}, rec, true)
	return err
}
