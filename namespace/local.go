package namespace

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
	pb "github.com/foreverfs/forever/namespace/namespacepb"
)

// emit applies a local op and keeps it as pending.
func (x *txn) emit(op *pb.Op) (OpID, error) {
	x.meta.clock++
	x.emitted++
	id := OpID{x.meta.clock, x.t.author}
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(append(make([]byte, 0, 128), x.t.author[:]...), op)
	if err != nil {
		return id, fmt.Errorf("encode an op: %w", err)
	}
	if len(b)-len(x.t.author) > MaxOp {
		return id, ErrTooLarge
	}
	if err := x.put(pendingKey(id.Lamport), b); err != nil {
		return id, err
	}
	return id, x.apply(id, op)
}

// dir returns a directory that may be worked in: it is visible.
func (x *txn) dir(id NodeID) (*node, error) {
	d, err := x.node(id)
	switch {
	case err != nil:
		return nil, err
	case d.kind != KindDir:
		return nil, ErrNotDir
	case !d.attached():
		return nil, ErrNotExist
	}
	return d, nil
}

// found is what a name in a directory led a local operation to.
type found struct {
	shown
	n       *node
	entries [][]byte // all entries of the node in the slot
	demoted [][]byte // entries that must keep their conflict names once it is gone
}

// find looks a name up. It returns ErrNotExist if there is nothing.
func (x *txn) find(d *node, name string) (f found, err error) {
	if err := checkName(name); err != nil {
		return f, err
	}
	s, err := x.slot(d.id, name)
	if err != nil {
		return f, err
	}
	var ok bool
	if f.shown, ok = s.resolve(name); !ok {
		return f, ErrNotExist
	}
	wins := f.slot == name
	if !wins {
		if s, err = x.slot(d.id, f.slot); err != nil {
			return f, err
		}
	}
	for i := range s.own {
		switch e := &s.own[i]; {
		case e.node == f.node:
			f.entries = append(f.entries, e.id.Append(nil))
		case wins && !e.demoted:
			f.demoted = append(f.demoted, e.id.Append(nil))
		}
	}
	f.n, err = x.node(f.node)
	return f, err
}

// removal builds the removal of what was found.
func (f *found) removal() *pb.Removal {
	return &pb.Removal{Node: f.n.id[:], Name: []byte(f.slot), Entries: f.entries, Seen: f.n.rev, Demoted: f.demoted}
}

// keep makes a directory stay that was removed elsewhere and is only there for
// what it holds, before an operation takes something out of it.
func (x *txn) keep(now int64, d *node) error {
	if !d.removed {
		return nil
	}
	_, err := x.emit(&pb.Op{Time: now, Body: &pb.Op_Keep{Keep: &pb.Keep{Node: d.id[:]}}})
	return err
}

// Create makes a node under a name that must be free, and returns it. now is Unix ns.
func (t *Tree) Create(now int64, parent NodeID, name string, spec CreateSpec) (n Node, err error) {
	if err := checkSpec(spec.Kind, spec.Mode, spec.Rdev, spec.Target); err != nil {
		return n, err
	}
	c := &pb.Create{Parent: parent[:], Name: []byte(name), Kind: uint32(spec.Kind), Mode: spec.Mode, Uid: spec.UID, Gid: spec.GID,
		Rdev: spec.Rdev, Target: []byte(spec.Target)}
	for _, k := range slices.Sorted(maps.Keys(spec.Xattrs)) {
		v := spec.Xattrs[k]
		if err := checkXattr(k, v); err != nil {
			return n, err
		}
		c.Xattrs = append(c.Xattrs, &pb.XattrValue{Name: []byte(k), Value: v})
	}
	err = t.update(func(x *txn) error {
		if err := x.free(parent, name); err != nil {
			return err
		}
		id, err := x.emit(&pb.Op{Time: now, Body: &pb.Op_Create{Create: c}})
		if err == nil {
			n = x.nodes[nodeIDOf(id)].public()
		}
		return err
	})
	return n, err
}

// free returns nil if a name may be made in a directory.
func (x *txn) free(parent NodeID, name string) error {
	d, err := x.dir(parent)
	if err != nil {
		return err
	}
	_, err = x.find(d, name)
	switch {
	case errors.Is(err, ErrNotExist):
		return nil
	case err == nil:
		return ErrExist
	}
	return err
}

// Link gives a node that is no directory another name, and returns the node.
func (t *Tree) Link(now int64, id, parent NodeID, name string) (out Node, err error) {
	err = t.update(func(x *txn) error {
		n, err := x.node(id)
		switch {
		case err != nil:
			return err
		case n.kind == KindDir:
			return ErrIsDir
		case n.links == 0:
			return ErrNotExist
		case n.links >= MaxLinks:
			return ErrTooManyLinks
		}
		if err := x.free(parent, name); err != nil {
			return err
		}
		_, err = x.emit(&pb.Op{Time: now, Body: &pb.Op_Link{Link: &pb.Link{Node: id[:], Parent: parent[:], Name: []byte(name)}}})
		out = n.public()
		return err
	})
	return out, err
}

// Unlink removes a name of anything but a directory, and returns the node as
// it is then: its Nlink says whether other names are left.
func (t *Tree) Unlink(now int64, parent NodeID, name string) (out Node, err error) {
	err = t.update(func(x *txn) error {
		d, err := x.dir(parent)
		if err != nil {
			return err
		}
		f, err := x.find(d, name)
		if err != nil {
			return err
		}
		if f.kind == KindDir {
			return ErrIsDir
		}
		err = x.takeOut(now, d, &f)
		out = f.n.public()
		return err
	})
	return out, err
}

func (x *txn) takeOut(now int64, d *node, f *found) error {
	if err := x.keep(now, d); err != nil {
		return err
	}
	_, err := x.emit(&pb.Op{Time: now, Body: &pb.Op_Remove{Remove: &pb.Remove{Parent: d.id[:], Removal: f.removal()}}})
	return err
}

// Rmdir removes an empty directory.
func (t *Tree) Rmdir(now int64, parent NodeID, name string) error {
	return t.update(func(x *txn) error {
		d, err := x.dir(parent)
		if err != nil {
			return err
		}
		f, err := x.find(d, name)
		switch {
		case err != nil:
			return err
		case f.kind != KindDir:
			return ErrNotDir
		case f.n.children > 0:
			return ErrNotEmpty
		}
		return x.takeOut(now, d, &f)
	})
}

// SetAttr changes attributes of a node and returns it.
func (t *Tree) SetAttr(now int64, id NodeID, c AttrChange) (out Node, err error) {
	if c.Mask == 0 || c.Mask&^attrAll != 0 {
		return out, ErrInvalidArgument
	}
	a := &pb.Attr{Node: id[:], Mask: uint32(c.Mask)}
	if c.Mask&AttrMode != 0 {
		a.Mode = c.Mode & modeBits
	}
	if c.Mask&AttrUID != 0 {
		a.Uid = c.UID
	}
	if c.Mask&AttrGID != 0 {
		a.Gid = c.GID
	}
	if c.Mask&AttrAtime != 0 {
		a.Atime = c.Atime
	}
	if c.Mask&AttrMtime != 0 {
		a.Mtime = c.Mtime
	}
	if c.Mask&AttrCtime != 0 {
		a.Ctime = c.Ctime
	}
	err = t.update(func(x *txn) error {
		n, err := x.node(id)
		if err != nil {
			return err
		}
		_, err = x.emit(&pb.Op{Time: now, Body: &pb.Op_Attr{Attr: a}})
		out = n.public()
		return err
	})
	return out, err
}

func checkXattr(name string, value []byte) error {
	if err := checkXattrName(name); err != nil {
		return err
	}
	if len(value) > MaxXattrValue {
		return ErrTooLarge
	}
	return nil
}

// SetXattr sets an extended attribute.
func (t *Tree) SetXattr(now int64, id NodeID, name string, value []byte) error {
	if err := checkXattr(name, value); err != nil {
		return err
	}
	return t.update(func(x *txn) error {
		if _, err := x.node(id); err != nil {
			return err
		}
		_, err := x.emit(&pb.Op{Time: now, Body: &pb.Op_Xattr{Xattr: &pb.Xattr{Node: id[:], Name: []byte(name), Value: value}}})
		return err
	})
}

// RemoveXattr removes an extended attribute, or returns ErrNoXattr.
func (t *Tree) RemoveXattr(now int64, id NodeID, name string) error {
	return t.update(func(x *txn) error {
		if _, err := x.node(id); err != nil {
			return err
		}
		if _, err := getXattr(x.tx, id, name); err != nil {
			return err
		}
		_, err := x.emit(&pb.Op{Time: now, Body: &pb.Op_Xattr{Xattr: &pb.Xattr{Node: id[:], Name: []byte(name), Removed: true}}})
		return err
	})
}

// SetContent gives a file new content that was written knowing the contents in
// replaces (their zero values are left out); heads not among them stay. mtime is Unix ns. also,
// if not nil, runs in the same update of the state; the keys it writes must not be the tree's.
func (t *Tree) SetContent(now int64, id NodeID, v chunk.Version, mtime int64, replaces []OpID, also func(kv.Tx) error) (out Content, err error) {
	if err := checkVersion(&v); err != nil {
		return out, err
	}
	c := &pb.Content{Node: id[:], Size: uint64(v.Size), BlockLog: uint32(v.BlockLog), Height: uint32(v.Height), Inline: v.Inline, Mtime: mtime}
	if !v.Root.IsZero() {
		c.Root = v.Root[:]
	}
	for _, o := range replaces {
		if !o.IsZero() {
			c.Replaces = append(c.Replaces, o.Append(nil))
		}
	}
	err = t.update(func(x *txn) error {
		n, err := x.node(id)
		if err != nil {
			return err
		}
		if n.kind != KindFile {
			return fmt.Errorf("set the content of a %v: %w", n.kind, ErrInvalidArgument)
		}
		opID, err := x.emit(&pb.Op{Time: now, Body: &pb.Op_Content{Content: c}})
		if err != nil {
			return err
		}
		out = Content{opID, v}
		if also != nil {
			return also(x.tx)
		}
		return nil
	})
	return out, err
}
