package namespace

import (
	"errors"
	"fmt"
	"slices"

	pb "github.com/foreverfs/forever/namespace/namespacepb"
)

// invalid makes an error of a foreign op that names what it cannot.
func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, ErrInvalid)...)
}

// apply gives an op its effect. The op was checked by validateOp; what it
// refers to is checked here. An error leaves the txn good for nothing.
func (x *txn) apply(id OpID, op *pb.Op) error {
	switch b := op.Body.(type) {
	case *pb.Op_Create:
		return x.applyCreate(id, op.Time, b.Create)
	case *pb.Op_Link:
		return x.applyLink(id, op.Time, b.Link)
	case *pb.Op_Remove:
		return x.applyRemove(id, op.Time, b.Remove)
	case *pb.Op_Rename:
		return x.applyRename(id, op.Time, b.Rename)
	case *pb.Op_Exchange:
		return x.applyExchange(id, op.Time, b.Exchange)
	case *pb.Op_Attr:
		return x.applyAttr(id, op.Time, b.Attr)
	case *pb.Op_Xattr:
		return x.applyXattr(id, op.Time, b.Xattr)
	case *pb.Op_Content:
		return x.applyContent(id, op.Time, b.Content)
	case *pb.Op_Keep:
		d, err := x.refDir(b.Keep.Node)
		if err != nil {
			return err
		}
		return x.keepAlive(d)
	case *pb.Op_Fork:
		return x.applyFork(id, op.Time, b.Fork)
	case *pb.Op_Drop:
		return x.applyDrop(b.Drop)
	case *pb.Op_Demote:
		return x.applyDemote(id, b.Demote)
	case *pb.Op_Acknowledge:
		return x.applyAcknowledge(id, b.Acknowledge)
	}
	return invalid("op without a body")
}

// ref returns a node that an op names, which its author must have known.
func (x *txn) ref(id []byte) (*node, error) {
	n, err := x.node(NodeID(id))
	if errors.Is(err, ErrNotExist) {
		return nil, invalid("op names node %x, which does not exist", id)
	}
	if err != nil || x.causes == nil {
		return n, err
	}
	ok, err := x.causes.knows(n.created)
	if err == nil && !ok {
		err = invalid("op names node %x, which its author did not know", id)
	}
	return n, err
}

func (x *txn) refDir(id []byte) (*node, error) {
	n, err := x.ref(id)
	if err == nil && n.kind != KindDir {
		err = invalid("op takes node %x for a directory", id)
	}
	return n, err
}

// entries decodes entries that an op names, which its author must have known.
func (x *txn) entries(list [][]byte) ([]EntryID, error) {
	out := make([]EntryID, len(list))
	for i, b := range list {
		out[i], _ = parseEntryID(b)
		if x.causes == nil {
			continue
		}
		ok, err := x.causes.knows(out[i].Op)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, invalid("op names an entry its author did not know")
		}
	}
	return out, nil
}

// stamp sets the times of a directory whose entries an op changes.
func (x *txn) stamp(d *node, id OpID, now int64) {
	d.mtime.set(id, now)
	d.ctime.set(id, now)
	x.touch(d)
}

func (x *txn) applyCreate(id OpID, now int64, c *pb.Create) error {
	dir, err := x.refDir(c.Parent)
	if err != nil {
		return err
	}
	n := &node{id: nodeIDOf(id), kind: Kind(c.Kind), created: id, btime: now, rdev: c.Rdev, target: string(c.Target)}
	if x.causes != nil {
		if _, err := x.node(n.id); err == nil {
			return invalid("op makes node %v, which exists", n.id)
		} else if !errors.Is(err, ErrNotExist) {
			return err
		}
	}
	n.mode, n.uid, n.gid = register[uint32]{c.Mode, id}, register[uint32]{c.Uid, id}, register[uint32]{c.Gid, id}
	t := register[int64]{now, id}
	n.atime, n.mtime, n.ctime = t, t, t
	e := slotEntry{id: EntryID{Op: id}, node: n.id, kind: n.kind, time: now}
	if n.kind == KindDir {
		n.place = placement{dir.id, string(c.Name), e.id, now}
		x.meta.dirs++
	}
	x.nodes[n.id] = n
	x.touch(n)
	for _, a := range c.Xattrs {
		if err := x.putXattr(n.id, string(a.Name), xattr{op: id, set: true, value: a.Value}); err != nil {
			return err
		}
	}
	if err := x.keepAlive(dir); err != nil {
		return err
	}
	x.stamp(dir, id, now)
	return x.addEntry(dir, string(c.Name), e, n)
}

func (x *txn) applyLink(id OpID, now int64, l *pb.Link) error {
	dir, err := x.refDir(l.Parent)
	if err != nil {
		return err
	}
	n, err := x.ref(l.Node)
	if err != nil {
		return err
	}
	if n.kind == KindDir {
		return invalid("op links directory %v", n.id)
	}
	if err := x.keepAlive(dir); err != nil {
		return err
	}
	x.stamp(dir, id, now)
	n.ctime.set(id, now)
	x.touch(n)
	return x.addEntry(dir, string(l.Name), slotEntry{id: EntryID{Op: id}, node: n.id, kind: n.kind, time: now}, n)
}

func (x *txn) applyRemove(id OpID, now int64, r *pb.Remove) error {
	dir, err := x.refDir(r.Parent)
	if err != nil {
		return err
	}
	x.stamp(dir, id, now)
	return x.remove(id, now, dir, r.Removal)
}

// remove takes a node out of a slot, if nothing unknown to the op keeps it alive.
func (x *txn) remove(id OpID, now int64, dir *node, r *pb.Removal) error {
	n, err := x.ref(r.Node)
	if err != nil {
		return err
	}
	ids, err := x.entries(r.Entries)
	if err != nil {
		return err
	}
	demoted, err := x.entries(r.Demoted)
	if err != nil {
		return err
	}
	if n.id == Root || r.Seen > n.rev {
		return invalid("op removes node %v having seen %d of %d", n.id, r.Seen, n.rev)
	}
	n.ctime.set(id, now)
	x.touch(n)
	if n.rev == r.Seen {
		if n.kind == KindDir {
			err = x.removeDir(id, now, n)
		} else {
			err = x.kill(kill{id, now}, dir, string(r.Name), n, ids)
		}
		if err != nil {
			return err
		}
	}
	return x.demote(id, dir.id, string(r.Name), demoted)
}

// step is a decoded pb.Step.
type step struct {
	n        *node
	from, to *node
	fromName string
	ids      []EntryID
	demoted  []EntryID
	dest     placement
}

func (x *txn) decodeStep(id OpID, now int64, index uint8, s *pb.Step) (st step, err error) {
	if st.n, err = x.ref(s.Node); err != nil {
		return st, err
	}
	if st.from, err = x.refDir(s.From); err != nil {
		return st, err
	}
	if st.to, err = x.refDir(s.To); err != nil {
		return st, err
	}
	if st.ids, err = x.entries(s.Entries); err != nil {
		return st, err
	}
	if st.demoted, err = x.entries(s.Demoted); err != nil {
		return st, err
	}
	if st.n.id == Root {
		return st, invalid("op moves the root")
	}
	st.fromName = string(s.FromName)
	st.dest = placement{st.to.id, string(s.ToName), EntryID{id, index}, now}
	return st, nil
}

// leave prepares a step: times, what it keeps alive, the entries it supersedes.
func (x *txn) leave(id OpID, now int64, st *step) error {
	x.stamp(st.from, id, now)
	x.stamp(st.to, id, now)
	st.n.ctime.set(id, now)
	x.touch(st.n)
	if err := x.keepAlive(st.to); err != nil {
		return err
	}
	if st.n.kind == KindDir {
		return x.keepAlive(st.n)
	}
	return nil
}

// arrive does a step that leave prepared; directories are left to moveDirs.
func (x *txn) arrive(st *step) error {
	if st.n.kind == KindDir {
		return nil
	}
	if err := x.addEntry(st.to, st.dest.name, slotEntry{id: st.dest.id, node: st.n.id, kind: st.n.kind, time: st.dest.time}, st.n); err != nil {
		return err
	}
	return x.supersede(st.from, st.fromName, st.n, st.ids)
}

func (x *txn) steps(id OpID, sts ...*step) error {
	var moves []dirMove
	for _, st := range sts {
		if err := x.arrive(st); err != nil {
			return err
		}
		if st.n.kind == KindDir {
			moves = append(moves, dirMove{node: st.n.id, to: st.dest})
		}
	}
	if len(moves) > 0 {
		if err := x.moveDirs(id, moves); err != nil {
			return err
		}
	}
	for _, st := range sts {
		if err := x.demote(id, st.from.id, st.fromName, st.demoted); err != nil {
			return err
		}
	}
	return nil
}

func (x *txn) applyRename(id OpID, now int64, r *pb.Rename) error {
	sts, err := x.decodeSteps(id, now, append([]*pb.Step{r.Step}, r.More...))
	if err != nil {
		return err
	}
	st := sts[0]
	// The removal comes first: it is judged by what its author saw before the op.
	if r.Replaced != nil {
		if NodeID(r.Replaced.Node) == st.n.id {
			return invalid("op replaces what it moves")
		}
		if err := x.remove(id, now, st.to, r.Replaced); err != nil {
			return err
		}
	}
	return x.leaveAndArrive(id, now, sts)
}

// decodeSteps decodes the steps of one op. More than those of the op itself
// there are only for directories that are shown as one.
func (x *txn) decodeSteps(id OpID, now int64, list []*pb.Step) ([]*step, error) {
	if len(list) > maxSteps {
		return nil, invalid("op of %d steps", len(list))
	}
	out := make([]*step, len(list))
	for i, s := range list {
		st, err := x.decodeStep(id, now, uint8(i), s)
		if err != nil {
			return nil, err
		}
		for _, before := range out[:i] {
			if before.n == st.n {
				return nil, invalid("op moves node %v twice", st.n.id)
			}
		}
		out[i] = &st
	}
	return out, nil
}

func (x *txn) leaveAndArrive(id OpID, now int64, sts []*step) error {
	for _, st := range sts {
		if err := x.leave(id, now, st); err != nil {
			return err
		}
	}
	return x.steps(id, sts...)
}

func (x *txn) applyExchange(id OpID, now int64, e *pb.Exchange) error {
	sts, err := x.decodeSteps(id, now, append([]*pb.Step{e.A, e.B}, e.More...))
	if err != nil {
		return err
	}
	return x.leaveAndArrive(id, now, sts)
}

func (x *txn) applyAttr(id OpID, now int64, a *pb.Attr) error {
	n, err := x.ref(a.Node)
	if err != nil {
		return err
	}
	mask := AttrMask(a.Mask)
	for _, r := range []struct {
		bit AttrMask
		reg *register[uint32]
		val uint32
	}{{AttrMode, &n.mode, a.Mode}, {AttrUID, &n.uid, a.Uid}, {AttrGID, &n.gid, a.Gid}} {
		if mask&r.bit != 0 {
			r.reg.set(id, r.val)
		}
	}
	ctime := now
	if mask&AttrCtime != 0 {
		ctime = a.Ctime
	}
	n.ctime.set(id, ctime)
	if mask&AttrAtime != 0 {
		n.atime.set(id, a.Atime)
	}
	if mask&AttrMtime != 0 {
		n.mtime.set(id, a.Mtime)
	}
	x.touch(n)
	return nil
}

func (x *txn) applyXattr(id OpID, now int64, a *pb.Xattr) error {
	n, err := x.ref(a.Node)
	if err != nil {
		return err
	}
	n.ctime.set(id, now)
	x.touch(n)
	return x.putXattr(n.id, string(a.Name), xattr{op: id, set: !a.Removed, value: a.Value})
}

func (x *txn) applyContent(id OpID, now int64, c *pb.Content) error {
	n, err := x.ref(c.Node)
	if err != nil {
		return err
	}
	if n.kind != KindFile {
		return invalid("op gives content to a %v", n.kind)
	}
	revives, err := x.entries(c.Revives)
	if err != nil {
		return err
	}
	replaced := make([]OpID, len(c.Replaces))
	for i, b := range c.Replaces {
		replaced[i], _ = parseOpID(b)
		if err := x.knew(replaced[i]); err != nil {
			return err
		}
	}
	err = x.editHeads(n, func() error {
		if err := x.endHeads(n, replaced); err != nil {
			return err
		}
		i, _ := slices.BinarySearchFunc(n.heads, id, func(h Content, o OpID) int { return h.ID.Compare(o) })
		n.heads = slices.Insert(slices.Clone(n.heads), i, contentOf(id, now, c))
		return nil
	})
	if err != nil {
		return err
	}
	n.rev++
	n.mtime.set(id, c.Mtime)
	n.ctime.set(id, now)
	x.touch(n)
	return x.revive(n, revives, c.Revive)
}
