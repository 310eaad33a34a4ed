package namespace

import (
	"errors"

	pb "github.com/foreverfs/forever/namespace/namespacepb"
)

// renaming is a Rename on its way.
type renaming struct {
	from, to *node
	src, dst found
	taken    bool // dst is there
}

// Rename moves a name. Without flags it replaces what the new name was: a
// file, or an empty directory by a directory. Two names of one file stay as they are. It returns the
// moved node and, if there was one, the node replaced (or, with Exchange, exchanged) as it is then.
func (t *Tree) Rename(now int64, oldParent NodeID, oldName string, newParent NodeID, newName string, flags RenameFlags) (moved Node, replaced *Node, err error) {
	if flags > Exchange || flags == NoReplace|Exchange {
		return moved, nil, ErrInvalidArgument
	}
	err = t.update(func(x *txn) error {
		r, err := x.prepareRename(oldParent, oldName, newParent, newName)
		if err != nil {
			return err
		}
		if err := x.checkRename(&r, flags); err != nil {
			return err
		}
		if !r.taken || r.dst.n != r.src.n {
			err = x.rename(now, &r, oldName, newName, flags)
		}
		if err != nil {
			return err
		}
		moved = r.src.n.public()
		if r.taken && r.dst.n != r.src.n {
			n := r.dst.n.public()
			replaced = &n
		}
		return nil
	})
	return moved, replaced, err
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
	case r.taken && r.src.n == r.dst.n:
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
	case dstDir && r.dst.n.children > 0:
		return ErrNotEmpty
	}
	return nil
}

// checkBelow refuses to move n into dir if dir lies below it.
func (x *txn) checkBelow(dir, n *node) error {
	if n.kind != KindDir {
		return nil
	}
	m := moving{x: x}
	below, err := m.below(dir.id, n.id)
	if err == nil && below {
		err = ErrInvalidMove
	}
	return err
}

// rename makes the ops.
func (x *txn) rename(now int64, r *renaming, oldName, newName string, flags RenameFlags) error {
	if err := x.keep(now, r.from); err != nil {
		return err
	}
	there := makeStep(r.from, &r.src, r.to, newName)
	op := &pb.Op{Time: now}
	if flags == Exchange {
		if err := x.keep(now, r.to); err != nil {
			return err
		}
		op.Body = &pb.Op_Exchange{Exchange: &pb.Exchange{A: there, B: makeStep(r.to, &r.dst, r.from, oldName)}}
	} else {
		body := &pb.Rename{Step: there}
		if r.taken {
			body.Replaced = r.dst.removal()
		}
		op.Body = &pb.Op_Rename{Rename: body}
	}
	_, err := x.emit(op)
	return err
}

func makeStep(from *node, f *found, to *node, name string) *pb.Step {
	return &pb.Step{Node: f.n.id[:], From: from.id[:], FromName: []byte(f.slot), Entries: f.entries, Demoted: f.demoted,
		To: to.id[:], ToName: []byte(name)}
}
