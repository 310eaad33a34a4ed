// Package hashtree hashes bytes by BLAKE3 in groups of 16 KiB that can be checked one by one.
//
// BLAKE3 is a tree of hashes already: a group is one of its subtrees, a group's hash that subtree's chaining value, and the root
// over the groups' hashes is the usual BLAKE3-256 of all bytes. So whoever knows that can check a group with the hashes of the
// others, as Bao does (O'Connor and others, "BLAKE3", section 2.1; Bao's chunk groups).
package hashtree

import (
	"encoding/binary"
	"sync"

	"github.com/zeebo/blake3"
	"lukechampine.com/blake3/guts"
)

const (
	// GroupSize is the length of a group in bytes; the last may be shorter. It is what the fastest processors
	// hash at once. What is stored depends on it.
	GroupSize = 16 << 10
	// HashSize is the length of a group's hash in bytes.
	HashSize = 32
)

// The library hashes one group at once: this does not compile otherwise.
var _ [guts.MaxSIMD * guts.ChunkSize]byte = [GroupSize]byte{}

// Groups returns how many groups size bytes have.
func Groups(size int) int { return (size + GroupSize - 1) / GroupSize }

// Sum returns the BLAKE3-256 of data, and appends the hashes of its groups to dst. Where there is one
// group it has no hash of its own.
func Sum(dst, data []byte) (root [32]byte, hashes []byte) {
	if len(data) <= GroupSize {
		return blake3.Sum256(data), dst
	}
	start := len(dst)
	for at := 0; at < len(data); at += GroupSize {
		h := Hash(data[at:min(at+GroupSize, len(data))], at/GroupSize)
		dst = append(dst, h[:]...)
	}
	return Root(dst[start:]), dst
}

// groupPool holds memory for groups that are shorter than others.
var groupPool = sync.Pool{New: func() any { return new([GroupSize]byte) }}

// SumKeyed returns the BLAKE3-256 of data under a key. It is made for data of several groups.
func SumKeyed(key *[32]byte, data []byte) [32]byte {
	m := mode{key: decode(key[:]), flags: guts.FlagKeyedHash}
	if len(data) <= GroupSize {
		return m.only(data)
	}
	cvs := make([][8]uint32, 0, 16)
	for at := 0; at < len(data); at += GroupSize {
		cvs = append(cvs, guts.ChainingValue(m.group(data[at:min(at+GroupSize, len(data))], at/GroupSize)))
	}
	return m.root(cvs)
}

// Hash returns the hash of the group with that index, which is not the only one.
func Hash(group []byte, index int) [HashSize]byte {
	return encode(guts.ChainingValue(plain.group(group, index)))
}

// Root returns the BLAKE3-256 of the bytes whose groups, at least two, have those hashes.
func Root(hashes []byte) [32]byte {
	cvs := make([][8]uint32, 0, 16)
	for ; len(hashes) >= HashSize; hashes = hashes[HashSize:] {
		cvs = append(cvs, decode(hashes))
	}
	return plain.root(cvs)
}

// mode is how nodes of the tree are hashed.
type mode struct {
	key   [8]uint32
	flags uint32
}

var plain = mode{key: guts.IV}

// group returns the node of a group.
func (m *mode) group(group []byte, index int) guts.Node {
	counter := uint64(index) * guts.MaxSIMD
	switch {
	case len(group) == GroupSize:
		return guts.CompressBuffer((*[GroupSize]byte)(group), GroupSize, &m.key, counter, m.flags)
	case len(group) <= guts.ChunkSize:
		return guts.CompressChunk(group, &m.key, counter, m.flags)
	}
	buf := groupPool.Get().(*[GroupSize]byte)
	defer groupPool.Put(buf)
	return guts.CompressBuffer(buf, copy(buf[:], group), &m.key, counter, m.flags)
}

// only returns the root over one group.
func (m *mode) only(group []byte) [32]byte {
	n := m.group(group, 0)
	n.Flags |= guts.FlagRoot
	return encode(guts.ChainingValue(n))
}

// root returns the root over the chaining values of at least two groups, which it overwrites.
func (m *mode) root(cvs [][8]uint32) [32]byte {
	for len(cvs) > 2 {
		n := 0
		for i := 0; i+1 < len(cvs); i += 2 {
			cvs[n] = guts.ChainingValue(guts.ParentNode(cvs[i], cvs[i+1], &m.key, m.flags))
			n++
		}
		if len(cvs)%2 == 1 {
			cvs[n] = cvs[len(cvs)-1]
			n++
		}
		cvs = cvs[:n]
	}
	if len(cvs) < 2 {
		return [32]byte{} // of nothing
	}
	return encode(guts.ChainingValue(guts.ParentNode(cvs[0], cvs[1], &m.key, m.flags|guts.FlagRoot)))
}

func encode(cv [8]uint32) (b [32]byte) {
	for i, w := range cv {
		binary.LittleEndian.PutUint32(b[4*i:], w)
	}
	return b
}

func decode(b []byte) (cv [8]uint32) {
	for i := range cv {
		cv[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return cv
}
