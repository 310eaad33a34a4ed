package cipher

import (
	"crypto/ecdh"
	"crypto/hpke"
	"fmt"
	"io"
	"slices"
)

// EpochKey is the secret under which a volume's members seal for as long as they
// are the same.
type EpochKey struct {
	ID     EpochID
	Secret [32]byte
}

// NewEpochKey makes an epoch key, ID and secret, from rand.
func NewEpochKey(rand io.Reader) (EpochKey, error) {
	var k EpochKey
	if _, err := io.ReadFull(rand, k.ID[:]); err != nil {
		return EpochKey{}, fmt.Errorf("make epoch key: %w", err)
	}
	if _, err := io.ReadFull(rand, k.Secret[:]); err != nil {
		return EpochKey{}, fmt.Errorf("make epoch key: %w", err)
	}
	return k, nil
}

// String returns the epoch's ID, without the secret.
func (k EpochKey) String() string { return k.ID.String() }

// GoString does as String.
func (k EpochKey) GoString() string { return k.String() }

const (
	wrapFormat = 1
	wrapDomain = "forever 1 epoch key\x00"
	// WrappedSize is the length of a wrapped epoch key: format, HPKE's encapsulated
	// key, ID and secret, tag.
	WrappedSize = 1 + 32 + len(EpochID{}) + 32 + 16
)

// WrapEpoch seals k to the holder of the X25519 key boxPub, 32 bytes, and binds it
// to info, which UnwrapEpoch must be given again. Each call gives other bytes.
func WrapEpoch(k EpochKey, boxPub, info []byte) ([]byte, error) {
	pub, err := hpke.DHKEM(ecdh.X25519()).NewPublicKey(boxPub)
	if err != nil {
		return nil, fmt.Errorf("wrap epoch key: %w", err)
	}
	plain := append(k.ID[:], k.Secret[:]...)
	box, err := hpke.Seal(pub, hpke.HKDFSHA256(), hpke.AES256GCM(), wrapInfo(info), plain)
	if err != nil {
		return nil, fmt.Errorf("wrap epoch key: %w", err)
	}
	return append([]byte{wrapFormat}, box...), nil
}

func unwrapEpoch(box *ecdh.PrivateKey, wrapped, info []byte) (EpochKey, error) {
	if len(wrapped) != WrappedSize || wrapped[0] != wrapFormat {
		return EpochKey{}, fmt.Errorf("unwrap epoch key: %w: no wrapped key, or of an unknown format", ErrDamaged)
	}
	priv, err := hpke.NewDHKEMPrivateKey(box)
	if err != nil {
		return EpochKey{}, fmt.Errorf("unwrap epoch key: %w", err)
	}
	plain, err := hpke.Open(priv, hpke.HKDFSHA256(), hpke.AES256GCM(), wrapInfo(info), wrapped[1:])
	if err != nil {
		return EpochKey{}, fmt.Errorf("unwrap epoch key: %w: not for this device and purpose", ErrDamaged)
	}
	k := EpochKey{ID: EpochID(plain)}
	copy(k.Secret[:], plain[len(k.ID):])
	return k, nil
}

func wrapInfo(info []byte) []byte { return slices.Concat([]byte(wrapDomain), info) }
