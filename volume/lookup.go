package volume

import (
	"context"

	"github.com/foreverfs/forever/namespace"
)

// node reads the tree's record of an inode.
func (v *Volume) node(in *inode) (namespace.Node, error) {
	v.treeMu.RLock()
	defer v.treeMu.RUnlock()
	return v.cfg.Tree.Node(in.id)
}

// with runs fn on the inode of ino, pinned meanwhile.
func (v *Volume) with(ino uint64, fn func(in *inode) error) error {
	in, err := v.acquire(ino)
	if err != nil {
		return err
	}
	defer v.release(in)
	return fn(in)
}

// Lookup finds a name in a directory and takes a reference on what it finds.
func (v *Volume) Lookup(ctx context.Context, parent uint64, name string) (a Attr, err error) {
	err = v.with(parent, func(dir *inode) error {
		v.observe(ctx, dir)
		e, err := v.entry(dir, name)
		if err != nil {
			return err
		}
		in := v.refer(e.Node)
		defer v.release(in)
		v.observe(ctx, in)
		if a, err = v.presentRef(in); err == nil {
			v.lookAhead(dir, name)
		}
		return err
	})
	return a, err
}

// LookupSelf takes a reference on an inode that the kernel may have forgotten: for who comes with a file handle, as an NFS server does. A
// file or directory that was removed gives ErrStale.
func (v *Volume) LookupSelf(ctx context.Context, ino uint64) (a Attr, err error) {
	err = v.with(ino, func(known *inode) error {
		in := v.refer(known.id)
		defer v.release(in)
		v.observe(ctx, in)
		if a, err = v.presentRef(in); err == nil && a.Nlink == 0 {
			v.Forget(in.ino, 1)
			err = ErrStale
		}
		return err
	})
	return a, err
}

// LookupParent is LookupSelf of the directory that a directory lies in.
func (v *Volume) LookupParent(ctx context.Context, ino uint64) (a Attr, err error) {
	err = v.with(ino, func(dir *inode) error {
		a, err = v.LookupSelf(ctx, v.parent(dir))
		return err
	})
	return a, err
}

// LookupNow is Lookup of what is known here at the moment: it never waits.
func (v *Volume) LookupNow(parent uint64, name string) (a Attr, err error) {
	err = v.with(parent, func(dir *inode) error {
		e, err := v.entry(dir, name)
		if err != nil {
			return err
		}
		a, err = v.present(e.Node)
		return err
	})
	return a, err
}

// entry reads the tree's record of a name.
func (v *Volume) entry(dir *inode, name string) (namespace.Entry, error) {
	v.treeMu.RLock()
	defer v.treeMu.RUnlock()
	return v.cfg.Tree.Lookup(dir.id, name)
}

// present takes a reference on a node and shows it.
func (v *Volume) present(id namespace.NodeID) (Attr, error) {
	in := v.refer(id)
	defer v.release(in)
	return v.presentRef(in)
}

// presentRef shows an inode on which a reference was taken, or gives that back.
func (v *Volume) presentRef(in *inode) (Attr, error) {
	a, err := v.stat(in)
	if err != nil {
		v.Forget(in.ino, 1)
	}
	return a, err
}

// Getattr returns the attributes of an inode.
func (v *Volume) Getattr(ctx context.Context, ino uint64) (a Attr, err error) {
	err = v.with(ino, func(in *inode) error {
		v.observe(ctx, in)
		a, err = v.stat(in)
		return err
	})
	return a, err
}

// SizeNow returns how long a regular file is by what is known here; it waits for no other mount. Of anything else it returns 0.
func (v *Volume) SizeNow(ino uint64) (size int64, err error) {
	err = v.with(ino, func(in *inode) error {
		a, err := v.stat(in)
		if a.Kind == namespace.KindFile {
			size = a.Size
		}
		return err
	})
	return size, err
}
