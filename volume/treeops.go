package volume

import (
	"context"
	"errors"
	"fmt"
	"syscall"

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
			if d.Mode&syscall.S_ISGID != 0 { // as in System V: the group comes from the directory
				spec.GID = d.GID
				if spec.Kind == namespace.KindDir {
					spec.Mode |= syscall.S_ISGID
				}
			}
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
)

// Rename moves a name, replacing what the new name was unless flags say otherwise. It returns the inode numbers of what
// was moved, and of what that replaced or was exchanged with; 0: nothing.
func (v *Volume) Rename(ctx context.Context, oldParent uint64, oldName string, newParent uint64, newName string, flags uint32) (moved, replaced uint64, err error) {
	if flags&^(RenameNoReplace|RenameExchange) != 0 || flags == RenameNoReplace|RenameExchange {
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
				n, old, err = t.Rename(now, from.id, oldName, to.id, newName, namespace.RenameFlags(flags))
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

// settleNamed brings the closed content of the file behind a name into the
// tree, if this mount has some that is not. Of a directory, which may have been filled a moment ago, that of all files.
func (v *Volume) settleNamed(ctx context.Context, dir *inode, name string) error {
	v.treeMu.RLock()
	e, err := v.cfg.Tree.Lookup(dir.id, name)
	v.treeMu.RUnlock()
	if err == nil && e.Kind == namespace.KindDir {
		if err := v.commitQueue(ctx); err != nil {
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

// Setattr changes attributes and returns them all.
func (v *Volume) Setattr(ctx context.Context, ino uint64, s SetAttr) (a Attr, err error) {
	room := v.growable
	if s.Valid&SetSize != 0 { // it frees space, or makes a hole
		room = v.shrinkable
	}
	if err := room(); err != nil {
		return Attr{}, err
	}
	err = v.with(ino, func(in *inode) error {
		if s.Valid&SetSize != 0 {
			if err := v.setSize(ctx, in, s.Size, s.Held); err != nil {
				return err
			}
			room = v.writable // the rest belongs to it
		}
		if s.Valid&(SetMtime|SetMtimeNow) != 0 && in.closedAt() != 0 {
			// After a crash the journal, which has the time of the write, would enter the content behind this op.
			if err := v.settleHere(ctx, in); err != nil {
				v.log.Warn("cannot seal a closed file yet; a crash could undo the time it is given", "inode", in.ino, "error", err)
			}
		}
		if err := v.setAttr(in, s, room); err != nil {
			return err
		}
		if err := v.announceContent(ctx, in); err != nil && s.Valid&SetSize == 0 { // else it is done all the same: see setSize
			return err
		}
		a, err = v.stat(in)
		return err
	})
	return a, err
}

// setSize truncates a file. If held is set it was through an open file, whose close publishes that; else it is done with. That it cannot be sealed
// yet, nor journalled, is no error: the kernel, which takes that for the file being as it was, would go on with the old size.
func (v *Volume) setSize(ctx context.Context, in *inode, size int64, held bool) error {
	n, err := v.node(in)
	switch {
	case err != nil:
		return err
	case n.Kind == namespace.KindDir:
		return namespace.ErrIsDir
	case n.Kind != namespace.KindFile:
		return ErrInvalid
	}
	if err := v.truncate(ctx, in, size); err != nil {
		return err
	}
	if held || v.flushClosed(ctx, in) == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.changed {
		in.closedGen = in.gen
		v.setFailed(waiting{in: in})
	}
	return nil
}

// setAttr makes the op for everything but the size, if there is room.
func (v *Volume) setAttr(in *inode, s SetAttr, room func() error) error {
	now := v.now()
	var c namespace.AttrChange
	if s.Valid&SetMode != 0 {
		c.Mask, c.Mode = c.Mask|namespace.AttrMode, s.Mode&07777
	}
	if s.Valid&SetUID != 0 {
		c.Mask, c.UID = c.Mask|namespace.AttrUID, s.UID
	}
	if s.Valid&SetGID != 0 {
		c.Mask, c.GID = c.Mask|namespace.AttrGID, s.GID
	}
	if s.Valid&(SetAtime|SetAtimeNow) != 0 {
		c.Mask, c.Atime = c.Mask|namespace.AttrAtime, s.Atime
		if s.Valid&SetAtimeNow != 0 {
			c.Atime = now
		}
	}
	if s.Valid&(SetMtime|SetMtimeNow) != 0 {
		c.Mask, c.Mtime = c.Mask|namespace.AttrMtime, s.Mtime
		if s.Valid&SetMtimeNow != 0 {
			c.Mtime = now
		}
	}
	if c.Mask == 0 {
		return nil
	}
	// The lock keeps the order of this op and the file's next content op, which carries a time too.
	in.mu.Lock()
	defer in.mu.Unlock()
	if c.Mask&namespace.AttrMtime != 0 {
		in.mtime, in.savedGen = c.Mtime, 0
		if in.ready != nil {
			in.ready.mtime = c.Mtime
		}
	}
	return v.mutateUnder(room, v.treeMu.LockInPlace, func(t *namespace.Tree, now int64) error {
		_, err := t.SetAttr(now, in.id, c)
		return err
	})
}

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

// FsyncDir makes the directory's entries, and every op before, durable.
func (v *Volume) FsyncDir(ctx context.Context, ino uint64) error {
	return v.with(ino, func(*inode) error { return v.syncHere(ctx) })
}

// Count returns the number of files and of directories, and the size of all files in bytes.
func (v *Volume) Count() (files, dirs, bytes uint64) {
	v.treeMu.RLock()
	defer v.treeMu.RUnlock()
	return v.cfg.Tree.Count()
}

// Statfs returns the space of the disk below and the number of files.
func (v *Volume) Statfs(context.Context) (Statfs, error) {
	s := Statfs{BlockSize: 4096, NameLen: 255}
	if v.cfg.DiskUsage != nil {
		total, free, err := v.cfg.DiskUsage()
		if err != nil {
			return s, fmt.Errorf("ask for the disk's space: %w", err)
		}
		left := 2 * kept(total) // by chunks
		s.Blocks, s.Bfree, s.Bavail = total/4096, free/4096, (free-min(free, left))/4096
	}
	files, dirs, _ := v.Count()
	s.Ffree = 1 << 32
	s.Files = files + dirs + s.Ffree
	return s, nil
}
