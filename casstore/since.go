package casstore

import (
	"errors"
	"fmt"
	"slices"

	"github.com/foreverfs/forever/chunk"
)

// End returns the position behind everything put so far, durable or not.
func (s *Store) End() Position {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.end
}

// Since returns up to max chunks that arrived at or behind pos, in order of
// arrival, durable or not. Fewer than max means that there were no more when it was called:
// End, asked before, is then a position to go on from. A chunk that was put
// again after damage, or moved by Compact, arrives again. Since reads only the
// heads of records, and one call reads as many as it takes to find max that are held.
func (s *Store) Since(pos Position, max int) ([]Item, error) {
	if s.isClosed() {
		return nil, ErrClosed
	}
	end := s.End()
	numbers := s.packs.numbers()
	i, _ := slices.BinarySearch(numbers, pos.Pack)
	var items []Item
	for _, n := range numbers[i:] {
		if len(items) >= max || n > end.Pack {
			break
		}
		from := int64(packHeaderSize)
		if n == pos.Pack {
			from = int64(pos.Offset)
		}
		var err error
		items, err = s.sincePack(items, n, from, end, max)
		if err != nil && !errors.Is(err, ErrNotFound) { // else: compacted away meanwhile
			return nil, fmt.Errorf("list pack %d: %w", n, err)
		}
	}
	return items, nil
}

// Range calls fn for the durable chunks with from ≤ ID < to, in order of ID, until it
// returns false. A zero to means no end.
func (s *Store) Range(from, to chunk.ID, fn func(id chunk.ID, size int) bool) error {
	if s.isClosed() {
		return ErrClosed
	}
	err := s.idx.rangeOf(from, to, func(id chunk.ID, l loc) bool { return fn(id, l.size) })
	if err != nil {
		return fmt.Errorf("list chunks: %w", err)
	}
	return nil
}

// sincePack appends the held chunks of one pack to items, up to max in all.
func (s *Store) sincePack(items []Item, number uint32, from int64, end Position, max int) (_ []Item, err error) {
	limit := int64(end.Offset)
	if number != end.Pack {
		if limit, err = s.packs.size(number); err != nil {
			return items, err
		}
	}
	if from >= limit {
		return items, nil
	}
	p, err := s.packs.acquire(number)
	if err != nil {
		return items, err
	}
	defer func() { err = errors.Join(err, s.packs.release(p)) }()
	sc, err := newScanner(p.file, number, from, limit)
	if err != nil {
		return items, err
	}
	for len(items) < max {
		rec, ok, err := sc.next()
		if err != nil || !ok {
			return items, err
		}
		l := rec.in(number)
		if at, err := s.locate(rec.id); err == nil && at == l {
			items = append(items, Item{rec.id, rec.size, l.pos()})
		} else if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDamaged) {
			return items, err
		}
	}
	return items, nil
}
