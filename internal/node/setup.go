package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/foreverfs/forever/cipher"
	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/internal/sealedfs"
	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/replica"
	"github.com/foreverfs/forever/transport"
)

// Create makes a new volume in cfg.Dir and returns its recovery phrase, which is
// kept nowhere. The directory is whole and closed on return.
func Create(_ context.Context, cfg Config) (phrase string, err error) {
	words, err := cipher.NewPhrase(rand.Reader)
	if err != nil {
		return "", err
	}
	recovery, err := words.Recovery()
	if err != nil {
		return "", err
	}
	err = setUp(cfg, recovery.Volume, RoleMember, func(k keys, state kv.DB) error {
		f, err := founding(cfg, k, recovery)
		if err != nil {
			return err
		}
		return replica.Create(replica.Config{
			Volume: replica.VolumeID(recovery.Volume), Identity: k.device.Private(), KV: state, Logger: cfg.Logger,
		}, f)
	})
	return string(words), err
}

// founding makes the first epoch key and signs what the volume begins with.
func founding(cfg Config, k keys, recovery *cipher.Recovery) (replica.Founding, error) {
	volume := replica.VolumeID(recovery.Volume)
	self := replica.DeviceID(k.device.ID())
	epoch, err := cipher.NewEpochKey(rand.Reader)
	if err != nil {
		return replica.Founding{}, err
	}
	wrapped, err := cipher.WrapEpoch(epoch, k.device.BoxKey(), replica.WrapInfo(volume, self))
	if err != nil {
		return replica.Founding{}, err
	}
	public, signature, wraps, err := recoveryParts(volume, self, recovery, []cipher.EpochKey{epoch})
	return replica.Founding{
		Name: cfg.name(), Box: k.device.BoxKey(), Recovery: public, RecoverySignature: signature, Epoch: epoch.ID,
		Wraps: append(wraps, replica.Wrap{Epoch: epoch.ID, Device: self, Key: wrapped}),
	}, err
}

// recoveryParts returns what the control log holds of a recovery phrase: its
// public halves, its agreement, and the epoch keys wrapped for it.
func recoveryParts(volume replica.VolumeID, self replica.DeviceID, recovery *cipher.Recovery, keys []cipher.EpochKey) (
	public replica.RecoveryPublic, signature []byte, wraps []replica.Wrap, err error,
) {
	pub := recovery.Public()
	copy(public.Sign[:], pub.SignKey)
	copy(public.Box[:], pub.BoxKey)
	signature = ed25519.Sign(recovery.Sign, replica.RecoveryMessage(volume, self, public.Box))
	for _, key := range keys {
		wrapped, err := cipher.WrapEpoch(key, pub.BoxKey, replica.WrapInfo(volume, replica.DeviceID{}))
		if err != nil {
			return public, nil, nil, err
		}
		wraps = append(wraps, replica.Wrap{Epoch: key.ID, Key: wrapped})
	}
	return public, signature, wraps, nil
}

// Join lets this machine into the volume of an invite: cfg.Dir becomes a member,
// or a keyless replica if the invite says so. The directory is whole and
// closed on return.
func Join(ctx context.Context, cfg Config, line string) error {
	inv, err := parseInvite(line)
	if err != nil {
		return err
	}
	return setUp(cfg, inv.Volume, inv.Role.String(), func(k keys, state kv.DB) error {
		rc := replica.Config{
			Volume: replica.VolumeID(inv.Volume), Identity: k.device.Private(), KV: state, Logger: cfg.Logger,
			Transport: tcp(k, cfg, replica.VolumeID(inv.Volume)), Now: cfg.Now,
		}
		err := replica.Join(ctx, rc, replica.Joining{
			Invite: replica.Invite{
				Volume: replica.VolumeID(inv.Volume), Device: replica.DeviceID(inv.Device), Addrs: inv.Addrs,
				Secret: inv.Secret, Expires: inv.Expires, Role: replica.Role(inv.Role),
			},
			Name: cfg.name(), Box: k.device.BoxKey(),
		})
		if err != nil && ctx.Err() == nil {
			return joinError(inv, err)
		}
		return err
	})
}

func parseInvite(line string) (cipher.Invite, error) {
	inv, err := cipher.ParseInvite(line)
	if err != nil {
		return inv, &fail.Error{Kind: fail.Invite, Op: "read invite", Err: words(err), Next: "copy the whole line that fsmount invite printed"}
	}
	return inv, nil
}

// joinError tells why nobody let this device in.
func joinError(inv cipher.Invite, err error) error {
	var refused *replica.RefusedError
	if errors.As(err, &refused) {
		e := &fail.Error{Kind: fail.Invite, Op: "join: " + refused.Reason, Next: "ask for a new invite: fsmount invite"}
		switch refused.Code {
		case replica.CodeProtocol:
			e.Kind, e.Next = fail.Peer, "run the same version of fsmount on both machines"
		case replica.CodeClone, replica.CodeUnknownDevice:
			e.Kind = fail.Refused
		}
		return e
	}
	at := strings.Join(inv.Addrs, ", ")
	if errors.Is(err, transport.ErrWrongPeer) {
		return &fail.Error{Kind: fail.Peer, Op: "join: at " + at + " answers another device than the one that made the invite",
			Next: "make a new invite on the device that is there now"}
	}
	return &fail.Error{Kind: fail.Peer, Op: "join: no device of the volume answers at " + at, Err: dialCause(err),
		Next: "see that its node runs and that this machine can reach it"}
}

// CheckFirst refuses a first start that would fail after a volume was created or joined: one that cannot listen, or that shall
// mount with an invite for a keyless replica.
func CheckFirst(cfg Config, invite string, mounts bool) error {
	if invite != "" {
		inv, err := parseInvite(invite)
		if err != nil {
			return err
		}
		if mounts && inv.Role.String() == RoleReplica {
			return &fail.Error{Kind: fail.Keyless, Op: "the invite lets in a keyless replica, which has nothing to mount",
				Next: "use it with fsmount serve --join INVITE, or ask for another: fsmount invite"}
		}
	}
	if cfg.Listen == "" {
		return nil
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return listenError(cfg.Listen, err)
	}
	return l.Close()
}

// CheckJoined accepts an invite to the volume that dir already belongs to, and
// no other.
func CheckJoined(dir, line string) error {
	inv, err := parseInvite(line)
	if err != nil {
		return err
	}
	f, err := readFormat(dir)
	if err != nil {
		return formatError(dir, err)
	}
	if f.Volume != [16]byte(inv.Volume) {
		return &fail.Error{Kind: fail.Exists, Op: "data directory " + dir + " already holds another volume than that of the invite",
			Next: "choose another directory with --data"}
	}
	return nil
}

// setUp creates a data directory with new keys and lets fill write its state. If
// that fails, nothing of it is left.
func setUp(cfg Config, volume [16]byte, role string, fill func(keys, kv.DB) error) (err error) {
	d, err := createDataDir(cfg.Dir)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = explain(cfg, errors.Join(err, d.abandon()))
		}
		err = errors.Join(err, d.Close())
	}()
	passphrase, err := cfg.Passphrase(true)
	if err != nil {
		return err
	}
	k, err := newKeys(d, passphrase)
	if err != nil {
		return err
	}
	state, err := openState(d, k, role, cfg.Logger.Named("state"))
	if err != nil {
		return err
	}
	err = fill(k, state)
	if err == nil && cfg.Quota > 0 {
		err = state.Update(func(tx kv.Tx) error { return putQuota(tx, cfg.Quota) })
	}
	if err == nil {
		err = state.Sync()
	}
	if err = errors.Join(err, state.Close()); err != nil {
		return err
	}
	return d.finish(volume, role)
}

// openState opens the state; a member's is sealed under its disk key.
func openState(d *dataDir, k keys, role string, log hclog.Logger) (*kv.Pebble, error) {
	fs := stateDisk(d, vfs.Default)
	if role == RoleMember {
		fs = sealedfs.New(fs, k.disk)
	}
	state, err := kv.OpenPebble(kv.PebbleConfig{Dir: d.join(stateName), FS: fs, ReadAgain: namespace.ReadAgain, Logger: log})
	if errors.Is(err, os.ErrNotExist) {
		return nil, &fail.Error{Kind: fail.Damaged, Op: "the state in " + d.join(stateName) + " has lost a file", Err: words(err), Next: restoreOrJoin}
	}
	return state, err
}

// tcp makes the transport between devices.
func tcp(k keys, cfg Config, volume replica.VolumeID) func(transport.Handshaker) (transport.Transport, error) {
	return func(h transport.Handshaker) (transport.Transport, error) {
		return transport.NewTCP(transport.Config{
			Identity: k.device.Private(), Handshake: h, Logger: cfg.Logger.Named("net"),
			UploadLimit: cfg.UploadLimit, DownloadLimit: cfg.DownloadLimit,
			Name: volume[:], Port: cfg.Port,
		})
	}
}
