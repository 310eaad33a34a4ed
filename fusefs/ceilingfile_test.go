package fusefs

import (
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"
)

const (
	// pieceSize is how large contents are cut.
	pieceSize = 1 << 20
	// smallSize is how long a content may be that lies in memory of its own.
	smallSize = 64 << 10
)

// piecePool hands out pieces of memory that exists already: the first touch of a
// page costs as much as the rest of a write.
type piecePool struct {
	mu   sync.Mutex
	free [][]byte
}

func newPiecePool(size int64) (*piecePool, error) {
	p := &piecePool{}
	if size < pieceSize {
		return p, nil
	}
	all, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		return nil, err
	}
	for len(all) >= pieceSize {
		p.free = append(p.free, all[:pieceSize:pieceSize])
		all = all[pieceSize:]
	}
	return p, nil
}

func (p *piecePool) get() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		b := p.free[n-1]
		p.free = p.free[:n-1]
		return b
	}
	return make([]byte, pieceSize)
}

func (p *piecePool) put(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, b)
}

// plainContent is what a file holds: small, or in pieces. What is beyond its end, or in
// no piece, is zero.
type plainContent struct {
	small  []byte
	pieces []piece
	size   int64
}

// piece is memory as the pool gave it, with whatever was there, but for its first fill bytes.
type piece struct {
	mem  []byte
	fill int
}

// truncate sets the size.
func (f *plainContent) truncate(pool *piecePool, size int64) {
	f.grow(pool, size)
	f.size = size
	if f.pieces == nil {
		f.small = f.small[:size]
		return
	}
	keep := int((size + pieceSize - 1) / pieceSize)
	for _, p := range f.pieces[keep:] {
		if p.mem != nil {
			pool.put(p.mem)
		}
	}
	f.pieces = f.pieces[:keep]
	if keep == 0 {
		f.pieces = nil
		return
	}
	last := &f.pieces[keep-1]
	last.fill = min(last.fill, int(size-int64(keep-1)*pieceSize))
}

// grow makes room for size bytes.
func (f *plainContent) grow(pool *piecePool, size int64) {
	if f.pieces == nil && size <= smallSize {
		if more := int(size) - len(f.small); more > 0 {
			f.small = slices.Grow(f.small, more)
			f.small = f.small[:len(f.small)+more]
			clear(f.small[len(f.small)-more:])
		}
		return
	}
	for int64(len(f.pieces))*pieceSize < size {
		f.pieces = append(f.pieces, piece{})
	}
	if f.small != nil {
		f.pieces[0].write(pool, f.small, 0)
		f.small = nil
	}
}

// write returns how much of b has room.
func (p *piece) write(pool *piecePool, b []byte, off int) int {
	if p.mem == nil {
		p.mem = pool.get()
	}
	if p.fill < off {
		clear(p.mem[p.fill:off])
	}
	n := copy(p.mem[off:], b)
	p.fill = max(p.fill, off+n)
	return n
}

func (f *plainContent) writeAt(pool *piecePool, b []byte, off int64) {
	end := off + int64(len(b))
	f.grow(pool, end)
	f.size = max(f.size, end)
	if f.pieces == nil {
		copy(f.small[off:], b)
		return
	}
	for len(b) > 0 {
		n := f.pieces[off/pieceSize].write(pool, b, int(off%pieceSize))
		b, off = b[n:], off+int64(n)
	}
}

var zeros [pieceSize]byte

// cut finds what a read gets: at most len(at) places in memory. It returns how many.
func (f *plainContent) cut(at [][]byte, off int64, size int) int {
	size = int(min(int64(size), f.size-off))
	n := 0
	for ; size > 0 && n < len(at); n++ {
		src := zeros[off%pieceSize:]
		if f.pieces == nil {
			src = f.small[off:]
		} else if p := f.pieces[off/pieceSize]; off%pieceSize < int64(p.fill) {
			src = p.mem[off%pieceSize : p.fill]
		}
		at[n] = src[:min(len(src), size)]
		size -= len(at[n])
		off += int64(len(at[n]))
	}
	return n
}

// read hands the kernel the content where it lies.
func (fs *ceiling) read(c *call, r *fuse.ReadRequest) error {
	n := fs.files.get(r.Handle)
	if n == nil {
		return syscall.EBADF
	}
	var parts [4][]byte
	n.contentMu.RLock()
	k := n.content.cut(parts[:], r.Offset, r.Size)
	_ = c.sendParts(parts[:k])
	n.contentMu.RUnlock()
	return nil
}

// sendParts is send for a message whose body lies in up to four places.
func (c *call) sendParts(parts [][]byte) error {
	var iov [5]syscall.Iovec
	head := c.scratch[:outHeaderSize]
	total := outHeaderSize
	iov[0].Base = &head[0]
	iov[0].SetLen(outHeaderSize)
	for i, p := range parts {
		iov[i+1].Base = &p[0]
		iov[i+1].SetLen(len(p))
		total += len(p)
	}
	putOutHeader(head, c.hdr.ID, 0)
	native.PutUint32(head, uint32(total))
	c.answered = true
	_, _, errno := syscall.Syscall(syscall.SYS_WRITEV, uintptr(c.s.fd), uintptr(unsafe.Pointer(&iov)), uintptr(len(parts)+1))
	c.s.hatch.done(c.hdr)
	if errno != 0 {
		return errno
	}
	return nil
}

func (fs *ceiling) write(c *call, r *fuse.WriteRequest) error {
	n := fs.files.get(r.Handle)
	if n == nil {
		return syscall.EBADF
	}
	now := time.Now().UnixNano()
	n.contentMu.Lock()
	n.content.writeAt(fs.pool, r.Data, r.Offset)
	n.attr.Size, n.attr.Mtime, n.attr.Ctime = n.content.size, now, now
	n.contentMu.Unlock()
	return c.ok(func() { r.Respond(&fuse.WriteResponse{Size: len(r.Data)}) })
}
