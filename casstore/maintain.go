package casstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/foreverfs/forever/chunk"
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
		if _, err := s.idx.get(id); errors.Is(err, ErrNotFound) {
			st.Chunks++
			st.Bytes += uint64(l.size)
		}
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
}

// placed is a chunk and its place.
type placed struct {
	id chunk.ID
	l  loc
}

// Scrub reads every chunk and verifies it. What is damaged is reported, and
// counts as not held from then on. progress may be nil; it is called from the
// calling goroutine now and then. If ctx ends the report says what was done.
func (s *Store) Scrub(ctx context.Context, progress func(Progress)) (ScrubReport, error) {
	var rep ScrubReport
	if err := s.Sync(ctx); err != nil {
		return rep, err
	}
	total := s.held().Chunks
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
			}
			rep.Chunks++
			rep.Bytes += uint64(e.l.size)
		}
		if progress != nil {
			progress(Progress{rep.Chunks, rep.Bytes, total})
		}
		return nil
	})
	if err != nil {
		return rep, fmt.Errorf("scrub chunks: %w", err)
	}
	return rep, nil
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
	live, err := s.liveBytes(ctx)
	if err != nil {
		return nil, err
	}
	sizes := map[uint32]int64{}
	last := s.End().Pack
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
			live[e.l.pack] += recordHeaderSize + int64(e.l.size)
		}
		return nil
	})
	return live, err
}

// empty moves what is held out of some packs. On return the index on disk names
// them no more.
func (s *Store) empty(ctx context.Context, numbers []uint32) (moved int64, err error) {
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
				continue // deleted meanwhile, or forgotten just now
			}
			if err == nil {
				err = s.move(e.id, buf, e.l)
			}
			if err != nil {
				return err
			}
			moved += recordHeaderSize + int64(e.l.size)
		}
		return nil
	})
	if err != nil {
		return moved, err
	}
	if err := s.Sync(ctx); err != nil {
		return moved, err
	}
	if err := s.commitRecent(s.durable()); err != nil {
		return moved, err
	}
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	return moved, s.idx.flush()
}

// move appends a chunk held at from anew, unless it was deleted meanwhile.
func (s *Store) move(id chunk.ID, sealed []byte, from loc) error {
	rec := appendRecord(nil, salt{}, id, sealed)
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
	if !s.liesAt(id, from) {
		return nil
	}
	_, _, err := s.write(id, rec)
	return err
}
