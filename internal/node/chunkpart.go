package node

import (
	"context"

	"github.com/foreverfs/forever/casstore"
	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/cipher"
	"github.com/foreverfs/forever/volume"
)

// chunkParts opens parts of chunks that are on this disk.
type chunkParts struct {
	store *casstore.Store
	ring  *cipher.Keyring
}

var _ volume.Parts = chunkParts{}

// What the store gives of a chunk's beginning has what opening a part needs: this does not compile otherwise.
const _ = uint(casstore.PartHead - cipher.PartOffset)

// Part implements volume.Parts.
func (p chunkParts) Part(ctx context.Context, dst []byte, id chunk.ID, off int) error {
	return p.store.Part(ctx, id, cipher.PartOffset+off, len(dst), func(part, head []byte, size int) error {
		_, err := p.ring.OpenPart(dst[:0], part, head, size, off)
		return err
	})
}
