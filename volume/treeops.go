package volume

import (
	"context"
	"syscall"

	"github.com/foreverfs/forever/namespace"
)

// mutate runs fn with the tree to itself.
func (v *Volume) mutate(fn func(t *namespace.Tree, now int64) error) error {
	return v.mutateUnder(v.growable, v.treeMu.Lock, fn)
}

// mutateLess is mutate for removals.
func (v *Volume) mutateLess(fn func(t *namespace.Tree, now int64) error) error {
	return v.mutateUnder(v.shrinkable, v.treeMu.Lock, fn)
}

// mutateInPlace is mutate for what moves nothing that is there.
func (v *Volume) mutateInPlace(fn func(t *namespace.Tree, now int64) error) error {
	return v.mutateUnder(v.growable, v.treeMu.LockInPlace, fn)
}

func (v *Volume) mutateUnder(may func() error, lock func(), fn func(t *namespace.Tree, now int64) error) error {
	if err := may(); err != nil {
		return err
	}
	lock()
	err := fn(v.cfg.Tree, v.now())
	v.treeMu.Unlock()
	if err == nil {
		v.wroteTree()
	}
	return err
}

// create makes a node under parent and takes a reference and a pin on it. With no name it has none:
// it is made under one that is gone before anybody can see it.
func (v *Volume) create(ctx context.Context, c Caller, parent uint64, name string, spec namespace.CreateSpec) (a Attr, in *inode, err error) {
	spec.UID, spec.GID = c.UID, c.GID
	err = v.with(parent, func(dir *inode) error {
		var n namespace.Node
		err := v.mutateInPlace(func(t *namespace.Tree, now int64) error {
			d, err := t.Node(dir.id)
			if err != nil {
				return err
			}
			inherit(&spec, d)
			if n, err = makeNode(t, now, dir.id, name, spec); err != nil {
				return err
			}
			in = v.refer(n.ID) // while nobody can remove it unnoticed
			in.unnamed.Store(name == "")
			in.nameless.Store(name == "")
			return nil
		})
		if err != nil {
			return err
		}
		if spec.Kind == namespace.KindFile {
			in.mu.Lock()
			if !in.loaded { // else somebody opened the name already, and may have written
				in.adopt(n)
			}
			in.mu.Unlock()
		}
		v.announceOf(ctx, dir)
		if spec.Kind == namespace.KindDir {
			v.observeOnly(ctx, in) // nobody else knows it yet, so nothing waits
		}
		if a, err = v.stat(in); err != nil {
			v.release(in)
			v.Forget(in.ino, 1)
		}
		return err
	})
	return a, in, err
}

// inherit gives what is made in a directory the directory's group if that says so, as in System V.
func inherit(spec *namespace.CreateSpec, dir namespace.Node) {
	if dir.Mode&syscall.S_ISGID == 0 {
		return
	}
	spec.GID = dir.GID
	if spec.Kind == namespace.KindDir {
		spec.Mode |= syscall.S_ISGID
	}
}

// makeNode makes a node, with no name one that has lost it again.
func makeNode(t *namespace.Tree, now int64, dir namespace.NodeID, name string, spec namespace.CreateSpec) (namespace.Node, error) {
	if name != "" {
		return t.Create(now, dir, name, spec)
	}
	passing := passingName()
	if _, err := t.Create(now, dir, passing, spec); err != nil {
		return namespace.Node{}, err
	}
	return t.Unlink(now, dir, passing)
}

// Create makes a regular file and opens it. mode has the umask applied.
func (v *Volume) Create(ctx context.Context, c Caller, parent uint64, name string, mode uint32, flags int) (Attr, *Handle, error) {
	if name == "" {
		return Attr{}, nil, namespace.ErrInvalidName
	}
	return v.createOpen(ctx, c, parent, name, mode, flags)
}

func (v *Volume) createOpen(ctx context.Context, c Caller, parent uint64, name string, mode uint32, flags int) (Attr, *Handle, error) {
	a, in, err := v.create(ctx, c, parent, name, namespace.CreateSpec{Kind: namespace.KindFile, Mode: mode & 07777})
	if err != nil {
		return Attr{}, nil, err
	}
	h, err := v.openInode(ctx, in, flags&^syscall.O_TRUNC) // there is nothing to cut, nor may its times change
	if err != nil {
		v.release(in)
		v.Forget(in.ino, 1)
		return Attr{}, nil, err
	}
	return a, h, nil
}

// kindOf maps the type bits of a mode.
func kindOf(mode uint32) (namespace.Kind, bool) {
	switch mode & syscall.S_IFMT {
	case 0, syscall.S_IFREG:
		return namespace.KindFile, true
	case syscall.S_IFCHR:
		return namespace.KindChar, true
	case syscall.S_IFBLK:
		return namespace.KindBlock, true
	case syscall.S_IFIFO:
		return namespace.KindFifo, true
	case syscall.S_IFSOCK:
		return namespace.KindSocket, true
	}
	return 0, false
}

// Mknod makes a file, device, fifo or socket; mode carries the type bits of stat(2).
func (v *Volume) Mknod(ctx context.Context, c Caller, parent uint64, name string, mode, rdev uint32) (Attr, error) {
	kind, ok := kindOf(mode)
	if !ok {
		return Attr{}, ErrInvalid
	}
	return v.createOnly(ctx, c, parent, name, namespace.CreateSpec{Kind: kind, Mode: mode & 07777, Rdev: rdev})
}

// Mkdir makes a directory.
func (v *Volume) Mkdir(ctx context.Context, c Caller, parent uint64, name string, mode uint32) (Attr, error) {
	return v.createOnly(ctx, c, parent, name, namespace.CreateSpec{Kind: namespace.KindDir, Mode: mode & 07777})
}

// Symlink makes a symbolic link to target, which may be any text of 1 to 4095 bytes.
func (v *Volume) Symlink(ctx context.Context, c Caller, parent uint64, name, target string) (Attr, error) {
	return v.createOnly(ctx, c, parent, name, namespace.CreateSpec{Kind: namespace.KindSymlink, Mode: 0777, Target: target})
}

func (v *Volume) createOnly(ctx context.Context, c Caller, parent uint64, name string, spec namespace.CreateSpec) (Attr, error) {
	if name == "" {
		return Attr{}, namespace.ErrInvalidName
	}
	a, in, err := v.create(ctx, c, parent, name, spec)
	if err != nil {
		return Attr{}, err
	}
	v.release(in)
	return a, nil
}

// Readlink returns the target of a symbolic link.
func (v *Volume) Readlink(ctx context.Context, ino uint64) (target string, err error) {
	err = v.with(ino, func(in *inode) error {
		v.observe(ctx, in)
		n, err := v.node(in)
		if err == nil && n.Kind != namespace.KindSymlink {
			err = ErrInvalid
		}
		target = n.Target
		return err
	})
	return target, err
}

// Link gives a file another name and takes a reference on it.
func (v *Volume) Link(ctx context.Context, ino, parent uint64, name string) (a Attr, err error) {
	err = v.with(ino, func(in *inode) error {
		var err error
		link := (*namespace.Tree).Link
		if in.unnamed.Load() {
			link, err = (*namespace.Tree).LinkUnnamed, v.settleAll(ctx, in)
		} else {
			err = v.settleHere(ctx, in)
		}
		if err != nil {
			return err
		}
		return v.with(parent, func(dir *inode) error {
			err := v.mutate(func(t *namespace.Tree, now int64) error {
				_, err := link(t, now, in.id, dir.id, name)
				if err == nil {
					in.nameless.Store(false)
					in.unnamed.Store(false)
					v.renamed(in, dir.id)
				}
				return err
			})
			if err != nil {
				return err
			}
			v.announceOf(ctx, in)
			a, err = v.present(in.id)
			return err
		})
	})
	return a, err
}

// Unlink removes a name of anything but a directory.
func (v *Volume) Unlink(ctx context.Context, parent uint64, name string) error {
	return v.with(parent, func(dir *inode) error {
		var n namespace.Node
		err := v.mutateLess(func(t *namespace.Tree, now int64) error {
			var err error
			n, err = t.Unlink(now, dir.id, name)
			v.tookName(n, dir.id, err)
			return err
		})
		if err == nil {
			v.unnamed(n)
			v.announce(ctx, dir.id, n.ID)
		}
		return err
	})
}

// tookName notes, with treeMu held, that an operation here took a name in a directory of a node, unless that failed: maybe its last.
func (v *Volume) tookName(n namespace.Node, dir namespace.NodeID, err error) {
	if err != nil || n.Kind != namespace.KindFile {
		return
	}
	if in := v.used(n.ID); in != nil {
		v.renamed(in, dir)
		if n.Nlink == 0 {
			in.nameless.Store(true)
		}
		v.release(in)
	}
}

// unnamed lets go of the content of a node that may have lost its last name.
func (v *Volume) unnamed(n namespace.Node) {
	if n.Nlink > 0 || n.Kind != namespace.KindFile {
		return
	}
	in := v.used(n.ID)
	if in == nil {
		return
	}
	if !v.changedHere(in) {
		v.release(in)
		return
	}
	v.letGo(in)
}

// Rmdir removes an empty directory.
func (v *Volume) Rmdir(ctx context.Context, parent uint64, name string) error {
	return v.with(parent, func(dir *inode) error {
		var gone namespace.Entry
		err := v.mutateLess(func(t *namespace.Tree, now int64) (err error) {
			if gone, err = t.Lookup(dir.id, name); err != nil {
				return err
			}
			return t.Rmdir(now, dir.id, name)
		})
		if err == nil {
			v.announce(ctx, dir.id, gone.Node)
		}
		return err
	})
}

// The flags of Rename, as in renameat2(2).
const (
	RenameNoReplace = 1
	RenameExchange  = 2
	RenameWhiteout  = 4 // the old name is left to a character device 0:0, by which overlayfs hides a name of the layer below
)

// Rename moves a name, replacing what the new name was unless flags say otherwise. It returns the inode numbers of what
// was moved, and of what that replaced or was exchanged with; 0: nothing.
func (v *Volume) Rename(ctx context.Context, c Caller, oldParent uint64, oldName string, newParent uint64, newName string, flags uint32) (moved, replaced uint64, err error) {
	if flags&^(RenameNoReplace|RenameExchange|RenameWhiteout) != 0 || flags&RenameExchange != 0 && flags != RenameExchange {
		return 0, 0, ErrInvalid
	}
	err = v.with(oldParent, func(from *inode) error {
		return v.with(newParent, func(to *inode) error {
			if err := v.settleNamed(ctx, from, oldName); err != nil {
				return err
			}
			if flags&RenameExchange != 0 { // that file moves too
				if err := v.settleNamed(ctx, to, newName); err != nil {
					return err
				}
			}
			var old *namespace.Node
			var n namespace.Node
			err := v.mutate(func(t *namespace.Tree, now int64) (err error) {
				n, old, err = renameIn(t, now, c, from.id, oldName, to.id, newName, flags)
				if old != nil {
					v.tookName(*old, to.id, err)
				}
				return err
			})
			if err != nil {
				return err
			}
			moved = n.ID.Ino()
			ids := []namespace.NodeID{from.id, to.id, n.ID}
			if old != nil {
				v.unnamed(*old)
				replaced, ids = old.ID.Ino(), append(ids, old.ID)
			}
			v.announce(ctx, ids...)
			return nil
		})
	})
	return moved, replaced, err
}

// renameIn renames in the tree.
func renameIn(t *namespace.Tree, now int64, c Caller, from namespace.NodeID, oldName string, to namespace.NodeID, newName string, flags uint32) (namespace.Node, *namespace.Node, error) {
	kept := namespace.RenameFlags(flags &^ RenameWhiteout)
	if flags&RenameWhiteout == 0 {
		return t.Rename(now, from, oldName, to, newName, kept)
	}
	dir, err := t.Node(from)
	if err != nil {
		return namespace.Node{}, nil, err
	}
	whiteout := namespace.CreateSpec{Kind: namespace.KindChar, UID: c.UID, GID: c.GID}
	inherit(&whiteout, dir)
	return t.RenameLeaving(now, from, oldName, to, newName, kept, whiteout)
}

// settleNamed brings the closed content of the file behind a name into the
// tree, if this mount has some that is not. Of a directory, which may have been filled a moment ago, that of all files.
func (v *Volume) settleNamed(ctx context.Context, dir *inode, name string) error {
	if v.allInTree() {
		return nil
	}
	v.treeMu.RLock()
	e, err := v.cfg.Tree.Lookup(dir.id, name)
	v.treeMu.RUnlock()
	if err == nil && e.Kind == namespace.KindDir {
		if err := v.commitLocal(ctx); err != nil {
			v.log.Warn("cannot enter the content of closed files before a directory is renamed; will try again", "error", err)
		}
		return nil
	}
	if err != nil || e.Kind != namespace.KindFile {
		return err
	}
	in := v.used(e.Node)
	if in == nil {
		return nil
	}
	defer v.release(in)
	return v.settleHere(ctx, in)
}

// FsyncDir makes the directory's entries, and every op before, durable.
func (v *Volume) FsyncDir(ctx context.Context, ino uint64) error {
	return v.with(ino, func(*inode) error { return v.syncHere(ctx) })
}
