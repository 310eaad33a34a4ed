package casstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/foreverfs/forever/chunk"
)

// flush is one flush of packs that several callers of Sync may wait for.
type flush struct {
	done chan struct{}
}

// Sync makes everything durable that was put before it was called. Callers at
// the same time share one flush; if nothing is unflushed there is none. A
// failed flush makes the store refuse chunks with ErrFailed until it is opened
// again. If ctx ends first its error is returned and nothing is promised.
func (s *Store) Sync(ctx context.Context) error {
	s.mu.Lock()
	target := s.end
	for {
		switch {
		case s.closed:
			s.mu.Unlock()
			return ErrClosed
		case s.failed != nil:
			err := s.failed
			s.mu.Unlock()
			return err
		case s.synced.Compare(target) >= 0:
			s.mu.Unlock()
			return nil
		}
		f := s.flush
		if f == nil {
			f = &flush{make(chan struct{})}
			s.flush = f
			s.runFlush(f)
			continue
		}
		s.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		s.mu.Lock()
	}
}

// runFlush flushes what was appended so far and enters it in the index. s.mu is
// held on entry and on return, not in between.
func (s *Store) runFlush(f *flush) {
	upto := s.end
	full := s.full
	todo := append(append([]*pack(nil), full...), s.active)
	waiting, began := s.crowd.waiting, time.Now()
	s.mu.Unlock()
	err := syncPacks(todo)
	if err != nil {
		s.fail(err)
	}
	s.mu.Lock()
	if err == nil {
		s.synced = upto
		s.crowd.flushed(waiting, time.Since(began))
		s.full = s.full[len(full):]
	}
	s.flush = nil
	close(f.done)
	s.mu.Unlock()
	if err == nil {
		for _, p := range full {
			err = errors.Join(err, s.packs.release(p))
		}
		if err = errors.Join(err, s.commitRecent(upto)); err != nil {
			// The chunks stay in s.recent: readable, and entered another time.
			s.log.Error("cannot enter chunks in the index", "error", err)
		}
	}
	s.mu.Lock()
}

func syncPacks(todo []*pack) error {
	for _, p := range todo {
		if err := p.file.SyncData(); err != nil {
			return fmt.Errorf("flush pack %d: %w", p.number, err)
		}
	}
	return nil
}

// durable returns the position up to which everything is durable.
func (s *Store) durable() Position {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.synced
}

// commitRecent enters the chunks before upto, which are durable, in the index.
func (s *Store) commitRecent(upto Position) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if s.idx.damaged.Load() {
		if err := s.markRebuild(); err != nil {
			return err
		}
	}
	if upto.Compare(s.idx.meta.cursor) <= 0 {
		return nil
	}
	if err := s.idx.failure(); err != nil { // before much is read for it
		return err
	}
	entered, again := s.recentBefore(upto)
	c := s.idx.begin()
	c.meta.cursor = upto
	c.meta.clean = false
	for id, l := range entered {
		enter := c.add
		if again[id] {
			enter = c.set
		}
		if err := enter(id, l, s.frontOf(id, l)); err != nil {
			return errors.Join(err, c.abort())
		}
		s.unflushed += int64(l.size)
	}
	if err := c.commit(); err != nil {
		return err
	}
	s.mu.Lock()
	for id, l := range entered {
		if s.recent[id] == l {
			delete(s.recent, id)
			delete(s.again, id)
		}
	}
	s.commits++
	s.mu.Unlock()
	if s.unflushed < s.cfg.IndexFlush {
		return nil
	}
	s.unflushed = 0
	_, err := s.idx.beginFlush()
	return err
}

// recentBefore returns the chunks before upto that are not yet in the index, and which chunks may be there in
// another place.
func (s *Store) recentBefore(upto Position) (out map[chunk.ID]loc, again map[chunk.ID]bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out = make(map[chunk.ID]loc, len(s.recent))
	for id, l := range s.recent {
		if l.pos().Compare(upto) <= 0 {
			out[id] = l
		}
	}
	return out, maps.Clone(s.again)
}

// Delete forgets chunks; those that are not held are passed over. Their space
// is freed by Compact. A crash before the index's next flush may undo it.
func (s *Store) Delete(ctx context.Context, ids ...chunk.ID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.drop(ids, nil); err != nil {
		return fmt.Errorf("delete chunks: %w", err)
	}
	return nil
}

// forget takes out id if it still lies at l.
func (s *Store) forget(id chunk.ID, l loc) error { return s.drop([]chunk.ID{id}, &l) }

// drop takes out ids; if only is given, where they lie there.
func (s *Store) drop(ids []chunk.ID, only *loc) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if s.isClosed() {
		return ErrClosed
	}
	if err := s.idx.room(); err != nil { // before anything is forgotten
		return err
	}
	c := s.idx.begin()
	dropped := map[chunk.ID]bool{}
	for _, id := range ids {
		if dropped[id] {
			continue
		}
		if only != nil {
			if there, err := s.liesAt(id, *only); err != nil {
				return errors.Join(err, c.abort())
			} else if !there {
				continue
			}
		}
		dropped[id] = true
		if err := c.remove(id); err != nil && !errors.Is(err, ErrNotFound) {
			return errors.Join(err, c.abort())
		}
	}
	s.unflushed++
	s.mu.Lock()
	for id := range dropped {
		delete(s.recent, id)
		delete(s.suspect, id)
		delete(s.again, id)
	}
	s.commits++
	s.mu.Unlock()
	return c.commit()
}

// liesAt reports whether id is held at l.
func (s *Store) liesAt(id chunk.ID, l loc) (bool, error) {
	s.mu.RLock()
	at, ok := s.recent[id]
	s.mu.RUnlock()
	if !ok {
		var err error
		if at, err = s.idx.get(id); errors.Is(err, ErrNotFound) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return at == l, nil
}
