package cipher

import (
	"encoding/base32"
	"encoding/hex"
	"strings"

	"github.com/zeebo/blake3"
)

// VolumeID names a volume: one tree and its keys.
type VolumeID [16]byte

// String returns v in lower-case hexadecimal.
func (v VolumeID) String() string { return hex.EncodeToString(v[:]) }

// EpochID names an epoch of a volume's keys.
type EpochID [16]byte

// String returns e in lower-case hexadecimal.
func (e EpochID) String() string { return hex.EncodeToString(e[:]) }

// DeviceID names a device: its Ed25519 public key.
type DeviceID [32]byte

const (
	deviceCheck = 3 // bytes of checksum in a printed device ID
	deviceGroup = 7 // letters in a group
)

// String returns d for people to read and compare: eight groups of seven letters
// and digits, a checksum included.
func (d DeviceID) String() string {
	text := base32.StdEncoding.EncodeToString(append(d[:], deviceSum(d)...))
	groups := make([]string, 0, len(text)/deviceGroup)
	for ; text != ""; text = text[deviceGroup:] {
		groups = append(groups, text[:deviceGroup])
	}
	return strings.Join(groups, "-")
}

func deviceSum(d DeviceID) []byte {
	sum := make([]byte, deviceCheck)
	blake3.DeriveKey("forever 1 device ID checksum", d[:], sum)
	return sum
}
