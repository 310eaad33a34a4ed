package volume

import (
	"context"
	"errors"
	"syscall"

	"github.com/foreverfs/forever/namespace"
)

// The flags of Setxattr, as in setxattr(2).
const (
	XattrCreate  = 1
	XattrReplace = 2
)

// Getxattr returns the value of an extended attribute.
func (v *Volume) Getxattr(ctx context.Context, ino uint64, name string) (val []byte, err error) {
	err = v.with(ino, func(in *inode) error {
		v.observe(ctx, in)
		v.treeMu.RLock()
		defer v.treeMu.RUnlock()
		val, err = v.cfg.Tree.Xattr(in.id, name)
		return err
	})
	return val, err
}

// Listxattr returns the names of all extended attributes.
func (v *Volume) Listxattr(ctx context.Context, ino uint64) (names []string, err error) {
	err = v.with(ino, func(in *inode) error {
		v.observe(ctx, in)
		v.treeMu.RLock()
		defer v.treeMu.RUnlock()
		names, err = v.cfg.Tree.Xattrs(in.id)
		return err
	})
	return names, err
}

// Setxattr sets an extended attribute.
func (v *Volume) Setxattr(ctx context.Context, ino uint64, name string, val []byte, flags uint32) error {
	return v.with(ino, func(in *inode) error {
		err := v.mutateInPlace(func(t *namespace.Tree, now int64) error {
			if flags&(XattrCreate|XattrReplace) != 0 {
				_, err := t.Xattr(in.id, name)
				if flags&XattrCreate != 0 && err == nil {
					return namespace.ErrExist
				}
				if flags&XattrReplace != 0 && err != nil {
					return err
				}
			}
			if err := roomInList(t, in, name); err != nil {
				return err
			}
			return t.SetXattr(now, in.id, name, val)
		})
		if err == nil {
			v.announceOf(ctx, in)
		}
		return err
	})
}

// maxXattrList is what listxattr(2) can return, in bytes.
const maxXattrList = 64 << 10

// roomInList returns ENOSPC if the list of a node's extended attributes has no room for another name. To count takes as long as
// there are names, so the room is remembered until it is used up or another mount changes the node.
func roomInList(t *namespace.Tree, in *inode, name string) error {
	if _, err := t.Xattr(in.id, name); !errors.Is(err, namespace.ErrNoXattr) {
		return err // nil: it is in the list
	}
	size := int64(len(name) + 1)
	if in.xattrRoom.Add(-size) >= 0 {
		return nil
	}
	names, err := t.Xattrs(in.id)
	if err != nil {
		return err
	}
	room := maxXattrList - size
	for _, other := range names {
		room -= int64(len(other) + 1)
	}
	in.xattrRoom.Store(max(room, 0))
	if room < 0 {
		return syscall.ENOSPC
	}
	return nil
}

// Removexattr removes an extended attribute.
func (v *Volume) Removexattr(ctx context.Context, ino uint64, name string) error {
	return v.with(ino, func(in *inode) error {
		err := v.mutateInPlace(func(t *namespace.Tree, now int64) error { return t.RemoveXattr(now, in.id, name) })
		if err == nil {
			v.announceOf(ctx, in)
		}
		return err
	})
}
