package sealedfs

import (
	"crypto/aes"
	stdcipher "crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// The header; docs/format/sealedfs.md describes it.
const (
	magic      = "fvrseal\n"
	version    = 1
	nonceSize  = 16
	headerSize = 64

	keyInfo   = "forever sealedfs v1 content"
	checkInfo = "forever sealedfs v1 check"
)

// newHeader returns a header with a random nonce and the cipher that it means.
func newHeader(key [32]byte) ([]byte, *fileCipher, error) {
	var nonce [nonceSize]byte
	_, _ = rand.Read(nonce[:])
	return encodeHeader(key, nonce)
}

func encodeHeader(key [32]byte, nonce [nonceSize]byte) ([]byte, *fileCipher, error) {
	h := append(make([]byte, 0, headerSize), magic...)
	h = binary.BigEndian.AppendUint32(h, version)
	h = binary.BigEndian.AppendUint32(h, 0)
	h = append(h, nonce[:]...)
	check, err := derive(key, h, checkInfo)
	if err != nil {
		return nil, nil, err
	}
	c, err := newFileCipher(key, nonce[:])
	return append(h, check...), c, err
}

// parseHeader checks a header of headerSize bytes and returns its cipher.
func parseHeader(h []byte, key [32]byte) (*fileCipher, error) {
	if len(h) < headerSize || string(h[:8]) != magic {
		return nil, ErrNotSealed
	}
	if v := binary.BigEndian.Uint32(h[8:]); v != version {
		return nil, fmt.Errorf("version %d: %w", v, ErrVersion)
	}
	check, err := derive(key, h[:32], checkInfo)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(check, h[32:headerSize]) != 1 {
		return nil, ErrKey
	}
	return newFileCipher(key, h[16:32])
}

func derive(key [32]byte, salt []byte, info string) ([]byte, error) {
	k, err := hkdf.Key(sha256.New, key[:], salt, info, 32)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	return k, nil
}

func allZero(b []byte) bool {
	var or byte
	for _, x := range b {
		or |= x
	}
	return or == 0
}

// fileCipher en- and decrypts the content of one file. Safe for concurrent use.
type fileCipher struct{ block stdcipher.Block }

func newFileCipher(key [32]byte, nonce []byte) (*fileCipher, error) {
	k, err := derive(key, nonce, keyInfo)
	if err != nil {
		return nil, err
	}
	b, err := aes.NewCipher(k)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	return &fileCipher{b}, nil
}

// xor en- or decrypts p, which lies at offset off of the content, in place. The
// counter is the number of the 16-byte block.
func (c *fileCipher) xor(p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	var iv [aes.BlockSize]byte
	binary.BigEndian.PutUint64(iv[8:], uint64(off/aes.BlockSize))
	s := stdcipher.NewCTR(c.block, iv[:])
	if skip := off % aes.BlockSize; skip > 0 {
		var drop [aes.BlockSize]byte
		s.XORKeyStream(drop[:skip], drop[:skip])
	}
	s.XORKeyStream(p, p)
}
