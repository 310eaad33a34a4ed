package kv

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Pebble ends the process when it cannot write its log or its manifest, be it for a full disk, and when it cannot
// write a table it tries again without a pause. So it is not told: whatever write fails breaks the state, and the goroutine
// that wanted it waits for ever. Nothing is written after a failure; reads go on; who waits for an update or a flush gets the
// error; and the owner is told, who ends in order. The files stay open and locked while the process lives: another one may open the
// state again.

// breakage is that something has ended for good, and why.
type breakage struct {
	once sync.Once
	err  error         // set before done is closed
	done chan struct{} // closed when it has ended
}

func newBreakage() breakage { return breakage{done: make(chan struct{})} }

// set ends it; only the first reason counts. It returns that.
func (b *breakage) set(err error) error {
	b.once.Do(func() {
		b.err = fmt.Errorf("write to the state: %w", err)
		close(b.done)
	})
	return b.err
}

// get returns why it has ended, or nil.
func (b *breakage) get() error {
	select {
	case <-b.done:
		return b.err
	default:
		return nil
	}
}

// await returns what fn does, or why it ended meanwhile.
func (b *breakage) await(fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-b.done:
		return b.err
	}
}

// Broken is closed when the state takes no more updates: every Update and Sync from then on fails with why.
func (p *Pebble) Broken() <-chan struct{} { return p.broken.done }

// Err returns why the state takes no more updates, or nil.
func (p *Pebble) Err() error { return p.broken.get() }

// failed breaks the state for an error of its disk, and returns only if there is none, or while it is being opened.
func (p *Pebble) failed(err error) error {
	if err == nil || !p.opened.Load() || errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrExist) {
		return err
	}
	_ = p.broken.set(err)
	_ = p.stuck.set(err)
	select {}
}

// watchedFS is the file system of a state: a write that fails breaks the state.
type watchedFS struct {
	vfs.FS
	p *Pebble
}

var _ vfs.FS = watchedFS{}

// Unwrap returns the file system underneath.
func (w watchedFS) Unwrap() vfs.FS { return w.FS }

func (w watchedFS) watch(f vfs.File, err error) (vfs.File, error) {
	if err := w.p.failed(err); err != nil {
		return nil, err
	}
	return watchedFile{f, w.p}, nil
}

// Create implements vfs.FS.
func (w watchedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return w.watch(w.FS.Create(name, category))
}

// OpenReadWrite implements vfs.FS.
func (w watchedFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return w.watch(w.FS.OpenReadWrite(name, category, opts...))
}

// ReuseForWrite implements vfs.FS.
func (w watchedFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return w.watch(w.FS.ReuseForWrite(oldname, newname, category))
}

// OpenDir implements vfs.FS.
func (w watchedFS) OpenDir(name string) (vfs.File, error) { return w.watch(w.FS.OpenDir(name)) }

// Link implements vfs.FS.
func (w watchedFS) Link(oldname, newname string) error {
	return w.p.failed(w.FS.Link(oldname, newname))
}

// Rename implements vfs.FS.
func (w watchedFS) Rename(oldname, newname string) error {
	return w.p.failed(w.FS.Rename(oldname, newname))
}

// watchedFile is a file of a watchedFS that is written.
type watchedFile struct {
	vfs.File
	p *Pebble
}

// Write implements vfs.File.
func (f watchedFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	return n, f.p.failed(err)
}

// WriteAt implements vfs.File.
func (f watchedFile) WriteAt(b []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(b, off)
	return n, f.p.failed(err)
}

// Sync implements vfs.File.
func (f watchedFile) Sync() error { return f.p.failed(f.File.Sync()) }

// SyncData implements vfs.File.
func (f watchedFile) SyncData() error { return f.p.failed(f.File.SyncData()) }

// SyncTo implements vfs.File.
func (f watchedFile) SyncTo(length int64) (bool, error) {
	all, err := f.File.SyncTo(length)
	return all, f.p.failed(err)
}

// watchedLogger passes pebble's messages on, and has it break the state instead of ending the process.
type watchedLogger struct {
	pebble.Logger
	p *Pebble
}

// Fatalf implements pebble.Logger. Pebble requires that it does not return.
func (l watchedLogger) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	for _, a := range args {
		if cause, ok := a.(error); ok { // errors.Is shall find it
			err = cause
		}
	}
	_ = l.p.failed(err)
	panic(err) // which open recovers
}
