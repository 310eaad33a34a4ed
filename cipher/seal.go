package cipher

import (
	"crypto/aes"
	stdcipher "crypto/cipher"
	"crypto/subtle"
	"fmt"
	"slices"

	"github.com/foreverfs/forever/chunk"
)

// A sealed thing is a header and an encrypted frame:
//
//	format, kind, epoch ID, synthetic IV | frame, encrypted | tag
//
// See docs/format/sealed-chunk.md.
const (
	sealFormat = 1

	headerSize = 2 + len(EpochID{}) + sivSize
	sivSize    = 32
	tagSize    = 16
	// overhead is what a sealed thing has above its padded payload.
	overhead = headerSize + prefixSize + tagSize
)

// kind says what is sealed; each has keys of its own.
type kind byte

const (
	kindChunk kind = 1 + iota
	kindBatch
	kindEnd
)

// maxPlain returns the most that is sealed as a k.
func (k kind) maxPlain() int {
	if k == kindBatch {
		return MaxBatch
	}
	return chunk.MaxPlain
}

// iv returns the synthetic IV of a frame: it depends on every byte that is
// encrypted or authenticated, save the header, which depends on it or is implied
// by the key. So no two messages meet under one key.
func (k *kindKeys) iv(frame, aad []byte) [sivSize]byte {
	if len(aad) == 0 {
		return k.siv.sum(frame)
	}
	return newKeyedHash(k.siv.sum(aad)).sum(frame)
}

// block returns AES for the one message of a synthetic IV.
func (k *kindKeys) block(siv [sivSize]byte) (stdcipher.Block, error) {
	key := k.enc.sum(siv[:])
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, fmt.Errorf("make AES: %w", err)
	}
	return block, nil
}

// aead returns the cipher for the one message of a synthetic IV.
func (k *kindKeys) aead(siv [sivSize]byte) (stdcipher.AEAD, error) {
	block, err := k.block(siv)
	if err != nil {
		return nil, err
	}
	aead, err := stdcipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make GCM: %w", err)
	}
	return aead, nil
}

// zeroNonce serves every message, as each has its own key.
var zeroNonce [12]byte

// seal appends sealed plain to dst.
func (e *epochKeys) seal(dst, plain []byte, k kind, aad []byte) ([]byte, error) {
	if len(plain) > k.maxPlain() {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(plain), k.maxPlain())
	}
	start := len(dst)
	out := slices.Grow(dst, overhead+padded(len(plain)))
	out = appendFrame(out[:start+headerSize], plain)
	return e.encrypt(out, start, k, aad)
}

// encrypt seals the frame that follows the place for a header at start, in place.
func (e *epochKeys) encrypt(out []byte, start int, k kind, aad []byte) ([]byte, error) {
	header, frame := out[start:start+headerSize], out[start+headerSize:]
	keys := &e.kinds[k]
	siv := keys.iv(frame, aad)
	header[0], header[1] = sealFormat, byte(k)
	copy(header[2:], e.id[:])
	copy(header[2+len(e.id):], siv[:])
	aead, err := keys.aead(siv)
	if err != nil {
		return nil, err
	}
	return aead.Seal(out[:start+headerSize], zeroNonce[:], frame, bind(header, aad)), nil
}

// bind returns what is authenticated beside the frame.
func bind(header, aad []byte) []byte {
	if len(aad) == 0 {
		return header
	}
	return slices.Concat(header, aad)
}

// open appends the plaintext of sealed to dst.
func (s *ringState) open(dst, sealed []byte, k kind, aad []byte) ([]byte, error) {
	if len(sealed) < overhead || len(sealed) > overhead+padded(k.maxPlain()) {
		return nil, fmt.Errorf("%w: %d bytes", ErrDamaged, len(sealed))
	}
	e, err := s.keysOf(sealed, k)
	if err != nil {
		return nil, err
	}
	buf := framePool.get(len(sealed) - headerSize)
	defer framePool.put(buf)
	frame, err := e.decrypt((*buf)[:0], sealed, k, aad)
	if err != nil {
		return nil, err
	}
	return appendPlain(dst, frame, k.maxPlain())
}

// keysOf checks a header and returns the keys of its epoch.
func (s *ringState) keysOf(header []byte, k kind) (*epochKeys, error) {
	if header[0] != sealFormat || header[1] != byte(k) {
		return nil, fmt.Errorf("%w: format %d, kind %d", ErrDamaged, header[0], header[1])
	}
	id := EpochID(header[2:])
	e := s.epochs[id]
	if e == nil {
		return nil, fmt.Errorf("%w: %v", ErrUnknownEpoch, id)
	}
	return e, nil
}

// decrypt appends the frame of sealed, which has a header, to dst.
func (e *epochKeys) decrypt(dst, sealed []byte, k kind, aad []byte) ([]byte, error) {
	header := sealed[:headerSize]
	siv := [sivSize]byte(header[headerSize-sivSize:])
	keys := &e.kinds[k]
	aead, err := keys.aead(siv)
	if err != nil {
		return nil, err
	}
	frame, err := aead.Open(dst, zeroNonce[:], sealed[headerSize:], bind(header, aad))
	if err != nil {
		return nil, fmt.Errorf("%w: wrong tag", ErrDamaged)
	}
	again := keys.iv(frame[len(dst):], aad)
	if subtle.ConstantTimeCompare(again[:], siv[:]) != 1 {
		return nil, fmt.Errorf("%w: wrong synthetic IV", ErrDamaged)
	}
	return frame, nil
}
