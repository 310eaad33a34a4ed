// Package kv is the ordered key-value state under the tree, the logs and the
// journal: one small interface, with a sorted map for tests and pebble for
// production.
package kv

import "errors"

// ErrNotFound is returned by Get for a key that has no value.
var ErrNotFound = errors.New("kv: not found")

// Reader reads one consistent state. Keys and values handed out are valid only
// until the next call on the same Reader, or until the callback returns;
// callers copy what they keep, and change nothing of it.
type Reader interface {
	// Get returns the value of key, or ErrNotFound.
	Get(key []byte) ([]byte, error)
	// Scan calls fn for every key in [lo, hi) in ascending order until fn
	// returns false. A nil hi means: to the end. fn must not write.
	Scan(lo, hi []byte, fn func(key, value []byte) bool) error
}

// Tx is one atomic set of writes. Its reads see its own writes. It does not
// keep the slices it is given.
type Tx interface {
	Reader
	Put(key, value []byte) error
	Delete(key []byte) error
}

// DB is a state that several goroutines may read and update at once; updates
// are atomic and ordered, and readers beside one see it whole or not at all
// with each call. What an update wrote survives a crash as a prefix: a
// later update is never there without all earlier ones.
type DB interface {
	Reader
	// Update runs fn and commits what it wrote, or nothing if it fails. Updates
	// run one after the other: fn must not call Update. The commit is visible at
	// once and durable with a later Sync, which the owner sees to; a process
	// that is killed before may lose it.
	Update(fn func(Tx) error) error
	// Sync makes every update that returned before durable: one flush,
	// shared by all that wait.
	Sync() error
	// Before has fn called, after updates were made and before they go where a crash leaves them: so that it makes
	// durable what they name elsewhere. If it fails, so do all updates from then on. fn must not use the DB.
	Before(fn func() error)
	// Snapshot returns the state as it is now, which later updates do not
	// change. It costs space for as long as it is open, so the caller closes it.
	Snapshot() Snapshot
	Close() error
}

// Snapshot is a state that does not change any more. It is closed before its DB is.
type Snapshot interface {
	Reader
	Close() error
}

// PrefixEnd returns the smallest key above every key that begins with prefix,
// or nil if there is none.
func PrefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
