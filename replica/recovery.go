package replica

import (
	"crypto/ed25519"
	"slices"
)

// RecoveryPublic are the public halves of the recovery phrase.
type RecoveryPublic struct {
	Sign DeviceID // Ed25519
	Box  [32]byte // X25519
}

// RecoveryMessage is what the recovery key signs to stand for a volume: it binds
// the key to the volume and to the device that puts it into force, so that a
// foreign genesis cannot claim it.
func RecoveryMessage(volume VolumeID, device DeviceID, box [32]byte) []byte {
	return slices.Concat([]byte(recoveryDomain), volume[:], device[:], box[:])
}

func verifyRecovery(key DeviceID, volume, signer, box, sig []byte) bool {
	return ed25519.Verify(key[:], slices.Concat([]byte(recoveryDomain), volume, signer, box), sig)
}

// WrapInfo is what an epoch key wrapped to a device shall be bound to. A zero
// device stands for the recovery key.
func WrapInfo(volume VolumeID, device DeviceID) []byte {
	return slices.Concat([]byte("forever wrap 1\x00"), volume[:], device[:])
}
