package namespace

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/foreverfs/forever/internal/kv"
)

// read returns the record of a node from the state.
func (t *Tree) read(id NodeID, n *node) error {
	v, err := t.db.Get(nodeKey(id))
	if errors.Is(err, kv.ErrNotFound) {
		return ErrNotExist
	}
	if err != nil {
		return fmt.Errorf("read node %v: %w", id, err)
	}
	if err := decodeNode(id, v, n); err != nil {
		return fmt.Errorf("read node %v: %w", id, err)
	}
	return nil
}

// Node returns a node, also one whose last name is gone (its Nlink is 0), or ErrNotExist.
func (t *Tree) Node(id NodeID) (Node, error) {
	var n node
	if err := t.read(id, &n); err != nil {
		return Node{}, err
	}
	return n.public(), nil
}

// NodeByIno returns the node whose inode number is ino, or ErrNotExist. If
// several nodes share the number, it returns the one with the smallest ID.
func (t *Tree) NodeByIno(ino uint64) (Node, error) {
	if ino == Root.Ino() {
		return t.Node(Root)
	}
	lo := binary.BigEndian.AppendUint64(key(keyNode), ino)
	var n node
	found := false
	var inner error
	err := t.db.Scan(lo, kv.PrefixEnd(lo), func(k, v []byte) bool {
		found = true
		inner = decodeNode(NodeID(k[2:]), v, &n)
		return false
	})
	if err := errors.Join(inner, err); err != nil {
		return Node{}, fmt.Errorf("read inode %d: %w", ino, err)
	}
	if !found {
		return Node{}, ErrNotExist
	}
	return n.public(), nil
}

// Lookup returns what a name in a directory leads to: ErrNotExist if nothing,
// ErrNotDir if dir is none.
func (t *Tree) Lookup(dir NodeID, name string) (Entry, error) {
	v, err := t.db.Get(slotKey(dir, name))
	if errors.Is(err, kv.ErrNotFound) {
		return Entry{}, t.missing(dir)
	}
	if err != nil {
		return Entry{}, fmt.Errorf("look up in %v: %w", dir, err)
	}
	var s slot
	if err := decodeSlot(v, &s); err != nil {
		return Entry{}, fmt.Errorf("look up in %v: %w", dir, err)
	}
	e, ok := s.resolve(name)
	if !ok {
		return Entry{}, ErrNotExist
	}
	return Entry{Name: name, Node: e.node, Kind: e.kind, ID: e.id}, nil
}

// missing says why dir has no such name.
func (t *Tree) missing(dir NodeID) error {
	var n node
	if err := t.read(dir, &n); err != nil {
		return err
	}
	if n.kind != KindDir {
		return ErrNotDir
	}
	return ErrNotExist
}

// List returns up to max entries of a directory in byte order of their names,
// beginning after the name after; "" begins at the start. Fewer than max means
// there are no more.
func (t *Tree) List(dir NodeID, after string, max int) ([]Entry, error) {
	var n node
	if err := t.read(dir, &n); err != nil || max <= 0 {
		return nil, err
	}
	if n.kind != KindDir {
		return nil, ErrNotDir
	}
	prefix := slotKey(dir, "")
	lo := slotKey(dir, after)
	if after != "" {
		lo = append(lo, 0)
	}
	var out []Entry
	var inner error
	err := t.db.Scan(lo, kv.PrefixEnd(prefix), func(k, v []byte) bool {
		var s slot
		if inner = decodeSlot(v, &s); inner != nil {
			return false
		}
		name := string(k[len(prefix):])
		if e, ok := s.resolve(name); ok {
			out = append(out, Entry{Name: name, Node: e.node, Kind: e.kind, ID: e.id})
		}
		return len(out) < max
	})
	if err := errors.Join(inner, err); err != nil {
		return nil, fmt.Errorf("list %v: %w", dir, err)
	}
	return out, nil
}

// Xattr returns the value of an extended attribute, or ErrNoXattr. The value is the caller's own.
func (t *Tree) Xattr(id NodeID, name string) ([]byte, error) {
	return getXattr(t.db, id, name)
}

// Xattrs returns the names of a node's extended attributes in byte order.
func (t *Tree) Xattrs(id NodeID) ([]string, error) {
	prefix := xattrKey(id, "")
	var out []string
	var inner error
	err := t.db.Scan(prefix, kv.PrefixEnd(prefix), func(k, v []byte) bool {
		var a xattr
		if a, inner = decodeXattr(v); a.set {
			out = append(out, string(k[len(prefix):]))
		}
		return inner == nil
	})
	if err := errors.Join(inner, err); err != nil {
		return nil, fmt.Errorf("list the extended attributes of %v: %w", id, err)
	}
	return out, nil
}
