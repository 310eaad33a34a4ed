package replica

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/zeebo/blake3"
	"google.golang.org/protobuf/proto"

	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/replica/replicapb"
)

// keepInvites is how long a used or expired invite is remembered, so that it is
// refused with its own reason.
const keepInvites = 30 * 24 * time.Hour

// Invite is what a newcomer must hold to be let in, once.
type Invite struct {
	Volume  VolumeID
	Device  DeviceID // who made it, and alone honours it
	Addrs   []string
	Secret  [16]byte
	Expires time.Time
	Role    Role
}

// CreateInvite makes an invite that this device honours once within ttl. Only
// a hash of its secret is kept, durably on return. Expired ones are dropped on
// the way.
func (r *Replica) CreateInvite(role Role, ttl time.Duration) (Invite, error) {
	if !r.isMember() {
		return Invite{}, ErrNotMember
	}
	if role != RoleMember && role != RoleReplica {
		return Invite{}, invalid("role %d", role)
	}
	now := r.cfg.Now()
	inv := Invite{
		Volume:  r.cfg.Volume,
		Device:  r.self,
		Addrs:   r.Addrs(),
		Expires: now.Add(ttl).Truncate(time.Second),
		Role:    role,
	}
	_, _ = rand.Read(inv.Secret[:])
	rec := &replicapb.InviteRecord{Role: replicapb.Role(role), Expires: inv.Expires.UnixMilli()}
	err := r.cfg.KV.Update(func(tx kv.Tx) error {
		if err := forgetInvites(tx, now); err != nil {
			return err
		}
		return putProto(tx, inviteKey(blake3.Sum256(inv.Secret[:])), rec)
	})
	if err == nil {
		err = r.cfg.KV.Sync()
	}
	if err != nil {
		return Invite{}, fmt.Errorf("store invite: %w", err)
	}
	return inv, nil
}

func forgetInvites(tx kv.Tx, now time.Time) error {
	var old [][]byte
	err := scanAll(tx, []byte{'r', 'i'}, func(key, value []byte) error {
		var rec replicapb.InviteRecord
		if err := proto.Unmarshal(value, &rec); err != nil {
			return fmt.Errorf("decode invite: %w", err)
		}
		if time.UnixMilli(rec.Expires).Add(keepInvites).Before(now) {
			old = append(old, append([]byte(nil), key...))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, key := range old {
		if err := tx.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

func (r *Replica) isMember() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, ok := r.control.device(r.self)
	return ok && d.Role == RoleMember
}

// letIn honours an invite. A device that is in already stays in: its first
// attempt may have broken off after the admission. The refusal is nil if it is in.
func (r *Replica) letIn(peer DeviceID, join *replicapb.Join) (*RefusedError, error) {
	r.logMu.Lock()
	defer r.logMu.Unlock()
	r.mu.Lock()
	_, in := r.control.device(peer)
	out := r.control.isOut(peer)
	r.mu.Unlock()
	if in {
		return nil, nil
	}
	if out {
		return &RefusedError{Code: CodeRevoked, Reason: "this device was revoked; join with a new data directory"}, nil
	}
	if !r.isMember() {
		return &RefusedError{Code: CodeNotMember, Reason: "this device cannot let others in; ask a member"}, nil
	}
	key := inviteKey(blake3.Sum256(join.GetSecret()))
	var rec replicapb.InviteRecord
	found, err := getProto(r.cfg.KV, key, &rec)
	if err != nil {
		return nil, fmt.Errorf("read invite: %w", err)
	}
	if refusal := judgeInvite(found, &rec, join, r.cfg.Now()); refusal != nil {
		return refusal, nil
	}
	d := Device{ID: peer, Name: join.GetName(), Role: Role(rec.Role), Box: join.GetBox()}
	if CheckName(d.Name) != nil || len(d.Box) != 32 {
		return &RefusedError{Code: CodeOther, Reason: "the device's name or key is malformed"}, nil
	}
	wraps, err := r.wrapFor(d)
	if err != nil {
		return nil, err
	}
	rec.UsedBy = peer[:]
	return nil, r.admit(d, wraps, func(tx kv.Tx) error { return putProto(tx, key, &rec) })
}

func judgeInvite(found bool, rec *replicapb.InviteRecord, join *replicapb.Join, now time.Time) *RefusedError {
	switch {
	case !found || rec.GetRole() != join.GetRole():
		return &RefusedError{Code: CodeInviteUnknown, Reason: "the invite is not known here"}
	case len(rec.GetUsedBy()) > 0:
		return &RefusedError{Code: CodeInviteUsed, Reason: "the invite has been used"}
	case !now.Before(time.UnixMilli(rec.GetExpires())):
		return &RefusedError{Code: CodeInviteExpired, Reason: "the invite has expired"}
	}
	return nil
}

func (r *Replica) wrapFor(d Device) ([]Wrap, error) {
	if d.Role != RoleMember {
		return nil, nil
	}
	if r.cfg.Admit == nil {
		return nil, fmt.Errorf("wrap keys: %w", ErrNotMember)
	}
	keys, err := r.cfg.Admit(d.Box, WrapInfo(r.cfg.Volume, d.ID))
	if err != nil {
		return nil, fmt.Errorf("wrap keys: %w", err)
	}
	wraps := make([]Wrap, len(keys))
	for i, k := range keys {
		wraps[i] = Wrap{k.Epoch, d.ID, k.Key}
	}
	return wraps, nil
}
