package kv_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/foreverfs/forever/internal/kv"
)

// fullDisk is a disk on which, from a moment on, nothing can be written to files whose name has some words in it.
type fullDisk struct {
	vfs.FS
	words string
	full  atomic.Bool
}

func newFullDisk(words string) *fullDisk {
	d := &fullDisk{words: words}
	d.FS = errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if d.full.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.Contains(op.Path, d.words) {
			return syscall.ENOSPC
		}
		return nil
	}))
	return d
}

// within fails the test if fn takes long.
func within(t *testing.T, what string, fn func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatalf("%s does not return", what)
		return nil
	}
}

// TestFullDisk: a log or manifest that cannot be written breaks the state. Nobody panics or waits for
// ever, and what was there can be read.
func TestFullDisk(t *testing.T) {
	for words, provoke := range map[string]func(*kv.Pebble) error{
		".log":     (*kv.Pebble).Sync,
		"MANIFEST": (*kv.Pebble).Flush,
	} {
		t.Run(words, func(t *testing.T) {
			disk := newFullDisk(words)
			db := openPebble(t, disk)
			putAll(t, db, "a")
			if err := db.Sync(); err != nil {
				t.Fatal(err)
			}
			disk.full.Store(true)
			putAll(t, db, "b")
			if err := within(t, "the write", func() error { return provoke(db) }); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("the write that finds no space: %v", err)
			}
			select {
			case <-db.Broken():
			case <-time.After(10 * time.Second):
				t.Error("the state is not broken")
			}
			if err := db.Update(func(tx kv.Tx) error { return tx.Put([]byte("c"), nil) }); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("an update after it: %v", err)
			}
			if v, err := db.Get([]byte("a")); err != nil || string(v) != "va" {
				t.Errorf("a read after it: %q, %v", v, err)
			}
			_ = db.DiskUsage()
			if err := within(t, "Snapshot", db.Snapshot().Close); err != nil {
				t.Error(err)
			}
			if err := within(t, "Close", db.Close); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

// TestPourerOnFullDisk: what gathers goes into the log by itself, in a goroutine of its own.
func TestPourerOnFullDisk(t *testing.T) {
	disk := newFullDisk(".log")
	db := openPebble(t, disk)
	disk.full.Store(true)
	put := func() error { // more than waits in pebble's memory
		return db.Update(func(tx kv.Tx) error { return tx.Put([]byte("a"), make([]byte, 100<<10)) })
	}
	for deadline := time.Now().Add(10 * time.Second); put() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("updates are taken although none can be written")
		}
	}
	if err := db.Err(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("broken: %v", err)
	}
	if err := within(t, "Close", db.Close); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Close: %v", err)
	}
}

// TestOpenOnFullDisk: a new state that has no room is an error as well.
func TestOpenOnFullDisk(t *testing.T) {
	for _, words := range []string{".log", "MANIFEST"} {
		disk := newFullDisk(words)
		disk.full.Store(true)
		if _, err := kv.OpenPebble(kv.PebbleConfig{Dir: "state", FS: disk}); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: %v", words, err)
		}
	}
}

// TestDiskUsageWhileManifestFails: whoever asks for it while the manifest is being written does not wait for ever if that fails.
func TestDiskUsageWhileManifestFails(t *testing.T) {
	writing, fail := make(chan struct{}), make(chan struct{})
	var armed atomic.Bool
	disk := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || !strings.Contains(op.Path, "MANIFEST") || !armed.CompareAndSwap(true, false) {
			return nil
		}
		close(writing)
		<-fail
		return syscall.EIO
	}))
	db := openPebble(t, disk)
	putAll(t, db, "a")
	armed.Store(true)
	flushed, usage := make(chan error, 1), make(chan error, 1)
	go func() { flushed <- db.Flush() }()
	if err := within(t, "the flush before the manifest", func() error { <-writing; return nil }); err != nil {
		t.Fatal(err)
	}
	go func() { db.DiskUsage(); usage <- nil }()
	select {
	case <-usage:
		t.Fatal("DiskUsage does not wait for the manifest")
	case <-time.After(100 * time.Millisecond): // it waits
	}
	close(fail)
	if err := within(t, "Flush", func() error { return <-flushed }); !errors.Is(err, syscall.EIO) {
		t.Errorf("Flush: %v", err)
	}
	_ = within(t, "DiskUsage", func() error { return <-usage })
	_ = within(t, "Close", db.Close)
}

// TestNoDescriptors: a state that finds no descriptor for a moment is not broken by that.
func TestNoDescriptors(t *testing.T) {
	for _, short := range []error{syscall.EMFILE, syscall.ENFILE} {
		var left atomic.Int32
		disk := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") && left.Add(-1) >= 0 {
				return short
			}
			return nil
		}))
		db := openPebble(t, disk)
		putAll(t, db, "a")
		left.Store(2)
		if err := within(t, "Flush", db.Flush); err != nil {
			t.Errorf("Flush: %v", err)
		}
		if left.Load() >= 0 {
			t.Error("no descriptor was short")
		}
		if err := within(t, "Close", db.Close); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

// TestDamagedTable: pebble tries for ever to merge a table that is damaged, and in the end has those wait who write. So the state
// breaks, and nobody waits.
func TestDamagedTable(t *testing.T) {
	disk := vfs.NewMem()
	open := func() *kv.Pebble {
		db, err := kv.OpenPebble(kv.PebbleConfig{Dir: "state", FS: disk, MemTableSize: 256 << 10})
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	rnd := rand.NewChaCha8([32]byte{1})
	put := func(db *kv.Pebble) error { // with a flush, as a thousand times as much would have it
		err := db.Update(func(tx kv.Tx) error {
			for range 100 {
				k, v := make([]byte, 16), make([]byte, 200)
				_, _ = rnd.Read(k)
				_, _ = rnd.Read(v)
				if err := tx.Put(k, v); err != nil {
					return err
				}
			}
			return nil
		})
		return errors.Join(err, db.Flush())
	}
	db := open()
	if err := errors.Join(put(db), put(db), db.Close()); err != nil {
		t.Fatal(err)
	}
	names, err := disk.List("state")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		raw, err := disk.UnsafeGetFileDataBuffer("state/" + name)
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)/2] ^= 0x40
	}
	db = open()
	for n := 0; ; n++ {
		err := within(t, "an update", func() error { return put(db) })
		if pebble.IsCorruptionError(err) {
			break
		}
		if err != nil || n == 100 {
			t.Fatalf("update %d: %v", n, err)
		}
	}
	<-db.Broken()
	_ = within(t, "Close", db.Close) // an error if that loses something
}
