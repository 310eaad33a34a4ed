package fusefs

import (
	"bytes"
	"syscall"

	"bazil.org/fuse"

	"github.com/foreverfs/forever/volume"
)

// openDir is an open directory.
type openDir struct {
	*volume.DirHandle
	ino uint64
}

func (c *call) opendir(r *fuse.OpenRequest) error {
	d, err := c.s.vol.OpenDir(c.ctx, uint64(r.Node))
	if err != nil {
		return err
	}
	id := c.s.dirs.add(&openDir{DirHandle: d, ino: uint64(r.Node)})
	msg := c.scratch[:outHeaderSize+openOutSize]
	putOpenOut(msg[outHeaderSize:], id, 0)
	if err := c.send(msg); err != nil {
		c.s.dirs.remove(id)
		d.Release()
	}
	return nil
}

// meanDirent is what an entry takes on average, roughly; so many are read at a time.
const meanDirent = 40

// listing returns the buffer for a reply of at most size bytes, and the entries to put there, which are good until this worker's next request.
func (c *call) listing(d *openDir, cookie uint64, size, mean int) ([]byte, []volume.DirEntry, error) {
	msg := c.s.hatch.buffer(c.hdr)
	if size > len(msg)-outHeaderSize {
		size = len(msg) - outHeaderSize
	}
	if cookie == 0 {
		d.Observe(c.ctx)
	}
	entries, err := d.ReadInto(c.entries, cookie, size/mean+1)
	c.entries = entries
	return msg[:outHeaderSize+size], entries, err
}

func (c *call) readdir(r *fuse.ReadRequest) error {
	d := c.s.dirs.get(r.Handle)
	if d == nil {
		return syscall.EBADF
	}
	c.s.notes.taken(r.Handle)
	msg, entries, err := c.listing(d, uint64(r.Offset), r.Size, meanDirent)
	if err != nil {
		return err
	}
	n := outHeaderSize
	for i := range entries {
		size := direntLen(len(entries[i].Name))
		if n+size > len(msg) {
			break
		}
		putDirent(msg[n:n+size], &entries[i])
		n += size
	}
	_ = c.send(msg[:n])
	return nil
}

// readdirplus answers with entries and the attributes of what they name, as
// if each had been looked up. The request's body is struct fuse_read_in.
func (c *call) readdirplus(*fuse.UnrecognizedRequest) error {
	body := c.s.hatch.body(c.hdr)
	if len(body) < 20 {
		return syscall.EIO
	}
	handle, cookie, size := native.Uint64(body), native.Uint64(body[8:]), int(native.Uint32(body[16:]))
	d := c.s.dirs.get(fuse.HandleID(handle))
	if d == nil {
		return syscall.EBADF
	}
	c.s.notes.taken(fuse.HandleID(handle))
	msg, entries, err := c.listing(d, cookie, size, entryOutSize+meanDirent)
	if err != nil {
		return err
	}
	c.s.vol.ObserveEntries(c.ctx, entries)
	d.Warm(entries)
	given := make([]uint64, 0, len(entries))
	c.s.notes.whileReplying(c.changes, func(fresh bool) {
		n := outHeaderSize
		for i := range entries {
			size := entryOutSize + direntLen(len(entries[i].Name))
			if n+size > len(msg) {
				break
			}
			if ino := c.putDirentPlus(msg[n:n+size], d.ino, &entries[i], fresh); ino != 0 {
				given = append(given, ino)
			}
			n += size
		}
		if n > outHeaderSize {
			c.s.notes.listed(fuse.HandleID(handle))
		}
		err = c.send(msg[:n])
	})
	if err != nil {
		for _, ino := range given {
			c.s.vol.Forget(ino, 1)
		}
	}
	return nil
}

// putDirentPlus writes one entry and returns the inode on which a reference was
// taken for it, or 0.
func (c *call) putDirentPlus(b []byte, dir uint64, e *volume.DirEntry, fresh bool) uint64 {
	putDirent(b[entryOutSize:], e)
	clear(b[:entryOutSize]) // no node: the kernel takes the name alone
	if e.Name == "." || e.Name == ".." {
		return 0
	}
	a, err := c.s.vol.LookupNow(dir, e.Name)
	if err != nil {
		return 0 // gone meanwhile, or not readable: a lookup of its own will tell
	}
	putEntryOut(b, &a, c.nameValidity(fresh, dir), c.attrValidity(fresh, &a))
	return a.Ino
}

// parseRename2 takes apart the body of a RENAME2 request.
func parseRename2(body []byte) (newDir uint64, flags uint32, oldName, newName string, ok bool) {
	if len(body) < 16 {
		return 0, 0, "", "", false
	}
	newDir, flags = native.Uint64(body), native.Uint32(body[8:])
	from, rest, ok1 := bytes.Cut(body[16:], []byte{0})
	to, _, ok2 := bytes.Cut(rest, []byte{0})
	return newDir, flags, string(from), string(to), ok1 && ok2
}
