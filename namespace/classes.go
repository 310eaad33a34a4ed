package namespace

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/foreverfs/forever/internal/kv"
)

// Directories that were made under one name without knowing of each other are
// one to everybody who looks: their class. It is a matter of how the tree shows,
// not of where directories lie: each keeps its own place and its own slots, moves are
// judged between directories as ever, and a class ends when its members part. So a cycle of classes
// cannot be: the parents of a class's members are members of one class, and
// going up from member to member would go round among directories too.

// members returns the directories that d is shown as one with, d included, oldest first.
func (n *node) members() []NodeID {
	if len(n.class) > 0 {
		return n.class
	}
	return []NodeID{n.id}
}

// shadow reports whether d is shown as a part of an older directory.
func (n *node) shadow() bool { return len(n.class) > 0 && n.class[0] != n.id }

// regroup brings the classes of directories in line with what one name, or several, show.
func (x *txn) regroup(before, after [][]NodeID) error {
	classes := map[NodeID][]NodeID{}
	for _, g := range before {
		for _, id := range g {
			classes[id] = nil
		}
	}
	for _, g := range after {
		for _, id := range g {
			classes[id] = g
		}
	}
	involved := map[NodeID]*node{}
	for id, class := range classes {
		n, err := x.node(id)
		if err != nil {
			return fmt.Errorf("find directory %v: %w", id, err)
		}
		if !slices.Equal(n.class, class) {
			involved[id] = n
		}
	}
	if len(involved) == 0 {
		return nil
	}
	nodes := slices.SortedFunc(maps.Values(involved), func(a, b *node) int { return a.created.Compare(b.created) })
	return x.reclass(nodes, classes)
}

// reclass gives directories new classes, and lets the names in them follow.
func (x *txn) reclass(nodes []*node, classes map[NodeID][]NodeID) error {
	names, err := x.sharedNames(nodes)
	if err != nil {
		return err
	}
	var before, after view
	if err := x.viewAll(&before, nodes, names); err != nil {
		return err
	}
	for _, n := range nodes {
		if err := x.setClass(n, classes[n.id]); err != nil {
			return err
		}
	}
	if err := x.viewAll(&after, nodes, names); err != nil {
		return err
	}
	return x.show(&before, &after)
}

// viewAll computes what names show in all classes that nodes are of.
func (x *txn) viewAll(v *view, nodes []*node, names []string) error {
	var done []NodeID
	for _, n := range nodes {
		dirs := n.members()
		if slices.Contains(done, dirs[0]) {
			continue
		}
		done = append(done, dirs[0])
		for _, name := range names {
			u, err := x.unionOf(dirs, name)
			if err != nil {
				return err
			}
			if err := x.view(v, &u); err != nil {
				return err
			}
		}
	}
	return nil
}

// sharedNames returns the names that at least two of some directories have
// something under, and those whose conflict names these are. It reads all names of all but the largest of them.
func (x *txn) sharedNames(nodes []*node) ([]string, error) {
	bySize := slices.SortedStableFunc(slices.Values(nodes), func(a, b *node) int {
		switch {
		case a.children < b.children:
			return -1
		case a.children > b.children:
			return 1
		}
		return 0
	})
	shared := map[string]bool{}
	for i, n := range bySize[:len(bySize)-1] {
		names, err := x.ownNames(n.id)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			for _, other := range bySize[i+1:] {
				s, err := x.slot(other.id, name)
				if err != nil {
					return nil, err
				}
				if len(s.own) == 0 && len(s.aliases) == 0 {
					continue
				}
				shared[name] = true
				own, err := x.slot(n.id, name)
				if err != nil {
					return nil, err
				}
				for _, a := range append(slices.Clone(s.aliases), own.aliases...) {
					shared[a.slot] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(shared)), nil
}

// ownNames returns the names that a directory has something under, in no order.
func (x *txn) ownNames(dir NodeID) ([]string, error) {
	names := map[string]bool{}
	prefix := slotKey(dir, "")
	var inner error
	err := x.tx.Scan(prefix, kv.PrefixEnd(prefix), func(k, v []byte) bool {
		var s slot
		inner = decodeSlot(v, &s)
		names[string(k[len(prefix):])] = true
		return inner == nil
	})
	if err := errors.Join(inner, err); err != nil {
		return nil, fmt.Errorf("list %v: %w", dir, err)
	}
	for k, s := range x.slots { // which may not be written yet
		if k.Dir == dir {
			names[k.Name] = len(s.own) > 0 || len(s.aliases) > 0
		}
	}
	maps.DeleteFunc(names, func(_ string, there bool) bool { return !there })
	return slices.Collect(maps.Keys(names)), nil
}

// setClass makes a directory a member of a class, or of none.
func (x *txn) setClass(n *node, class []NodeID) error {
	was, merged := n.shadow(), len(n.class) > 0
	n.class = class
	x.touch(n)
	x.touchDir(n.id)
	if is := len(class) > 0; is != merged {
		x.meta.merged += uint64(b2i(is)) - uint64(b2i(merged))
	}
	if is := n.shadow(); is != was {
		parent, err := x.node(n.place.parent)
		if err != nil {
			return fmt.Errorf("find the parent of %v: %w", n.id, err)
		}
		by := uint64(b2i(was)) - uint64(b2i(is))
		parent.subdirs += by
		x.meta.dirs += by
		x.touch(parent)
	}
	s, err := x.slot(n.place.parent, n.place.name)
	if err != nil {
		return err
	}
	for i := range s.own {
		if e := &s.own[i]; e.node == n.id && e.id == n.place.id {
			e.merged, s.dirty = len(class) > 0, true
		}
	}
	return nil
}

// childrenOf counts what is in the slots of a directory's class.
func (x *txn) childrenOf(d *node) (sum uint64, err error) {
	for _, id := range d.members() {
		n, err := x.node(id)
		if err != nil {
			return 0, err
		}
		sum += n.children
	}
	return sum, nil
}

// host returns the directory that takes what is made in d: the oldest of its class.
func (x *txn) host(d *node) (*node, error) { return x.node(d.members()[0]) }

// combine returns what the outside sees of a directory: the greatest op of any
// member decides each attribute.
func combine(n *node, get func(NodeID) (*node, error)) (Node, error) {
	sum := *n
	subdirs := uint64(0)
	for _, id := range n.members() {
		m := n
		if id != n.id {
			var err error
			if m, err = get(id); err != nil {
				return Node{}, fmt.Errorf("find directory %v of a class: %w", id, err)
			}
		}
		sum.mode.set(m.mode.op, m.mode.val)
		sum.uid.set(m.uid.op, m.uid.val)
		sum.gid.set(m.gid.op, m.gid.val)
		sum.atime.set(m.atime.op, m.atime.val)
		sum.mtime.set(m.mtime.op, m.mtime.val)
		sum.ctime.set(m.ctime.op, m.ctime.val)
		subdirs += m.subdirs
	}
	sum.subdirs = subdirs
	parent, err := get(n.place.parent)
	if err != nil {
		return Node{}, fmt.Errorf("find the parent of %v: %w", n.id, err)
	}
	p := sum.public()
	p.Parent = parent.members()[0]
	return p, nil
}

// public returns what the outside sees of a node.
func (x *txn) public(n *node) (Node, error) {
	if n.kind != KindDir || x.meta.merged == 0 {
		return n.public(), nil
	}
	return combine(n, x.node)
}
