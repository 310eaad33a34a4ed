package fusefs

import (
	"bytes"
	"slices"
	"strings"
	"syscall"

	"bazil.org/fuse"
)

const (
	// xattrCapability holds what a program may do beyond its user; it goes when the program changes.
	xattrCapability = "security.capability"
)

// keptXattrs begin the names that are kept. What begins with "system." are POSIX ACLs and
// the like: they would have to be obeyed, which is not done, so they are refused.
var keptXattrs = []string{"user.", "trusted.", "security."}

func keepsXattr(name string) bool {
	return slices.ContainsFunc(keptXattrs, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

func (c *call) getxattr(r *fuse.GetxattrRequest) error {
	if !keepsXattr(r.Name) {
		return syscall.EOPNOTSUPP
	}
	val, err := c.s.vol.Getxattr(c.ctx, uint64(r.Node), r.Name)
	if err != nil {
		return err
	}
	if r.Size != 0 && len(val) > int(r.Size) {
		return syscall.ERANGE
	}
	return c.ok(func() { r.Respond(&fuse.GetxattrResponse{Xattr: val}) })
}

func (c *call) listxattr(r *fuse.ListxattrRequest) error {
	names, err := c.s.vol.Listxattr(c.ctx, uint64(r.Node))
	if err != nil {
		return err
	}
	if c.hdr.Uid != 0 { // as other file systems do
		names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, "trusted.") })
	}
	var list fuse.ListxattrResponse
	list.Append(names...)
	if r.Size != 0 && len(list.Xattr) > int(r.Size) {
		return syscall.ERANGE
	}
	return c.ok(func() { r.Respond(&list) })
}

func (c *call) setxattr(r *fuse.SetxattrRequest) error {
	if !keepsXattr(r.Name) {
		return syscall.EOPNOTSUPP
	}
	if slices.Contains(keptXattrs, r.Name) { // nothing behind the prefix
		return syscall.EINVAL
	}
	// The value lies in the request's buffer, which is used again.
	if err := c.s.vol.Setxattr(c.ctx, uint64(r.Node), r.Name, bytes.Clone(r.Xattr), r.Flags); err != nil {
		return err
	}
	if r.Name == xattrCapability {
		c.s.notes.privileges.Add(1)
	}
	c.changed(r.Node)
	return c.ok(r.Respond)
}

func (c *call) removexattr(r *fuse.RemovexattrRequest) error {
	if !keepsXattr(r.Name) {
		return syscall.EOPNOTSUPP
	}
	if err := c.s.vol.Removexattr(c.ctx, uint64(r.Node), r.Name); err != nil {
		return err
	}
	c.changed(r.Node)
	return c.ok(r.Respond)
}
