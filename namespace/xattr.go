package namespace

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/foreverfs/forever/internal/kv"
	pb "github.com/foreverfs/forever/namespace/namespacepb"
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

// splitXattrs returns the extended attributes that the op has which makes a node, and those that need ops of their own.
func splitXattrs(list []*pb.XattrValue) (fit, more []*pb.XattrValue) {
	size := 0
	for _, a := range list {
		if n := len(a.Name) + len(a.Value); size+n <= MaxOp/4 {
			fit, size = append(fit, a), size+n
		} else {
			more = append(more, a)
		}
	}
	return fit, more
}

// setXattrs sets extended attributes, each by an op.
func (x *txn) setXattrs(now int64, id NodeID, list []*pb.XattrValue) error {
	for _, a := range list {
		if _, err := x.emit(&pb.Op{Time: now, Body: &pb.Op_Xattr{Xattr: &pb.Xattr{Node: id[:], Name: a.Name, Value: a.Value}}}); err != nil {
			return err
		}
	}
	return nil
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
