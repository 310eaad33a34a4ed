package kv_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/foreverfs/forever/internal/kv"
)

func dump(t *testing.T, r kv.Reader, lo, hi []byte) map[string]string {
	t.Helper()
	out := map[string]string{}
	if err := r.Scan(lo, hi, func(k, v []byte) bool { out[string(k)] = string(v); return true }); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestMoved: two states of one kind live in one database without meeting.
func TestMoved(t *testing.T) {
	onEach(t, func(t *testing.T, db kv.DB) {
		next := kv.Moved(db, 't', 'T')
		update(t, db, func(tx kv.Tx) error { return tx.Put([]byte("ta"), []byte("old")) })
		update(t, next, func(tx kv.Tx) error {
			if err := errors.Join(tx.Put([]byte("ta"), []byte("new")), tx.Put([]byte("t\xff\xff"), nil), tx.Put([]byte("tz"), nil), tx.Delete([]byte("tz"))); err != nil {
				return err
			}
			if v, err := tx.Get([]byte("ta")); err != nil || string(v) != "new" {
				t.Errorf("within the update: %q, %v", v, err)
			}
			return nil
		})
		want := map[string]string{"ta": "new", "t\xff\xff": ""}
		for name, hi := range map[string][]byte{"next": {'u'}, "a prefix's end": kv.PrefixEnd([]byte("t"))} {
			if diff := cmp.Diff(want, dump(t, next, []byte("t"), hi)); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
		snap := next.Snapshot()
		if diff := cmp.Diff(want, dump(t, snap, []byte("t"), []byte{'u'})); diff != "" {
			t.Errorf("snapshot: %s", diff)
		}
		if err := snap.Close(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{"ta": "old", "Ta": "new", "T\xff\xff": ""}, dump(t, db, nil, nil)); diff != "" {
			t.Errorf("below: %s", diff)
		}
		if _, err := next.Get([]byte("tb")); !errors.Is(err, kv.ErrNotFound) {
			t.Errorf("what is not there: %v", err)
		}
	})
}

// TestMove: one state takes the other's place, also when that was broken off.
func TestMove(t *testing.T) {
	onEach(t, func(t *testing.T, db kv.DB) {
		const n = 10_000 // more than one update takes
		fill := func(prefix byte, from, to int) {
			update(t, db, func(tx kv.Tx) error {
				for i := from; i < to; i++ {
					if err := tx.Put([]byte{prefix, byte(i >> 8), byte(i)}, []byte{prefix}); err != nil {
						return err
					}
				}
				return nil
			})
		}
		fill('t', 0, n)
		fill('s', 0, 1)
		fill('u', 0, 1)
		if err := kv.Clear(db, 't'); err != nil {
			t.Fatal(err)
		}
		if left := dump(t, db, nil, nil); len(left) != 2 {
			t.Fatalf("%d keys left", len(left))
		}
		fill('t', 0, 100) // those that a move before this one took already
		fill('T', 100, n)
		if err := kv.Move(db, 'T', 't'); err != nil {
			t.Fatal(err)
		}
		if got := dump(t, db, []byte("t"), []byte("u")); len(got) != n || len(dump(t, db, []byte("T"), []byte("U"))) > 0 {
			t.Fatalf("%d keys", len(got))
		}
	})
}
