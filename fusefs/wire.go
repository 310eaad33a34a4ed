package fusefs

import (
	"encoding/binary"
	"os"
	"syscall"
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/volume"
)

// Parts of the kernel's protocol (linux/fuse.h) that are written here and not by
// bazil: attributes, since bazil drops the sticky bit and wraps times before
// 1970, and what it does not know. All in native byte order.
const (
	outHeaderSize = 16
	attrSize      = 88
	attrOutSize   = 16 + attrSize
	statxOutSize  = 32 + 256
	entryOutSize  = 40 + attrSize
	openOutSize   = 16
	storeOutSize  = 24
	direntSize    = 24

	opReaddirplus     = 44
	opRename2         = 45
	opLseek           = 46
	opCopyFileRange   = 47
	opTmpfile         = 51
	opStatx           = 52
	opCopyFileRange64 = 53

	notifyStore    = 4
	notifyIncEpoch = 8

	// openNoFlush spares the FLUSH at the close of this handle.
	openNoFlush fuse.OpenResponseFlags = 1 << 5
)

var native = binary.NativeEndian

// putOutHeader writes the header of a reply (or, with no id, of a notification) to b, which is all of it.
func putOutHeader(b []byte, id fuse.RequestID, code int32) {
	native.PutUint32(b, uint32(len(b)))
	native.PutUint32(b[4:], uint32(code))
	native.PutUint64(b[8:], uint64(id))
}

// putAttr writes struct fuse_attr to the attrSize bytes of b.
func putAttr(b []byte, a *volume.Attr) {
	native.PutUint64(b, a.Ino)
	native.PutUint64(b[8:], uint64(a.Size))
	native.PutUint64(b[16:], uint64(a.Blocks))
	for i, t := range [...]int64{a.Atime, a.Mtime, a.Ctime} {
		sec, nsec := splitTime(t)
		native.PutUint64(b[24+8*i:], uint64(sec))
		native.PutUint32(b[48+4*i:], nsec)
	}
	native.PutUint32(b[60:], typeBits(a.Kind)|a.Mode&07777)
	native.PutUint32(b[64:], a.Nlink)
	native.PutUint32(b[68:], a.UID)
	native.PutUint32(b[72:], a.GID)
	native.PutUint32(b[76:], a.Rdev)
	native.PutUint32(b[80:], blockSize)
	native.PutUint32(b[84:], 0)
}

// putStatxOut writes struct fuse_statx_out to the statxOutSize bytes of b.
func putStatxOut(b []byte, a *volume.Attr, valid time.Duration) {
	clear(b)
	native.PutUint64(b, uint64(valid/time.Second))
	native.PutUint32(b[8:], uint32(valid%time.Second))
	sx := b[32:]
	mask := uint32(unix.STATX_BASIC_STATS)
	if a.Btime != 0 { // the root directory was never made
		mask |= unix.STATX_BTIME
	}
	native.PutUint32(sx, mask)
	native.PutUint32(sx[4:], blockSize)
	native.PutUint32(sx[16:], a.Nlink)
	native.PutUint32(sx[20:], a.UID)
	native.PutUint32(sx[24:], a.GID)
	native.PutUint16(sx[28:], uint16(typeBits(a.Kind)|a.Mode&07777))
	native.PutUint64(sx[32:], a.Ino)
	native.PutUint64(sx[40:], uint64(a.Size))
	native.PutUint64(sx[48:], uint64(a.Blocks))
	for i, t := range [...]int64{a.Atime, a.Btime, a.Ctime, a.Mtime} {
		sec, nsec := splitTime(t)
		native.PutUint64(sx[64+16*i:], uint64(sec))
		native.PutUint32(sx[72+16*i:], nsec)
	}
	native.PutUint32(sx[128:], unix.Major(uint64(a.Rdev)))
	native.PutUint32(sx[132:], unix.Minor(uint64(a.Rdev)))
}

// blockSize is what stat calls the preferred size of reads and writes.
const blockSize = 128 << 10

// splitTime cuts Unix nanoseconds into seconds, rounded down, and the rest.
func splitTime(ns int64) (sec int64, nsec uint32) {
	sec, rest := ns/1e9, ns%1e9
	if rest < 0 {
		sec, rest = sec-1, rest+1e9
	}
	return sec, uint32(rest)
}

// putAttrOut writes struct fuse_attr_out to the attrOutSize bytes of b.
func putAttrOut(b []byte, a *volume.Attr, valid time.Duration) {
	native.PutUint64(b, uint64(valid/time.Second))
	native.PutUint32(b[8:], uint32(valid%time.Second))
	native.PutUint32(b[12:], 0)
	putAttr(b[16:], a)
}

// putEntryOut writes struct fuse_entry_out to the entryOutSize bytes of b: how long the
// name may be kept, and how long the attributes.
func putEntryOut(b []byte, a *volume.Attr, name, attr time.Duration) {
	native.PutUint64(b, a.Ino)
	native.PutUint64(b[8:], 0) // generation: an inode number is never given to another node while it is known
	native.PutUint64(b[16:], uint64(name/time.Second))
	native.PutUint64(b[24:], uint64(attr/time.Second))
	native.PutUint32(b[32:], uint32(name%time.Second))
	native.PutUint32(b[36:], uint32(attr%time.Second))
	putAttr(b[40:], a)
}

// putNoEntry writes to the entryOutSize bytes of b that a name does not exist.
func putNoEntry(b []byte, valid time.Duration) {
	clear(b[:entryOutSize])
	native.PutUint64(b[16:], uint64(valid/time.Second))
	native.PutUint32(b[32:], uint32(valid%time.Second))
}

// putOpenOut writes struct fuse_open_out to the openOutSize bytes of b.
func putOpenOut(b []byte, h fuse.HandleID, flags fuse.OpenResponseFlags) {
	native.PutUint64(b, uint64(h))
	native.PutUint32(b[8:], uint32(flags))
	native.PutUint32(b[12:], 0)
}

// direntLen is the size of a directory entry whose name has n bytes.
func direntLen(n int) int { return (direntSize + n + 7) &^ 7 }

// putDirent writes struct fuse_dirent and the padded name to the direntLen bytes of b.
func putDirent(b []byte, e *volume.DirEntry) {
	native.PutUint64(b, e.Ino)
	native.PutUint64(b[8:], e.Cookie)
	native.PutUint32(b[16:], uint32(len(e.Name)))
	native.PutUint32(b[20:], typeBits(e.Kind)>>12)
	n := direntSize + copy(b[direntSize:], e.Name)
	clear(b[n:direntLen(len(e.Name))])
}

// typeBits returns the file type part of a mode, S_IFREG and so on.
func typeBits(k namespace.Kind) uint32 {
	switch k {
	case namespace.KindDir:
		return syscall.S_IFDIR
	case namespace.KindSymlink:
		return syscall.S_IFLNK
	case namespace.KindChar:
		return syscall.S_IFCHR
	case namespace.KindBlock:
		return syscall.S_IFBLK
	case namespace.KindFifo:
		return syscall.S_IFIFO
	case namespace.KindSocket:
		return syscall.S_IFSOCK
	}
	return syscall.S_IFREG
}

// permBits turns Go's mode bits back into those of the kernel: 07777.
func permBits(m os.FileMode) uint32 {
	bits := uint32(m.Perm())
	if m&os.ModeSetuid != 0 {
		bits |= syscall.S_ISUID
	}
	if m&os.ModeSetgid != 0 {
		bits |= syscall.S_ISGID
	}
	if m&os.ModeSticky != 0 {
		bits |= syscall.S_ISVTX
	}
	return bits
}

// nodeBits is permBits with the type of what mknod(2) makes.
func nodeBits(m os.FileMode) uint32 {
	kind := uint32(syscall.S_IFREG)
	switch {
	case m&os.ModeCharDevice != 0:
		kind = syscall.S_IFCHR
	case m&os.ModeDevice != 0:
		kind = syscall.S_IFBLK
	case m&os.ModeNamedPipe != 0:
		kind = syscall.S_IFIFO
	case m&os.ModeSocket != 0:
		kind = syscall.S_IFSOCK
	case m&os.ModeDir != 0:
		kind = syscall.S_IFDIR
	}
	return kind | permBits(m)
}
