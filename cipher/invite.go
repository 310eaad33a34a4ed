package cipher

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/zeebo/blake3"
)

// ErrInvite is returned for text that is no invite.
var ErrInvite = errors.New("not an invite")

// Role says what a device may do in a volume.
type Role uint8

// The roles.
const (
	RoleMember  Role = 1 // holds the volume's keys
	RoleReplica Role = 2 // stores and forwards, without keys
)

// String returns the role's name.
func (r Role) String() string {
	switch r {
	case RoleMember:
		return "member"
	case RoleReplica:
		return "replica"
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// Invite is what a newcomer needs to be let in: where to go, whom to trust there,
// and a secret that is honoured once.
type Invite struct {
	Volume  VolumeID
	Device  DeviceID // who made it
	Addrs   []string // HOST:PORT each, to be tried in order
	Secret  [16]byte
	Expires time.Time // in whole seconds
	Role    Role
}

const (
	invitePrefix = "forever1-"

	// MaxAddrs and MaxAddr are how many addresses an invite may have, and how long
	// one may be, in bytes.
	MaxAddrs = 16
	MaxAddr  = 255

	inviteCheck = 4
	inviteFixed = 1 + 16 + 32 + 16 + 8 + 1
	// maxInvite is the greatest length of an invite's bytes.
	maxInvite = inviteFixed + MaxAddrs*(2+MaxAddr) + inviteCheck
)

// Check reports whether i can be printed such that ParseInvite reads it. Errors
// wrap ErrInvite.
func (i Invite) Check() error {
	if i.Role != RoleMember && i.Role != RoleReplica {
		return fmt.Errorf("%w: %v", ErrInvite, i.Role)
	}
	if len(i.Addrs) == 0 || len(i.Addrs) > MaxAddrs {
		return fmt.Errorf("%w: %d addresses, not 1 to %d", ErrInvite, len(i.Addrs), MaxAddrs)
	}
	for _, a := range i.Addrs {
		if err := checkAddr(a); err != nil {
			return err
		}
	}
	return nil
}

func checkAddr(a string) error {
	if len(a) > MaxAddr {
		return fmt.Errorf("%w: an address of %d bytes", ErrInvite, len(a))
	}
	for _, c := range []byte(a) {
		if c <= ' ' || c > '~' {
			return fmt.Errorf("%w: address %q", ErrInvite, a)
		}
	}
	host, port, err := net.SplitHostPort(a)
	if err != nil || host == "" || port == "" {
		return fmt.Errorf("%w: address %q is not HOST:PORT", ErrInvite, a)
	}
	return nil
}

// String returns the invite as one line without white space. It is a secret until
// it was used. ParseInvite reads it if Check finds nothing wrong.
func (i Invite) String() string {
	b := make([]byte, 0, 256)
	b = append(b, byte(i.Role))
	b = append(b, i.Volume[:]...)
	b = append(b, i.Device[:]...)
	b = append(b, i.Secret[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(i.Expires.Unix()))
	b = append(b, byte(min(len(i.Addrs), 255)))
	for _, a := range i.Addrs {
		b = binary.BigEndian.AppendUint16(b, uint16(min(len(a), 1<<16-1)))
		b = append(b, a...)
	}
	return invitePrefix + inviteText.EncodeToString(append(b, inviteSum(b)...))
}

// GoString does not show the secret.
func (i Invite) GoString() string {
	return fmt.Sprintf("invite of %v to volume %v as %v", i.Device, i.Volume, i.Role)
}

var inviteText = base64.RawURLEncoding.Strict()

func inviteSum(b []byte) []byte {
	sum := make([]byte, inviteCheck)
	blake3.DeriveKey("forever 1 invite checksum", b, sum)
	return sum
}

// ParseInvite reads what String wrote; white space around it is ignored. Errors
// wrap ErrInvite and say what is wrong. Whether it has expired or was used is for
// the one who made it to say.
func ParseInvite(line string) (Invite, error) {
	text, ok := strings.CutPrefix(strings.TrimSpace(line), invitePrefix)
	if !ok {
		return Invite{}, fmt.Errorf("%w: it does not begin with %s", ErrInvite, invitePrefix)
	}
	if len(text) > inviteText.EncodedLen(maxInvite) {
		return Invite{}, fmt.Errorf("%w: too long", ErrInvite)
	}
	b, err := inviteText.DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") || len(b) < inviteFixed+inviteCheck {
		return Invite{}, fmt.Errorf("%w: cut short, or a character was changed", ErrInvite)
	}
	b, sum := b[:len(b)-inviteCheck], b[len(b)-inviteCheck:]
	if string(inviteSum(b)) != string(sum) {
		return Invite{}, fmt.Errorf("%w: its checksum is wrong: was all of it copied?", ErrInvite)
	}
	i := Invite{Role: Role(b[0]), Volume: VolumeID(b[1:]), Device: DeviceID(b[17:]), Secret: [16]byte(b[49:])}
	i.Expires = time.Unix(int64(binary.BigEndian.Uint64(b[65:])), 0)
	if i.Addrs, err = parseAddrs(b[inviteFixed:], int(b[inviteFixed-1])); err != nil {
		return Invite{}, err
	}
	if err := i.Check(); err != nil {
		return Invite{}, err
	}
	return i, nil
}

// parseAddrs reads count addresses that fill b.
func parseAddrs(b []byte, count int) ([]string, error) {
	if count > MaxAddrs {
		return nil, fmt.Errorf("%w: %d addresses", ErrInvite, count)
	}
	addrs := make([]string, 0, count)
	for range count {
		if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
			return nil, fmt.Errorf("%w: an address is cut short", ErrInvite)
		}
		end := 2 + int(binary.BigEndian.Uint16(b))
		addrs = append(addrs, string(b[2:end]))
		b = b[end:]
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("%w: %d bytes too many", ErrInvite, len(b))
	}
	return addrs, nil
}
