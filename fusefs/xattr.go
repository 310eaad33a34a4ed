package fusefs

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"
)

const (
	// xattrCapability holds what a program may do beyond its user; it goes when the program changes.
	xattrCapability = "security.capability"
)

// keptXattrs begin the names that are kept. What begins with "system." are POSIX ACLs and
// the like: they would have to be obeyed, which is not done, so they are refused.
var keptXattrs = []string{"user.", "trusted.", "security."}

// checkXattr says what is wrong with a name.
func checkXattr(name string) error {
	switch {
	case slices.Contains(keptXattrs, name): // nothing behind the prefix
		return syscall.EINVAL
	case !slices.ContainsFunc(keptXattrs, func(prefix string) bool { return strings.HasPrefix(name, prefix) }):
		return syscall.EOPNOTSUPP
	}
	return nil
}

func (c *call) getxattr(r *fuse.GetxattrRequest) error {
	if err := checkXattr(r.Name); err != nil {
		return err
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
	trusted := func(name string) bool { return strings.HasPrefix(name, "trusted.") }
	if slices.ContainsFunc(names, trusted) && !c.seesTrusted() { // as other file systems do
		names = slices.DeleteFunc(names, trusted)
	}
	var list fuse.ListxattrResponse
	list.Append(names...)
	if r.Size != 0 && len(list.Xattr) > int(r.Size) {
		return syscall.ERANGE
	}
	return c.ok(func() { r.Respond(&list) })
}

// seesTrusted reports whether who asks has CAP_SYS_ADMIN, and not only in a user namespace that he may have made
// himself. If that cannot be known, root has.
func (c *call) seesTrusted() bool {
	status, err := readProc(c.hdr.Pid, "status")
	if err != nil {
		return c.hdr.Uid == 0
	}
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", c.hdr.Pid))
	own, ownErr := os.Readlink("/proc/self/ns/user")
	if err != nil || ownErr != nil {
		return c.hdr.Uid == 0
	}
	return space == own && hasCapability(status, unix.CAP_SYS_ADMIN)
}

func (c *call) setxattr(r *fuse.SetxattrRequest) error {
	if err := checkXattr(r.Name); err != nil {
		return err
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
	if err := checkXattr(r.Name); err != nil {
		return err
	}
	if err := c.s.vol.Removexattr(c.ctx, uint64(r.Node), r.Name); err != nil {
		return err
	}
	c.changed(r.Node)
	return c.ok(r.Respond)
}
