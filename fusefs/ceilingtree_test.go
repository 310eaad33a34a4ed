package fusefs

import (
	"slices"
	"sync"
	"syscall"
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/volume"
)

// ceiling is a tree in memory.
type ceiling struct {
	pool  *piecePool
	files table[plainNode]
	dirs  table[plainList]

	// mu guards what follows and every node but its content. Order: mu, then plainNode.contentMu.
	mu    sync.RWMutex
	nodes []*plainNode // by inode number
	free  []uint64
}

// plainNode is a file, directory or symbolic link.
type plainNode struct {
	attr   volume.Attr // size and times of a file are guarded by contentMu
	known  uint64      // references of the kernel
	opened int
	target string // of a symbolic link
	// names and order hold a directory's entries; those that have gone stay in order for a while.
	names  map[string]*plainEntry
	order  []*plainEntry
	parent uint64

	contentMu sync.RWMutex
	content   plainContent
}

type plainEntry struct {
	name string
	node *plainNode
	gone bool
}

// plainList is an open directory, as it was when its reading began.
type plainList struct {
	ino     uint64
	entries []*plainEntry
}

func newCeiling(pool *piecePool) *ceiling {
	fs := &ceiling{pool: pool, nodes: make([]*plainNode, 2)}
	now := time.Now().UnixNano()
	fs.nodes[volume.RootIno] = &plainNode{
		attr:  volume.Attr{Ino: volume.RootIno, Kind: namespace.KindDir, Mode: 0o755, Nlink: 2, Atime: now, Mtime: now, Ctime: now},
		known: 1, names: map[string]*plainEntry{}, parent: volume.RootIno,
	}
	return fs
}

// node returns a node that the kernel knows. mu is held.
func (fs *ceiling) node(ino uint64) (*plainNode, error) {
	if ino >= uint64(len(fs.nodes)) || fs.nodes[ino] == nil {
		return nil, syscall.ESTALE
	}
	return fs.nodes[ino], nil
}

// dir is node for a directory.
func (fs *ceiling) dir(ino uint64) (*plainNode, error) {
	n, err := fs.node(ino)
	if err == nil && n.names == nil {
		return nil, syscall.ENOTDIR
	}
	return n, err
}

// attrOf returns a node's attributes. mu is held.
func (n *plainNode) attrOf() volume.Attr {
	n.contentMu.RLock()
	defer n.contentMu.RUnlock()
	a := n.attr
	a.Blocks = (a.Size + 511) / 512
	return a
}

func (fs *ceiling) lookup(c *call, r *fuse.LookupRequest) error {
	fs.mu.Lock()
	d, err := fs.dir(uint64(r.Node))
	if err != nil {
		fs.mu.Unlock()
		return err
	}
	e := d.names[r.Name]
	if e == nil {
		fs.mu.Unlock()
		if len(r.Name) > namespace.MaxName {
			return syscall.ENAMETOOLONG
		}
		msg := c.scratch[:outHeaderSize+entryOutSize]
		putNoEntry(msg[outHeaderSize:], ceilingValidity)
		return c.send(msg)
	}
	e.node.known++
	a := e.node.attrOf()
	fs.mu.Unlock()
	return replyEntry(c, &a)
}

func (fs *ceiling) getattr(c *call, id fuse.NodeID) error {
	fs.mu.RLock()
	n, err := fs.node(uint64(id))
	if err != nil {
		fs.mu.RUnlock()
		return err
	}
	a := n.attrOf()
	fs.mu.RUnlock()
	return replyAttr(c, &a)
}

func (fs *ceiling) setattr(c *call, r *fuse.SetattrRequest) error {
	fs.mu.Lock()
	n, err := fs.node(uint64(r.Node))
	if err != nil {
		fs.mu.Unlock()
		return err
	}
	n.contentMu.Lock()
	fs.change(n, r)
	n.contentMu.Unlock()
	a := n.attrOf()
	fs.mu.Unlock()
	return replyAttr(c, &a)
}

// change sets attributes. mu and n.contentMu are held.
func (fs *ceiling) change(n *plainNode, r *fuse.SetattrRequest) {
	now := time.Now().UnixNano()
	n.attr.Ctime = now
	if r.Valid.Size() {
		n.content.truncate(fs.pool, int64(r.Size))
		n.attr.Size, n.attr.Mtime = int64(r.Size), now
	}
	if r.Valid.Mode() {
		n.attr.Mode = permBits(r.Mode)
	}
	if r.Valid.Uid() {
		n.attr.UID = r.Uid
	}
	if r.Valid.Gid() {
		n.attr.GID = r.Gid
	}
	if r.Valid.Atime() {
		n.attr.Atime = r.Atime.UnixNano()
	}
	if r.Valid.Mtime() {
		n.attr.Mtime = r.Mtime.UnixNano()
	}
	if r.Valid.AtimeNow() {
		n.attr.Atime = now
	}
	if r.Valid.MtimeNow() {
		n.attr.Mtime = now
	}
}

// add makes a node under a name, known to the kernel once. mu is held.
func (fs *ceiling) add(c *call, dir uint64, name string, a volume.Attr) (*plainNode, error) {
	d, err := fs.dir(dir)
	if err != nil {
		return nil, err
	}
	if d.names[name] != nil {
		return nil, syscall.EEXIST
	}
	if len(name) > namespace.MaxName {
		return nil, syscall.ENAMETOOLONG
	}
	now := time.Now().UnixNano()
	a.Nlink, a.UID, a.GID, a.Atime, a.Mtime, a.Ctime = 1, c.hdr.Uid, c.hdr.Gid, now, now, now
	n := &plainNode{attr: a, known: 1, parent: dir}
	if a.Kind == namespace.KindDir {
		n.names, n.attr.Nlink = map[string]*plainEntry{}, 2
		d.attr.Nlink++
	}
	if k := len(fs.free); k > 0 {
		n.attr.Ino = fs.free[k-1]
		fs.free = fs.free[:k-1]
		fs.nodes[n.attr.Ino] = n
	} else {
		n.attr.Ino = uint64(len(fs.nodes))
		fs.nodes = append(fs.nodes, n)
	}
	d.enter(name, n)
	d.attr.Mtime, d.attr.Ctime = now, now
	return n, nil
}

func (fs *ceiling) make(c *call, dir fuse.NodeID, name string, a volume.Attr, target string) error {
	fs.mu.Lock()
	n, err := fs.add(c, uint64(dir), name, a)
	if err != nil {
		fs.mu.Unlock()
		return err
	}
	n.target, n.attr.Size = target, int64(len(target))
	a = n.attrOf()
	fs.mu.Unlock()
	return replyEntry(c, &a)
}

func (fs *ceiling) readlink(c *call, r *fuse.ReadlinkRequest) error {
	fs.mu.RLock()
	n, err := fs.node(uint64(r.Node))
	fs.mu.RUnlock()
	if err != nil {
		return err
	}
	return c.ok(func() { r.Respond(n.target) })
}

func (fs *ceiling) link(c *call, r *fuse.LinkRequest) error {
	fs.mu.Lock()
	n, err := fs.node(uint64(r.OldNode))
	var d *plainNode
	if err == nil {
		d, err = fs.dir(uint64(r.Node))
	}
	switch {
	case err != nil:
	case n.names != nil:
		err = syscall.EPERM
	case d.names[r.NewName] != nil:
		err = syscall.EEXIST
	}
	if err != nil {
		fs.mu.Unlock()
		return err
	}
	d.enter(r.NewName, n)
	n.attr.Nlink++
	n.known++
	a := n.attrOf()
	fs.mu.Unlock()
	return replyEntry(c, &a)
}

// enter and leave change a directory. ceiling.mu is held.
func (n *plainNode) enter(name string, node *plainNode) {
	e := &plainEntry{name: name, node: node}
	n.names[name] = e
	n.order = append(n.order, e)
}

func (n *plainNode) leave(name string) {
	n.names[name].gone = true
	delete(n.names, name)
	if len(n.order) > 2*len(n.names)+16 {
		n.order = slices.DeleteFunc(n.order, func(e *plainEntry) bool { return e.gone })
	}
	now := time.Now().UnixNano()
	n.attr.Mtime, n.attr.Ctime = now, now
}

func (fs *ceiling) remove(dir uint64, name string, isDir bool) error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	d, err := fs.dir(dir)
	if err != nil {
		return err
	}
	return fs.drop(d, name, isDir)
}

// drop takes a name away. mu is held.
func (fs *ceiling) drop(d *plainNode, name string, isDir bool) error {
	e := d.names[name]
	switch {
	case e == nil:
		return syscall.ENOENT
	case isDir && e.node.names == nil:
		return syscall.ENOTDIR
	case !isDir && e.node.names != nil:
		return syscall.EISDIR
	case len(e.node.names) > 0:
		return syscall.ENOTEMPTY
	}
	d.leave(name)
	if isDir {
		d.attr.Nlink--
		e.node.attr.Nlink--
	}
	e.node.attr.Nlink--
	fs.tidy(e.node)
	return nil
}

// tidy ends a node that has no name and that nobody knows. mu is held.
func (fs *ceiling) tidy(n *plainNode) {
	if n.attr.Nlink > 0 || n.opened > 0 {
		return
	}
	n.contentMu.Lock()
	n.content.truncate(fs.pool, 0)
	n.contentMu.Unlock()
	if n.known == 0 {
		fs.nodes[n.attr.Ino] = nil
		fs.free = append(fs.free, n.attr.Ino)
	}
}

func (fs *ceiling) forget(ino, count uint64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if n, err := fs.node(ino); err == nil && ino != volume.RootIno {
		n.known -= min(n.known, count)
		fs.tidy(n)
	}
}

func (fs *ceiling) rename(oldDir uint64, oldName string, newDir uint64, newName string, flags uint32) error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	from, err := fs.dir(oldDir)
	if err != nil {
		return err
	}
	to, err := fs.dir(newDir)
	if err != nil {
		return err
	}
	e, there := from.names[oldName], to.names[newName]
	switch {
	case e == nil:
		return syscall.ENOENT
	case flags&^unix.RENAME_NOREPLACE != 0:
		return syscall.EINVAL
	case there != nil && flags != 0:
		return syscall.EEXIST
	case there != nil && there.node == e.node:
		return nil
	case len(newName) > namespace.MaxName:
		return syscall.ENAMETOOLONG
	}
	if there != nil {
		if err := fs.drop(to, newName, e.node.names != nil); err != nil {
			return err
		}
	}
	from.leave(oldName)
	to.enter(newName, e.node)
	if e.node.names != nil {
		from.attr.Nlink--
		to.attr.Nlink++
		e.node.parent = newDir
	}
	return nil
}
