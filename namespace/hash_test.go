package namespace

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/foreverfs/forever/internal/kv"
)

// treeKeys are the kinds of key that are a function of the set of ops.
var treeKeys = []byte{keyNode, keySlot, keyXattr, keyTomb, keyMove, keyDemotion, keyPlace, keyPast, keyDead, keyHead, keyConflict}

// Hash returns a digest of everything that the set of applied ops decides:
// the visible tree, the registers, what is kept of removed nodes. Trees that applied the same ops have the
// same one. It reads the whole state.
func (t *Tree) Hash() (sum [32]byte, err error) {
	h := sha256.New()
	for _, kind := range treeKeys {
		prefix := key(kind)
		err := t.db.Scan(prefix, kv.PrefixEnd(prefix), func(k, v []byte) bool {
			for _, b := range [][]byte{k, v} {
				h.Write(binary.AppendUvarint(nil, uint64(len(b))))
				h.Write(b)
			}
			return true
		})
		if err != nil {
			return sum, fmt.Errorf("hash the tree: %w", err)
		}
	}
	h.Sum(sum[:0])
	return sum, nil
}

// Author returns the incarnation that local ops belong to.
func (t *Tree) Author() AuthorID { return t.author }
