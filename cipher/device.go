package cipher

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
)

// Device is the identity of a device: an Ed25519 key that signs and names it, and
// an X25519 key to which others seal keys for it.
type Device struct {
	sign ed25519.PrivateKey
	box  *ecdh.PrivateKey
}

// deviceSize is the length of a marshalled Device: two secrets of 32 bytes.
const deviceSize = ed25519.SeedSize + 32

// NewDevice makes a device's keys from rand.
func NewDevice(rand io.Reader) (*Device, error) {
	var b [deviceSize]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return nil, fmt.Errorf("make device keys: %w", err)
	}
	return ParseDevice(b[:])
}

// ParseDevice reads what Marshal wrote.
func ParseDevice(b []byte) (*Device, error) {
	if len(b) != deviceSize {
		return nil, errors.New("read device keys: wrong length")
	}
	box, err := ecdh.X25519().NewPrivateKey(b[ed25519.SeedSize:])
	if err != nil {
		return nil, fmt.Errorf("read device keys: %w", err)
	}
	return &Device{sign: ed25519.NewKeyFromSeed(b[:ed25519.SeedSize]), box: box}, nil
}

// Marshal returns the device's secrets, 64 bytes, in plain.
func (d *Device) Marshal() []byte { return append(d.sign.Seed(), d.box.Bytes()...) }

// ID returns the device's public name.
func (d *Device) ID() DeviceID { return DeviceID(d.sign.Public().(ed25519.PublicKey)) }

// Private returns the signing key itself. It is read only.
func (d *Device) Private() ed25519.PrivateKey { return d.sign }

// BoxKey returns the X25519 public key, 32 bytes, for WrapEpoch.
func (d *Device) BoxKey() []byte { return d.box.PublicKey().Bytes() }

// UnwrapEpoch opens an epoch key that WrapEpoch sealed to BoxKey with the same info.
// Errors wrap ErrDamaged.
func (d *Device) UnwrapEpoch(wrapped, info []byte) (EpochKey, error) {
	return unwrapEpoch(d.box, wrapped, info)
}

// String returns the device's ID, without the secrets.
func (d Device) String() string { return d.ID().String() }

// GoString does as String.
func (d Device) GoString() string { return d.String() }
