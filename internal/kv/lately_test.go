package kv

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// What was read before the database changed is not remembered after it.
func TestRememberedTooLate(t *testing.T) {
	p, err := OpenPebble(PebbleConfig{Dir: "state", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	pours := p.pours
	if err := p.Update(func(tx Tx) error { return tx.Put([]byte("k"), []byte("new")) }); err != nil {
		t.Fatal(err)
	}
	if err := p.Sync(); err != nil {
		t.Fatal(err)
	}
	p.remember("k", []byte("old"), pours)
	p.rememberAll([][]byte{[]byte("k")}, [][]byte{[]byte("old")}, pours)
	if v, err := p.Get([]byte("k")); string(v) != "new" {
		t.Errorf("%q, %v", v, err)
	}
}

// What is used stays, what is not goes, and no more is kept than there is room for.
func TestLatelyForgets(t *testing.T) {
	l := lately{max: 100 * (pairCost + 10)}
	l.add("used", nil)
	for i := range 1000 {
		l.add(fmt.Sprintf("%05d", i), []byte("value"))
		if _, ok := l.get("used"); !ok {
			t.Fatalf("forgotten after %d", i)
		}
		if l.bytes > l.max {
			t.Fatalf("%d bytes of %d", l.bytes, l.max)
		}
	}
	if len(l.vals) < 50 {
		t.Errorf("%d values", len(l.vals))
	}
	bytes := 0
	for k, r := range l.vals {
		bytes += pairCost + len(k) + len(r.val)
	}
	if bytes != l.bytes {
		t.Errorf("%d bytes are counted as %d", bytes, l.bytes)
	}
}

// What is written and likely to be read is found without the database, and so is that it is gone again.
func TestWrittenIsRemembered(t *testing.T) {
	p, err := OpenPebble(PebbleConfig{Dir: "state", FS: vfs.NewMem(), ReadAgain: func(key string) bool { return key[0] == 'n' }})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	write := func(fn func(tx Tx) error) {
		t.Helper()
		if err := p.Update(fn); err != nil {
			t.Fatal(err)
		}
		if err := p.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	write(func(tx Tx) error {
		return errors.Join(tx.Put([]byte("node"), []byte("value")), tx.Put([]byte("log"), []byte("value")))
	})
	if v, ok := p.lately.get("node"); !ok || string(v) != "value" {
		t.Errorf("%q, remembered: %v", v, ok)
	}
	if _, ok := p.lately.get("log"); ok {
		t.Error("what is not likely to be read is remembered")
	}
	write(func(tx Tx) error { return tx.Delete([]byte("node")) })
	if v, ok := p.lately.get("node"); !ok || v != nil {
		t.Errorf("after it was removed: %q, remembered: %v", v, ok)
	}
}
