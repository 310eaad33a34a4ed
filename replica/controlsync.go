package replica

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/replica/replicapb"
)

// propose signs an entry on top of all that is known, stores it durably and sends
// it to everyone connected. also, if given, joins the same update.
func (r *Replica) propose(p *replicapb.ControlEntry, also func(kv.Tx) error) error {
	r.logMu.Lock()
	defer r.logMu.Unlock()
	return r.proposeLocked(p, also)
}

// proposeLocked is propose with logMu held.
func (r *Replica) proposeLocked(p *replicapb.ControlEntry, also func(kv.Tx) error) error {
	e, err := r.draft(p)
	if err != nil {
		return err
	}
	if _, err := r.addControl(e, nil, also); err != nil {
		return err
	}
	if err := r.cfg.KV.Sync(); err != nil {
		return fmt.Errorf("flush control log: %w", err)
	}
	if asked(p) {
		r.mu.Lock()
		r.proposed = time.Now()
		r.mu.Unlock()
	}
	return nil
}

// asked reports whether an entry is of a kind that somebody asked for. Devices make the others by themselves.
func asked(p *replicapb.ControlEntry) bool {
	switch p.What.(type) {
	case *replicapb.ControlEntry_Admit, *replicapb.ControlEntry_Rename, *replicapb.ControlEntry_Policy, *replicapb.ControlEntry_Revoke,
		*replicapb.ControlEntry_Recovery:
		return true
	}
	return false
}

// draft signs an entry on top of all that is known.
func (r *Replica) draft(p *replicapb.ControlEntry) (*entry, error) {
	return r.draftAs(r.cfg.Identity, p)
}

// draftAs signs an entry with a key of ours that need not be the device's.
func (r *Replica) draftAs(key ed25519.PrivateKey, p *replicapb.ControlEntry) (*entry, error) {
	r.mu.Lock()
	parents := r.control.headList()
	r.mu.Unlock()
	p.Volume = r.cfg.Volume[:]
	p.Parents = hashList(parents)
	p.Signer = key.Public().(ed25519.PublicKey)
	p.Time = r.cfg.Now().UnixMilli()
	body, err := proto.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode control entry: %w", err)
	}
	if len(body) > maxControl {
		return nil, invalid("control entry of %d bytes", len(body))
	}
	return parseEntry(r.cfg.Volume, sign(key, controlDomain, body))
}

// addControl judges an entry, stores it, and sends it on to all but its source;
// logMu is held.
func (r *Replica) addControl(e *entry, from *session, also func(kv.Tx) error) (bool, error) {
	r.mu.Lock()
	known, err := r.control.check(e)
	index := len(r.control.order)
	r.mu.Unlock()
	if known || err != nil {
		return false, err
	}
	b, err := e.marshal()
	if err != nil {
		return false, err
	}
	err = r.cfg.KV.Update(func(tx kv.Tx) error {
		if also != nil {
			if err := also(tx); err != nil {
				return err
			}
		}
		return tx.Put(controlKey(index), b)
	})
	if err != nil {
		return false, fmt.Errorf("store control entry: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.control.standing()
	r.control.insert(e)
	if r.control.standing() != before {
		r.standingChanged()
	}
	wake(r.settleWake)
	for _, s := range r.sessions {
		if s != from {
			s.control = append(s.control, e)
			wake(s.logWake)
		}
	}
	r.broadcast()
	wake(r.deliverWake)
	wake(r.dialWake)
	return true, nil
}

// acceptControl takes the entries that a peer sent, parents first.
func (r *Replica) acceptControl(from *session, list []*replicapb.Signed) error {
	for _, p := range list {
		s, err := fromProto(p, maxControl)
		if err != nil {
			return err
		}
		r.mu.Lock()
		_, known := r.control.entries[s.hash]
		r.mu.Unlock()
		if known {
			continue
		}
		e, err := parseEntry(r.cfg.Volume, s)
		if err != nil {
			return err
		}
		r.logMu.Lock()
		_, err = r.addControl(e, from, nil)
		r.logMu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}
