package replica

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"

	"github.com/foreverfs/forever/replica/replicapb"
	"github.com/foreverfs/forever/transport"
)

// DeviceID names a device: its Ed25519 public key.
type DeviceID [32]byte

// String returns the first 8 bytes in hexadecimal, for logs.
func (d DeviceID) String() string { return hex.EncodeToString(d[:8]) }

func (d DeviceID) less(o DeviceID) bool { return bytes.Compare(d[:], o[:]) < 0 }

// VolumeID names a volume.
type VolumeID = [16]byte

// EpochID names an epoch of a volume's keys.
type EpochID = [16]byte

// AuthorID names one incarnation of a device: 8 bytes of the device's hash, then
// 8 random bytes.
type AuthorID = [16]byte

// Hash is the BLAKE3-256 hash of a signed body, which is its name.
type Hash [32]byte

// AuthorOf returns the author that a device is in the incarnation named by random.
func AuthorOf(device DeviceID, random [8]byte) AuthorID {
	var a AuthorID
	sum := blake3.Sum256(device[:])
	copy(a[:8], sum[:8])
	copy(a[8:], random[:])
	return a
}

// MadeBy reports whether author is an incarnation of device.
func MadeBy(author AuthorID, device DeviceID) bool {
	return author == AuthorOf(device, [8]byte(author[8:]))
}

// Role says what a device may do.
type Role uint8

// The roles. Both store and forward everything; only a member holds keys, admits
// others and changes the volume's policy.
const (
	RoleMember  = Role(replicapb.Role_ROLE_MEMBER)
	RoleReplica = Role(replicapb.Role_ROLE_REPLICA)
)

// String returns the role as it is shown to people.
func (r Role) String() string {
	switch r {
	case RoleMember:
		return "member"
	case RoleReplica:
		return "replica"
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// Errors of this package. What came from a peer is wrapped around ErrInvalid.
var (
	// ErrInvalid says that something signed or sent is malformed, forged or
	// impossible. Nothing of it was stored.
	ErrInvalid = errors.New("replica: invalid")
	// ErrForked says that two different batches claim one place of a log: a
	// device runs twice, from a copy or a restored backup.
	ErrForked = errors.New("replica: forked log")
	// ErrLater is returned by Config.Deliver for an envelope that builds on
	// others not delivered yet.
	ErrLater = errors.New("replica: deliver later")
	// ErrUnavailable says that no reachable device holds a chunk.
	ErrUnavailable = errors.New("replica: chunk unavailable")
	// ErrNoVolume says that the state holds no control log.
	ErrNoVolume = errors.New("replica: no volume in this state")
	// ErrVolumeExists says that the state already holds a control log.
	ErrVolumeExists = errors.New("replica: state already holds a volume")
	// ErrNotMember says that only a member may do this.
	ErrNotMember = errors.New("replica: only a member may do this")
	// ErrUnknownDevice says that a device is not in the control log.
	ErrUnknownDevice = errors.New("replica: unknown device")
	// ErrEpochLeft says that a batch is sealed in an epoch that somebody can open who is
	// out. The current one may have to be opened first: EnsureEpoch.
	ErrEpochLeft = errors.New("replica: epoch that a revoked device can open")
	// ErrClosed says that the replica is closed.
	ErrClosed = errors.New("replica: closed")
)

// Code says why a peer refused to talk. Codes are stable.
type Code uint32

// The reasons for refusing.
const (
	CodeOther         Code = 1
	CodeProtocol      Code = 2 // no protocol version in common
	CodeVolume        Code = 3 // holds another volume
	CodeUnknownDevice Code = 4 // device was not admitted, or that is not known yet
	CodeClone         Code = 5 // the same device, twice
	CodeInviteUnknown Code = 6
	CodeInviteUsed    Code = 7
	CodeInviteExpired Code = 8
	CodeNotMember     Code = 9 // asked to admit by way of a keyless replica
	CodeRevoked       Code = 10
	CodeCrowded       Code = 11 // has many connections already; others are to be asked
)

// RefusedError is a peer's refusal to talk, as this side learns of it.
type RefusedError struct {
	Code   Code
	Reason string
	peers  []*replicapb.Peer // who else may be asked
}

// Error implements error.
func (e *RefusedError) Error() string { return "refused: " + e.Reason }

// Unwrap makes it a refusal to the transport as well.
func (e *RefusedError) Unwrap() error { return &transport.Refusal{Reason: e.Reason} }

// asRefused finds a peer's refusal in err.
func asRefused(err error) (*RefusedError, bool) {
	var refused *RefusedError
	if errors.As(err, &refused) {
		return refused, true
	}
	var plain *transport.Refusal
	if errors.As(err, &plain) {
		return &RefusedError{Code: CodeOther, Reason: printable(plain.Reason)}, true
	}
	return nil, false
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

func fixed32[T ~[32]byte](b []byte, what string) (T, error) {
	var out T
	if len(b) != len(out) {
		return out, invalid("%s of %d bytes", what, len(b))
	}
	copy(out[:], b)
	return out, nil
}

func fixed16(b []byte, what string) ([16]byte, error) {
	if len(b) != 16 {
		return [16]byte{}, invalid("%s of %d bytes", what, len(b))
	}
	return [16]byte(b), nil
}
