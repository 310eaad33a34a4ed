package namespace

import (
	"fmt"
	"testing"

	"github.com/foreverfs/forever/internal/kv"
)

// counted is what the slots say of a node.
type counted struct{ links, children, subdirs uint64 }

// check returns an error unless the state holds together: every counter, every
// directory in its one place and no cycle, every conflict name.
func check(t *Tree) error {
	x := &txn{}
	x.reset(t)
	return t.db.Update(func(tx kv.Tx) error {
		x.tx = tx
		counts, err := checkSlots(x)
		if err != nil {
			return err
		}
		return checkNodes(x, counts)
	})
}

func checkSlots(x *txn) (map[NodeID]counted, error) {
	counts := map[NodeID]counted{}
	aliases, wanted := map[string]int{}, map[string]int{}
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
			if seen[e.node] {
				continue
			}
			seen[e.node] = true
			n, d := counts[e.node], counts[dir]
			n.links++
			d.children++
			if e.kind == KindDir {
				d.subdirs++
			}
			counts[e.node], counts[dir] = n, d
		}
		for _, a := range s.aliases {
			aliases[fmt.Sprintf("%v/%q: %v/%v", dir, name, a.slot, a.id)]++
		}
		for _, e := range s.losers() {
			under := conflictName(name, x.device(e.id.Op.Author), e.id, e.time)
			wanted[fmt.Sprintf("%v/%q: %v/%v", dir, under, name, e.id)]++
		}
		if len(s.own) == 0 && len(s.aliases) == 0 {
			inner = fmt.Errorf("slot %v/%q is empty", dir, name)
		}
		return inner == nil
	})
	for k := range wanted {
		if aliases[k] != 1 {
			inner = fmt.Errorf("conflict name %s is missing", k)
		}
	}
	if len(aliases) != len(wanted) && inner == nil {
		inner = fmt.Errorf("%d conflict names for %d entries", len(aliases), len(wanted))
	}
	if inner == nil {
		inner = err
	}
	return counts, inner
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
	for _, id := range ids {
		n, err := x.node(id)
		if err != nil {
			return err
		}
		if n.kind == KindDir {
			err = checkDir(x, n, counts[id])
			if n.attached() {
				want.dirs++
			}
		} else {
			err = checkFile(x, n, counts[id])
			if n.links > 0 {
				want.files++
				want.bytes += n.size()
			}
		}
		if err != nil {
			return err
		}
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
	tombs := uint64(0)
	prefix := key(keyTomb, n.id[:])
	err := x.tx.Scan(prefix, kv.PrefixEnd(prefix), func(_, _ []byte) bool { tombs++; return true })
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
		if len(s.entriesOf(n.id)) != 1 {
			return fmt.Errorf("directory %v is not in its place", n.id)
		}
	}
	if c.links != want {
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
