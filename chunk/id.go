package chunk

import "encoding/hex"

// IDSize is the length of an ID in bytes.
const IDSize = 32

// ID names a sealed chunk: the BLAKE3-256 hash of all its sealed bytes, so
// that a device without keys can verify what it holds. The zero ID names no
// chunk; in a block tree it stands for a hole.
type ID [IDSize]byte

// IsZero reports whether id is the zero ID, which names no chunk.
func (id ID) IsZero() bool { return id == ID{} }

// String returns id in lower-case hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }
