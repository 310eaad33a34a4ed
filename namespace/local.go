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

// Create makes a node under a name that must be free, and returns it. now is Unix ns.
func (t *Tree) Create(now int64, parent NodeID, name string, spec CreateSpec) (n Node, err error) {
	c, err := createOp(name, spec)
	if err != nil {
		return n, err
	}
	err = t.update(func(x *txn) error {
		made, err := x.create(now, parent, c)
		if err == nil {
			n, err = x.public(made)
		}
		return err
	})
	return n, err
}

// createOp builds the op that makes a node, but for its parent.
func createOp(name string, spec CreateSpec) (*pb.Create, error) {
	if err := checkSpec(spec.Kind, spec.Mode, spec.Rdev, spec.Target); err != nil {
		return nil, err
	}
	c := &pb.Create{Name: []byte(name), Kind: uint32(spec.Kind), Mode: spec.Mode, Uid: spec.UID, Gid: spec.GID,
		Rdev: spec.Rdev, Target: []byte(spec.Target)}
	for _, k := range slices.Sorted(maps.Keys(spec.Xattrs)) {
		v := spec.Xattrs[k]
		if err := checkXattr(k, v); err != nil {
			return nil, err
		}
		c.Xattrs = append(c.Xattrs, &pb.XattrValue{Name: []byte(k), Value: v})
	}
	return c, nil
}

// create makes a node in a directory, under a name that must be free. Extended attributes that are too much for
// one op it sets by others.
func (x *txn) create(now int64, parent NodeID, c *pb.Create) (*node, error) {
	host, err := x.free(parent, string(c.Name))
	if err != nil {
		return nil, err
	}
	c.Parent = host.id[:]
	var more []*pb.XattrValue
	c.Xattrs, more = splitXattrs(c.Xattrs)
	id, err := x.emit(&pb.Op{Time: now, Body: &pb.Op_Create{Create: c}})
	if err == nil && len(c.Xattrs) == 0 {
		x.t.fresh.made(nodeIDOf(id), Kind(c.Kind))
	}
	if err == nil {
		err = x.setXattrs(now, nodeIDOf(id), more)
	}
	return x.nodes[nodeIDOf(id)], err
}

// free returns the directory that takes a name, which must be free.
func (x *txn) free(parent NodeID, name string) (*node, error) {
	d, err := x.dir(parent)
	if err != nil {
		return nil, err
	}
	_, err = x.find(d, name)
	switch {
	case errors.Is(err, ErrNotExist):
		return x.host(d)
	case err == nil:
		err = ErrExist
	}
	return nil, err
}

// Link gives a node that is no directory another name, and returns the node.
func (t *Tree) Link(now int64, id, parent NodeID, name string) (out Node, err error) {
	return t.link(now, id, parent, name, false)
}

// LinkUnnamed is Link for a node that may have lost its last name, as long as others still know it.
func (t *Tree) LinkUnnamed(now int64, id, parent NodeID, name string) (out Node, err error) {
	return t.link(now, id, parent, name, true)
}

func (t *Tree) link(now int64, id, parent NodeID, name string, unnamed bool) (out Node, err error) {
	err = t.update(func(x *txn) error {
		host, err := x.free(parent, name)
		if err != nil {
			return err
		}
		n, err := x.target(now, id)
		switch {
		case err != nil:
			return err
		case n.kind == KindDir:
			return ErrIsDir
		case n.links == 0 && !unnamed:
			return ErrNotExist
		case n.links >= MaxLinks:
			return ErrTooManyLinks
		}
		_, err = x.emit(&pb.Op{Time: now, Body: &pb.Op_Link{Link: &pb.Link{Node: id[:], Parent: host.id[:], Name: []byte(name)}}})
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
		switch {
		case err != nil:
			return err
		case f.kind == KindDir:
			return ErrIsDir
		case f.head != nil:
			out, err = x.drop(now, f.head)
			return err
		}
		err = x.takeOut(now, d, &f)
		out = f.n.public()
		return err
	})
	return out, err
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
		}
		if children, err := x.childrenOf(f.n); err != nil || children > 0 {
			return errors.Join(err, ErrNotEmpty)
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
		n, err := x.target(now, id)
		if err != nil {
			return err
		}
		if _, err := x.emit(&pb.Op{Time: now, Body: &pb.Op_Attr{Attr: a}}); err != nil {
			return err
		}
		out, err = x.public(n)
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
		if _, err := x.target(now, id); err != nil {
			return err
		}
		_, err := x.emit(&pb.Op{Time: now, Body: &pb.Op_Xattr{Xattr: &pb.Xattr{Node: id[:], Name: []byte(name), Value: value}}})
		return err
	})
}

// RemoveXattr removes an extended attribute, or returns ErrNoXattr.
func (t *Tree) RemoveXattr(now int64, id NodeID, name string) error {
	return t.update(func(x *txn) error {
		n, err := x.target(now, id)
		if err != nil {
			return err
		}
		if _, err := getXattr(x.tx, n.members(), name); err != nil {
			return err
		}
		_, err = x.emit(&pb.Op{Time: now, Body: &pb.Op_Xattr{Xattr: &pb.Xattr{Node: id[:], Name: []byte(name), Removed: true}}})
		return err
	})
}

// SetContent gives a file new content that was written knowing the contents in
// replaces (their zero values are left out); heads not among them stay. mtime is Unix ns. also,
// if not nil, runs in the same update of the state; the keys it writes must not be the tree's.
func (t *Tree) SetContent(now int64, id NodeID, v chunk.Version, mtime int64, replaces []OpID, also func(kv.Tx) error) (out Content, err error) {
	return t.setContent(now, id, v, mtime, replaces, false, also)
}

// Revive is SetContent for a file that was being written when others, who did not know of that, removed its last
// name: if it has none, it brings that back.
func (t *Tree) Revive(now int64, id NodeID, v chunk.Version, mtime int64, replaces []OpID, also func(kv.Tx) error) (out Content, err error) {
	return t.setContent(now, id, v, mtime, replaces, true, also)
}

func (t *Tree) setContent(now int64, id NodeID, v chunk.Version, mtime int64, replaces []OpID, revive bool, also func(kv.Tx) error) (out Content, err error) {
	if err := checkVersion(&v); err != nil {
		return out, err
	}
	c := contentOp(id, &v, mtime)
	err = t.update(func(x *txn) error {
		n, err := x.target(now, id)
		if err != nil {
			return err
		}
		if n.kind != KindFile {
			return fmt.Errorf("set the content of a %v: %w", n.kind, ErrInvalidArgument)
		}
		c.Replaces = n.replaced(replaces)
		if revive {
			if c.Revives, err = x.comingBack(n, nil); err != nil {
				return err
			}
		}
		if err := x.dropCopies(now, n); err != nil {
			return err
		}
		opID, err := x.emit(&pb.Op{Time: now, Body: &pb.Op_Content{Content: c}})
		if err != nil {
			return err
		}
		out = Content{opID, v, mtime, now}
		if also != nil {
			return also(x.tx)
		}
		return nil
	})
	return out, err
}

// contentOp builds the op that writes a content.
func contentOp(id NodeID, v *chunk.Version, mtime int64) *pb.Content {
	c := &pb.Content{Node: id[:], Size: uint64(v.Size), BlockLog: uint32(v.BlockLog), Height: uint32(v.Height), Holes: uint64(v.Holes), Inline: v.Inline, Mtime: mtime}
	if !v.Root.IsZero() {
		c.Root = v.Root[:]
	}
	return c
}

// replaced returns what a write replaces that knew some contents: those, and
// the heads that equal one of them, as they did not show besides it.
func (n *node) replaced(known []OpID) (out [][]byte) {
	for _, o := range known {
		if !o.IsZero() {
			out = append(out, o.Append(nil))
		}
	}
	seen := map[held]bool{}
	for i := range n.heads {
		if slices.Contains(known, n.heads[i].ID) {
			seen[heldBy(&n.heads[i].Version)] = true
		}
	}
	for i := range n.heads {
		h := &n.heads[i]
		if seen[heldBy(&h.Version)] && !slices.Contains(known, h.ID) {
			out = append(out, h.ID.Append(nil))
		}
	}
	return out
}
