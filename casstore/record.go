package casstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/foreverfs/forever/chunk"
)

// MaxChunk is the greatest length of a chunk in bytes.
const MaxChunk = 4 << 20

// The pack format; docs/format/pack.md describes it.
const (
	packMagic      = "fvrpack\n"
	packVersion    = 2
	packHeaderSize = 32
	saltSize       = 12

	recordMagic      = "fvRc"
	groupedMagic     = "fvRg" // of a record with the hashes of the chunk's groups
	magicStart       = "fvR"
	recordHeaderSize = 44

	// oldPackVersion is that of packs without grouped records. They are read, and not continued.
	oldPackVersion = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// salt makes the checks of one pack's record headers differ from every other
// pack's, so that bytes inside a chunk never pass for a record.
type salt [saltSize]byte

// encodePackHeader returns the first packHeaderSize bytes of a pack.
func encodePackHeader(number uint32, s salt) []byte {
	b := append(make([]byte, 0, packHeaderSize), packMagic...)
	b = binary.BigEndian.AppendUint32(b, packVersion)
	b = binary.BigEndian.AppendUint32(b, number)
	b = append(b, s[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// parsePackHeader checks the header of pack number and returns its version and salt.
func parsePackHeader(b []byte, number uint32) (version uint32, s salt, err error) {
	if len(b) < packHeaderSize || string(b[:8]) != packMagic {
		return 0, s, fmt.Errorf("no pack header: %w", ErrDamaged)
	}
	b = b[:packHeaderSize]
	if crc32.Checksum(b[:28], castagnoli) != binary.BigEndian.Uint32(b[28:]) {
		return 0, s, fmt.Errorf("pack header: %w", ErrDamaged)
	}
	if version = binary.BigEndian.Uint32(b[8:]); version != packVersion && version != oldPackVersion {
		return 0, s, fmt.Errorf("pack version %d: %w", version, ErrVersion)
	}
	if n := binary.BigEndian.Uint32(b[12:]); n != number {
		return 0, s, fmt.Errorf("pack says it is number %d: %w", n, ErrDamaged)
	}
	copy(s[:], b[16:28])
	return version, s, nil
}

// appendRecord appends the record of one chunk to dst, with the hashes of its groups if there are any.
func appendRecord(dst []byte, s salt, id chunk.ID, hashes, sealed []byte) []byte {
	start := len(dst)
	magic := recordMagic
	if len(hashes) > 0 {
		magic = groupedMagic
	}
	dst = append(dst, magic...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(sealed)))
	dst = append(dst, id[:]...)
	dst = binary.BigEndian.AppendUint32(dst, recordCheck(s, dst[start:start+40]))
	return append(append(dst, hashes...), sealed...)
}

// setCheck makes the header of a record one of the pack with salt s.
func setCheck(rec []byte, s salt) {
	binary.BigEndian.PutUint32(rec[40:], recordCheck(s, rec[:40]))
}

func recordCheck(s salt, head []byte) uint32 {
	return crc32.Update(crc32.Checksum(s[:], castagnoli), castagnoli, head)
}

// parseRecordHeader returns the record, at offset 0, that a record header
// states. A nil salt leaves the check out: for packs whose own header is
// damaged, where the chunk's hash must decide.
func parseRecordHeader(b []byte, s *salt) (rec record, ok bool) {
	if len(b) < recordHeaderSize {
		return rec, false
	}
	magic := string(b[:4])
	n := binary.BigEndian.Uint32(b[4:])
	if magic != recordMagic && magic != groupedMagic || n == 0 || n > MaxChunk {
		return rec, false
	}
	if s != nil && recordCheck(*s, b[:40]) != binary.BigEndian.Uint32(b[40:]) {
		return rec, false
	}
	return record{id: chunk.ID(b[8:40]), size: int(n), grouped: magic == groupedMagic}, true
}

// record is one record found in a pack.
type record struct {
	id      chunk.ID
	off     int64 // of its header
	size    int   // of the chunk
	grouped bool  // with the hashes of the chunk's groups
}

// end returns the offset right after the record.
func (r record) end() int64 { return r.in(0).end() }

// in returns the record's place in a pack.
func (r record) in(pack uint32) loc { return loc{pack, r.off, r.size, r.grouped} }

// scanner walks the records of one pack in order. It passes over what is no
// record: a torn tail, or bytes that the disk lost. It does not verify chunks.
type scanner struct {
	r     io.ReaderAt
	salt  *salt
	off   int64 // next place to look
	limit int64 // end of the pack
	win   []byte
	winAt int64
	// skipped counts bytes passed over.
	skipped int64
}

const (
	windowSize = 64 << 10
	// headWindow is what is read to look at one header: with small chunks the
	// next ones come along, with large ones little is wasted.
	headWindow = 4 << 10
)

// newScanner returns a scanner over the records of a pack from offset from to
// limit. A damaged pack header is tolerated, one of a newer version is not.
func newScanner(r io.ReaderAt, number uint32, from, limit int64) (*scanner, error) {
	sc := &scanner{r: r, off: max(from, packHeaderSize), limit: limit, win: make([]byte, 0, windowSize)}
	head := make([]byte, packHeaderSize)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read header of pack %d: %w", number, err)
	}
	_, s, err := parsePackHeader(head[:n], number)
	switch {
	case errors.Is(err, ErrVersion):
		return nil, fmt.Errorf("pack %d: %w", number, err)
	case err == nil:
		sc.salt = &s
	}
	return sc, nil
}

// next returns the next record, or false at the end of the pack.
func (sc *scanner) next() (record, bool, error) {
	for sc.off+recordHeaderSize <= sc.limit {
		b, err := sc.bytes(recordHeaderSize, headWindow)
		if err != nil {
			return record{}, false, err
		}
		if len(b) < recordHeaderSize {
			break
		}
		if rec, ok := parseRecordHeader(b, sc.salt); ok {
			rec.off = sc.off
			if rec.end() <= sc.limit {
				sc.off = rec.end()
				return rec, true, nil
			}
		}
		if err := sc.resync(); err != nil {
			return record{}, false, err
		}
	}
	if sc.off < sc.limit {
		sc.skipped += sc.limit - sc.off
		sc.off = sc.limit
	}
	return record{}, false, nil
}

// resync moves to the next place behind the present one that begins like a record.
func (sc *scanner) resync() error {
	from := sc.off
	sc.off++
	for sc.off < sc.limit {
		b, err := sc.bytes(recordHeaderSize, windowSize)
		if err != nil {
			return err
		}
		if i := bytes.Index(b, []byte(magicStart)); i >= 0 {
			sc.off += int64(i)
			break
		}
		if len(b) < recordHeaderSize {
			sc.off = sc.limit
			break
		}
		sc.off += int64(len(b) - len(magicStart) + 1)
	}
	sc.skipped += sc.off - from
	return nil
}

// bytes returns what the pack holds from the present offset on: at least need
// bytes, unless the pack ends before, reading up to want if it must read.
func (sc *scanner) bytes(need, want int) ([]byte, error) {
	skip := sc.off - sc.winAt
	if skip >= 0 && skip+int64(need) <= int64(len(sc.win)) {
		return sc.win[skip:], nil
	}
	n, err := sc.r.ReadAt(sc.win[:min(int64(want), sc.limit-sc.off)], sc.off)
	if err != nil && !errors.Is(err, io.EOF) {
		sc.win = sc.win[:0]
		return nil, fmt.Errorf("read pack at %d: %w", sc.off, err)
	}
	sc.win, sc.winAt = sc.win[:n], sc.off
	return sc.win, nil
}

// distrust goes back to look for records inside one whose chunk turned out
// wrong: its length may be wrong as well.
func (sc *scanner) distrust(rec record) {
	sc.off = rec.off + 1
	sc.skipped++
}
