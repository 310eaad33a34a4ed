package namespace

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/foreverfs/forever/internal/kv"
)

// xattr is the register of one extended attribute: a value, or that there is none.
type xattr struct {
	op    OpID
	set   bool
	value []byte
}

func (a *xattr) append(b []byte) []byte {
	b = a.op.Append(b)
	if !a.set {
		return append(b, 0)
	}
	return append(append(b, 1), a.value...)
}

// decodeXattr reads a record; the value aliases b.
func decodeXattr(b []byte) (xattr, error) {
	d := decoder{b: b}
	a := xattr{op: d.op(), set: d.u8() != 0}
	a.value, d.b = d.b, nil
	return a, d.err("xattr")
}

// putXattr sets a register unless a greater op has set it.
func (x *txn) putXattr(id NodeID, name string, a xattr) error {
	x.t.fresh.dressed(id)
	k := xattrKey(id, name)
	v, err := x.tx.Get(k)
	switch {
	case err == nil:
		old, err := decodeXattr(v)
		if err != nil {
			return err
		}
		if old.op.Compare(a.op) > 0 {
			return nil
		}
	case !errors.Is(err, kv.ErrNotFound):
		return fmt.Errorf("read an extended attribute: %w", err)
	}
	return x.put(k, a.append(nil))
}

// getXattr returns the value of an attribute, or ErrNoXattr. Of directories
// that are shown as one the greatest op decides.
func getXattr(r kv.Reader, ids []NodeID, name string) ([]byte, error) {
	var best xattr
	for _, id := range ids {
		v, err := r.Get(xattrKey(id, name))
		if errors.Is(err, kv.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read an extended attribute: %w", err)
		}
		a, err := decodeXattr(v)
		if err != nil {
			return nil, err
		}
		if a.op.Compare(best.op) > 0 {
			a.value = append([]byte{}, a.value...)
			best = a
		}
	}
	if !best.set {
		return nil, ErrNoXattr
	}
	return best.value, nil
}

// checkXattrName says whether a name may be an attribute's.
func checkXattrName(name string) error {
	switch {
	case len(name) > MaxXattrName:
		return ErrNameTooLong
	case name == "" || !utf8.ValidString(name) || containsNUL(name):
		return ErrInvalidName
	}
	return nil
}
