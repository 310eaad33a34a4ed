package replica

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/foreverfs/forever/replica/replicapb"
)

// settleDelay bounds the random time before a member does what any member can do
// after the control log has changed, so that not all do it.
const settleDelay = 2 * time.Second

// ErrSelf says that a device cannot throw itself out: it would know the new keys.
var ErrSelf = errors.New("replica: a device cannot throw itself out")

// ErrRevoked says that this device was thrown out of the volume.
var ErrRevoked = errors.New("replica: this device was revoked")

// Revoke throws a device out. What it wrote that is here, or at another device in
// good standing, stays; the rest is refused by everyone who learns of it, and so is the
// device itself. A new epoch is opened for the others. Both are durable on return.
func (r *Replica) Revoke(device DeviceID, reason string) error {
	r.logMu.Lock()
	defer r.logMu.Unlock()
	r.mu.Lock()
	me, in := r.control.device(r.self)
	_, known := r.control.device(device)
	r.mu.Unlock()
	switch {
	case !in:
		return ErrRevoked
	case me.Role != RoleMember:
		return ErrNotMember
	case device == r.self:
		return ErrSelf
	case !known:
		return ErrUnknownDevice
	}
	if err := r.proposeRevocation(device, reason); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	return r.ensureEpoch()
}

// proposeRevocation says that a device is out, and what is here of it; logMu is held.
func (r *Replica) proposeRevocation(device DeviceID, reason string) error {
	r.mu.Lock()
	what := &replicapb.Revoke{Device: device[:], Last: positions(r.lastOf(device)), Reason: reason}
	r.mu.Unlock()
	return r.proposeLocked(&replicapb.ControlEntry{What: &replicapb.ControlEntry_Revoke{Revoke: what}}, nil)
}

// lastOf returns what is here of a device's logs; mu is held.
func (r *Replica) lastOf(device DeviceID) map[AuthorID]uint64 {
	out := map[AuthorID]uint64{}
	for a, h := range r.heads {
		if h.device == device {
			out[a] = h.seq
		}
	}
	return out
}

// EnsureEpoch opens an epoch if there is none that this device, and nobody who is out, can
// open. It is durable on return.
func (r *Replica) EnsureEpoch() error {
	r.logMu.Lock()
	defer r.logMu.Unlock()
	r.mu.Lock()
	id, found := r.control.currentEpoch()
	if found {
		_, found = r.control.epochs[id].wraps[r.self]
	}
	r.mu.Unlock()
	if found {
		return nil
	}
	return r.openEpoch()
}

// ensureEpoch opens an epoch if there is none that nobody can open who is out; logMu is held.
func (r *Replica) ensureEpoch() error {
	r.mu.Lock()
	_, found := r.control.currentEpoch()
	r.mu.Unlock()
	if found {
		return nil
	}
	return r.openEpoch()
}

// openEpoch opens an epoch for all members, if this device is one; logMu is held.
func (r *Replica) openEpoch() error {
	r.mu.Lock()
	me, in := r.control.device(r.self)
	members := slices.DeleteFunc(r.control.deviceList(), func(d Device) bool { return d.Role != RoleMember })
	r.mu.Unlock()
	if !in || me.Role != RoleMember || r.cfg.NewEpoch == nil {
		return nil
	}
	id, wraps, err := r.cfg.NewEpoch(members, r.Recovery())
	if err != nil {
		return fmt.Errorf("make an epoch: %w", err)
	}
	e := &replicapb.Epoch{Id: id[:], Wraps: wrapList(wraps)}
	if err := r.proposeLocked(&replicapb.ControlEntry{What: &replicapb.ControlEntry_Epoch{Epoch: e}}, nil); err != nil {
		return fmt.Errorf("open epoch: %w", err)
	}
	return nil
}

// mayWriteIn decides whether a batch of this device may be in an epoch: whoever is out
// writes for himself, the others only what nobody can read who is out. mu is held.
func (r *Replica) mayWriteIn(epoch EpochID) error {
	s := r.control.epochs[epoch]
	if s == nil || s.opened == nil {
		return invalid("epoch %x is not in the control log", epoch)
	}
	if current, found := r.control.currentEpoch(); found && current == epoch {
		return nil
	}
	if _, in := r.control.device(r.self); in && r.control.leaked(s) {
		return ErrEpochLeft
	}
	return nil
}

// standingChanged breaks off with those who are out, and sees to it that all comes
// that counts now; mu is held.
func (r *Replica) standingChanged() {
	for id, s := range r.sessions {
		if r.control.isOut(id) {
			s.end("the device was revoked")
			delete(r.sessions, id)
			r.sessionChange()
			continue
		}
		for a, h := range r.heads {
			if r.control.isOut(h.device) {
				s.dirty[a] = struct{}{}
			}
		}
		for a, seq := range s.dropped {
			if last, limited := r.control.limit(a, seq.device); !limited || last > r.heads[a].seq {
				s.end("more of what the device sent counts now")
			}
		}
		wake(s.logWake)
	}
	if r.control.isOut(r.self) {
		r.log.Warn("this device was revoked; what it holds stays readable here, what it writes goes nowhere")
	}
	for _, id := range r.control.outList() {
		d, _ := r.control.known(id)
		r.log.Debug("device is out", "device", d.Name)
	}
}

// counts returns how much of each log counts; mu is held.
func (r *Replica) counts() map[AuthorID]uint64 {
	out := r.vector()
	for a, h := range r.heads {
		if last, limited := r.control.limit(a, h.device); limited {
			out[a] = min(h.seq, last)
		}
	}
	return out
}

// settleLoop does what any member can do when the control log has changed.
func (r *Replica) settleLoop(ctx context.Context) {
	for {
		if r.unsettled() {
			if !sleep(ctx, rand.N(settleDelay)) {
				return
			}
			if err := r.settle(); err != nil && ctx.Err() == nil {
				r.log.Warn("cannot hand out keys or answer a revocation; will try again", "error", err)
				time.AfterFunc(time.Minute, func() { wake(r.settleWake) })
			}
		}
		select {
		case <-r.settleWake:
		case <-ctx.Done():
			return
		}
	}
}

// unsettled reports whether there is something to settle.
func (r *Replica) unsettled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if me, in := r.control.device(r.self); !in || me.Role != RoleMember {
		return false
	}
	_, found := r.control.currentEpoch()
	return !found || len(r.heldBack()) > 0 || len(r.lackingWraps()) > 0
}

// settle opens an epoch if there is none to write in, says what is here of devices
// that are out and nobody else has said, and hands out keys that somebody lacks.
func (r *Replica) settle() error {
	r.logMu.Lock()
	defer r.logMu.Unlock()
	if !r.isMember() {
		return nil
	}
	if err := r.ensureEpoch(); err != nil {
		return err
	}
	r.mu.Lock()
	held := r.heldBack()
	r.mu.Unlock()
	for _, id := range held {
		if err := r.proposeRevocation(id, ""); err != nil {
			return err
		}
	}
	return r.handOut()
}

// heldBack returns the devices that are out of which more is here than counts; mu is held.
func (r *Replica) heldBack() (out []DeviceID) {
	for a, h := range r.heads {
		last, limited := r.control.limit(a, h.device)
		if limited && h.seq > last && h.device != r.self && !slices.Contains(out, h.device) {
			out = append(out, h.device)
		}
	}
	return out
}

// lackingWraps returns whom the keys of epochs are to be handed to that are held here:
// the zero device is the recovery key. mu is held.
func (r *Replica) lackingWraps() map[EpochID][]Device {
	out := map[EpochID][]Device{}
	if r.cfg.Rewrap == nil {
		return out
	}
	members := r.control.deviceList()
	p := recoveryIn(r.control.recovery)
	for id, s := range r.control.epochs {
		if w := s.wraps[r.self]; s.opened == nil || w.key == nil {
			continue
		}
		for _, d := range members {
			if d.Role == RoleMember && !s.wraps[d.ID].valid && len(out[id]) < maxWraps-1 {
				out[id] = append(out[id], d)
			}
		}
		if w := s.wraps[DeviceID{}]; !w.valid || !r.control.precedes(r.control.recovery, w.from) {
			out[id] = append(out[id], Device{Box: p.GetBox()})
		}
	}
	return out
}

// handOut gives keys to those who lack them; logMu is held.
func (r *Replica) handOut() error {
	r.mu.Lock()
	lacking := r.lackingWraps()
	r.mu.Unlock()
	for id, devices := range lacking {
		e := &replicapb.Epoch{Id: id[:], Handed: true}
		var wraps []Wrap
		for _, d := range devices {
			key, err := r.cfg.Rewrap(id, d.ID, d.Box)
			if err != nil {
				return fmt.Errorf("hand out the key of epoch %x: %w", id, err)
			}
			wraps = append(wraps, Wrap{id, d.ID, key})
		}
		e.Wraps = wrapList(wraps)
		if err := r.proposeLocked(&replicapb.ControlEntry{What: &replicapb.ControlEntry_Epoch{Epoch: e}}, nil); err != nil {
			return err
		}
	}
	return nil
}
