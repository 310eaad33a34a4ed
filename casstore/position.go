package casstore

import (
	"cmp"
	"encoding/binary"
	"fmt"

	"github.com/foreverfs/forever/chunk"
)

// PositionSize is the length of a marshalled Position in bytes.
const PositionSize = 12

// Position is a place in the order of arrival. The zero Position is before
// everything. Positions of different stores have nothing to do with each other.
type Position struct {
	Pack   uint32 // number of the pack, from 1
	Offset uint64 // bytes into the pack
}

// Compare returns -1, 0 or 1 as p is before, at or after q.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Pack, q.Pack), cmp.Compare(p.Offset, q.Offset))
}

// Bytes returns p in PositionSize bytes that sort like positions.
func (p Position) Bytes() []byte {
	b := make([]byte, 0, PositionSize)
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(b, p.Pack), p.Offset)
}

// String returns p as pack:offset.
func (p Position) String() string { return fmt.Sprintf("%d:%d", p.Pack, p.Offset) }

// ParsePosition reads what Bytes returned.
func ParsePosition(b []byte) (Position, error) {
	if len(b) != PositionSize {
		return Position{}, fmt.Errorf("casstore: position of %d bytes, want %d", len(b), PositionSize)
	}
	return Position{binary.BigEndian.Uint32(b), binary.BigEndian.Uint64(b[4:])}, nil
}

// Item is one stored chunk in the order of arrival.
type Item struct {
	ID   chunk.ID
	Size int // bytes of the chunk
	// Pos is the position right after this chunk: Since(Pos) goes on behind it.
	Pos Position
}
