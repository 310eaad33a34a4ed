package namespace

import (
	"bytes"
	"testing"

	"github.com/foreverfs/forever/internal/kv"
)

// movesDB counts the records of moves that updates read.
type movesDB struct {
	kv.DB
	read int
}

type movesTx struct {
	kv.Tx
	db *movesDB
}

func (d *movesDB) Update(fn func(kv.Tx) error) error {
	return d.DB.Update(func(tx kv.Tx) error { return fn(movesTx{tx, d}) })
}

func (x movesTx) Scan(lo, hi []byte, fn func(k, v []byte) bool) error {
	return x.Tx.Scan(lo, hi, func(k, v []byte) bool {
		if bytes.HasPrefix(k, key(keyMove)) {
			x.db.read++
		}
		return fn(k, v)
	})
}

// TestLateMovesReadTheLogOnce: a batch of moves that all come late reads the log above them once, not for each.
func TestLateMovesReadTheLogOnce(t *testing.T) {
	const moves = 50
	db := &movesDB{DB: kv.NewMem()}
	tree, err := Open(db, AuthorID{1})
	if err != nil {
		t.Fatal(err)
	}
	a, b := &rig{Tree: tree, t: t}, newRig(t, 2)
	a.must(a.mkdir("d"), a.mkdir("d/s"))
	meet(t, a, b)
	for range moves {
		a.must(a.mv("d", "e", 0), a.mv("e", "d", 0))
		b.must(b.mv("d/s", "d/t", 0), b.mv("d/t", "d/s", 0))
	}
	db.read = 0
	meet(t, a, b)
	if db.read == 0 || db.read > 2*moves {
		t.Errorf("%d records of moves were read, of %d", db.read, 2*moves)
	}
}
