package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/foreverfs/forever/cipher"
	"github.com/foreverfs/forever/replica"
	"github.com/foreverfs/forever/volume"
)

// epochs are the epoch keys this member holds: what was wrapped for it in the
// control log.
type epochs struct {
	device *cipher.Device
	volume replica.VolumeID
	ring   *cipher.Keyring

	mu   sync.Mutex // guards keys, and keeps current epoch and sealing together
	keys map[cipher.EpochID]cipher.EpochKey
}

var _ volume.Sealer = (*cipher.Keyring)(nil)

func newEpochs(device *cipher.Device, volume replica.VolumeID) *epochs {
	return &epochs{device: device, volume: volume, ring: &cipher.Keyring{}, keys: map[cipher.EpochID]cipher.EpochKey{}}
}

// update takes the keys that the control log has for this device. One that cannot be opened does
// not keep it from the others.
func (e *epochs) update(wrapped []replica.WrappedKey, current replica.EpochID) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	info := replica.WrapInfo(e.volume, replica.DeviceID(e.device.ID()))
	var errs []error
	for _, w := range wrapped {
		if _, known := e.keys[w.Epoch]; known {
			continue
		}
		key, err := e.device.UnwrapEpoch(w.Key, info)
		if err == nil && key.ID != w.Epoch {
			err = errors.New("it is that of another epoch")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("key of epoch %x: %w", w.Epoch, err))
			continue
		}
		e.keys[w.Epoch] = key
		e.ring.Add(key)
	}
	if _, ok := e.keys[current]; ok {
		e.ring.SetCurrent(current)
	}
	return errors.Join(errs...)
}

// open makes an epoch for the members and the recovery key.
func (e *epochs) open(members []replica.Device, recovery replica.RecoveryPublic) (replica.EpochID, []replica.Wrap, error) {
	key, err := cipher.NewEpochKey(rand.Reader)
	if err != nil {
		return replica.EpochID{}, nil, err
	}
	wraps := make([]replica.Wrap, 0, len(members)+1)
	for _, d := range append(members, replica.Device{Box: recovery.Box[:]}) {
		w, err := cipher.WrapEpoch(key, d.Box, replica.WrapInfo(e.volume, d.ID))
		if err != nil {
			return replica.EpochID{}, nil, fmt.Errorf("for device %q: %w", d.Name, err)
		}
		wraps = append(wraps, replica.Wrap{Epoch: key.ID, Device: d.ID, Key: w})
	}
	return key.ID, wraps, nil
}

// rewrap wraps the key of an epoch for one device more; zero stands for the recovery key.
func (e *epochs) rewrap(epoch replica.EpochID, device replica.DeviceID, box []byte) ([]byte, error) {
	e.mu.Lock()
	key, ok := e.keys[epoch]
	e.mu.Unlock()
	if !ok {
		return nil, cipher.ErrUnknownEpoch
	}
	return cipher.WrapEpoch(key, box, replica.WrapInfo(e.volume, device))
}

// wrap seals all epoch keys to a newcomer's box key.
func (e *epochs) wrap(box, info []byte) ([]replica.WrappedKey, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]replica.WrappedKey, 0, len(e.keys))
	for id, key := range e.keys {
		w, err := cipher.WrapEpoch(key, box, info)
		if err != nil {
			return nil, fmt.Errorf("wrap key of epoch %x: %w", id, err)
		}
		out = append(out, replica.WrappedKey{Epoch: id, Key: w})
	}
	return out, nil
}

// all returns every epoch key held.
func (e *epochs) all() []cipher.EpochKey {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Values(e.keys))
}

// sealBatch seals an op batch under the current epoch and says which that is.
func (e *epochs) sealBatch(plain, aad []byte) (sealed []byte, epoch replica.EpochID, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	sealed, err = e.ring.SealBatch(plain, aad)
	return sealed, e.ring.Current(), err
}
