package namespace

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// AuthorID names one incarnation of a device: 8 bytes of the hash of its key,
// then 8 random ones.
type AuthorID [16]byte

// String returns the ID in hexadecimal.
func (a AuthorID) String() string { return hex.EncodeToString(a[:]) }

// Device names a device: the first half of the IDs of its incarnations.
type Device [8]byte

// Device returns the device that a is an incarnation of.
func (a AuthorID) Device() Device { return Device(a[:8]) }

// sameDevice reports whether two incarnations are of one device.
func (a AuthorID) sameDevice(b AuthorID) bool { return bytes.Equal(a[:8], b[:8]) }

// OpID names an op. IDs are ordered by counter, then author; an op that knew
// another has the greater ID.
type OpID struct {
	Lamport uint64
	Author  AuthorID
}

const opIDSize = 24

// IsZero reports whether o names no op.
func (o OpID) IsZero() bool { return o == OpID{} }

// Compare returns -1, 0 or 1 as o is below, equal to or above p.
func (o OpID) Compare(p OpID) int {
	switch {
	case o.Lamport < p.Lamport:
		return -1
	case o.Lamport > p.Lamport:
		return 1
	}
	return bytes.Compare(o.Author[:], p.Author[:])
}

// Append appends the 24 bytes of o: counter, big endian, and author.
func (o OpID) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, o.Lamport)
	return append(b, o.Author[:]...)
}

func parseOpID(b []byte) (o OpID, ok bool) {
	if len(b) != opIDSize {
		return o, false
	}
	o.Lamport = binary.BigEndian.Uint64(b)
	copy(o.Author[:], b[8:])
	return o, true
}

// NodeID names a node: a truncated hash of the op that created it.
type NodeID [16]byte

// Root is the root directory, which no op creates.
var Root = NodeID{7: 1}

// Ino returns the inode number of n: its first 8 bytes. Numbers of different
// nodes may collide, if hardly ever; that of Root is 1.
func (n NodeID) Ino() uint64 { return binary.BigEndian.Uint64(n[:]) }

// String returns the ID in hexadecimal.
func (n NodeID) String() string { return hex.EncodeToString(n[:]) }

func nodeIDOf(o OpID) NodeID { return hashID("forever node\x00", o) }

// forkIDOf names the file that a content becomes which lost its file's name to another.
func forkIDOf(o OpID) NodeID { return hashID("forever fork\x00", o) }

func hashID(domain string, o OpID) (n NodeID) {
	var buf [64]byte
	sum := sha256.Sum256(o.Append(append(buf[:0], domain...)))
	copy(n[:], sum[:])
	if n.Ino() <= Root.Ino() { // not 0, which is no inode number, and not Root's
		n[0] = 0x80
	}
	return n
}

// EntryID names one entry of a directory: the op that made it and which of its entries it is.
type EntryID struct {
	Op    OpID
	Index uint8
}

const entryIDSize = opIDSize + 1

// Compare returns -1, 0 or 1 as e is below, equal to or above f.
func (e EntryID) Compare(f EntryID) int {
	if c := e.Op.Compare(f.Op); c != 0 {
		return c
	}
	return int(e.Index) - int(f.Index)
}

// Append appends the 25 bytes of e.
func (e EntryID) Append(b []byte) []byte { return append(e.Op.Append(b), e.Index) }

func parseEntryID(b []byte) (e EntryID, ok bool) {
	if len(b) != entryIDSize {
		return e, false
	}
	e.Op, _ = parseOpID(b[:opIDSize])
	e.Index = b[opIDSize]
	return e, true
}

// Kind is what a node is. It never changes.
type Kind uint8

// The kinds of node. The numbers are part of the op format.
const (
	KindFile Kind = 1 + iota
	KindDir
	KindSymlink
	KindChar
	KindBlock
	KindFifo
	KindSocket
)

func (k Kind) valid() bool { return k >= KindFile && k <= KindSocket }

// String returns the kind's name in lower case.
func (k Kind) String() string {
	if !k.valid() {
		return "unknown"
	}
	return [...]string{"file", "directory", "symlink", "character device", "block device", "fifo", "socket"}[k-1]
}
