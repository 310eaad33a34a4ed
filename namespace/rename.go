package namespace

import (
	"errors"
	"slices"

	pb "github.com/foreverfs/forever/namespace/namespacepb"
)

// renaming is a Rename on its way.
type renaming struct {
	from, to *node
	src, dst found
	taken    bool // dst is there
	dropped  Node // the content that was dropped, if dst is one
}

// Rename moves a name. Without flags it replaces what the new name was: a
// file, or an empty directory by a directory. Two names of one file stay as they are. It returns the
// moved node and, if there was one, the node replaced (or, with Exchange, exchanged) as it is then.
func (t *Tree) Rename(now int64, oldParent NodeID, oldName string, newParent NodeID, newName string, flags RenameFlags) (moved Node, replaced *Node, err error) {
	return t.rename(now, oldParent, oldName, newParent, newName, flags, nil)
}

// RenameLeaving is Rename without Exchange that makes a node under the old name, in the same step. Where both names are of one file, which stay as
// they are, it makes none.
func (t *Tree) RenameLeaving(now int64, oldParent NodeID, oldName string, newParent NodeID, newName string, flags RenameFlags, left CreateSpec) (moved Node, replaced *Node, err error) {
	c, err := createOp(oldName, left)
	if err != nil {
		return moved, nil, err
	}
	return t.rename(now, oldParent, oldName, newParent, newName, flags, c)
}

// rename is Rename, and RenameLeaving if left is not nil.
func (t *Tree) rename(now int64, oldParent NodeID, oldName string, newParent NodeID, newName string, flags RenameFlags, left *pb.Create) (moved Node, replaced *Node, err error) {
	if flags > Exchange || flags == Exchange && left != nil {
		return moved, nil, ErrInvalidArgument
	}
	err = t.update(func(x *txn) error {
		if err := x.settle(now, oldParent, oldName); err != nil {
			return err
		}
		if flags == Exchange {
			if err := x.settle(now, newParent, newName); err != nil {
				return err
			}
		}
		r, err := x.prepareRename(oldParent, oldName, newParent, newName)
		if err != nil {
			return err
		}
		if err := x.checkRename(&r, flags); err != nil {
			return err
		}
		if !r.same() {
			err = x.rename(now, &r, oldName, newName, flags)
			if err == nil && left != nil {
				_, err = x.create(now, oldParent, left)
			}
		}
		if err != nil {
			return err
		}
		if moved, err = x.public(r.src.n); err != nil {
			return err
		}
		replaced, err = x.replacedBy(&r)
		return err
	})
	return moved, replaced, err
}

// settle makes a name that shows a content lead to a file.
func (x *txn) settle(now int64, dir NodeID, name string) error {
	d, err := x.dir(dir)
	if err != nil {
		return err
	}
	f, err := x.find(d, name)
	if err == nil && f.head != nil {
		_, err = x.fork(now, f.head)
	}
	if errors.Is(err, ErrNotExist) {
		return nil
	}
	return err
}

// same reports whether both names lead to one node.
func (r *renaming) same() bool { return r.taken && r.dst.head == nil && r.src.n == r.dst.n }

// replacedBy returns the node that a rename replaced or exchanged, if there was one.
func (x *txn) replacedBy(r *renaming) (*Node, error) {
	if !r.taken || r.same() {
		return nil, nil
	}
	if r.dst.head != nil {
		return &r.dropped, nil
	}
	n, err := x.public(r.dst.n)
	return &n, err
}

func (x *txn) prepareRename(oldParent NodeID, oldName string, newParent NodeID, newName string) (r renaming, err error) {
	if r.from, err = x.dir(oldParent); err != nil {
		return r, err
	}
	if r.to, err = x.dir(newParent); err != nil {
		return r, err
	}
	if r.src, err = x.find(r.from, oldName); err != nil {
		return r, err
	}
	r.dst, err = x.find(r.to, newName)
	if errors.Is(err, ErrNotExist) {
		return r, nil
	}
	r.taken = err == nil
	return r, err
}

// checkRename refuses what POSIX refuses.
func (x *txn) checkRename(r *renaming, flags RenameFlags) error {
	switch {
	case flags == NoReplace && r.taken:
		return ErrExist
	case flags == Exchange && !r.taken:
		return ErrNotExist
	case r.same():
		return nil
	}
	if err := x.checkBelow(r.to, r.src.n); err != nil {
		return err
	}
	if flags == Exchange {
		return x.checkBelow(r.from, r.dst.n)
	}
	if !r.taken {
		return nil
	}
	switch srcDir, dstDir := r.src.kind == KindDir, r.dst.kind == KindDir; {
	case srcDir && !dstDir:
		return ErrNotDir
	case !srcDir && dstDir:
		return ErrIsDir
	case dstDir:
		if children, err := x.childrenOf(r.dst.n); err != nil || children > 0 {
			return errors.Join(err, ErrNotEmpty)
		}
	}
	return nil
}

// checkBelow refuses to move n into dir if dir lies below it, or below a directory shown as one with it.
func (x *txn) checkBelow(dir, n *node) error {
	if n.kind != KindDir {
		return nil
	}
	for d := dir; ; {
		if slices.Contains(n.members(), d.id) {
			return ErrInvalidMove
		}
		if d.id == Root {
			return nil
		}
		var err error
		if d, err = x.node(d.place.parent); err != nil {
			return err
		}
	}
}

// rename makes the ops.
func (x *txn) rename(now int64, r *renaming, oldName, newName string, flags RenameFlags) error {
	// What is replaced goes first: it may be a content of the file that is moved.
	if err := x.dropReplaced(now, r, flags); err != nil {
		return err
	}
	if flags != Exchange {
		if err := x.settleBehind(now, r.from, &r.src); err != nil {
			return err
		}
	}
	if err := x.leaving(now, &r.src); err != nil {
		return err
	}
	from, err := x.host(r.from)
	if err != nil {
		return err
	}
	to, err := x.host(r.to)
	if err != nil {
		return err
	}
	var replaced *part // that the op itself removes, from the directory that its step leads to
	if flags != Exchange && r.taken && r.dst.head == nil {
		replaced = &r.dst.parts[0]
		if to, err = x.node(replaced.dir); err != nil {
			return err
		}
	}
	there, rest := r.src.steps(to, newName)
	op := &pb.Op{Time: now}
	if flags == Exchange {
		back, more := r.dst.steps(from, oldName)
		a, more1 := there[0], there[1:]
		b, more2 := back[0], back[1:]
		rest = append(rest, more...)
		op.Body = &pb.Op_Exchange{Exchange: &pb.Exchange{A: a, B: b, More: append(more1, more2...)}}
	} else {
		body := &pb.Rename{Step: there[0], More: there[1:]}
		if replaced != nil {
			body.Replaced = replaced.removal(r.dst.demotedIn(replaced.dir))
		}
		op.Body = &pb.Op_Rename{Rename: body}
	}
	if len(there) > maxSteps/2 {
		return ErrTooLarge
	}
	if _, err := x.emit(op); err != nil {
		return err
	}
	return x.finishRename(now, r, rest, flags)
}

// dropReplaced removes what goes with, or as a part of, what a rename replaces, but for what its op itself removes.
func (x *txn) dropReplaced(now int64, r *renaming, flags RenameFlags) (err error) {
	if !r.taken {
		return nil
	}
	if r.dst.head != nil {
		r.dropped, err = x.drop(now, r.dst.head)
		return err
	}
	if err := x.leaving(now, &r.dst); err != nil || flags == Exchange {
		return err
	}
	for _, p := range append(slices.Clone(r.dst.parts[1:]), r.dst.copies...) {
		body := &pb.Remove{Parent: p.dir[:], Removal: p.removal(r.dst.demotedIn(p.dir))}
		if _, err := x.emit(&pb.Op{Time: now, Body: &pb.Op_Remove{Remove: body}}); err != nil {
			return err
		}
	}
	return nil
}

// finishRename does what the op of a rename could not.
func (x *txn) finishRename(now int64, r *renaming, rest []*pb.Step, flags RenameFlags) error {
	for _, body := range asRenames(rest) {
		if _, err := x.emit(&pb.Op{Time: now, Body: &pb.Op_Rename{Rename: body}}); err != nil {
			return err
		}
	}
	if err := x.removeParts(now, &r.src, r.src.copies); err != nil {
		return err
	}
	if flags == Exchange {
		return x.removeParts(now, &r.dst, r.dst.copies)
	}
	return x.demoteRest(now, &r.dst)
}

// steps returns the steps that bring what was found to another name: those that
// must be one op, for directories shown as one stay so by that, and the rest.
func (f *found) steps(to *node, name string) (one, rest []*pb.Step) {
	for _, p := range f.parts {
		s := &pb.Step{Node: p.n.id[:], From: p.dir[:], FromName: []byte(p.slot), Entries: p.entries, Demoted: f.demotedIn(p.dir),
			To: to.id[:], ToName: []byte(name)}
		if f.kind == KindDir || len(one) == 0 {
			one = append(one, s)
		} else {
			rest = append(rest, s)
		}
	}
	return one, rest
}
