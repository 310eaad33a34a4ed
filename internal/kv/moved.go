package kv

import "errors"

// Moved returns a view of db in which every key that begins with the byte from is kept
// under the byte to instead: a second state of the same kind in one database. No
// other keys may be used. Closing the view does nothing.
func Moved(db DB, from, to byte) DB { return moved{db: db, keys: movedKeys{from, to}} }

type movedKeys struct{ from, to byte }

func (m movedKeys) key(k []byte) []byte {
	out := append([]byte(nil), k...)
	if len(out) > 0 && out[0] == m.from {
		out[0] = m.to
	}
	return out
}

// bound maps the end of a range; the byte after from ends what begins with from.
func (m movedKeys) bound(k []byte) []byte {
	if len(k) == 1 && k[0] == m.from+1 {
		return []byte{m.to + 1}
	}
	return m.key(k)
}

func (m movedKeys) get(r Reader, k []byte) ([]byte, error) { return r.Get(m.key(k)) }

func (m movedKeys) scan(r Reader, lo, hi []byte, fn func(key, value []byte) bool) error {
	return r.Scan(m.key(lo), m.bound(hi), func(k, v []byte) bool {
		back := append([]byte(nil), k...)
		back[0] = m.from
		return fn(back, v)
	})
}

type moved struct {
	db   DB
	keys movedKeys
}

var _ DB = moved{}

func (m moved) Get(key []byte) ([]byte, error) { return m.keys.get(m.db, key) }

func (m moved) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	return m.keys.scan(m.db, lo, hi, fn)
}

func (m moved) Update(fn func(Tx) error) error {
	return m.db.Update(func(tx Tx) error { return fn(movedTx{tx, m.keys}) })
}

func (m moved) Sync() error            { return m.db.Sync() }
func (m moved) Before(fn func() error) { m.db.Before(fn) }
func (m moved) Snapshot() Snapshot     { return movedSnapshot{m.db.Snapshot(), m.keys} }
func (m moved) Close() error           { return nil }

type movedTx struct {
	tx   Tx
	keys movedKeys
}

func (m movedTx) Get(key []byte) ([]byte, error) { return m.keys.get(m.tx, key) }

func (m movedTx) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	return m.keys.scan(m.tx, lo, hi, fn)
}

func (m movedTx) Put(key, value []byte) error { return m.tx.Put(m.keys.key(key), value) }
func (m movedTx) Delete(key []byte) error     { return m.tx.Delete(m.keys.key(key)) }

type movedSnapshot struct {
	snap Snapshot
	keys movedKeys
}

func (m movedSnapshot) Get(key []byte) ([]byte, error) { return m.keys.get(m.snap, key) }

func (m movedSnapshot) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	return m.keys.scan(m.snap, lo, hi, fn)
}

func (m movedSnapshot) Close() error { return m.snap.Close() }

// step is how many records one update of Move and Clear touches.
const step = 4096

// Clear deletes every key that begins with a byte, in updates of bounded size.
func Clear(db DB, prefix byte) error {
	return drain(db, prefix, func(Tx, []byte, []byte) error { return nil })
}

// Move gives every key that begins with the byte from the byte to instead, over
// what is there, in updates of bounded size. One that broke off is gone on with by another.
func Move(db DB, from, to byte) error {
	return drain(db, from, func(tx Tx, k, v []byte) error {
		k = append([]byte(nil), k...)
		k[0] = to
		return tx.Put(k, v)
	})
}

// drain hands all keys that begin with a byte to fn and deletes them.
func drain(db DB, prefix byte, fn func(tx Tx, k, v []byte) error) error {
	for left := true; left; {
		err := db.Update(func(tx Tx) error {
			type record struct{ k, v []byte }
			var page []record
			lo := []byte{prefix}
			err := tx.Scan(lo, PrefixEnd(lo), func(k, v []byte) bool {
				page = append(page, record{append([]byte(nil), k...), append([]byte(nil), v...)})
				return len(page) < step
			})
			left = len(page) > 0
			for _, r := range page {
				err = errors.Join(err, fn(tx, r.k, r.v), tx.Delete(r.k))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
