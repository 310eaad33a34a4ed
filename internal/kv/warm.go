package kv

import (
	"bytes"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sync/errgroup"
)

// Warmer is a DB that can be told what will be read soon.
type Warmer interface {
	// Warm reads the values of keys, which it may reorder, and has them in memory for a while: many at a time, which takes
	// less than as many calls of Get and waits for a disk once instead of as often. It returns how many were not in memory.
	Warm(keys [][]byte) (read int, err error)
}

var _ Warmer = (*Pebble)(nil)

const (
	// warmShare is how many keys one goroutine reads at least, and warmReaders how many there are at most: as many requests a
	// disk has at a time.
	warmShare   = 16
	warmReaders = 8
)

// Warm implements Warmer.
func (p *Pebble) Warm(keys [][]byte) (read int, err error) {
	keys, pours := p.unknown(keys)
	if len(keys) == 0 {
		return 0, nil
	}
	slices.SortFunc(keys, bytes.Compare)
	vals := make([][]byte, len(keys))
	share := max(warmShare, (len(keys)+warmReaders-1)/warmReaders)
	var g errgroup.Group
	for at := share; at < len(keys); at += share {
		to := min(at+share, len(keys))
		g.Go(func() error { return p.getSorted(keys[at:to], vals[at:to]) })
	}
	first := min(share, len(keys))
	err = errors.Join(p.getSorted(keys[:first], vals), g.Wait())
	if err != nil {
		return len(keys), err
	}
	p.rememberAll(keys, vals, pours)
	return len(keys), nil
}

// rememberAll notes what was read from the database, unless that may have changed since.
func (p *Pebble) rememberAll(keys, vals [][]byte, pours uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pours != pours {
		return
	}
	for i, k := range keys {
		p.lately.add(string(k), vals[i])
	}
}

// unknown returns the keys whose values are not in memory, and the state of p.pours.
func (p *Pebble) unknown(keys [][]byte) (out [][]byte, pours uint64) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, k := range keys {
		if _, ok := p.known(string(k)); !ok {
			out = append(out, k)
		}
	}
	return out, p.pours
}

// getSorted reads the values of ascending keys from the database; nil: there is none.
func (p *Pebble) getSorted(keys, vals [][]byte) (err error) {
	it, err := p.db.NewIter(&pebble.IterOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for i, k := range keys {
		if !it.SeekPrefixGE(k) || !bytes.Equal(it.Key(), k) {
			if err := it.Error(); err != nil {
				return err
			}
			continue
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		vals[i] = append(make([]byte, 0, len(v)), v...)
	}
	return nil
}
