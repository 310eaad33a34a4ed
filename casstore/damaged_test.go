package casstore

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// putAndEnter puts n chunks, each of which is flushed into a table of the index.
func putAndEnter(t *testing.T, s *Store, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		err := soon(t, "put", func() error {
			id, data := blob(i)
			_, err := s.Put(bg, id, data)
			return errors.Join(err, s.Sync(bg))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// flipTables changes a bit in the middle of the tables of the index.
func flipTables(t *testing.T, disk *vfs.MemFS) {
	t.Helper()
	walk(t, disk, "store/index", func(path string) {
		if !strings.HasSuffix(path, ".sst") {
			return
		}
		raw, err := disk.UnsafeGetFileDataBuffer(path)
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)/2] ^= 0x40
	})
}

// TestIndexThatCannotBeCompacted: pebble tries for ever to merge a table that is damaged or cannot be read, and in the end has those
// wait who write. So the index breaks, nobody waits, what is put is kept, and the next start makes the index anew.
func TestIndexThatCannotBeCompacted(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, disk *vfs.MemFS, unreadable *atomic.Bool){
		"damaged": func(t *testing.T, disk *vfs.MemFS, _ *atomic.Bool) { flipTables(t, disk) },
		"unreadable": func(_ *testing.T, _ *vfs.MemFS, unreadable *atomic.Bool) {
			unreadable.Store(true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			disk := vfs.NewMem()
			var unreadable atomic.Bool
			failing := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if unreadable.Load() && op.Kind == errorfs.OpFileReadAt && strings.HasSuffix(op.Path, ".sst") {
					return syscall.EIO
				}
				return nil
			}))
			open := func() *Store {
				s, err := Open(Config{Dir: "store", FS: failing, IndexFlush: 1})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = s.Close() })
				return s
			}
			s := open()
			putAndEnter(t, s, 0, 100)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open()
			spoil(t, disk, &unreadable)
			n := 100
			for ; s.Err() == nil; n++ {
				if n == 200 {
					t.Fatal("the index can be written although it cannot be compacted")
				}
				putAndEnter(t, s, n, 1)
			}
			putAndEnter(t, s, n, 20) // L0 is full of what was flushed
			<-s.Broken()
			if err := s.Err(); !errors.Is(err, ErrIndex) {
				t.Errorf("broken: %v", err)
			}
			for i := 100; i < n+20 && !unreadable.Load(); i++ {
				id, _ := blob(i)
				if has, err := s.Has(id); err != nil || !has {
					t.Errorf("chunk %d: %v, %v", i, has, err)
				}
			}
			if err := soon(t, "Close", s.Close); err != nil {
				t.Errorf("Close: %v", err)
			}
			unreadable.Store(false)
			again := open()
			if err := again.Err(); err != nil {
				t.Error(err)
			}
			wantHeld(t, again, seq(n+20)...)
		})
	}
}

// TestIndexManifestFails: an index whose manifest cannot be written breaks, and nobody waits or panics; what is put is kept.
func TestIndexManifestFails(t *testing.T) {
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		t.Run(cause.Error(), func(t *testing.T) {
			disk := vfs.NewCrashableMem()
			var failing atomic.Bool
			s, err := Open(Config{Dir: "store", IndexFlush: 1, FS: errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if failing.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.Contains(op.Path, "MANIFEST") {
					return cause
				}
				return nil
			}))})
			if err != nil {
				t.Fatal(err)
			}
			putAndEnter(t, s, 0, 10)
			failing.Store(true)
			putAndEnter(t, s, 10, 10)
			_ = soon(t, "the break", func() error { <-s.Broken(); return nil })
			if err := s.Err(); !errors.Is(err, cause) {
				t.Errorf("broken: %v", err)
			}
			if !s.Held() {
				t.Error("the index is stuck, and can be opened again")
			}
			putAndEnter(t, s, 20, 10)
			wantHeld(t, s, seq(30)...)
			_ = soon(t, "Stats", func() error { _, err := s.Stats(); return err })
			if err := soon(t, "Close", s.Close); errors.Is(cause, syscall.EIO) && err != nil {
				t.Errorf("Close: %v", err)
			}
			again, err := Open(Config{Dir: "store", FS: disk.CrashClone(vfs.CrashCloneCfg{})})
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			wantHeld(t, again, seq(30)...)
		})
	}
}

// TestOpenIndexManifestFails: it is an error when the store is opened.
func TestOpenIndexManifestFails(t *testing.T) {
	_, err := Open(Config{Dir: "store", FS: errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.Contains(op.Path, "MANIFEST") {
			return syscall.EIO
		}
		return nil
	}))})
	if !errors.Is(err, syscall.EIO) {
		t.Errorf("open: %v", err)
	}
}

// TestIndexDamagedWhereRecoveryLooks: an Open that has to enter chunks, as after a crash, and finds the index damaged makes it anew.
func TestIndexDamagedWhereRecoveryLooks(t *testing.T) {
	disk, _ := filled(t, 300)
	if err := setMeta(disk, meta{}.encode()); err != nil {
		t.Fatal(err)
	}
	flipTables(t, disk)
	calls, failing := 0, errors.New("not now")
	cfg := Config{Dir: "store", FS: disk, Rebuilding: func() error { calls++; return failing }}
	if _, err := Open(cfg); !errors.Is(err, failing) {
		t.Fatalf("open while nobody may make the index anew: %v", err)
	}
	failing = nil
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if calls != 2 {
		t.Errorf("it was said %d times that the index is made anew", calls)
	}
	wantHeld(t, s, seq(300)...)
}
