package namespace

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/foreverfs/forever/namespace/namespacepb"
)

// maxHeader bounds a batch without its ops, in bytes.
const maxHeader = 2 << 20

// batch is a decoded payload. Its ops are still encoded: they are decoded one by
// one, so that a hostile batch cannot make much of little.
type batch struct {
	first  uint64
	delta  []seen
	pred   *seen
	device string
	runs   []run
	ops    [][]byte
}

// Merge applies batch seq of an author's log, in one update of the state: all of it or
// nothing. A batch already merged has no effect. It returns ErrNotReady if
// batches it builds on were not merged, ErrPending if there are pending ops,
// ErrInvalid if the batch can never be applied, and ErrFolded if it comes too late. It keeps nothing of payload.
func (t *Tree) Merge(author AuthorID, seq uint64, payload []byte) (Changes, error) {
	info := t.authors[author]
	switch {
	case author == (AuthorID{}) || seq == 0:
		return Changes{}, invalid("batch %d of author %v", seq, author)
	case seq <= info.seq:
		return Changes{}, nil
	case author == t.author:
		return Changes{}, invalid("batch %d claims to be of this incarnation, which wrote %d", seq, info.seq)
	case seq > info.seq+1:
		return Changes{}, fmt.Errorf("batch %d of %v after %d: %w", seq, author, info.seq, ErrNotReady)
	}
	b, err := decodeBatch(author, seq, payload)
	if err != nil {
		return Changes{}, err
	}
	merged, err := t.admit(author, seq, b)
	if err != nil {
		return Changes{}, err
	}
	for _, s := range b.delta {
		if t.authors[s.author].seq < s.seq {
			return Changes{}, fmt.Errorf("batch %d of %v builds on %d of %v: %w", seq, author, s.seq, s.author, ErrNotReady)
		}
	}
	if p := b.pred; p != nil && t.authors[p.author].seq < p.seq {
		return Changes{}, fmt.Errorf("batch %d of %v follows %d of %v: %w", seq, author, p.seq, p.author, ErrNotReady)
	}
	if t.Pending() > 0 {
		return Changes{}, ErrPending
	}
	changes, err := t.merge(author, seq, b)
	if err == nil {
		merged()
	}
	return changes, err
}

func (t *Tree) merge(author AuthorID, seq uint64, b *batch) (Changes, error) {
	var names map[Name]struct{}
	var nodes, dirs map[NodeID]struct{}
	work := false
	err := t.update(func(x *txn) error {
		x.changed, x.names, x.dirs = map[NodeID]struct{}{}, map[Name]struct{}{}, map[NodeID]struct{}{}
		nodes, names, dirs = x.changed, x.names, x.dirs
		err := x.merge(author, seq, b)
		work = x.acks < len(b.ops)
		return err
	})
	if err != nil {
		return Changes{}, fmt.Errorf("merge batch %d of %v: %w", seq, author, err)
	}
	if work {
		t.worked[author] = seq
	}
	return Changes{slices.Collect(maps.Keys(nodes)), slices.Collect(maps.Keys(names)), slices.Collect(maps.Keys(dirs))}, nil
}

func (x *txn) merge(author AuthorID, seq uint64, b *batch) error {
	c := &causes{x: x, author: author, seq: seq, delta: map[AuthorID]uint64{}, known: map[AuthorID]uint64{}, adopted: map[AuthorID]uint64{}}
	x.causes = c
	if err := x.checkOrder(c, b); err != nil {
		return err
	}
	if seq == 1 {
		info := x.author(author)
		info.device = b.device
		x.authors[author] = info
	}
	for _, r := range b.runs {
		if info := x.author(r.author); info.device == "" {
			info.device = r.device
			x.authors[r.author] = info
		}
	}
	if err := x.applyAll(c, b); err != nil {
		return err
	}
	last := b.first + uint64(len(b.ops)) - 1
	x.meta.clock = max(x.meta.clock, last)
	return x.logged(author, seq, last, b.delta, b.runs)
}

// checkOrder checks the counters and the vector of a batch against what they build on:
// the first counter is one more than the greatest that its author had seen.
func (x *txn) checkOrder(c *causes, b *batch) error {
	top := x.author(c.author).last
	for _, s := range b.delta {
		before, err := c.vector(s.author)
		if err != nil {
			return err
		}
		if s.seq <= before {
			return invalid("vector goes from %d to %d of %v", before, s.seq, s.author)
		}
		last, err := x.lastOf(s.author, s.seq)
		if err != nil {
			return err
		}
		top = max(top, last)
	}
	for _, s := range b.delta {
		c.delta[s.author] = s.seq
	}
	if b.first != top+1 {
		return invalid("counters begin at %d where %d was seen", b.first, top)
	}
	return nil
}

// applyAll applies the ops that were not applied before, when another incarnation adopted them.
func (x *txn) applyAll(c *causes, b *batch) error {
	runs := b.runs
	for i, raw := range b.ops {
		id := OpID{b.first + uint64(i), c.author}
		if len(runs) > 0 {
			id.Author = runs[0].author
			if id.Lamport == runs[0].last {
				runs = runs[1:]
			}
		}
		info := x.author(id.Author)
		if id.Lamport > info.applied {
			if err := x.applyRaw(id, raw); err != nil {
				return fmt.Errorf("op %d: %w", i, err)
			}
			info.applied = id.Lamport
			x.authors[id.Author] = info
		}
		c.known[id.Author] = id.Lamport
		if err := x.spill(); err != nil {
			return err
		}
	}
	return nil
}

func (x *txn) applyRaw(id OpID, raw []byte) error {
	var op pb.Op
	if err := proto.Unmarshal(raw, &op); err != nil {
		return invalid("decode: %v", err)
	}
	if err := validateOp(&op); err != nil {
		return err
	}
	return x.apply(id, &op)
}

// decodeBatch decodes and checks everything that does not depend on the state.
func decodeBatch(author AuthorID, seq uint64, payload []byte) (*batch, error) {
	if len(payload) > MaxPayload {
		return nil, invalid("batch of %d bytes", len(payload))
	}
	b := &batch{}
	head, err := b.split(payload)
	if err != nil {
		return nil, err
	}
	var h pb.Batch
	if err := proto.Unmarshal(head, &h); err != nil {
		return nil, invalid("decode a batch: %v", err)
	}
	switch {
	case h.Version != batchVersion:
		return nil, invalid("batch of version %d", h.Version)
	case len(h.ProtoReflect().GetUnknown()) > 0:
		return nil, invalid("batch with unknown fields")
	case len(b.ops) == 0 || h.First == 0 || h.First > 1<<63:
		return nil, invalid("batch of %d ops from %d", len(b.ops), h.First)
	case seq != 1 && (len(h.Device) > 0 || h.Predecessor != nil):
		return nil, invalid("batch %d with what the first has", seq)
	}
	b.first, b.device = h.First, deviceName(string(h.Device), author)
	if err := b.readVector(author, &h); err != nil {
		return nil, err
	}
	return b, b.readRuns(author, &h)
}

// split takes the ops out of a payload and returns the rest.
func (b *batch) split(payload []byte) (head []byte, err error) {
	for rest := payload; len(rest) > 0; {
		num, typ, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return nil, invalid("decode a batch: %v", protowire.ParseError(n))
		}
		m := protowire.ConsumeFieldValue(num, typ, rest[n:])
		if m < 0 {
			return nil, invalid("decode a batch: %v", protowire.ParseError(m))
		}
		if num == fieldOps && typ == protowire.BytesType {
			op, _ := protowire.ConsumeBytes(rest[n:])
			if b.ops = append(b.ops, op); len(op) > MaxOp || len(b.ops) > MaxBatchOps {
				return nil, invalid("batch with an op of %d bytes, %d ops", len(op), len(b.ops))
			}
		} else if head = append(head, rest[:n+m]...); len(head) > maxHeader {
			return nil, invalid("batch with a header above %d bytes", maxHeader)
		}
		rest = rest[n+m:]
	}
	return head, nil
}

func readSeen(s *pb.Seen) (seen, bool) {
	if len(s.GetAuthor()) != 16 || s.GetSeq() == 0 {
		return seen{}, false
	}
	return seen{AuthorID(s.Author), s.Seq}, true
}

func (b *batch) readVector(author AuthorID, h *pb.Batch) error {
	for _, e := range h.Vector {
		s, ok := readSeen(e)
		if !ok || s.author == author {
			return invalid("batch with an impossible vector")
		}
		if k := len(b.delta); k > 0 && slices.Compare(b.delta[k-1].author[:], s.author[:]) >= 0 {
			return invalid("batch with an unsorted vector")
		}
		b.delta = append(b.delta, s)
	}
	if h.Predecessor != nil {
		s, ok := readSeen(h.Predecessor)
		if !ok || s.author == author || !s.author.sameDevice(author) {
			return invalid("batch with an impossible predecessor")
		}
		b.pred = &s
	}
	return nil
}

func (b *batch) readRuns(author AuthorID, h *pb.Batch) error {
	at := b.first
	for _, a := range h.Adopted {
		if len(a.Author) != 16 || a.Count == 0 || int(a.Count) > len(b.ops) {
			return invalid("batch with an impossible adoption")
		}
		r := run{author: AuthorID(a.Author), count: a.Count}
		if r.author == author || !r.author.sameDevice(author) {
			return invalid("batch adopts ops of another device")
		}
		r.device = deviceName(string(a.Device), r.author)
		at += uint64(a.Count)
		r.last = at - 1
		if slices.ContainsFunc(b.runs, func(o run) bool { return o.author == r.author }) {
			return invalid("batch adopts twice from one author")
		}
		b.runs = append(b.runs, r)
	}
	if at-b.first > uint64(len(b.ops)) {
		return invalid("batch adopts more than it has")
	}
	return nil
}
