package kv_test

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/foreverfs/forever/internal/kv"
)

// TestScratchIsClosed: a scratch state of which a write failed says so, and is closed all the same: nothing of it is left running,
// and another can be made in its place.
func TestScratchIsClosed(t *testing.T) {
	for _, words := range []string{".sst", "MANIFEST", ""} {
		t.Run(words, func(t *testing.T) {
			before := runtime.NumGoroutine()
			disk := newFullDisk(words)
			open := func() *kv.Pebble {
				db, err := kv.OpenPebble(kv.PebbleConfig{Dir: "scratch", FS: disk, MemTableSize: 256 << 10, DisableWAL: true, Scratch: true})
				if err != nil {
					t.Fatal(err)
				}
				return db
			}
			db := open()
			putAll(t, db, "a")
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
			disk.full.Store(true)
			val := make([]byte, 64<<10)
			err := within(t, "an update", func() (err error) {
				for i := 0; err == nil; i++ {
					err = db.Update(func(tx kv.Tx) error { return tx.Put(fmt.Append(nil, i), val) })
				}
				return err
			})
			if !errors.Is(err, syscall.ENOSPC) || !errors.Is(db.Err(), syscall.ENOSPC) {
				t.Errorf("an update that finds no space: %v", err)
			}
			if err := within(t, "Close", db.Close); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("Close: %v", err)
			}
			disk.full.Store(false)
			if err := disk.RemoveAll("scratch"); err != nil {
				t.Fatal(err)
			}
			db = open()
			putAll(t, db, "b")
			if err := within(t, "Close", db.Close); err != nil {
				t.Errorf("Close of another: %v", err)
			}
			for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%d goroutines are left", runtime.NumGoroutine()-before)
				}
			}
		})
	}
}
