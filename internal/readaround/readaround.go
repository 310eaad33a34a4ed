// Package readaround has a database's tables read from a cold disk in pieces that are worth the way: the first read
// at random within a window of 128 KiB asks for all of the window, as a disk takes hardly longer for it than for
// the 4 KiB that are wanted, and what lies next to a key is mostly wanted soon. The kernel keeps the rest in its page cache,
// and gives it up as it likes: a window is asked for once while the table is open.
package readaround

import (
	"slices"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// window is what is asked for at a time, in bytes.
	window = 128 << 10
	// maxWindows bounds what is remembered of one table: behind it reads are as they are without.
	maxWindows = 4096
)

// FS is a file system whose files, if they are opened for reads at random, are read like that.
type FS struct{ vfs.FS }

var _ vfs.FS = FS{}

// Unwrap returns the file system underneath.
func (a FS) Unwrap() vfs.FS { return a.FS }

// Open implements vfs.FS.
func (a FS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := a.FS.Open(name, opts...)
	if err != nil || !slices.Contains(opts, vfs.RandomReadsOption) {
		return f, err
	}
	return &file{File: f}, nil
}

// file is a file with the windows that were asked for.
type file struct {
	vfs.File
	asked [maxWindows / 64]atomic.Uint64
}

// ReadAt implements vfs.File.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	first, last := off/window, (off+int64(len(p))-1)/window
	for w := first; off >= 0 && w <= last && w < maxWindows; w++ { // a damaged table may ask for anything
		word, bit := &f.asked[w/64], uint64(1)<<(w%64)
		if word.Load()&bit == 0 && word.Or(bit)&bit == 0 {
			_ = f.Prefetch(w*window, window) // a hint
		}
	}
	return f.File.ReadAt(p, off)
}
