package fusefs

import (
	"sync"
	"syscall"
	"time"
	"unsafe"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"
)

// How long a file is the kernel takes from answers to GETATTR and READ, but from none to a request that it made before it got a
// notification about the inode: then a program's read goes on with the length of before. So notifications wait for such
// answers, none is sent of what the kernel does not know anyway, and that a file is longer now it is told outright.

// answers knows of which inodes the kernel is being told how long they are, or was a moment ago.
type answers struct {
	mu sync.Mutex
	of map[uint64]answering
	// unknown has when the kernel was told to forget the attributes of inodes, if it was given none to keep since.
	unknown map[uint64]time.Time
}

func newAnswers() answers {
	return answers{of: map[uint64]answering{}, unknown: map[uint64]time.Time{}}
}

// answering is about the answers that one inode is given.
type answering struct {
	underWay int
	last     time.Time // when the last one was sent
}

const (
	// takesIn is how long the kernel may take to use an answer that was sent.
	takesIn = time.Millisecond
	// answerPatience is how long notifications wait for answers; these may wait for the network.
	answerPatience = 10 * time.Millisecond
	// toldAgain is when the kernel is told again to forget what it has forgotten: it may have taken in an answer late.
	toldAgain  = time.Second
	maxUnknown = 4096
)

// keep notes that the kernel is given attributes to keep. It is called while they are written.
func (a *answers) keep(ino uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.unknown, ino)
}

// forget reports whether the kernel must be told to forget attributes, and notes that it is. It is called before that: whatever is
// noted to be kept before is then forgotten, or was asked for before and is not taken in.
func (a *answers) forget(ino uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if at, ok := a.unknown[ino]; ok && time.Since(at) < toldAgain {
		return false
	}
	if len(a.unknown) >= maxUnknown {
		clear(a.unknown)
	}
	a.unknown[ino] = time.Now()
	return true
}

// begin notes a request, until done is called.
func (a *answers) begin(ino uint64) (done func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	is := a.of[ino]
	is.underWay++
	a.of[ino] = is
	return func() { a.sent(ino) }
}

func (a *answers) sent(ino uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	is := a.of[ino]
	is.underWay--
	is.last = time.Now()
	a.of[ino] = is
	if len(a.of) < 64 {
		return
	}
	for other, is := range a.of {
		if is.underWay == 0 && time.Since(is.last) > takesIn {
			delete(a.of, other)
		}
	}
}

// taken waits until the kernel has used all answers about an inode, but not beyond a deadline.
func (a *answers) taken(ino uint64, deadline time.Time) {
	for wait := a.using(ino); wait > 0 && time.Now().Before(deadline); wait = a.using(ino) {
		time.Sleep(wait)
	}
}

// using returns when to ask again whether the kernel has used all answers about an inode, or 0 if it has.
func (a *answers) using(ino uint64) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	is := a.of[ino]
	if is.underWay > 0 {
		return takesIn / 4
	}
	return takesIn - time.Since(is.last)
}

// tellsSize reports whether the kernel takes a file's length from the answer to a request. (From others, too; but none of them is a read's.)
func tellsSize(req fuse.Request) bool {
	switch r := req.(type) {
	case *fuse.GetattrRequest:
		return true
	case *fuse.ReadRequest:
		return !r.Dir
	case *fuse.UnrecognizedRequest:
		return r.Opcode == opStatx
	}
	return false
}

// lengthen has the kernel know how long a file is that may have become longer. It does so by storing a byte to the kernel's pages that
// cannot be read: the kernel first takes the file to be as long as that needs, and then finds that it can store nothing. Only
// a read beyond the end would have it ask; splice(2), sendfile(2), copy_file_range(2) and mappings go by what it knows.
func (s *Server) lengthen(ino uint64) {
	size, err := s.vol.SizeNow(ino)
	if err != nil || size == 0 {
		return
	}
	msg := make([]byte, outHeaderSize+storeOutSize)
	putOutHeader(msg, 0, notifyStore)
	native.PutUint32(msg, uint32(len(msg)+1))
	native.PutUint64(msg[outHeaderSize:], ino)
	native.PutUint64(msg[outHeaderSize+8:], uint64(size-1))
	native.PutUint32(msg[outHeaderSize+16:], 1)
	iov := [2]unix.Iovec{{Base: &msg[0], Len: uint64(len(msg))}, {Len: 1}} // nothing is at address 0
	_, _, _ = syscall.Syscall(unix.SYS_WRITEV, uintptr(s.fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
}
