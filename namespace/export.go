package namespace

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/foreverfs/forever/internal/kv"
)

// exportMagic begins an export: its name and version.
const exportMagic = "forever tree 1\n"

// exportKeys are the kinds of key that an export has, ascending: what the set
// of merged batches decides, and the point it is folded to.
var exportKeys = []byte{keyFolded, keyAuthor, keyBatch, keyConflict, keyDead, keySlot, keyHead, keyPromise, keyPast, keyMove, keyNode,
	keyAdopted, keyPlace, keyHeir, keyTomb, keyClaim, keyVector, keyXattr, keyDemotion}

// Export writes the tree as it is now, and what is known of logs: the same
// bytes on every device that merged the same batches and then folded to the same point. Pending
// ops must have been cut (ErrPending). The caller sees to it that a fold came to its end
// after the last merge, or the bytes are those of no other device. Export may run beside a writer.
func (t *Tree) Export(w io.Writer) (err error) {
	snap := t.db.Snapshot()
	defer func() { err = errors.Join(err, snap.Close()) }()
	pending, err := anyKey(snap, key(keyPending))
	if pending {
		err = ErrPending
	}
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	e := &exporter{w: bufio.NewWriterSize(w, 64<<10), sum: sha256.New()}
	e.write([]byte(exportMagic))
	for _, kind := range exportKeys {
		if err := e.kind(snap, kind); err != nil {
			return fmt.Errorf("export: %w", err)
		}
	}
	e.number(0)
	e.number(e.count)
	_, _ = e.w.Write(e.sum.Sum(nil))
	if err := e.w.Flush(); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

func anyKey(r kv.Reader, prefix []byte) (found bool, err error) {
	err = r.Scan(prefix, kv.PrefixEnd(prefix), func(_, _ []byte) bool { found = true; return false })
	return found, err
}

// exporter writes records and sums them up. Its writer keeps the first error.
type exporter struct {
	w     *bufio.Writer
	sum   hash.Hash
	count uint64
	buf   [binary.MaxVarintLen64]byte
	err   error
}

func (e *exporter) write(b []byte) {
	_, _ = e.sum.Write(b)
	if e.err == nil {
		_, e.err = e.w.Write(b)
	}
}

func (e *exporter) number(v uint64) { e.write(binary.AppendUvarint(e.buf[:0], v)) }

// kind writes all records of one kind.
func (e *exporter) kind(r kv.Reader, kind byte) error {
	prefix := key(kind)
	var inner error
	err := r.Scan(prefix, kv.PrefixEnd(prefix), func(k, v []byte) bool {
		if kind == keyAuthor {
			if v, inner = exportAuthor(v); v == nil {
				return inner == nil
			}
		}
		e.record(k[1:], v)
		return e.err == nil
	})
	return errors.Join(inner, err, e.err)
}

func (e *exporter) record(k, v []byte) {
	e.count++
	e.number(uint64(len(k)))
	e.write(k)
	e.number(uint64(len(v)))
	e.write(v)
}

// exportAuthor returns what everybody knows of an author; nil if that is nothing.
func exportAuthor(v []byte) ([]byte, error) {
	info, err := decodeAuthor(bytes.Clone(v))
	if err != nil || info.seq == 0 && info.applied == 0 {
		return nil, err
	}
	info.pred = AuthorID{} // this device's own
	return info.append(nil), nil
}
