package casstore

import (
	"errors"
	"os"
	"strconv"
	"sync/atomic"
	"unsafe"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// blockSize is what places, lengths and memory of direct reads are multiples of, in bytes: at least the block of any usual disk.
const blockSize = 4096

// direct reads a file without the kernel's page cache. For what is read at random and hardly ever twice the cache only costs: pages have to
// be found, and others make room for them.
type direct struct {
	file *os.File    // nil: this file cannot be read like that
	fd   int         // of the file as others read it
	off  atomic.Bool // it turned out not to work
}

// openDirect opens f another time. It never fails: what cannot be read directly is read as always.
func openDirect(f vfs.File) *direct {
	fd := f.Fd()
	if fd == vfs.InvalidFd {
		return &direct{}
	}
	file, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(fd)), os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return &direct{}
	}
	return &direct{file: file, fd: int(fd)}
}

func (d *direct) close() error {
	if d == nil || d.file == nil {
		return nil
	}
	return d.file.Close()
}

// use reports whether n bytes at off are better read directly: not what the cache has already, which may have been written a moment ago.
func (d *direct) use(off int64, n int) bool {
	if d.file == nil || d.off.Load() {
		return false
	}
	of, st := unix.CachestatRange{Off: uint64(off), Len: uint64(n)}, unix.Cachestat_t{}
	if err := unix.Cachestat(uint(d.fd), &of, &st, 0); err != nil {
		return false // before Linux 6.5
	}
	page := int64(os.Getpagesize())
	return int64(st.Cache) < (off+int64(n)-1)/page-off/page+1
}

// read fills window, which begins at a multiple of blockSize in memory and in the file, and returns how much of it.
func (d *direct) read(window []byte, at int64) int {
	n, err := d.file.ReadAt(window, at)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		d.off.Store(true) // the file system wants it otherwise, or not at all
	}
	return n
}

// readAround returns n bytes at off of a pack, read without the page cache unless they are in it. They lie in *buf, which grows as needed.
func (p *packs) readAround(k *pack, buf *[]byte, off int64, n int) ([]byte, error) {
	d := p.directOf(k)
	from := off &^ (blockSize - 1)
	size := int(off-from) + n
	size += -size & (blockSize - 1)
	window := alignedIn(buf, size)
	want := window[off-from:][:n]
	if d.use(off, n) && d.read(window, from) >= int(off-from)+n {
		return want, nil
	}
	return want, readFull(k, want, off) // which also tells what is wrong
}

// directOf returns what reads an acquired pack directly.
func (p *packs) directOf(k *pack) *direct {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k.direct == nil {
		k.direct = openDirect(k.file)
	}
	return k.direct
}

// alignedIn returns n bytes of *buf, which grows as needed, that begin at a multiple of blockSize in memory.
func alignedIn(buf *[]byte, n int) []byte {
	if cap(*buf) < n+blockSize {
		*buf = make([]byte, n+blockSize)
	}
	b := (*buf)[:cap(*buf)]
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (blockSize - 1)
	return b[skip:][:n]
}
