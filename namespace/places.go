package namespace

import (
	"errors"
	"fmt"

	"github.com/foreverfs/forever/internal/kv"
)

// place is where an entry of a file is: which entry, in which slot. A directory
// has its one place in its record (placement).
type place struct {
	dir  NodeID
	name string
	id   EntryID
}

func (p *place) append(b []byte) []byte {
	return p.id.Append(appendBytes(append(b, p.dir[:]...), p.name))
}

func (d *decoder) place() place { return place{d.id(), string(d.bytes()), d.entry()} }

// addPlace notes an entry of a file that became live. The only one is kept in
// the file's record, several are kept under keys of their own.
func (x *txn) addPlace(n *node, p place) error {
	n.entries++
	x.touch(n)
	if n.entries == 1 {
		n.home = p
		return nil
	}
	if n.entries == 2 {
		if err := x.put(placeKey(n.id, n.home.id), n.home.append(nil)); err != nil {
			return err
		}
		n.home = place{}
	}
	return x.put(placeKey(n.id, p.id), p.append(nil))
}

// dropPlace forgets an entry of a file that ended.
func (x *txn) dropPlace(n *node, id EntryID) error {
	n.entries--
	x.touch(n)
	if n.entries == 0 {
		n.home = place{}
		return nil
	}
	if err := x.delete(placeKey(n.id, id)); err != nil || n.entries > 1 {
		return err
	}
	last, err := x.scanPlaces(n, 1)
	if err != nil {
		return err
	}
	if len(last) != 1 {
		return fmt.Errorf("find the place of %v: %w", n.id, ErrDamaged)
	}
	n.home = last[0]
	return x.delete(placeKey(n.id, n.home.id))
}

// places returns where the live entries of a file are, oldest entry first.
func (x *txn) places(n *node) ([]place, error) {
	switch n.entries {
	case 0:
		return nil, nil
	case 1:
		return []place{n.home}, nil
	}
	return x.scanPlaces(n, 0)
}

// firstPlace returns where the oldest live entry of a file is.
func (x *txn) firstPlace(n *node) (place, bool, error) {
	if n.entries <= 1 {
		return n.home, n.entries == 1, nil
	}
	first, err := x.scanPlaces(n, 1)
	if err != nil || len(first) == 0 {
		return place{}, false, err
	}
	return first[0], true, nil
}

// scanPlaces returns places that are kept under their own keys, at most max of them unless that is 0.
func (x *txn) scanPlaces(n *node, max int) ([]place, error) { return scanPlaces(x.tx, n.id, max) }

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
