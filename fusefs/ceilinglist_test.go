package fusefs

import (
	"slices"
	"syscall"

	"bazil.org/fuse"

	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/volume"
)

func (fs *ceiling) opendir(c *call, r *fuse.OpenRequest) error {
	id := fs.dirs.add(&plainList{ino: uint64(r.Node)})
	msg := c.scratch[:outHeaderSize+openOutSize]
	putOpenOut(msg[outHeaderSize:], id, 0)
	return c.send(msg)
}

// list returns the entries of an open directory from a cookie on, which is a
// position, and where a reply of size bytes goes.
func (fs *ceiling) list(c *call, h fuse.HandleID, cookie uint64, size int) (*plainList, []byte, error) {
	l := fs.dirs.get(h)
	if l == nil {
		return nil, nil, syscall.EBADF
	}
	if cookie == 0 || l.entries == nil {
		fs.mu.RLock()
		d, err := fs.dir(l.ino)
		if err != nil {
			fs.mu.RUnlock()
			return nil, nil, err
		}
		parent, _ := fs.node(d.parent)
		l.entries = append([]*plainEntry{{name: ".", node: d}, {name: "..", node: parent}}, d.order...)
		l.entries = slices.DeleteFunc(l.entries, func(e *plainEntry) bool { return e.gone || e.node == nil })
		fs.mu.RUnlock()
	}
	msg := c.s.hatch.buffer(c.hdr)
	return l, msg[:outHeaderSize+min(size, len(msg)-outHeaderSize)], nil
}

func (fs *ceiling) readdir(c *call, r *fuse.ReadRequest) error {
	l, msg, err := fs.list(c, r.Handle, uint64(r.Offset), r.Size)
	if err != nil {
		return err
	}
	n := outHeaderSize
	for i := int(r.Offset); i < len(l.entries); i++ {
		size := direntLen(len(l.entries[i].name))
		if n+size > len(msg) {
			break
		}
		putPlainDirent(msg[n:n+size], l.entries[i], i)
		n += size
	}
	return c.send(msg[:n])
}

func putPlainDirent(b []byte, e *plainEntry, i int) {
	putDirent(b, &volume.DirEntry{Name: e.name, Ino: e.node.attr.Ino, Kind: e.node.attr.Kind, Cookie: uint64(i + 1)})
}

func (fs *ceiling) readdirplus(c *call) error {
	body := c.s.hatch.body(c.hdr)
	if len(body) < 20 {
		return syscall.EIO
	}
	handle, cookie, size := native.Uint64(body), native.Uint64(body[8:]), int(native.Uint32(body[16:]))
	l, msg, err := fs.list(c, fuse.HandleID(handle), cookie, size)
	if err != nil {
		return err
	}
	n := outHeaderSize
	fs.mu.Lock()
	for i := int(cookie); i < len(l.entries); i++ {
		e := l.entries[i]
		size := entryOutSize + direntLen(len(e.name))
		if n+size > len(msg) {
			break
		}
		putPlainDirent(msg[n+entryOutSize:n+size], e, i)
		if e.gone || e.name == "." || e.name == ".." {
			clear(msg[n : n+entryOutSize])
		} else {
			e.node.known++
			a := e.node.attrOf()
			putEntryOut(msg[n:], &a, ceilingValidity, ceilingValidity)
		}
		n += size
	}
	fs.mu.Unlock()
	return c.send(msg[:n])
}

func (fs *ceiling) open(c *call, r *fuse.OpenRequest) error {
	if r.Dir {
		return fs.opendir(c, r)
	}
	fs.mu.Lock()
	n, err := fs.node(uint64(r.Node))
	if err != nil {
		fs.mu.Unlock()
		return err
	}
	n.opened++
	if r.Flags&fuse.OpenTruncate != 0 {
		n.contentMu.Lock()
		n.content.truncate(fs.pool, 0)
		n.attr.Size = 0
		n.contentMu.Unlock()
	}
	fs.mu.Unlock()
	msg := c.scratch[:outHeaderSize+openOutSize]
	putOpenOut(msg[outHeaderSize:], fs.files.add(n), c.plainOpenReply(r.Flags))
	return c.send(msg)
}

// plainOpenReply spares the FLUSH where openReply would.
func (c *call) plainOpenReply(flags fuse.OpenFlags) fuse.OpenResponseFlags {
	f := fuse.OpenKeepCache
	if int(flags)&syscall.O_ACCMODE == syscall.O_RDONLY && !c.s.vol.Locking() {
		f |= openNoFlush
	}
	return f
}

func (fs *ceiling) create(c *call, r *fuse.CreateRequest) error {
	fs.mu.Lock()
	n, err := fs.add(c, uint64(r.Node), r.Name, volume.Attr{Kind: namespace.KindFile, Mode: permBits(r.Mode)})
	if err != nil {
		fs.mu.Unlock()
		return err
	}
	n.opened++
	a := n.attrOf()
	fs.mu.Unlock()
	msg := c.scratch[:outHeaderSize+entryOutSize+openOutSize]
	putEntryOut(msg[outHeaderSize:], &a, ceilingValidity, ceilingValidity)
	putOpenOut(msg[outHeaderSize+entryOutSize:], fs.files.add(n), c.plainOpenReply(r.Flags))
	return c.send(msg)
}

func (fs *ceiling) release(c *call, r *fuse.ReleaseRequest) error {
	if r.Dir {
		fs.dirs.remove(r.Handle)
	} else if n := fs.files.remove(r.Handle); n != nil {
		fs.mu.Lock()
		n.opened--
		fs.tidy(n)
		fs.mu.Unlock()
	}
	return c.ok(r.Respond)
}
