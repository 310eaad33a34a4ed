package kv

import (
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// scratchFS is the file system of a scratch state. Pebble can be closed only while its writes succeed, so once one has
// failed all of them do, and go nowhere: what is read of them is damaged or empty, which fails.
type scratchFS struct {
	vfs.FS
	p *Pebble
}

var _ vfs.FS = scratchFS{}

// Unwrap returns the file system underneath.
func (s scratchFS) Unwrap() vfs.FS { return s.FS }

// result returns the error of a write, or nil if the state is broken, by that one or before.
func (s scratchFS) result(err error) error {
	if s.p.broken.Get() != nil {
		return nil
	}
	return err
}

// instead returns a file, or one that keeps nothing in its place if there is none since the state is broken.
func (s scratchFS) instead(f vfs.File, err error) (vfs.File, error) {
	if err != nil && s.result(err) == nil {
		return vfs.Default.OpenReadWrite(os.DevNull, vfs.WriteCategoryUnspecified)
	}
	return f, err
}

func (s scratchFS) written(f vfs.File, err error) (vfs.File, error) {
	if f, err = s.instead(f, err); err != nil {
		return nil, err
	}
	return scratchFile{f, s}, nil
}

// Create implements vfs.FS.
func (s scratchFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return s.written(s.FS.Create(name, category))
}

// OpenReadWrite implements vfs.FS.
func (s scratchFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return s.written(s.FS.OpenReadWrite(name, category, opts...))
}

// ReuseForWrite implements vfs.FS.
func (s scratchFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return s.written(s.FS.ReuseForWrite(oldname, newname, category))
}

// OpenDir implements vfs.FS.
func (s scratchFS) OpenDir(name string) (vfs.File, error) { return s.written(s.FS.OpenDir(name)) }

// Open implements vfs.FS. That a table is not there would be fatal to pebble.
func (s scratchFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	return s.instead(s.FS.Open(name, opts...))
}

// Link implements vfs.FS.
func (s scratchFS) Link(oldname, newname string) error { return s.result(s.FS.Link(oldname, newname)) }

// Rename implements vfs.FS.
func (s scratchFS) Rename(oldname, newname string) error {
	return s.result(s.FS.Rename(oldname, newname))
}

// scratchFile is a file of a scratchFS that is written.
type scratchFile struct {
	vfs.File
	fs scratchFS
}

// Write implements vfs.File.
func (f scratchFile) Write(b []byte) (n int, err error) {
	if n, err = f.File.Write(b); err != nil {
		if err = f.fs.result(err); err == nil {
			n = len(b)
		}
	}
	return n, err
}

// Sync implements vfs.File.
func (f scratchFile) Sync() error { return f.fs.result(f.File.Sync()) }

// SyncData implements vfs.File.
func (f scratchFile) SyncData() error { return f.fs.result(f.File.SyncData()) }

// SyncTo implements vfs.File.
func (f scratchFile) SyncTo(length int64) (bool, error) {
	all, err := f.File.SyncTo(length)
	return all, f.fs.result(err)
}
