package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/replica/replicapb"
)

// Wrap is an epoch key wrapped for one device; the zero device is the recovery key.
type Wrap struct {
	Epoch  EpochID
	Device DeviceID
	Key    []byte
}

func wrapList(wraps []Wrap) []*replicapb.Wrap {
	out := make([]*replicapb.Wrap, len(wraps))
	for i, w := range wraps {
		out[i] = &replicapb.Wrap{Epoch: w.Epoch[:], Key: w.Key}
		if w.Device != (DeviceID{}) {
			out[i].Device = w.Device[:]
		}
	}
	return out
}

// Founding is what a new volume begins with.
type Founding struct {
	Name     string // of this device
	Box      []byte // its X25519 key, 32 bytes
	Recovery RecoveryPublic
	// RecoverySignature is the recovery key's signature of
	// RecoveryMessage(volume, this device, Recovery.Box).
	RecoverySignature []byte
	Epoch             EpochID
	// Wraps hold the epoch's key for this device and the recovery key.
	Wraps []Wrap
}

// Create founds the volume in the state. It is durable on return. Of cfg it needs
// Volume, Identity and KV.
func Create(cfg Config, f Founding) error {
	r, err := bare(cfg)
	if err != nil {
		return err
	}
	if len(r.control.order) > 0 {
		return ErrVolumeExists
	}
	genesis := &replicapb.Genesis{
		Format:   1,
		Name:     f.Name,
		Box:      f.Box,
		Recovery: f.Recovery.proto(f.RecoverySignature),
	}
	epoch := &replicapb.Epoch{Id: f.Epoch[:], Wraps: wrapList(f.Wraps)}
	if err := r.putFirst(
		&replicapb.ControlEntry{What: &replicapb.ControlEntry_Genesis{Genesis: genesis}},
		&replicapb.ControlEntry{What: &replicapb.ControlEntry_Epoch{Epoch: epoch}},
	); err != nil {
		return fmt.Errorf("found volume: %w", err)
	}
	return nil
}

// putFirst writes the first entries of a control log, all or none.
func (r *Replica) putFirst(list ...*replicapb.ControlEntry) error {
	for _, p := range list {
		e, err := r.draft(p)
		if err != nil {
			return err
		}
		if _, err := r.control.add(e); err != nil {
			return err
		}
	}
	err := r.cfg.KV.Update(func(tx kv.Tx) error {
		for i, e := range r.control.order {
			b, err := e.marshal()
			if err != nil {
				return err
			}
			if err := tx.Put(controlKey(i), b); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return r.cfg.KV.Sync()
}

// bare returns a Replica that is good for writing the control log only, which
// may be empty.
func bare(cfg Config) (*Replica, error) {
	if err := cfg.setStateDefaults(); err != nil {
		return nil, err
	}
	r := &Replica{cfg: cfg, self: cfg.self(), log: cfg.Logger, control: newControlLog(cfg.Volume)}
	r.initMaps()
	r.closing, r.close = context.WithCancel(context.Background())
	if err := r.loadControl(); err != nil && !errors.Is(err, ErrNoVolume) {
		r.close()
		return nil, err
	}
	return r, nil
}

func (p RecoveryPublic) proto(sig []byte) *replicapb.Recovery {
	return &replicapb.Recovery{Sign: p.Sign[:], Box: p.Box[:], Signature: sig}
}

// OpenEpoch starts an epoch, which is current from then on. It is durable on return.
func (r *Replica) OpenEpoch(id EpochID, wraps []Wrap) error {
	e := &replicapb.Epoch{Id: id[:], Wraps: wrapList(wraps)}
	if err := r.propose(&replicapb.ControlEntry{What: &replicapb.ControlEntry_Epoch{Epoch: e}}, nil); err != nil {
		return fmt.Errorf("open epoch: %w", err)
	}
	return nil
}

// SetRecovery puts a new recovery key into force, which retires the one before.
// signature is made as in Founding; wraps give the new key the epochs it shall
// open. A new epoch has to be opened then: EnsureEpoch. It is durable on return.
func (r *Replica) SetRecovery(p RecoveryPublic, signature []byte, wraps []Wrap) error {
	what := &replicapb.ControlEntry_Recovery{Recovery: p.proto(signature)}
	if err := r.propose(&replicapb.ControlEntry{What: what}, nil); err != nil {
		return fmt.Errorf("set recovery key: %w", err)
	}
	wraps = slices.Clone(wraps)
	slices.SortFunc(wraps, func(a, b Wrap) int { return cmp.Compare(string(a.Epoch[:]), string(b.Epoch[:])) })
	for len(wraps) > 0 {
		n := slices.IndexFunc(wraps, func(w Wrap) bool { return w.Epoch != wraps[0].Epoch })
		if n < 0 {
			n = len(wraps)
		}
		e := &replicapb.Epoch{Id: wraps[0].Epoch[:], Wraps: wrapList(wraps[:n]), Handed: true}
		if err := r.propose(&replicapb.ControlEntry{What: &replicapb.ControlEntry_Epoch{Epoch: e}}, nil); err != nil {
			return fmt.Errorf("hand out the key of an epoch: %w", err)
		}
		wraps = wraps[n:]
	}
	return nil
}

// Rename gives a device another name.
func (r *Replica) Rename(device DeviceID, name string) error {
	what := &replicapb.ControlEntry_Rename{Rename: &replicapb.Rename{Device: device[:], Name: name}}
	return r.propose(&replicapb.ControlEntry{What: what}, nil)
}

// SetPolicy changes settings of the volume: keys of at most 64 bytes, values of at
// most 1024.
func (r *Replica) SetPolicy(settings map[string]string) error {
	p := &replicapb.Policy{}
	for k, v := range settings {
		p.Settings = append(p.Settings, &replicapb.Setting{Key: k, Value: v})
	}
	slices.SortFunc(p.Settings, func(a, b *replicapb.Setting) int { return cmp.Compare(a.Key, b.Key) })
	return r.propose(&replicapb.ControlEntry{What: &replicapb.ControlEntry_Policy{Policy: p}}, nil)
}

// admit lets a device in; logMu is held.
func (r *Replica) admit(d Device, wraps []Wrap, also func(kv.Tx) error) error {
	a := &replicapb.Admit{
		Device: d.ID[:],
		Box:    d.Box,
		Name:   r.freeName(d.Name),
		Role:   replicapb.Role(d.Role),
		Wraps:  wrapList(wraps),
	}
	return r.proposeLocked(&replicapb.ControlEntry{What: &replicapb.ControlEntry_Admit{Admit: a}}, also)
}

// freeName returns name, or name with a number if another device has it.
func (r *Replica) freeName(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := map[string]bool{}
	for _, d := range r.control.deviceList() {
		taken[d.Name] = true
	}
	free := name
	for i := 2; taken[free]; i++ {
		suffix := fmt.Sprintf("-%d", i)
		cut := name
		for len(cut)+len(suffix) > maxName {
			runes := []rune(cut)
			cut = string(runes[:len(runes)-1])
		}
		free = cut + suffix
	}
	return free
}
