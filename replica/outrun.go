package replica

import (
	"errors"
	"fmt"

	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/replica/replicapb"
)

// A device can be outrun: the others went on without it, and it lacks batches that nobody
// has any more, or they refuse batches of its own, because those know
// nothing of what was folded away since. It is told so, and begins anew from a checkpoint.

// Refuse notes that a batch here is one that the tree does not take; its device is
// told as soon as it is connected.
func (r *Replica) Refuse(a AuthorID, seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if was, ok := r.refused[a]; ok && was <= seq {
		return
	}
	r.refused[a] = seq
	for id, s := range r.sessions {
		if MadeBy(a, id) {
			s.outrun = append(s.outrun, &replicapb.Outrun{Author: a[:], Seq: seq})
			wake(s.logWake)
		}
	}
}

// outrunBy returns what a peer is to be told at the start of a session; mu is held.
func (r *Replica) outrunBy(id DeviceID) (out []*replicapb.Outrun) {
	for a, seq := range r.refused {
		if MadeBy(a, id) {
			out = append(out, &replicapb.Outrun{Author: a[:], Seq: seq})
		}
	}
	return out
}

// tellBehind has the peer told, once, that it needs what is gone here; mu is held.
func (s *session) tellBehind() {
	if !s.behind {
		s.behind = true
		s.outrun = append(s.outrun, &replicapb.Outrun{})
	}
}

// takeOutrun hears that this device cannot go on from what it has.
func (s *session) takeOutrun(p *replicapb.Outrun) error {
	if p == nil {
		return nil
	}
	var author AuthorID
	if len(p.GetAuthor()) > 0 {
		var err error
		if author, err = fixed16(p.GetAuthor(), "author"); err != nil {
			return err
		}
		if !MadeBy(author, s.r.self) {
			return invalid("refusal of a batch of another device")
		}
	}
	r := s.r
	r.mu.Lock()
	me, _ := r.control.device(r.self)
	from, _ := r.control.device(s.peer)
	r.mu.Unlock()
	switch {
	case me.Role != RoleMember:
		return s.skip()
	case from.Role == RoleMember && r.cfg.Outrun != nil:
		r.cfg.Outrun(author, p.GetSeq())
	}
	return nil
}

// skip goes on behind the newest complete checkpoint, by a session that begins anew.
func (s *session) skip() error {
	for _, c := range s.r.Checkpoints() {
		if !s.r.relied(&c) {
			continue
		}
		if err := s.r.skipTo(c.ID); err != nil {
			return err
		}
		s.r.log.Info("went on behind a checkpoint; what was before is gone elsewhere", "checkpoint", fmt.Sprintf("%x", c.ID[:8]))
		return errors.New("went on behind a checkpoint")
	}
	return nil
}

// relied reports whether a keyless replica may rely on a checkpoint: it cannot tell
// who is gone, so those who made it must be more than half of all members.
func (r *Replica) relied(c *Checkpoint) bool {
	members := 0
	for _, d := range r.Devices() {
		if d.Role == RoleMember {
			members++
		}
	}
	return c.Complete() && 2*len(c.Active) > members
}

// MarkOutrun notes durably that this device must begin anew; BeginAt ends it.
func (r *Replica) MarkOutrun() error {
	err := r.cfg.KV.Update(func(tx kv.Tx) error { return tx.Put(outrunKey, nil) })
	if err == nil {
		err = r.cfg.KV.Sync()
	}
	if err != nil {
		return fmt.Errorf("note that this device was outrun: %w", err)
	}
	return nil
}

// Outrun reports whether MarkOutrun was called and BeginAt was not since.
func (r *Replica) Outrun() (bool, error) {
	_, err := r.cfg.KV.Get(outrunKey)
	if errors.Is(err, kv.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Return says to all that this device is back, and returns the name of what says so, which is durable.
func (r *Replica) Return() (Hash, error) {
	r.logMu.Lock()
	defer r.logMu.Unlock()
	if err := r.proposeLocked(&replicapb.ControlEntry{What: &replicapb.ControlEntry_Return{Return: &replicapb.Return{}}}, nil); err != nil {
		return Hash{}, fmt.Errorf("say that this device is back: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.control.order[len(r.control.order)-1].hash, nil
}

// Returns has how often each device said that it is back.
func (r *Replica) Returns() map[DeviceID]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[DeviceID]int{}
	for id, d := range r.control.devices {
		if d.returns > 0 {
			out[id] = d.returns
		}
	}
	return out
}

// Admission returns the name of what let this device in.
func (r *Replica) Admission() Hash {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.control.devices[r.self].admitted.hash
}

// CaughtUp reports whether some connected member (or, if this device let itself in with the recovery phrase, any
// device) that knew an entry of the control log when its connection
// began has nothing that is not here, and how many batches are.
func (r *Replica) CaughtUp(knowing Hash) (done bool, batches uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.heads {
		batches += h.seq
	}
	_, byDevice := r.control.known(r.control.devices[r.self].admitted.signer)
	for _, s := range r.sessions {
		d, _ := r.control.device(s.peer)
		done = done || (d.Role == RoleMember || !byDevice) && s.synced && r.control.reach(s.heads, knowing) && r.hasAll(s)
	}
	return done, batches
}

// hasAll reports whether all that a peer said to have is here; mu is held.
func (r *Replica) hasAll(s *session) bool {
	for a, seq := range s.has {
		if last, limited := r.control.limit(a, r.heads[a].device); limited {
			seq = min(seq, last)
		}
		if r.heads[a].seq < seq {
			return false
		}
	}
	return true
}
