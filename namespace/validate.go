package namespace

import (
	"slices"
	"strings"

	"github.com/foreverfs/forever/chunk"
	pb "github.com/foreverfs/forever/namespace/namespacepb"
)

func containsNUL(s string) bool { return strings.IndexByte(s, 0) >= 0 }

// checkName says whether a name may stand in a directory.
func checkName(name string) error {
	switch {
	case len(name) > MaxName:
		return ErrNameTooLong
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return ErrInvalidName
	}
	return nil
}

// checkVersion says whether a content can be one: caps only, as the blocks may be elsewhere.
func checkVersion(v *chunk.Version) error {
	switch {
	case len(v.Inline) > MaxInline:
		return ErrTooLarge
	case v.Size < 0, v.BlockLog > 20, v.BlockLog != 0 && v.BlockLog < 14, v.Height > 16:
		return ErrInvalidArgument
	case len(v.Inline) > 0 && (int64(len(v.Inline)) != v.Size || !v.Root.IsZero() || v.Height != 0):
		return ErrInvalidArgument
	case v.Holes < 0, v.Holes > 0 && (v.Root.IsZero() || v.Holes >= v.Blocks()):
		return ErrInvalidArgument
	}
	return nil
}

// checkSpec says whether a node can be made so.
func checkSpec(kind Kind, mode, rdev uint32, target string) error {
	switch {
	case !kind.valid() || mode&^uint32(modeBits) != 0:
		return ErrInvalidArgument
	case rdev != 0 && kind != KindChar && kind != KindBlock:
		return ErrInvalidArgument
	case len(target) > MaxTarget:
		return ErrNameTooLong
	case (kind == KindSymlink) != (target != "") || containsNUL(target):
		return ErrInvalidArgument
	}
	return nil
}

func sized(size int, list ...[]byte) bool {
	for _, b := range list {
		if len(b) != size {
			return false
		}
	}
	return true
}

// validateOp checks everything about an op that does not depend on the tree.
func validateOp(op *pb.Op) error {
	ok := false
	var err error
	switch b := op.Body.(type) {
	case *pb.Op_Create:
		ok, err = validCreate(b.Create)
	case *pb.Op_Link:
		ok, err = sized(16, b.Link.Node, b.Link.Parent), checkName(string(b.Link.Name))
	case *pb.Op_Remove:
		ok = sized(16, b.Remove.Parent) && b.Remove.Removal != nil && validRemoval(b.Remove.Removal)
	case *pb.Op_Rename:
		ok = validStep(b.Rename.Step) && (b.Rename.Replaced == nil || validRemoval(b.Rename.Replaced)) && !slices.ContainsFunc(b.Rename.More, invalidStep)
	case *pb.Op_Exchange:
		ok = validStep(b.Exchange.A) && validStep(b.Exchange.B) && !slices.ContainsFunc(b.Exchange.More, invalidStep)
	case *pb.Op_Attr:
		ok = sized(16, b.Attr.Node) && b.Attr.Mask != 0 && AttrMask(b.Attr.Mask)&^attrAll == 0 && b.Attr.Mode&^uint32(modeBits) == 0
	case *pb.Op_Xattr:
		ok = sized(16, b.Xattr.Node) && len(b.Xattr.Value) <= MaxXattrValue && !(b.Xattr.Removed && len(b.Xattr.Value) > 0)
		err = checkXattrName(string(b.Xattr.Name))
	case *pb.Op_Content:
		ok = validContent(b.Content)
	case *pb.Op_Fork:
		ok, err = validFork(b.Fork)
	case *pb.Op_Drop:
		ok = sized(16, b.Drop.Node) && sized(opIDSize, b.Drop.Contents...)
	case *pb.Op_Demote:
		ok, err = validDemote(b.Demote)
	case *pb.Op_Acknowledge:
		ok = validAcknowledge(b.Acknowledge)
	case *pb.Op_Keep:
		ok = sized(16, b.Keep.Node)
	}
	if err != nil {
		return invalid("op: %w", err)
	}
	if !ok {
		return invalid("op %T with impossible fields", op.Body)
	}
	return nil
}

func validCreate(c *pb.Create) (bool, error) {
	if c.Kind > 255 || !sized(16, c.Parent) {
		return false, nil
	}
	if err := checkName(string(c.Name)); err != nil {
		return false, err
	}
	if err := checkSpec(Kind(c.Kind), c.Mode, c.Rdev, string(c.Target)); err != nil {
		return false, err
	}
	return validXattrs(c.Xattrs)
}

func validXattrs(list []*pb.XattrValue) (bool, error) {
	for _, a := range list {
		if err := checkXattrName(string(a.Name)); err != nil || len(a.Value) > MaxXattrValue {
			return false, err
		}
	}
	return true, nil
}

func validRemoval(r *pb.Removal) bool {
	return sized(16, r.Node) && checkName(string(r.Name)) == nil && sized(entryIDSize, r.Entries...) && sized(entryIDSize, r.Demoted...)
}

func validStep(s *pb.Step) bool {
	return s != nil && sized(16, s.Node, s.From, s.To) && checkName(string(s.FromName)) == nil && checkName(string(s.ToName)) == nil &&
		sized(entryIDSize, s.Entries...) && sized(entryIDSize, s.Demoted...)
}

func validDemote(d *pb.Demote) (bool, error) {
	ok := sized(16, d.Parent) && sized(entryIDSize, d.Entries...) && len(d.More) <= maxSteps
	if err := checkName(string(d.Name)); err != nil {
		return false, err
	}
	for _, more := range d.More {
		if good, err := validDemote(more); err != nil || !good || len(more.More) > 0 {
			return false, err
		}
	}
	return ok, nil
}

func invalidStep(s *pb.Step) bool { return !validStep(s) }

func validFork(f *pb.Fork) (bool, error) {
	if !sized(16, f.Parent) || !sized(opIDSize, f.Of) || f.Mode&^uint32(modeBits) != 0 || f.Content == nil || !validContent(f.Content) {
		return false, nil
	}
	if err := checkName(string(f.Name)); err != nil {
		return false, err
	}
	return validXattrs(f.Xattrs)
}

func validContent(c *pb.Content) bool {
	if !sized(16, c.Node) || !sized(opIDSize, c.Replaces...) || !sized(entryIDSize, c.Revives...) || c.Size > 1<<62 || c.BlockLog > 255 || c.Height > 255 || c.Holes > 1<<62 {
		return false
	}
	v := versionOf(c)
	if len(c.Root) > 0 && (len(c.Root) != chunk.IDSize || v.Root.IsZero()) {
		return false
	}
	return checkVersion(&v) == nil
}
