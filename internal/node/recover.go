package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/foreverfs/forever/cipher"
	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/replica"
	"github.com/foreverfs/forever/transport"
)

// Recover lets this machine into the volume of a recovery phrase, by way of any device of it
// that answers at addr: cfg.Dir becomes a member. The directory is whole and closed on return.
func Recover(ctx context.Context, cfg Config, phrase, addr string) error {
	if err := checkAddresses([]string{addr}); err != nil {
		return err
	}
	words, err := cipher.ParsePhrase(phrase)
	if err != nil {
		return &fail.Error{Kind: fail.Key, Op: "read recovery phrase", Err: err, Next: "compare it with what was written down, word by word"}
	}
	recovery, err := words.Recovery()
	if err != nil {
		return err
	}
	return setUp(cfg, recovery.Volume, RoleMember, func(k keys, state kv.DB) error {
		rc := replica.Config{
			Volume: replica.VolumeID(recovery.Volume), Identity: k.device.Private(), KV: state, Logger: cfg.Logger, Now: cfg.Now,
		}
		dialAs := func(key ed25519.PrivateKey, h transport.Handshaker) (transport.Transport, error) {
			return transport.NewTCP(transport.Config{Identity: key, Handshake: h, Logger: cfg.Logger.Named("net"), Name: recovery.Volume[:]})
		}
		err := replica.Recover(ctx, rc, dialAs, replica.Recovering{
			Addr: addr, Key: recovery.Sign, Name: cfg.name(), Box: k.device.BoxKey(),
			Rewrap: func(list []replica.WrappedKey) ([]replica.WrappedKey, error) { return rewrapAll(recovery, k, list) },
		})
		if err != nil && ctx.Err() == nil {
			return recoverError(addr, err)
		}
		return err
	})
}

// rewrapAll opens what was wrapped for the recovery key, and wraps it for this device.
func rewrapAll(recovery *cipher.Recovery, k keys, list []replica.WrappedKey) ([]replica.WrappedKey, error) {
	volume := replica.VolumeID(recovery.Volume)
	out := make([]replica.WrappedKey, 0, len(list))
	var errs []error
	for _, w := range list {
		key, err := recovery.UnwrapEpoch(w.Key, replica.WrapInfo(volume, replica.DeviceID{}))
		if err != nil { // one that a device wrapped wrongly does not keep it from the others
			errs = append(errs, fmt.Errorf("epoch %x: %w", w.Epoch, err))
			continue
		}
		wrapped, err := cipher.WrapEpoch(key, k.device.BoxKey(), replica.WrapInfo(volume, replica.DeviceID(k.device.ID())))
		if err != nil {
			return nil, err
		}
		out = append(out, replica.WrappedKey{Epoch: w.Epoch, Key: wrapped})
	}
	if len(out) == 0 {
		return nil, errors.Join(append(errs, errors.New("no key of the volume is wrapped for this phrase"))...)
	}
	return out, nil
}

// recoverError tells why the volume could not be had at an address.
func recoverError(addr string, err error) error {
	var refused *replica.RefusedError
	retired := errors.As(err, &refused) && refused.Code == replica.CodeRevoked
	switch {
	case retired, errors.Is(err, replica.ErrRetired):
		return &fail.Error{Kind: fail.Key, Op: "this recovery phrase was retired: a newer one was minted with fsmount key export", Next: "use that"}
	case refused != nil && refused.Code == replica.CodeVolume:
		return &fail.Error{Kind: fail.Refused, Op: "the device at " + addr + " holds another volume than that of this phrase", Next: "give the address of another device"}
	case refused != nil && refused.Code == replica.CodeProtocol:
		return &fail.Error{Kind: fail.Peer, Op: "recover: " + refused.Reason, Next: "run the same version of fsmount on both machines"}
	case refused != nil:
		return &fail.Error{Kind: fail.Refused, Op: "recover: " + refused.Reason, Next: "ask a member which devices take part: fsmount devices list"}
	}
	return &fail.Error{Kind: fail.Peer, Op: "recover from " + addr, Err: words(dialCause(err)),
		Next: "see that a device of the volume listens there and that this machine can reach it"}
}
