package replica

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/zeebo/blake3"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/replica/replicapb"
)

// maxActive bounds the members that one checkpoint names.
const maxActive = 4096

// LogEnd is a place in a log, and the hash of the envelope there.
type LogEnd struct {
	Seq  uint64
	Hash Hash
}

// Checkpoint says what the logs up to a vector come to: the tree that members
// export, stored like a file. It is an entry of the control log, so that whoever
// joins learns of it first, and keyless devices can judge it.
type Checkpoint struct {
	ID    Hash // of its entry
	Base  Hash // the checkpoint that it continues; zero: none
	Maker DeviceID
	Made  time.Time // by the maker's clock
	// Active are the members whose promises it is folded by, ascending: those that
	// its maker did not take for gone. Endorsed are those of them who came to the same, the maker included.
	Active, Endorsed []DeviceID
	// GaveUp are those who endorsed it and said since that they are back: they began anew from another one.
	GaveUp []DeviceID
	Clock  uint64 // the greatest counter of an op up to the vector
	// Version is where the export is, Digest its BLAKE3-256.
	Version chunk.Version
	Digest  [32]byte
}

// Complete reports whether all that are active came to the same.
func (c *Checkpoint) Complete() bool { return len(c.Endorsed) == len(c.Active) }

// checkpointState is a checkpoint and who endorsed it.
type checkpointState struct {
	entry    *entry
	endorsed map[DeviceID]bool
	gaveUp   map[DeviceID]bool // those of them who said since that they are back
	vouched  bool              // a device in good standing made or endorsed it
}

func (s *checkpointState) body() *replicapb.Checkpoint { return s.entry.what.GetCheckpoint() }

func (s *checkpointState) version() chunk.Version {
	p := s.body()
	v := chunk.Version{Size: p.GetSize(), BlockLog: uint8(p.GetBlockLog()), Height: uint8(p.GetHeight())}
	copy(v.Root[:], p.GetRoot())
	return v
}

func (s *checkpointState) isActive(d DeviceID) bool {
	return slices.ContainsFunc(s.body().GetActive(), func(b []byte) bool { return bytes.Equal(b, d[:]) })
}

func (s *checkpointState) public() Checkpoint {
	p := s.body()
	c := Checkpoint{
		ID: s.entry.hash, Maker: s.entry.signer, Made: time.UnixMilli(s.entry.what.GetTime()),
		Clock: p.GetClock(), Version: s.version(), Digest: [32]byte(p.GetDigest()),
	}
	copy(c.Base[:], p.GetBase())
	for _, b := range p.GetActive() {
		d := DeviceID(b)
		c.Active = append(c.Active, d)
		if s.endorsed[d] {
			c.Endorsed = append(c.Endorsed, d)
		}
		if s.gaveUp[d] {
			c.GaveUp = append(c.GaveUp, d)
		}
	}
	return c
}

// checkCheckpoint checks what a checkpoint shows by itself.
func checkCheckpoint(signer []byte, c *replicapb.Checkpoint) error {
	v := chunk.Version{Size: c.GetSize(), BlockLog: uint8(c.GetBlockLog()), Height: uint8(c.GetHeight())}
	switch n := len(c.GetActive()); {
	case c.GetFormat() != 1:
		return nil // of a later version: nobody here endorses or uses it
	case len(c.GetBase()) != 0 && len(c.GetBase()) != 32, len(c.GetRoot()) != chunk.IDSize, len(c.GetDigest()) != 32:
		return invalid("checkpoint with a hash of the wrong size")
	case c.GetSize() <= 0 || c.GetBlockLog() > chunk.MaxBlockLog || c.GetHeight() > 64 || v.Check() != nil:
		return invalid("checkpoint of an impossible version")
	case n == 0 || n > maxActive || !slices.ContainsFunc(c.GetActive(), func(b []byte) bool { return bytes.Equal(b, signer) }):
		return invalid("checkpoint of %d devices, or without its maker", n)
	}
	for i, b := range c.GetActive() {
		if len(b) != 32 || i > 0 && bytes.Compare(c.GetActive()[i-1], b) >= 0 {
			return invalid("checkpoint with active devices out of order")
		}
	}
	for i, e := range c.GetSeen() {
		if len(e.GetAuthor()) != 16 || len(e.GetHash()) != 32 || e.GetSeq() == 0 ||
			i > 0 && bytes.Compare(c.GetSeen()[i-1].GetAuthor(), e.GetAuthor()) >= 0 {
			return invalid("checkpoint with logs out of order")
		}
	}
	return nil
}

// judgeCheckpointing judges a checkpoint or an endorsement. Those of a later format are kept, without effect here.
func (c *controlLog) judgeCheckpointing(e *entry) error {
	if !c.admittedBefore(e.signer, e, RoleMember) {
		return invalid("checkpoint or endorsement by a device that is no member")
	}
	p := e.what.GetCheckpoint()
	if p == nil {
		return c.judgeContinued(e, e.what.GetEndorse().GetCheckpoint())
	}
	if p.GetFormat() != 1 {
		return nil
	}
	was := map[AuthorID]LogEnd{}
	if len(p.GetBase()) > 0 {
		if err := c.judgeContinued(e, p.GetBase()); err != nil {
			return err
		}
		was = c.seen(c.checkpoints[Hash(p.GetBase())])
	}
	for _, s := range p.GetSeen() {
		if s.GetSeq() <= was[AuthorID(s.GetAuthor())].Seq {
			return invalid("checkpoint behind the one it continues")
		}
		if _, ok := c.deviceOf(AuthorID(s.GetAuthor())); !ok {
			return invalid("checkpoint with a log of nobody")
		}
	}
	return nil
}

// judgeContinued checks that an entry knows the checkpoint it speaks of.
func (c *controlLog) judgeContinued(e *entry, checkpoint []byte) error {
	s := c.entries[Hash(checkpoint)]
	if s == nil || s.what.GetCheckpoint() == nil || !c.precedes(s, e) {
		return invalid("entry about an unknown checkpoint")
	}
	return nil
}

// deviceOf returns the device that an author is an incarnation of.
func (c *controlLog) deviceOf(a AuthorID) (DeviceID, bool) {
	for id := range c.devices {
		if MadeBy(a, id) {
			return id, true
		}
	}
	return DeviceID{}, false
}

// seen returns the whole vector of a checkpoint.
func (c *controlLog) seen(s *checkpointState) map[AuthorID]LogEnd {
	out := map[AuthorID]LogEnd{}
	for s != nil {
		p := s.body()
		for _, e := range p.GetSeen() {
			a := AuthorID(e.GetAuthor())
			if _, later := out[a]; !later {
				out[a] = LogEnd{e.GetSeq(), Hash(e.GetHash())}
			}
		}
		if len(p.GetBase()) == 0 {
			break
		}
		s = c.checkpoints[Hash(p.GetBase())]
	}
	return out
}

// Checkpoints returns all checkpoints, those with the greatest clock first.
func (r *Replica) Checkpoints() []Checkpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Checkpoint, 0, len(r.control.checkpoints))
	for _, s := range r.control.checkpoints {
		if s.vouched {
			out = append(out, s.public())
		}
	}
	slices.SortFunc(out, func(a, b Checkpoint) int {
		if a.Clock != b.Clock {
			if a.Clock > b.Clock {
				return -1
			}
			return 1
		}
		return bytes.Compare(a.ID[:], b.ID[:])
	})
	return out
}

// CheckpointSeen returns the vector of a checkpoint; nil if it is not known.
func (r *Replica) CheckpointSeen(id Hash) map[AuthorID]LogEnd {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.control.checkpoints[id]
	if s == nil {
		return nil
	}
	return r.control.seen(s)
}

// ProposeCheckpoint signs a checkpoint of the batches up to seen, durably on
// return. Of c it needs Active, Clock, Version and Digest; Active must hold this
// device. base is a checkpoint that seen is nowhere behind, or zero. The
// chunks must be in the store, durably, and the batches up to seen here or in base.
func (r *Replica) ProposeCheckpoint(c Checkpoint, base Hash, seen map[AuthorID]uint64) (Hash, error) {
	p := &replicapb.Checkpoint{
		Format: 1, Clock: c.Clock, Size: c.Version.Size, BlockLog: uint32(c.Version.BlockLog), Height: uint32(c.Version.Height),
		Root: c.Version.Root[:], Digest: c.Digest[:],
	}
	was := map[AuthorID]LogEnd{}
	if base != (Hash{}) {
		p.Base = base[:]
		was = r.CheckpointSeen(base)
	}
	for a, seq := range seen {
		if seq <= was[a].Seq {
			continue
		}
		hash, err := r.envelopeHash(a, seq)
		if err != nil {
			return Hash{}, err
		}
		p.Seen = append(p.Seen, &replicapb.LogEnd{Author: a[:], Seq: seq, Hash: hash[:]})
	}
	slices.SortFunc(p.Seen, func(a, b *replicapb.LogEnd) int { return bytes.Compare(a.GetAuthor(), b.GetAuthor()) })
	for _, d := range c.Active {
		p.Active = append(p.Active, d[:])
	}
	slices.SortFunc(p.Active, bytes.Compare)
	r.logMu.Lock()
	defer r.logMu.Unlock()
	what := &replicapb.ControlEntry{What: &replicapb.ControlEntry_Checkpoint{Checkpoint: p}}
	if err := r.proposeLocked(what, nil); err != nil {
		return Hash{}, fmt.Errorf("propose a checkpoint: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.control.order[len(r.control.order)-1].hash, nil
}

// Endorse signs that this device came to the same as a checkpoint, durably on return.
func (r *Replica) Endorse(id Hash) error {
	r.mu.Lock()
	s := r.control.checkpoints[id]
	r.mu.Unlock()
	if s == nil {
		return invalid("endorsement of an unknown checkpoint")
	}
	if err := r.propose(&replicapb.ControlEntry{What: &replicapb.ControlEntry_Endorse{Endorse: &replicapb.Endorse{Checkpoint: id[:]}}}, nil); err != nil {
		return fmt.Errorf("endorse a checkpoint: %w", err)
	}
	return nil
}

// envelopeHash returns the hash of a stored envelope.
func (r *Replica) envelopeHash(a AuthorID, seq uint64) (Hash, error) {
	r.mu.Lock()
	h := r.heads[a]
	r.mu.Unlock()
	if h.seq == seq {
		return h.hash, nil
	}
	list, err := r.rawEnvelopes(a, seq, 1, 1)
	if err != nil || len(list) == 0 {
		return Hash{}, errors.Join(err, fmt.Errorf("envelope %d of %x is not here", seq, a))
	}
	e, err := parseEnvelope(r.cfg.Volume, list[0].GetBody())
	if err != nil || e.Seq != seq {
		return Hash{}, errors.Join(err, fmt.Errorf("envelope %d of %x is not here", seq, a))
	}
	return blake3.Sum256(list[0].GetBody()), nil
}

// Envelopes calls fn for the stored envelopes of an author behind after, up to and
// with place to, in order, until it fails. What a checkpoint replaced is not stored any more.
func (r *Replica) Envelopes(a AuthorID, after, to uint64, fn func(Envelope) error) error {
	for after < to {
		count := int(min(to-after, deliverCount))
		list, err := r.envelopesFrom(a, after+1, count, deliverBytes)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return fmt.Errorf("stored log %x lacks envelope %d", a, after+1)
		}
		for _, e := range list {
			if err := fn(e); err != nil {
				return err
			}
			after = e.Seq
		}
	}
	return nil
}
