package namespace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

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

// load returns the record of a node from the state.
func (t *Tree) load(id NodeID) (*node, error) {
	n := &node{}
	return n, t.read(id, n)
}

// Node returns a node, also one whose last name is gone (its Nlink is 0), or ErrNotExist.
func (t *Tree) Node(id NodeID) (Node, error) {
	var n node
	err := t.read(id, &n)
	if errors.Is(err, ErrNotExist) {
		return t.headNode(id)
	}
	if err != nil {
		return Node{}, err
	}
	if n.kind == KindDir && t.meta.merged > 0 {
		return combine(&n, t.load)
	}
	return n.public(), nil
}

// headNode returns a content that is shown as a file.
func (t *Tree) headNode(id NodeID) (Node, error) {
	owner, c, err := t.headOwner(id)
	if err != nil {
		return Node{}, err
	}
	p, ok := publicHead(owner, id, c.id.Op)
	if !ok {
		return Node{}, fmt.Errorf("find content %v: %w", id, ErrDamaged)
	}
	return p, nil
}

// headOwner returns the file whose content is shown as another.
func (t *Tree) headOwner(id NodeID) (*node, conflict, error) {
	c, err := head(t.db, id)
	if err != nil {
		return nil, c, err
	}
	u, err := t.union(c.dir, c.slot)
	if err != nil {
		return nil, c, err
	}
	for _, e := range u.entries() {
		n, err := t.load(e.node)
		if err != nil {
			return nil, c, err
		}
		if slices.ContainsFunc(n.heads, func(h Content) bool { return h.ID == c.id.Op }) {
			return n, c, nil
		}
	}
	return nil, c, ErrNotExist
}

// members returns the directories that one is shown as one with, that one included.
func (t *Tree) members(dir NodeID) ([]NodeID, error) {
	if t.meta.merged == 0 {
		return []NodeID{dir}, nil
	}
	n, err := t.load(dir)
	if err != nil {
		return nil, err
	}
	return n.members(), nil
}

// union loads one name of a directory.
func (t *Tree) union(dir NodeID, name string) (u union, err error) {
	u.name = name
	if u.dirs, err = t.members(dir); err != nil {
		return u, err
	}
	for _, d := range u.dirs {
		s, err := t.readSlot(t.db, d, name)
		if err != nil {
			return u, fmt.Errorf("look up in %v: %w", dir, err)
		}
		u.slots = append(u.slots, s)
	}
	return u, nil
}

// readSlot returns the record of a slot as r has it, empty if there is none.
func (t *Tree) readSlot(r kv.Reader, dir NodeID, name string) (*slot, error) {
	s := &slot{}
	if t.fresh.lacksName(dir, name) {
		return s, nil
	}
	v, err := r.Get(slotKey(dir, name))
	if errors.Is(err, kv.ErrNotFound) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	return s, decodeSlot(v, s)
}

// NodeByIno returns the node whose inode number is ino, or ErrNotExist. If
// several nodes share the number, it returns the one with the smallest ID.
func (t *Tree) NodeByIno(ino uint64) (Node, error) {
	if ino == Root.Ino() {
		return t.Node(Root)
	}
	for _, kind := range []byte{keyNode, keyHead} {
		lo := binary.BigEndian.AppendUint64(key(kind), ino)
		var id NodeID
		found := false
		err := t.db.Scan(lo, kv.PrefixEnd(lo), func(k, _ []byte) bool {
			id, found = NodeID(k[2:]), true
			return false
		})
		if err != nil {
			return Node{}, fmt.Errorf("read inode %d: %w", ino, err)
		}
		if found {
			return t.Node(id)
		}
	}
	return Node{}, ErrNotExist
}

// Lookup returns what a name in a directory leads to: ErrNotExist if nothing,
// ErrNotDir if dir is none.
func (t *Tree) Lookup(dir NodeID, name string) (Entry, error) {
	u, err := t.union(dir, name)
	if err != nil {
		return Entry{}, err
	}
	e, ok := u.resolve()
	if !ok {
		return Entry{}, t.missing(dir)
	}
	return t.entry(name, e)
}

// entry returns what is shown, of directories shown as one the oldest.
func (t *Tree) entry(name string, e shown) (Entry, error) {
	if e.merged {
		dirs, err := t.members(e.node)
		if err != nil {
			return Entry{}, err
		}
		e.node = dirs[0]
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
	return t.ListInto(nil, dir, after, max)
}

// ListInto is List that returns its entries in the memory of buf, whatever that held, if they fit.
func (t *Tree) ListInto(buf []Entry, dir NodeID, after string, max int) ([]Entry, error) {
	var n node
	if err := t.read(dir, &n); err != nil || max <= 0 {
		return nil, err
	}
	if n.kind != KindDir {
		return nil, ErrNotDir
	}
	if len(n.class) == 0 {
		return t.listOne(buf[:0], dir, after, max)
	}
	out := buf[:0]
	for name := after; len(out) < max; {
		u, more, err := t.nextNames(n.members(), name, max-len(out))
		if err != nil {
			return nil, fmt.Errorf("list %v: %w", dir, err)
		}
		for i := range u {
			if e, ok := u[i].resolve(); ok && len(out) < max {
				shown, err := t.entry(u[i].name, e)
				if err != nil {
					return nil, fmt.Errorf("list %v: %w", dir, err)
				}
				out = append(out, shown)
			}
		}
		if !more {
			break
		}
		name = u[len(u)-1].name
	}
	return out, nil
}

// listGuess is for how many entries memory is taken before it is known how many there are.
const listGuess = 64

// listOne appends to out what List returns for a directory that is not shown as one with others.
func (t *Tree) listOne(out []Entry, dir NodeID, after string, max int) ([]Entry, error) {
	out = slices.Grow(out, min(max, listGuess))
	merged := map[int]shown{} // of out, those that are not known yet
	u := union{dirs: []NodeID{dir}, slots: []*slot{nil}}
	_, _, err := t.scanNames(dir, after, func(name string, s *slot) bool {
		u.name, u.slots[0] = name, s
		if e, ok := u.resolve(); ok {
			if e.merged {
				merged[len(out)] = e
			}
			out = append(out, Entry{Name: name, Node: e.node, Kind: e.kind, ID: e.id})
		}
		return len(out) < max
	})
	for i, e := range merged {
		if err == nil {
			out[i], err = t.entry(out[i].Name, e)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list %v: %w", dir, err)
	}
	return out, nil
}

// nextNames loads the names of directories shown as one that come after a
// name, at most max of them, and reports whether there may be more.
func (t *Tree) nextNames(dirs []NodeID, after string, max int) (out []union, more bool, err error) {
	byName := map[string]int{}
	limit := "" // names above it are not complete
	for i, dir := range dirs {
		left := max
		n, last, err := t.scanNames(dir, after, func(name string, s *slot) bool {
			j, ok := byName[name]
			if !ok {
				j = len(out)
				out = append(out, union{name: name, dirs: dirs, slots: make([]*slot, len(dirs))})
				byName[name] = j
				for k := range dirs {
					out[j].slots[k] = &slot{}
				}
			}
			out[j].slots[i] = &slot{own: slices.Clone(s.own), aliases: s.aliases}
			left--
			return left > 0
		})
		if err != nil {
			return nil, false, err
		}
		if n == max {
			more = true
			if limit == "" || last < limit {
				limit = last
			}
		}
	}
	slices.SortFunc(out, func(a, b union) int { return strings.Compare(a.name, b.name) })
	if more {
		out = slices.DeleteFunc(out, func(u union) bool { return u.name > limit })
	}
	return out, more, nil
}

// scanNames calls fn for the names of a directory after one until it returns false; the slot and its entries
// are valid only until then. It returns their number and the last.
func (t *Tree) scanNames(dir NodeID, after string, fn func(string, *slot) bool) (n int, last string, err error) {
	prefix := slotKey(dir, "")
	lo := slotKey(dir, after)
	if after != "" {
		lo = append(lo, 0)
	}
	var inner error
	var s slot
	err = t.db.Scan(lo, kv.PrefixEnd(prefix), func(k, v []byte) bool {
		s = slot{own: s.own[:0]}
		if inner = decodeSlot(v, &s); inner != nil {
			return false
		}
		last = string(k[len(prefix):])
		n++
		return fn(last, &s)
	})
	return n, last, errors.Join(inner, err)
}

// xattrNodes returns the nodes that hold the extended attributes of one.
func (t *Tree) xattrNodes(id NodeID) ([]NodeID, error) {
	n, err := t.load(id)
	if errors.Is(err, ErrNotExist) {
		owner, _, err := t.headOwner(id)
		if errors.Is(err, ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return []NodeID{owner.id}, nil
	}
	if err != nil {
		return nil, err
	}
	return n.members(), nil
}

// Xattr returns the value of an extended attribute, or ErrNoXattr. The value is the caller's own.
func (t *Tree) Xattr(id NodeID, name string) ([]byte, error) {
	if t.fresh.isBare(id) {
		return nil, ErrNoXattr
	}
	ids, err := t.xattrNodes(id)
	if err != nil {
		return nil, err
	}
	return getXattr(t.db, ids, name)
}

// Xattrs returns the names of a node's extended attributes in byte order.
func (t *Tree) Xattrs(id NodeID) ([]string, error) {
	ids, err := t.xattrNodes(id)
	if err != nil {
		return nil, err
	}
	best := map[string]xattr{}
	for _, id := range ids {
		prefix := xattrKey(id, "")
		var inner error
		err := t.db.Scan(prefix, kv.PrefixEnd(prefix), func(k, v []byte) bool {
			var a xattr
			a, inner = decodeXattr(v)
			if name := string(k[len(prefix):]); a.op.Compare(best[name].op) > 0 {
				best[name] = xattr{op: a.op, set: a.set}
			}
			return inner == nil
		})
		if err := errors.Join(inner, err); err != nil {
			return nil, fmt.Errorf("list the extended attributes of %v: %w", id, err)
		}
	}
	var out []string
	for name, a := range best {
		if a.set {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}
