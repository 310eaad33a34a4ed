// Package writefs has somebody hear of every write to a file system that fails, and say what becomes of it; a Breakage lets those
// go on who wait for what will not happen any more, also where pebble would end the process.
package writefs

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// FS is a file system that passes what creating, writing, flushing and renaming files gives through Result. Removals, and
// the making of directories, are as they are without. Files that find no descriptor are tried for a while first.
type FS struct {
	vfs.FS
	// Result is given the error of each, which is mostly nil, and returns what the caller gets. It may take its time.
	Result func(error) error
}

var _ vfs.FS = FS{}

// NoSpace returns an error that is syscall.ENOSPC, all that vfs.OnDiskFull knows, if err is syscall.EDQUOT, else err.
func NoSpace(err error) error {
	if errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%v: %w", err, syscall.ENOSPC)
	}
	return err
}

// Failed reports whether err says more than that a file is there, or is not.
func Failed(err error) bool {
	return err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrExist)
}

// Lasting reports whether what failed with err fails again if it is tried again: not for want of space, descriptors or memory, of
// which there may be some in a moment.
func Lasting(err error) bool {
	for _, short := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		if errors.Is(err, short) {
			return false
		}
	}
	return err != nil
}

// Unwrap returns the file system underneath.
func (w FS) Unwrap() vfs.FS { return w.FS }

// Files that cannot be opened for want of descriptors are tried again: those are short for a moment only.
const (
	openTries = 30
	openPause = 100 * time.Millisecond
)

func (w FS) open(fn func() (vfs.File, error)) (vfs.File, error) {
	f, err := fn()
	for n := 1; n < openTries && (errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)); n++ {
		time.Sleep(openPause)
		f, err = fn()
	}
	if err := w.Result(err); err != nil {
		return nil, err
	}
	return file{f, w.Result}, nil
}

// Create implements vfs.FS.
func (w FS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return w.open(func() (vfs.File, error) { return w.FS.Create(name, category) })
}

// OpenReadWrite implements vfs.FS.
func (w FS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return w.open(func() (vfs.File, error) { return w.FS.OpenReadWrite(name, category, opts...) })
}

// ReuseForWrite implements vfs.FS.
func (w FS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return w.open(func() (vfs.File, error) { return w.FS.ReuseForWrite(oldname, newname, category) })
}

// OpenDir implements vfs.FS.
func (w FS) OpenDir(name string) (vfs.File, error) {
	return w.open(func() (vfs.File, error) { return w.FS.OpenDir(name) })
}

// Link implements vfs.FS.
func (w FS) Link(oldname, newname string) error { return w.Result(w.FS.Link(oldname, newname)) }

// Rename implements vfs.FS.
func (w FS) Rename(oldname, newname string) error { return w.Result(w.FS.Rename(oldname, newname)) }

// file is a file of an FS that is written.
type file struct {
	vfs.File
	result func(error) error
}

// Write implements vfs.File.
func (f file) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	return n, f.result(err)
}

// WriteAt implements vfs.File.
func (f file) WriteAt(b []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(b, off)
	return n, f.result(err)
}

// Sync implements vfs.File.
func (f file) Sync() error { return f.result(f.File.Sync()) }

// SyncData implements vfs.File.
func (f file) SyncData() error { return f.result(f.File.SyncData()) }

// SyncTo implements vfs.File.
func (f file) SyncTo(length int64) (bool, error) {
	all, err := f.File.SyncTo(length)
	return all, f.result(err)
}
