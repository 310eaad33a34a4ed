package fusefs

import (
	"math"
	"syscall"

	"bazil.org/fuse"
)

// What treats a file as a row of extents: holes, and ranges that are copied.

func (c *call) fallocate(r *fuse.FAllocateRequest) error {
	f := c.s.files.get(r.Handle)
	if f == nil {
		return syscall.EBADF
	}
	if r.Offset > math.MaxInt64 || r.Length > math.MaxInt64 {
		return syscall.EFBIG
	}
	if err := c.beforeWrite(f, c.mustKillSetID()); err != nil {
		return err
	}
	if err := f.Allocate(c.ctx, int64(r.Offset), int64(r.Length), uint32(r.Mode)); err != nil {
		return err
	}
	c.changed(r.Node)
	return c.ok(r.Respond)
}

// mustKillSetID reports whether who changes a file's content may not leave it its set-id bits: the
// kernel says so of writes only.
func (c *call) mustKillSetID() bool { return c.hdr.Uid != 0 }

// lseek finds data or a hole. The request's body is struct fuse_lseek_in.
func (c *call) lseek(*fuse.UnrecognizedRequest) error {
	body := c.s.hatch.body(c.hdr)
	if len(body) < 20 {
		return syscall.EIO
	}
	handle, off, whence := native.Uint64(body), native.Uint64(body[8:]), native.Uint32(body[16:])
	f := c.s.files.get(fuse.HandleID(handle))
	if f == nil {
		return syscall.EBADF
	}
	at, err := f.Seek(c.ctx, int64(off), int(whence))
	if err != nil {
		return err
	}
	msg := c.scratch[:outHeaderSize+8]
	native.PutUint64(msg[outHeaderSize:], uint64(at))
	return c.send(msg)
}

// maxCopy is how much is copied at once for a kernel that takes the answer in 32 bits.
const maxCopy = 1 << 30

// copyFileRange answers both requests of that name, whose body is struct
// fuse_copy_file_range_in: the older has its answer in struct fuse_write_out, the newer in 64 bits.
func (c *call) copyFileRange(r *fuse.UnrecognizedRequest) error {
	body := c.s.hatch.body(c.hdr)
	if len(body) < 56 {
		return syscall.EIO
	}
	var in [7]uint64 // handle and offset, node, handle and offset, length, flags
	for i := range in {
		in[i] = native.Uint64(body[8*i:])
	}
	src, dst := c.s.files.get(fuse.HandleID(in[0])), c.s.files.get(fuse.HandleID(in[3]))
	if src == nil || dst == nil {
		return syscall.EBADF
	}
	if in[6] != 0 || in[1] > math.MaxInt64 || in[4] > math.MaxInt64 {
		return syscall.EINVAL
	}
	n := int64(min(in[5], math.MaxInt64-max(in[1], in[4])))
	if r.Opcode == opCopyFileRange {
		n = min(n, maxCopy)
	}
	if err := c.beforeWrite(dst, c.mustKillSetID()); err != nil {
		return err
	}
	done, err := c.s.vol.Copy(c.ctx, src.Handle, int64(in[1]), dst.Handle, int64(in[4]), n)
	if err != nil {
		return err
	}
	msg := c.scratch[:outHeaderSize+8]
	native.PutUint64(msg[outHeaderSize:], 0)
	if r.Opcode == opCopyFileRange {
		native.PutUint32(msg[outHeaderSize:], uint32(done))
	} else {
		native.PutUint64(msg[outHeaderSize:], uint64(done))
	}
	return c.send(msg)
}
