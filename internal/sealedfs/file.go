package sealedfs

import (
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// file is an open sealed file. As vfs.File demands, calls to Write come one
// after the other, as do calls to Read; ReadAt may run beside anything.
type file struct {
	vfs.File
	c       *fileCipher
	readAt  int64 // content offset of the next Read
	writeAt int64 // content offset of the next Write
	// empty marks a file without a whole header.
	empty bool
	// log marks a file that is flushed after every few bytes; size is how large it is underneath.
	log  bool
	size int64
}

var _ vfs.File = (*file)(nil)

// Write implements io.Writer. It encrypts p in place, as vfs.File permits.
func (f *file) Write(p []byte) (int, error) {
	if f.c == nil {
		return 0, ErrRewrite
	}
	f.makeRoom(int64(len(p)))
	f.c.xor(p, f.writeAt)
	n, err := f.File.Write(p)
	f.writeAt += int64(n)
	return n, err
}

// A log grows by logStep bytes at a time, written as pages: the kernel would keep more at once in a large one, and
// look through all of that at each flush.
const (
	logStep  = 512 << 10
	pageSize = 4 << 10
)

var zeroPage [pageSize]byte

// makeRoom has a log grow by zeros, not by the n bytes that are about to be written: then a flush of them only
// writes them, and not the file's new size and extents too, for which the file system below writes its
// own journal. The zeros are not encrypted, so they read as noise, like what is left in a file that is reused.
func (f *file) makeRoom(n int64) {
	end := headerSize + f.writeAt + n
	if !f.log || end <= f.size {
		return
	}
	for end += logStep; f.size < end; {
		m, err := f.File.WriteAt(zeroPage[:pageSize-f.size%pageSize], f.size)
		if f.size += int64(m); err != nil {
			f.log = false // what is written goes on without
			return
		}
	}
}

// WriteAt implements io.WriterAt by refusing with ErrRewrite.
func (f *file) WriteAt([]byte, int64) (int, error) { return 0, ErrRewrite }

// Read implements io.Reader.
func (f *file) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.readAt)
	f.readAt += int64(n)
	if n > 0 {
		err = nil // the rest of a short read comes with the next one
	}
	return n, err
}

// ReadAt implements io.ReaderAt.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if f.empty {
		return 0, io.EOF
	}
	n, err := f.File.ReadAt(p, off+headerSize)
	f.c.xor(p[:n], off)
	return n, err
}

// Preallocate implements vfs.File.
func (f *file) Preallocate(offset, length int64) error {
	return f.File.Preallocate(offset+headerSize, length)
}

// Stat implements vfs.File. The size does not count the header.
func (f *file) Stat() (vfs.FileInfo, error) {
	fi, err := f.File.Stat()
	if err != nil {
		return nil, err
	}
	return wrapInfo(fi), nil
}

// SyncTo implements vfs.File.
func (f *file) SyncTo(length int64) (fullSync bool, err error) {
	return f.File.SyncTo(length + headerSize)
}

// Prefetch implements vfs.File.
func (f *file) Prefetch(offset, length int64) error {
	return f.File.Prefetch(offset+headerSize, length)
}
