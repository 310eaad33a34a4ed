package kv

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func openWarm(t *testing.T) *Pebble {
	p, err := OpenPebble(PebbleConfig{Dir: "state", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func numbered(i int) []byte { return fmt.Appendf(nil, "key %05d", i) }

// What was warmed is found in memory, also that it is not there, and what was there already is not read again.
func TestWarm(t *testing.T) {
	p := openWarm(t)
	const n = 300
	err := p.Update(func(tx Tx) error {
		for i := 0; i < n; i += 2 {
			if err := tx.Put(numbered(i), fmt.Appendf(nil, "value %d", i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, p.Flush()); err != nil {
		t.Fatal(err)
	}
	keys := func() (out [][]byte) {
		for _, i := range rand.Perm(n) {
			out = append(out, numbered(i))
		}
		return out
	}
	if read, err := p.Warm(keys()); err != nil || read != n {
		t.Fatalf("read %d of %d: %v", read, n, err)
	}
	for i := range n {
		v, known := p.lately.get(string(numbered(i)))
		if want := fmt.Sprintf("value %d", i); !known || i%2 == 0 && string(v) != want || i%2 == 1 && v != nil {
			t.Fatalf("%d: %q, known %v", i, v, known)
		}
	}
	if read, err := p.Warm(keys()); err != nil || read != 0 {
		t.Fatalf("read %d again: %v", read, err)
	}
}

// Whoever warms beside updates brings no old value back.
func TestWarmBesideUpdates(t *testing.T) {
	p := openWarm(t)
	const n, rounds = 64, 200
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var keys [][]byte
				for i := range n {
					keys = append(keys, numbered(i))
				}
				if _, err := p.Warm(keys); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer wg.Wait()
	defer close(stop)
	for round := range rounds {
		value := fmt.Sprint("round ", round)
		err := p.Update(func(tx Tx) error {
			for i := range n {
				var err error
				if (i+round)%5 == 0 {
					err = tx.Delete(numbered(i))
				} else {
					err = tx.Put(numbered(i), []byte(value))
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if round%3 == 0 {
			err = errors.Join(err, p.Sync())
		}
		if round%20 == 0 {
			err = errors.Join(err, p.Flush())
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			v, err := p.Get(numbered(i))
			if gone := (i+round)%5 == 0; gone && !errors.Is(err, ErrNotFound) || !gone && (err != nil || string(v) != value) {
				t.Fatalf("round %d: key %d is %q, %v", round, i, v, err)
			}
		}
	}
}
