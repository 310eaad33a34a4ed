package cipher

import (
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
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

// ErrDeviceID is returned for text that is no device ID.
var ErrDeviceID = errors.New("not a device ID")

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

// deviceChars removes what people put between the groups, and puts right what they
// mix up: 0, 1 and 8 are not in the alphabet.
var deviceChars = strings.NewReplacer("-", "", " ", "", "0", "O", "1", "I", "8", "B")

// ParseDeviceID reads what DeviceID.String wrote, in either case and with or
// without groups. Errors wrap ErrDeviceID.
func ParseDeviceID(s string) (DeviceID, error) {
	const size = len(DeviceID{}) + deviceCheck
	if len(s) > 4*size {
		return DeviceID{}, fmt.Errorf("%w: too long", ErrDeviceID)
	}
	text := deviceChars.Replace(strings.ToUpper(s))
	b, err := base32.StdEncoding.DecodeString(text)
	if err != nil || strings.ContainsAny(s, "\r\n") {
		return DeviceID{}, fmt.Errorf("%w: a character that cannot be in one", ErrDeviceID)
	}
	if len(b) != size {
		return DeviceID{}, fmt.Errorf("%w: %d letters and digits, not %d", ErrDeviceID, len(text), size*8/5)
	}
	d := DeviceID(b)
	if string(deviceSum(d)) != string(b[len(d):]) {
		return DeviceID{}, fmt.Errorf("%w: mistyped, its checksum is wrong", ErrDeviceID)
	}
	return d, nil
}

func deviceSum(d DeviceID) []byte {
	sum := make([]byte, deviceCheck)
	blake3.DeriveKey("forever 1 device ID checksum", d[:], sum)
	return sum
}
