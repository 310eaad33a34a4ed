package namespace

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/foreverfs/forever/internal/kv"
)

// counted is what the slots say of a node.
type counted struct{ links, children, subdirs, entries uint64 }

// check returns an error unless the state holds together: every counter, every
// directory in its one place and no cycle, every conflict name, every class.
func check(t *Tree) error {
	x := &txn{}
	x.reset(t)
	return t.db.Update(func(tx kv.Tx) error {
		x.tx = tx
		counts, err := checkSlots(x)
		if err != nil {
			return err
		}
		if err := checkNodes(x, counts); err != nil {
			return err
		}
		return checkViews(x)
	})
}

func checkSlots(x *txn) (map[NodeID]counted, error) {
	counts := map[NodeID]counted{}
	var inner error
	prefix := key(keySlot)
	err := x.tx.Scan(prefix, kv.PrefixEnd(prefix), func(k, v []byte) bool {
		var s slot
		if inner = decodeSlot(v, &s); inner != nil {
			return false
		}
		dir, name := NodeID(k[2:18]), string(k[18:])
		seen := map[NodeID]bool{}
		for _, e := range s.own {
			n, d := counts[e.node], counts[dir]
			n.entries++
			if !seen[e.node] {
				n.links++
				d.children++
				if e.kind == KindDir && !x.mustNode(e.node).shadow() {
					d.subdirs++
				}
			}
			seen[e.node] = true
			if dir == e.node {
				d.entries, d.links = n.entries, n.links
				n = d
			}
			counts[e.node], counts[dir] = n, d
		}
		if len(s.own) == 0 && len(s.aliases) == 0 {
			inner = fmt.Errorf("slot %v/%q is empty", dir, name)
		}
		return inner == nil
	})
	return counts, errors.Join(inner, err)
}

func (x *txn) mustNode(id NodeID) *node {
	n, err := x.node(id)
	if err != nil {
		panic(err)
	}
	return n
}

// checkViews compares conflict names and classes with what the entries alone say.
func checkViews(x *txn) error {
	var names []Name
	got := map[string]int{}
	prefix := key(keySlot)
	if err := x.tx.Scan(prefix, kv.PrefixEnd(prefix), func(k, v []byte) bool {
		dir, name := NodeID(k[2:18]), string(k[18:])
		names = append(names, Name{dir, name})
		var s slot
		_ = decodeSlot(v, &s)
		for _, a := range s.aliases {
			got[fmt.Sprintf("%v", conflict{dir, name, a, false})]++
		}
		return true
	}); err != nil {
		return err
	}
	// Classes are computed from the root downwards.
	classes := map[NodeID][]NodeID{}
	want := map[string]int{}
	heads, conflicts := 0, 0
	for todo := [][]NodeID{{Root}}; len(todo) > 0; todo = todo[1:] {
		dirs := todo[0]
		below := map[string]bool{}
		for _, n := range names {
			if slices.Contains(dirs, n.Dir) {
				below[n.Name] = true
			}
		}
		for name := range below {
			u, err := x.unionOf(dirs, name)
			if err != nil {
				return err
			}
			var v view
			if err := x.view(&v, &u); err != nil {
				return err
			}
			for _, c := range v.conflicts {
				shown := c
				shown.hidden = false
				want[fmt.Sprintf("%v", shown)]++
				if c.hidden {
					continue
				}
				conflicts++
				if err := checkConflict(x, c); err != nil {
					return err
				}
				heads += b2i(c.id.Index == headIndex)
			}
			claims, err := x.claims(&u)
			if err != nil {
				return err
			}
			for _, c := range claims {
				if c.kind == KindDir {
					todo = append(todo, c.members)
					for _, id := range c.members {
						classes[id] = c.members
					}
				}
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		return fmt.Errorf("conflict names: -want +got:\n%s", diff)
	}
	merged := uint64(0)
	for id, class := range classes {
		n := x.mustNode(id)
		if !slices.Equal(n.members(), class) {
			return fmt.Errorf("directory %v has class %v, not %v", id, n.class, class)
		}
		s, err := x.slot(n.place.parent, n.place.name)
		if err != nil {
			return err
		}
		for _, e := range s.own {
			if e.node == id && e.merged != (len(class) > 1) {
				return fmt.Errorf("entry of directory %v says merged: %v", id, e.merged)
			}
		}
		merged += uint64(b2i(len(class) > 1))
	}
	if x.meta.merged != merged || int(x.meta.conflicts) != conflicts {
		return fmt.Errorf("counted %d merged directories and %d conflicts, found %d and %d", x.meta.merged, x.meta.conflicts, merged, conflicts)
	}
	for kind, want := range map[byte]int{keyHead: heads, keyConflict: conflicts} {
		if got := countKeys(x, key(kind)); got != want {
			return fmt.Errorf("%d keys of kind %c, not %d", got, kind, want)
		}
	}
	return nil
}

func countKeys(x *txn, prefix []byte) (n int) {
	_ = x.tx.Scan(prefix, kv.PrefixEnd(prefix), func(_, _ []byte) bool { n++; return true })
	return n
}

func checkConflict(x *txn, c conflict) error {
	if _, err := x.tx.Get(conflictKey(c.dir, c.under, c.id)); err != nil {
		return fmt.Errorf("conflict %v is not in the list: %w", c, err)
	}
	if c.id.Index != headIndex {
		return nil
	}
	h, err := head(x.tx, c.node)
	if err != nil || h != c {
		return fmt.Errorf("content %v is shown as %v: %w", c, h, err)
	}
	_, err = x.ownerOf(&c)
	return err
}

func checkNodes(x *txn, counts map[NodeID]counted) error {
	var ids []NodeID
	prefix := key(keyNode)
	if err := x.tx.Scan(prefix, kv.PrefixEnd(prefix), func(k, _ []byte) bool {
		ids = append(ids, NodeID(k[2:]))
		return true
	}); err != nil {
		return err
	}
	var want meta
	dead := 0
	for _, id := range ids {
		n, err := x.node(id)
		if err != nil {
			return err
		}
		if n.kind == KindDir {
			err = checkDir(x, n, counts[id])
			if n.attached() && !n.shadow() {
				want.dirs++
			}
			dead += b2i(n.removed)
		} else {
			err = checkFile(x, n, counts[id])
			dead += int(n.tombs)
			if n.links > 0 {
				want.files++
				want.bytes += n.size()
			}
		}
		if err != nil {
			return err
		}
	}
	if got := countKeys(x, key(keyDead)); got != dead {
		return fmt.Errorf("%d keys of what was removed, not %d", got, dead)
	}
	if m := x.meta; m.files != want.files || m.dirs != want.dirs || m.bytes != want.bytes {
		return fmt.Errorf("counted %+v, found %+v", m, want)
	}
	return nil
}

func checkFile(x *txn, n *node, c counted) error {
	if n.links != c.links {
		return fmt.Errorf("file %v has %d links, its slots say %d", n.id, n.links, c.links)
	}
	ps, err := x.places(n)
	if err != nil {
		return err
	}
	if n.entries != c.entries || uint64(len(ps)) != n.entries {
		return fmt.Errorf("file %v has %d entries and %d places, its slots say %d", n.id, n.entries, len(ps), c.entries)
	}
	for _, p := range ps {
		s, err := x.slot(p.dir, p.name)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(s.own, func(e slotEntry) bool { return e.id == p.id && e.node == n.id }) {
			return fmt.Errorf("file %v is not in its place %v", n.id, p)
		}
	}
	tombs := uint64(0)
	prefix := key(keyTomb, n.id[:])
	err = x.tx.Scan(prefix, kv.PrefixEnd(prefix), func(_, _ []byte) bool { tombs++; return true })
	if err == nil && tombs != n.tombs {
		err = fmt.Errorf("file %v has %d tombs, not %d", n.id, tombs, n.tombs)
	}
	return err
}

func checkDir(x *txn, n *node, c counted) error {
	if n.children != c.children || n.subdirs != c.subdirs {
		return fmt.Errorf("directory %v counts %d (%d), its slots say %d (%d)", n.id, n.children, n.subdirs, c.children, c.subdirs)
	}
	if n.id == Root {
		return nil
	}
	want := uint64(0)
	if n.attached() {
		want = 1
		s, err := x.slot(n.place.parent, n.place.name)
		if err != nil {
			return err
		}
		if !s.holds(n.id) {
			return fmt.Errorf("directory %v is not in its place", n.id)
		}
	}
	if c.links != want || len(n.class) > 0 && want == 0 {
		return fmt.Errorf("directory %v is in %d slots", n.id, c.links)
	}
	for up, steps := n, 0; up.id != Root; steps++ {
		if steps > 10000 {
			return fmt.Errorf("directory %v is in a cycle", n.id)
		}
		parent, err := x.node(up.place.parent)
		if err != nil {
			return err
		}
		if n.attached() && !parent.attached() {
			return fmt.Errorf("directory %v is visible below %v, which is not", n.id, parent.id)
		}
		up = parent
	}
	return nil
}

func mustCheck(t testing.TB, tree *Tree) {
	t.Helper()
	if err := check(tree); err != nil {
		t.Fatal(err)
	}
}
