package fusefs

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"bazil.org/fuse"

	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/volume"
)

// openFile is an open regular file.
type openFile struct {
	*volume.Handle
	// bare is the value of notes.privileges plus one when a write through this handle
	// last saw to it that the file has no capabilities.
	bare atomic.Uint64
}

func (c *call) open(r *fuse.OpenRequest) error {
	ino := uint64(r.Node)
	if r.OpenFlags&fuse.OpenKillSUIDGID != 0 {
		if err := c.strip(ino); err != nil {
			return err
		}
	}
	h, err := c.s.vol.Open(c.ctx, ino, int(r.Flags))
	if err != nil {
		return err
	}
	f := &openFile{Handle: h}
	id := c.s.files.add(f)
	msg := c.scratch[:outHeaderSize+openOutSize]
	putOpenOut(msg[outHeaderSize:], id, c.s.openReply(h, int(r.Flags)))
	if err := c.send(msg); err != nil {
		c.s.files.remove(id)
		f.Release()
	}
	return nil
}

// openReply says what the kernel may do with a new handle.
func (s *Server) openReply(h *volume.Handle, flags int) fuse.OpenResponseFlags {
	var f fuse.OpenResponseFlags
	if h.KeepCache() && s.notes.mayKeep(h.Ino()) { // the open that was told to drop them may not have done so yet
		f |= fuse.OpenKeepCache
	}
	if flags&syscall.O_ACCMODE == syscall.O_RDONLY && !s.vol.Locking() { // any close gives up the process's locks
		f |= openNoFlush
	}
	return f
}

// strip drops the privileges of a file that is about to get other content.
func (c *call) strip(ino uint64) error {
	if err := c.stripSetID(ino); err != nil {
		return err
	}
	return c.dropCapabilities(ino)
}

// stripSetID takes set-id bits away, and has the kernel know it before it goes on: the answers to what changes content
// carry no mode, and a kernel that has the old one would still run the file for its owner.
func (c *call) stripSetID(ino uint64) error {
	a, err := c.s.vol.Getattr(c.ctx, ino)
	if err != nil {
		return err
	}
	mode := c.withoutSetID(&a)
	if mode == a.Mode {
		return nil
	}
	if _, err = c.s.vol.Setattr(c.ctx, ino, volume.SetAttr{Valid: volume.SetMode, Mode: mode}); err != nil {
		return err
	}
	c.s.notes.tellAttr(c.ctx, ino)
	return nil
}

func (c *call) create(r *fuse.CreateRequest) error {
	a, h, err := c.s.vol.Create(c.ctx, c.caller(), uint64(r.Node), r.Name, permBits(r.Mode), int(r.Flags))
	if errors.Is(err, namespace.ErrExist) && r.Flags&fuse.OpenExclusive == 0 {
		// The kernel thought that the name was free, so it has checked no
		// permissions of the file. This has it look up the name and open that.
		return syscall.ESTALE
	}
	if err != nil {
		return err
	}
	return c.sendOpened(r.Node, &a, h, int(r.Flags))
}

// tmpfile makes a file without a name. The request's body is struct fuse_create_in and a name that means nothing.
func (c *call) tmpfile(r *fuse.UnrecognizedRequest) error {
	body := c.s.hatch.body(c.hdr)
	if len(body) < 16 {
		return syscall.EIO
	}
	flags, mode := native.Uint32(body), native.Uint32(body[4:])
	a, h, err := c.s.vol.CreateUnnamed(c.ctx, c.caller(), uint64(r.Node), mode&0o7777, int(flags))
	if err != nil {
		return err
	}
	return c.sendOpened(r.Node, &a, h, int(flags))
}

// sendOpened answers with a file that was made in a directory and opened.
func (c *call) sendOpened(dir fuse.NodeID, a *volume.Attr, h *volume.Handle, flags int) (err error) {
	c.changed(dir)
	f := &openFile{Handle: h}
	id := c.s.files.add(f)
	msg := c.scratch[:outHeaderSize+entryOutSize+openOutSize]
	c.s.notes.whileReplying(c.changes, func(fresh bool) {
		putEntryOut(msg[outHeaderSize:], a, c.nameValidity(fresh, uint64(dir)), c.attrValidity(fresh, a))
		putOpenOut(msg[outHeaderSize+entryOutSize:], id, c.s.openReply(h, flags))
		err = c.send(msg)
	})
	if err != nil {
		c.s.files.remove(id)
		f.Release()
		c.s.vol.Forget(a.Ino, 1)
	}
	return nil
}

// read answers from the request's own buffer, which is as large as the largest read.
func (c *call) read(r *fuse.ReadRequest) error {
	f := c.s.files.get(r.Handle)
	if f == nil {
		return syscall.EBADF
	}
	msg := c.s.hatch.buffer(c.hdr)
	if r.Size > len(msg)-outHeaderSize {
		msg = make([]byte, outHeaderSize+r.Size)
	}
	n, err := f.Read(c.ctx, msg[outHeaderSize:outHeaderSize+r.Size], r.Offset)
	if err != nil {
		return err
	}
	_ = c.send(msg[:outHeaderSize+n])
	return nil
}

func (c *call) write(r *fuse.WriteRequest) error {
	f := c.s.files.get(r.Handle)
	if f == nil {
		return syscall.EBADF
	}
	if err := c.beforeWrite(f, r.Flags&fuse.WriteKillSUIDGID != 0); err != nil {
		return err
	}
	write := f.Write
	switch {
	case r.Flags&fuse.WriteCache != 0: // from a mapping
		write = f.WriteBack
	case r.FileFlags&fuse.OpenAppend != 0:
		write = f.Append
	}
	n, err := write(c.ctx, r.Data, r.Offset)
	if err != nil {
		return err
	}
	return c.ok(func() { r.Respond(&fuse.WriteResponse{Size: n}) })
}

// beforeWrite takes away the privileges that the old content had, set-id bits only if told to.
func (c *call) beforeWrite(f *openFile, setID bool) error {
	if setID {
		if err := c.stripSetID(f.Ino()); err != nil {
			return err
		}
	}
	// Capabilities go whoever writes. They are rare, so they are looked for once for
	// each handle, and again only after somebody gave some file capabilities.
	seen := c.s.notes.privileges.Load() + 1
	if f.bare.Load() == seen {
		return nil
	}
	if err := c.dropCapabilities(f.Ino()); err != nil {
		return err
	}
	f.bare.Store(seen)
	return nil
}

func (c *call) flush(r *fuse.FlushRequest) error {
	f := c.s.files.get(r.Handle)
	if f == nil {
		return syscall.EBADF
	}
	err := f.Flush(c.ctx)
	f.UnlockOwner(c.ctx, uint64(r.LockOwner))
	if err != nil {
		return err
	}
	return c.ok(r.Respond)
}

func (c *call) fsync(r *fuse.FsyncRequest) error {
	if r.Dir {
		if err := c.s.vol.FsyncDir(c.ctx, uint64(r.Node)); err != nil {
			return err
		}
		return c.ok(r.Respond)
	}
	f := c.s.files.get(r.Handle)
	if f == nil {
		return syscall.EBADF
	}
	if err := f.Fsync(c.ctx); err != nil {
		c.s.log.Error("fsync failed", "inode", f.Ino(), "error", err)
		return fmt.Errorf("fsync: %w", err)
	}
	return c.ok(r.Respond)
}

func (c *call) release(r *fuse.ReleaseRequest) error {
	if r.Dir {
		c.s.notes.taken(r.Handle)
		if d := c.s.dirs.remove(r.Handle); d != nil {
			d.Release()
		}
	} else if f := c.s.files.remove(r.Handle); f != nil {
		f.Release()
	}
	return c.ok(r.Respond)
}
