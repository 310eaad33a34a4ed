package namespace

import (
	"errors"
	"fmt"
	"slices"

	"github.com/foreverfs/forever/internal/kv"
)

// place is where an entry of a file is: which entry, in which slot. A directory
// has its one place in its record (placement).
type place struct {
	dir  NodeID
	name string
	id   EntryID
}

func (p place) compare(o place) int { return p.id.Compare(o.id) }

func (p *place) append(b []byte) []byte {
	return p.id.Append(appendBytes(append(b, p.dir[:]...), p.name))
}

func (d *decoder) place() place { return place{d.id(), string(d.bytes()), d.entry()} }

// maxHomes is how many places are kept in a file's record; more have keys of their own, all of them.
const maxHomes = 4

// addPlace notes an entry of a file that became live.
func (x *txn) addPlace(n *node, p place) error {
	n.entries++
	x.touch(n)
	if n.entries <= maxHomes {
		i, _ := slices.BinarySearchFunc(n.homes, p, place.compare)
		n.homes = slices.Insert(n.homes, i, p)
		return nil
	}
	for i := range n.homes {
		if err := x.put(placeKey(n.id, n.homes[i].id), n.homes[i].append(nil)); err != nil {
			return err
		}
	}
	n.homes = nil
	return x.put(placeKey(n.id, p.id), p.append(nil))
}

// dropPlace forgets an entry of a file that ended.
func (x *txn) dropPlace(n *node, id EntryID) (err error) {
	n.entries--
	x.touch(n)
	if n.entries < maxHomes {
		n.homes = slices.DeleteFunc(n.homes, func(p place) bool { return p.id == id })
		return nil
	}
	if err := x.delete(placeKey(n.id, id)); err != nil || n.entries > maxHomes {
		return err
	}
	if n.homes, err = scanPlaces(x.tx, n.id, 0); err != nil {
		return err
	}
	for i := range n.homes {
		if err := x.delete(placeKey(n.id, n.homes[i].id)); err != nil {
			return err
		}
	}
	return nil
}

// places returns where the live entries of a file are, oldest entry first.
func (x *txn) places(n *node) ([]place, error) {
	if n.entries <= maxHomes {
		return n.homes, nil
	}
	return scanPlaces(x.tx, n.id, 0)
}

// firstPlace returns where the oldest live entry of a file is.
func (x *txn) firstPlace(n *node) (place, bool, error) {
	list := n.homes
	if n.entries > maxHomes {
		var err error
		if list, err = scanPlaces(x.tx, n.id, 1); err != nil {
			return place{}, false, err
		}
	}
	if len(list) == 0 {
		return place{}, false, nil
	}
	return list[0], true, nil
}

// scanPlaces returns places that are kept under their own keys, oldest entry first, at most max of them unless that is 0.
func scanPlaces(r kv.Reader, id NodeID, max int) (out []place, err error) {
	prefix := key(keyPlace, id[:])
	var inner error
	err = r.Scan(prefix, kv.PrefixEnd(prefix), func(_, v []byte) bool {
		d := decoder{b: v}
		out = append(out, d.place())
		inner = d.err("place")
		return inner == nil && len(out) != max
	})
	if err := errors.Join(inner, err); err != nil {
		return nil, fmt.Errorf("read the places of %v: %w", id, err)
	}
	return out, nil
}
