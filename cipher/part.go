package cipher

import (
	"crypto/aes"
	stdcipher "crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/foreverfs/forever/chunk"
)

// ErrCompressed is returned when a part of a chunk is to be opened that must be decompressed from its beginning.
var ErrCompressed = errors.New("the chunk is compressed")

// PartOffset is where in a sealed chunk the plaintext begins, if it is not compressed: byte i of the one is
// byte PartOffset+i of the other.
const PartOffset = headerSize + prefixSize

// OpenPart appends to dst the plaintext from byte off on whose sealed bytes are part. head is at least
// the first PartOffset bytes of the chunk, size the length of the whole chunk.
//
// The caller has checked that part and head belong to the chunk's ID: the head has the synthetic IV, so under that of another
// chunk the part would open as something else, and nothing here would notice. On error the result is dst; errors wrap
// ErrCompressed, ErrUnknownEpoch or ErrDamaged.
func (k *Keyring) OpenPart(dst, part, head []byte, size, off int) ([]byte, error) {
	plain, err := k.load().openPart(dst, part, head, size, off)
	if err != nil {
		return dst, fmt.Errorf("open part of a chunk: %w", err)
	}
	return plain, nil
}

func (s *ringState) openPart(dst, part, head []byte, size, off int) ([]byte, error) {
	if len(head) < PartOffset || size > overhead+padded(chunk.MaxPlain) {
		return nil, fmt.Errorf("%w: %d bytes", ErrDamaged, size)
	}
	e, err := s.keysOf(head, kindChunk)
	if err != nil {
		return nil, err
	}
	block, err := e.kinds[kindChunk].block([sivSize]byte(head[headerSize-sivSize:]))
	if err != nil {
		return nil, err
	}
	var first [prefixSize]byte
	xorAt(block, first[:], head[headerSize:PartOffset], 0)
	p, err := parsePrefix(first[:], size-overhead, chunk.MaxPlain)
	if err != nil {
		return nil, err
	}
	if p.how == withZstd {
		return nil, ErrCompressed
	}
	if off < 0 || off > p.plain-len(part) {
		return nil, fmt.Errorf("%w: %d bytes at %d of %d", ErrDamaged, len(part), off, p.plain)
	}
	dst = slices.Grow(dst, len(part))
	out := dst[len(dst) : len(dst)+len(part)]
	xorAt(block, out, part, prefixSize+off)
	return dst[:len(dst)+len(part)], nil
}

// xorAt decrypts src, which lies at byte off of a frame, to dst, as AES-GCM does with the nonce of
// zeros: in counter mode from 2 on (NIST SP 800-38D, section 7).
func xorAt(block stdcipher.Block, dst, src []byte, off int) {
	var counter, skip [aes.BlockSize]byte
	binary.BigEndian.PutUint32(counter[len(zeroNonce):], uint32(2+off/aes.BlockSize))
	stream := stdcipher.NewCTR(block, counter[:])
	before := skip[:off%aes.BlockSize]
	stream.XORKeyStream(before, before)
	stream.XORKeyStream(dst, src)
}
