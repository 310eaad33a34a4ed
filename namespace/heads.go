package namespace

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
	pb "github.com/foreverfs/forever/namespace/namespacepb"
)

// A file that several devices wrote without knowing of each other has several
// heads. The greatest shows under the file's names; each of the others shows as
// a file beside the oldest name, under a conflict name. Such a file is no node
// yet: its ID is made of the content op, and what it is can be told from the
// record under its headKey. The first local change of it (but a removal, which drops the content) makes
// it a node by an op, Fork, that two devices may well do both.

// headIndex is the index of the entry that stands for a content in a conflict name.
const headIndex = 255

// content returns the visible content of a file; it is zero if nothing was ever written.
func (n *node) content() (c Content) {
	if k := len(n.heads); k > 0 {
		c = n.heads[k-1]
	}
	return c
}

// losing returns which heads are shown as files of their own, the greatest
// first: not the visible one, and none that equals another.
func (n *node) losing() (out []int) {
	shown := make(map[held]bool, len(n.heads))
	for i := len(n.heads) - 1; i >= 0; i-- {
		h := heldBy(&n.heads[i].Version)
		if !shown[h] && i < len(n.heads)-1 {
			out = append(out, i)
		}
		shown[h] = true
	}
	return out
}

// decodeConflict reads a conflict from the record under its headKey.
func decodeConflict(b []byte) (c conflict, err error) {
	d := decoder{b: b}
	c = conflict{d.id(), string(d.bytes()), alias{string(d.bytes()), d.entry(), d.id(), Kind(d.u8())}, false}
	return c, d.err("head")
}

func (c *conflict) append(b []byte) []byte {
	b = appendBytes(appendBytes(append(b, c.dir[:]...), c.under), c.slot)
	return append(append(c.id.Append(b), c.node[:]...), byte(c.kind))
}

// head returns where a content is shown that is a file of its own, or ErrNotExist.
func head(r kv.Reader, id NodeID) (conflict, error) {
	v, err := r.Get(headKey(id))
	if errors.Is(err, kv.ErrNotFound) {
		return conflict{}, ErrNotExist
	}
	if err != nil {
		return conflict{}, fmt.Errorf("read the content %v: %w", id, err)
	}
	return decodeConflict(v)
}

// publicHead returns what the outside sees of a content that is shown as a file: the
// attributes are those of the file that it was written to.
func publicHead(owner *node, id NodeID, op OpID) (Node, bool) {
	i := slices.IndexFunc(owner.heads, func(h Content) bool { return h.ID == op })
	if i < 0 {
		return Node{}, false
	}
	p := owner.public()
	h := owner.heads[i]
	p.ID, p.Nlink, p.Content, p.Heads = id, 1, h, nil
	p.Mtime, p.Ctime = h.Mtime, h.Time
	return p, true
}

// ownerOf returns the file that a content belongs to which is shown as c.
func (x *txn) ownerOf(c *conflict) (*node, error) {
	u, err := x.union(c.dir, c.slot)
	if err != nil {
		return nil, err
	}
	for _, e := range u.entries() {
		n, err := x.node(e.node)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(n.heads, func(h Content) bool { return h.ID == c.id.Op }) {
			return n, nil
		}
	}
	return nil, fmt.Errorf("find the file of content %v: %w", c.node, ErrDamaged)
}

// target returns a node that a local operation changes. A content that is shown
// as a file becomes one.
func (x *txn) target(now int64, id NodeID) (*node, error) {
	n, err := x.node(id)
	if err == nil {
		gone, err := x.expired(n)
		if gone {
			err = ErrNotExist
		}
		return n, err
	}
	if !errors.Is(err, ErrNotExist) {
		return n, err
	}
	c, err := head(x.tx, id)
	if err != nil {
		return nil, err
	}
	return x.fork(now, &c)
}

// fork makes a content that is shown as a file a node, under the name it has.
func (x *txn) fork(now int64, c *conflict) (*node, error) {
	owner, err := x.ownerOf(c)
	if err != nil {
		return nil, err
	}
	if err := x.forkHead(now, owner, c.id.Op, c.dir, c.under); err != nil {
		return nil, err
	}
	return x.node(c.node)
}

func (x *txn) forkHead(now int64, owner *node, op OpID, dir NodeID, name string) error {
	i := slices.IndexFunc(owner.heads, func(h Content) bool { return h.ID == op })
	if i < 0 {
		return fmt.Errorf("find content %v of %v: %w", op, owner.id, ErrDamaged)
	}
	h := owner.heads[i]
	// Those that did not show besides it, as they equal it, must not show now.
	alike := slices.DeleteFunc(owner.equalTo(op), func(b []byte) bool { return bytes.Equal(b, op.Append(nil)) })
	c := contentOp(owner.id, &h.Version, h.Mtime)
	all, err := x.xattrsOf(owner.id)
	if err != nil {
		return err
	}
	xattrs, more := splitXattrs(all)
	_, err = x.emit(&pb.Op{Time: now, Body: &pb.Op_Fork{Fork: &pb.Fork{Parent: dir[:], Name: []byte(name), Mode: owner.mode.val,
		Uid: owner.uid.val, Gid: owner.gid.val, Of: op.Append(nil), Time: h.Time, Content: c, Xattrs: xattrs}}})
	if err == nil {
		err = x.setXattrs(now, forkIDOf(op), more)
	}
	if err == nil && len(alike) > 0 {
		_, err = x.emit(&pb.Op{Time: now, Body: &pb.Op_Drop{Drop: &pb.Drop{Node: owner.id[:], Contents: alike}}})
	}
	return err
}

// forkAll makes every content of a file a node that is shown as a file, before
// the name goes beside which they are shown.
func (x *txn) forkAll(now int64, n *node, dir NodeID, slot string) error {
	if len(n.heads) < 2 {
		return nil
	}
	p, ok, err := x.firstPlace(n)
	if err != nil || !ok || p.dir != dir || p.name != slot {
		return err
	}
	heads := n.heads // each fork takes one off
	for _, i := range n.losing() {
		op := heads[i].ID
		c, err := head(x.tx, forkIDOf(op))
		if err != nil {
			return fmt.Errorf("find where a content of %v is shown: %w", n.id, err)
		}
		if err := x.forkHead(now, n, op, c.dir, c.under); err != nil {
			return err
		}
	}
	return nil
}

// drop gives up a content that is shown as a file, and returns it as it is then.
func (x *txn) drop(now int64, c *conflict) (out Node, err error) {
	owner, err := x.ownerOf(c)
	if err != nil {
		return out, err
	}
	out, _ = publicHead(owner, c.node, c.id.Op)
	out.Nlink = 0
	_, err = x.emit(&pb.Op{Time: now, Body: &pb.Op_Drop{Drop: &pb.Drop{Node: owner.id[:], Contents: owner.equalTo(c.id.Op)}}})
	return out, err
}

// equalTo returns the contents of a file that equal one of them and do not show, that one included.
func (n *node) equalTo(op OpID) (ops [][]byte) {
	i := slices.IndexFunc(n.heads, func(h Content) bool { return h.ID == op })
	if i < 0 {
		return nil
	}
	for _, h := range n.heads[:len(n.heads)-1] {
		if sameVersion(&h.Version, &n.heads[i].Version) {
			ops = append(ops, h.ID.Append(nil))
		}
	}
	return ops
}

func (x *txn) applyFork(id OpID, now int64, f *pb.Fork) error {
	dir, err := x.refDir(f.Parent)
	if err != nil {
		return err
	}
	owner, err := x.ref(f.Content.Node)
	if err != nil {
		return err
	}
	if owner.kind != KindFile {
		return invalid("op takes a content of a %v", owner.kind)
	}
	of, _ := parseOpID(f.Of)
	if err := x.knew(of); err != nil {
		return err
	}
	n, err := x.forked(id, now, owner, of, f)
	if err != nil {
		return err
	}
	n.rev++
	if err := x.keepAlive(dir); err != nil {
		return err
	}
	x.stamp(dir, id, now)
	if err := x.addEntry(dir, string(f.Name), slotEntry{id: EntryID{Op: id}, node: n.id, kind: KindFile, time: now}, n); err != nil {
		return err
	}
	if err := x.editHeads(owner, func() error { return x.endHeads(owner, []OpID{of}) }); err != nil {
		return err
	}
	return x.revive(n, nil, false)
}

// forked returns the node that a content becomes, which another device may have made one already.
func (x *txn) forked(id OpID, now int64, owner *node, of OpID, f *pb.Fork) (*node, error) {
	n, err := x.node(forkIDOf(of))
	if errors.Is(err, ErrNotExist) {
		c, err := x.contentOf(owner, of, f)
		if err != nil {
			return nil, err
		}
		n = &node{id: forkIDOf(of), kind: KindFile, created: of, btime: f.Time, heads: []Content{c}}
		n.mtime = register[int64]{c.Mtime, of}
		x.nodes[n.id] = n
	} else if err != nil {
		return nil, err
	}
	if n.created != of || n.kind != KindFile {
		return nil, invalid("op makes node %v, which exists", n.id)
	}
	n.mode.set(id, f.Mode)
	n.uid.set(id, f.Uid)
	n.gid.set(id, f.Gid)
	n.ctime.set(id, now)
	n.atime.set(id, now)
	x.touch(n)
	for _, a := range f.Xattrs {
		if err := x.putXattr(n.id, string(a.Name), xattr{op: id, set: true, value: a.Value}); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// contentOf returns the content that a fork is of: what is known here, not what the op claims, unless it was forgotten.
func (x *txn) contentOf(owner *node, of OpID, f *pb.Fork) (Content, error) {
	for _, h := range owner.heads {
		if h.ID == of {
			return h, nil
		}
	}
	v, err := x.tx.Get(pastKey(owner.id, of))
	if errors.Is(err, kv.ErrNotFound) {
		return contentOf(of, f.Time, f.Content), nil
	}
	if err != nil {
		return Content{}, fmt.Errorf("read a content of %v: %w", owner.id, err)
	}
	d := decoder{b: v}
	c := d.content()
	return c, d.err("content")
}

func (x *txn) applyDrop(d *pb.Drop) error {
	n, err := x.ref(d.Node)
	if err != nil {
		return err
	}
	ops := make([]OpID, len(d.Contents))
	for i, b := range d.Contents {
		ops[i], _ = parseOpID(b)
		if err := x.knew(ops[i]); err != nil {
			return err
		}
	}
	return x.editHeads(n, func() error { return x.endHeads(n, ops) })
}

// knew returns nil if the author of an op knew another.
func (x *txn) knew(o OpID) error {
	if x.causes == nil {
		return nil
	}
	ok, err := x.causes.knows(o)
	if err == nil && !ok {
		err = invalid("op names a content its author did not know")
	}
	return err
}

// endHeads takes contents off a file's heads; they go on in its history.
func (x *txn) endHeads(n *node, ops []OpID) error {
	for _, o := range ops {
		i := slices.IndexFunc(n.heads, func(h Content) bool { return h.ID == o })
		if i < 0 {
			continue
		}
		if err := x.put(pastKey(n.id, o), appendContent(nil, &n.heads[i])); err != nil {
			return err
		}
		n.heads = slices.Delete(slices.Clone(n.heads), i, i+1)
		x.touch(n)
	}
	return nil
}

func (x *txn) applyDemote(id OpID, d *pb.Demote) error {
	dir, err := x.refDir(d.Parent)
	if err != nil {
		return err
	}
	ids, err := x.entries(d.Entries)
	if err != nil {
		return err
	}
	if err := x.demote(id, dir.id, string(d.Name), ids); err != nil {
		return err
	}
	for _, more := range d.More {
		if err := x.applyDemote(id, more); err != nil {
			return err
		}
	}
	return nil
}

func contentOf(id OpID, now int64, c *pb.Content) Content {
	out := Content{ID: id, Mtime: c.Mtime, Time: now, Version: versionOf(c)}
	// The inline bytes are copied: the record outlives the op.
	out.Inline = slices.Clone(c.Inline)
	return out
}

// versionOf returns what a content is, in which the inline bytes are the op's. It turns round what contentOp does.
func versionOf(c *pb.Content) chunk.Version {
	v := chunk.Version{Size: int64(c.Size), BlockLog: uint8(c.BlockLog), Height: uint8(c.Height), Holes: int64(c.Holes), Inline: c.Inline}
	copy(v.Root[:], c.Root)
	return v
}

// xattrsOf returns the extended attributes of a file.
func (x *txn) xattrsOf(id NodeID) (out []*pb.XattrValue, err error) {
	prefix := xattrKey(id, "")
	var inner error
	err = x.tx.Scan(prefix, kv.PrefixEnd(prefix), func(k, v []byte) bool {
		var a xattr
		if a, inner = decodeXattr(v); a.set {
			out = append(out, &pb.XattrValue{Name: slices.Clone(k[len(prefix):]), Value: slices.Clone(a.value)})
		}
		return inner == nil
	})
	if err := errors.Join(inner, err); err != nil {
		return nil, fmt.Errorf("read the extended attributes of %v: %w", id, err)
	}
	return out, nil
}
