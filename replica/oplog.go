package replica

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/replica/replicapb"
)

// received is an envelope taken apart and found well formed and signed.
type received struct {
	Envelope
	signed
}

func parseHead(value []byte) (head, error) {
	var p replicapb.HeadRecord
	if err := proto.Unmarshal(value, &p); err != nil {
		return head{}, fmt.Errorf("decode head: %w", err)
	}
	hash, err := fixed32[Hash](p.GetHash(), "hash in the state")
	if err != nil {
		return head{}, err
	}
	device, err := fixed32[DeviceID](p.GetDevice(), "device in the state")
	return head{p.GetSeq(), hash, device}, err
}

// Append signs one sealed batch as the next of the author's log, stores it and has
// it sent to all connected devices. It is durable after the next Sync of the
// state. The author must be an incarnation of this device, the epoch one of the
// control log that nobody can open who is out: it fails with ErrEpochLeft otherwise. sealed may be reused on return.
func (r *Replica) Append(author AuthorID, epoch EpochID, sealed []byte) (uint64, error) {
	r.logMu.Lock()
	defer r.logMu.Unlock()
	r.mu.Lock()
	h := r.heads[author]
	heads := r.control.headList()
	me, _ := r.control.known(r.self)
	err := r.mayWriteIn(epoch)
	r.mu.Unlock()
	if me.Role != RoleMember {
		return 0, ErrNotMember
	}
	if err != nil {
		return 0, err
	}
	e := Envelope{Author: author, Device: r.self, Seq: h.seq + 1, Prev: h.hash, Epoch: epoch, Heads: heads, Sealed: sealed}
	if err := e.check(0); e.Seq == 1 && err != nil {
		return 0, err
	}
	if len(sealed) == 0 || len(sealed) > maxSealed {
		return 0, invalid("sealed batch of %d bytes", len(sealed))
	}
	body, err := e.marshal(r.cfg.Volume)
	if err != nil {
		return 0, fmt.Errorf("encode envelope: %w", err)
	}
	env := received{e, sign(r.cfg.Identity, envelopeDomain, body)}
	if err := r.storeEnvelopes([]*received{&env}); err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.appended(&env, nil)
	r.delivered[author] = env.Seq
	return env.Seq, nil
}

// NextSeq returns the place that the author's next batch will have.
func (r *Replica) NextSeq(author AuthorID) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.heads[author].seq + 1
}

// Vector returns how many batches of each author are stored here.
func (r *Replica) Vector() map[AuthorID]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.vector()
}

func (r *Replica) vector() map[AuthorID]uint64 {
	out := make(map[AuthorID]uint64, len(r.heads))
	for a, h := range r.heads {
		out[a] = h.seq
	}
	return out
}

// storeEnvelopes writes envelopes and their logs' heads in one update; logMu is held.
func (r *Replica) storeEnvelopes(list []*received) error {
	err := r.cfg.KV.Update(func(tx kv.Tx) error {
		for _, e := range list {
			b, err := e.signed.marshal()
			if err != nil {
				return err
			}
			if err := tx.Put(envelopeKey(e.Author, e.Seq), b); err != nil {
				return err
			}
			rec := &replicapb.HeadRecord{Seq: e.Seq, Hash: e.hash[:], Device: e.Device[:]}
			if err := putProto(tx, headKey(e.Author), rec); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store envelopes: %w", err)
	}
	return nil
}

// appended notes in memory what storeEnvelopes stored, and has it sent on to all
// but its source; mu is held.
func (r *Replica) appended(e *received, from *session) {
	r.heads[e.Author] = head{e.Seq, e.hash, e.Device}
	r.unflushed[e.Author] = struct{}{}
	for _, s := range r.sessions {
		if s == from {
			s.has[e.Author] = max(s.has[e.Author], e.Seq)
			continue
		}
		s.dirty[e.Author] = struct{}{}
		wake(s.logWake)
	}
}

// acceptEnvelopes checks what a peer sent and stores what is new.
func (r *Replica) acceptEnvelopes(from *session, list []*replicapb.Signed) error {
	fresh := make([]*received, 0, len(list))
	for _, p := range list {
		e, err := r.openEnvelope(from, p)
		if err != nil {
			return err
		}
		if e != nil {
			fresh = append(fresh, e)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	r.logMu.Lock()
	defer r.logMu.Unlock()
	fresh, err := r.chain(from, fresh)
	if err != nil || len(fresh) == 0 {
		return err
	}
	if err := r.storeEnvelopes(fresh); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range fresh {
		r.appended(e, from)
		r.undone[e.Author] = struct{}{}
	}
	r.broadcast()
	wake(r.deliverWake)
	wake(r.ackWake)
	return nil
}

// openEnvelope parses an envelope and checks its right to exist. It returns nil
// for one that is already here.
func (r *Replica) openEnvelope(from *session, p *replicapb.Signed) (*received, error) {
	s, err := fromProto(p, maxEnvelope)
	if err != nil {
		return nil, err
	}
	e, err := parseEnvelope(r.cfg.Volume, s.body)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	known, heard := r.heads[e.Author]
	if from != nil && heard {
		from.has[e.Author] = max(from.has[e.Author], e.Seq)
	}
	err = nil
	if e.Seq > known.seq {
		err = r.mayWrite(&e)
	}
	last, limited := r.control.limit(e.Author, e.Device)
	drop := err == nil && limited && e.Seq > last && e.Seq > known.seq
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if e.Seq < known.seq || e.Seq == known.seq && s.hash == known.hash {
		return nil, nil
	}
	if !s.verify(envelopeDomain, e.Device) {
		return nil, invalid("envelope with a wrong signature")
	}
	if from != nil {
		from.verified(&e, drop)
	}
	if drop {
		return nil, nil
	}
	return &received{e, s}, nil
}

// verified notes that the peer has an envelope, which does not count if drop is set: the peer may not know yet that its device
// is out.
func (s *session) verified(e *Envelope, drop bool) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.has[e.Author] = max(s.has[e.Author], e.Seq)
	if drop {
		s.dropped[e.Author] = droppedAt{e.Device, max(e.Seq, s.dropped[e.Author].seq)}
	}
}

// mayWrite decides whether a device may have written an envelope, leaving aside whether it
// is out by now; mu is held.
func (r *Replica) mayWrite(e *Envelope) error {
	if !r.control.knows(e.Heads) {
		return invalid("envelope that builds on unknown control entries")
	}
	if !r.control.everAdmitted(e.Device, &entry{parents: e.Heads}, RoleMember) {
		return invalid("envelope of a device that is no member")
	}
	if s := r.control.epochs[e.Epoch]; s == nil || s.opened == nil {
		return invalid("envelope in an unknown epoch")
	}
	return nil
}

// chain returns the envelopes that continue the logs as they are now; logMu is
// held. An author whose log was forked is left out.
func (r *Replica) chain(from *session, list []*received) ([]*received, error) {
	ends := map[AuthorID]head{}
	out := list[:0]
	for _, e := range list {
		h, ok := ends[e.Author]
		if !ok {
			r.mu.Lock()
			h = r.heads[e.Author]
			r.mu.Unlock()
		}
		err := h.follow(e)
		switch {
		case errors.Is(err, ErrForked):
			from.forked(e.Author, err)
			continue
		case err != nil:
			return nil, err
		case e.Seq <= h.seq:
			continue
		}
		ends[e.Author] = head{e.Seq, e.hash, e.Device}
		out = append(out, e)
	}
	return out, nil
}

// follow checks that e is known or continues h.
func (h head) follow(e *received) error {
	switch {
	case e.Seq < h.seq, e.Seq == h.seq && e.hash == h.hash:
		return nil
	case e.Seq == h.seq, e.Seq == h.seq+1 && h.seq > 0 && e.Prev != h.hash:
		return fmt.Errorf("%w: two versions of batch %d", ErrForked, e.Seq)
	case e.Seq > h.seq+1:
		return invalid("envelope %d after %d", e.Seq, h.seq)
	case h.seq > 0 && h.device != e.Device:
		return invalid("envelope of another device")
	}
	return nil
}

// rawEnvelopes reads stored envelopes of an author from place seq on: at most
// count, and no more after maxBytes have come together.
func (r *Replica) rawEnvelopes(author AuthorID, seq uint64, count, maxBytes int) ([]*replicapb.Signed, error) {
	var out []*replicapb.Signed
	var failed error
	size := 0
	err := r.cfg.KV.Scan(envelopeKey(author, seq), kv.PrefixEnd(envelopeKey(author, seq)[:18]), func(_, value []byte) bool {
		p := &replicapb.Signed{}
		if failed = proto.Unmarshal(value, p); failed != nil {
			return false
		}
		out = append(out, p)
		size += len(value)
		return len(out) < count && size < maxBytes
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, fmt.Errorf("read log %x: %w", author, err)
	}
	return out, nil
}

// envelopesFrom is rawEnvelopes taken apart.
func (r *Replica) envelopesFrom(author AuthorID, seq uint64, count, maxBytes int) ([]Envelope, error) {
	raw, err := r.rawEnvelopes(author, seq, count, maxBytes)
	if err != nil {
		return nil, err
	}
	out := make([]Envelope, len(raw))
	for i, p := range raw {
		if out[i], err = parseEnvelope(r.cfg.Volume, p.GetBody()); err != nil {
			return nil, fmt.Errorf("stored envelope %d of %x: %w", seq+uint64(i), author, err)
		}
		if out[i].Seq != seq+uint64(i) {
			return nil, fmt.Errorf("stored log %x lacks envelope %d", author, seq+uint64(i))
		}
	}
	return out, nil
}
