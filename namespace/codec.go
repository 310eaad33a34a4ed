package namespace

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/foreverfs/forever/chunk"
)

// decoder reads a record; after a short read it yields zeros and err says so.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n uint64) []byte {
	if uint64(len(d.b)) < n {
		d.bad, d.b = true, nil
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) u8() byte {
	if v := d.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) i64() int64 {
	if v := d.take(8); v != nil {
		return int64(binary.BigEndian.Uint64(v))
	}
	return 0
}

func (d *decoder) bytes() []byte { return d.take(d.uvarint()) }

func (d *decoder) id() (v [16]byte) {
	copy(v[:], d.take(16))
	return v
}

func (d *decoder) op() OpID {
	o, _ := parseOpID(d.take(opIDSize))
	return o
}

func (d *decoder) entry() EntryID { return EntryID{d.op(), d.u8()} }

// count reads a number of things of at least size bytes each.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.b)/size) {
		d.bad, d.b = true, nil
		return 0
	}
	return int(n)
}

func (d *decoder) err(what string) error {
	if d.bad || len(d.b) > 0 {
		return fmt.Errorf("decode a %s record: %w", what, ErrDamaged)
	}
	return nil
}

func appendBytes(b []byte, v string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func appendI64(b []byte, v int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(v)) }

// holesBit is set beside the log2 of the block size if the number of holes follows.
const holesBit = 0x80

func appendContent(b []byte, c *Content) []byte {
	b = c.ID.Append(b)
	b = appendI64(appendI64(b, c.Mtime), c.Time)
	b = binary.AppendUvarint(b, uint64(c.Size))
	log := c.BlockLog
	if c.Holes > 0 {
		log |= holesBit
	}
	b = append(b, log, c.Height)
	if c.Holes > 0 {
		b = binary.AppendUvarint(b, uint64(c.Holes))
	}
	if c.Root.IsZero() {
		b = append(b, 0)
	} else {
		b = append(append(b, 1), c.Root[:]...)
	}
	return appendBytes(b, string(c.Inline))
}

func (d *decoder) content() (c Content) {
	c.ID, c.Mtime, c.Time = d.op(), d.i64(), d.i64()
	c.Version = chunk.Version{Size: int64(d.uvarint()), BlockLog: d.u8(), Height: d.u8()}
	if c.BlockLog&holesBit != 0 {
		c.BlockLog &^= holesBit
		c.Holes = int64(d.uvarint())
	}
	if d.u8() != 0 {
		copy(c.Root[:], d.take(chunk.IDSize))
	}
	if v := d.bytes(); len(v) > 0 {
		c.Inline = bytes.Clone(v) // records do not alias the state
	}
	return c
}
