package fusefs

import (
	"context"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/volume"
)

func (c *call) lookup(r *fuse.LookupRequest) error {
	if len(r.Name) > namespace.MaxName {
		return syscall.ENAMETOOLONG // "does not exist" would be as true, but is not what programs expect
	}
	switch r.Name {
	case ".": // of who has a file handle; in a path the kernel knows it
		return c.sendFound(r.Node, c.s.vol.LookupSelf)
	case "..":
		return c.sendFound(r.Node, c.s.vol.LookupParent)
	}
	a, err := c.s.vol.Lookup(c.ctx, uint64(r.Node), r.Name)
	if errors.Is(err, namespace.ErrNotExist) {
		return c.sendNoEntry(r.Node)
	}
	if err != nil {
		return err
	}
	return c.sendEntry(r.Node, &a)
}

// sendFound answers with what an inode leads to.
func (c *call) sendFound(from fuse.NodeID, lookup func(context.Context, uint64) (volume.Attr, error)) error {
	a, err := lookup(c.ctx, uint64(from))
	if err != nil {
		return err
	}
	return c.sendEntry(from, &a)
}

func (c *call) forget(r *fuse.ForgetRequest) error {
	c.s.vol.Forget(uint64(r.Node), r.N)
	return c.ok(r.Respond)
}

func (c *call) batchForget(r *fuse.BatchForgetRequest) error {
	for _, f := range r.Forget {
		c.s.vol.Forget(uint64(f.NodeID), f.N)
	}
	return c.ok(r.Respond)
}

func (c *call) getattr(r *fuse.GetattrRequest) error {
	a, err := c.s.vol.Getattr(c.ctx, uint64(r.Node))
	if err != nil {
		return err
	}
	return c.sendAttr(&a)
}

// statx answers statx(2) where it asks for what GETATTR does not tell: when a file was made.
func (c *call) statx() error {
	a, err := c.s.vol.Getattr(c.ctx, uint64(c.hdr.Node))
	if err != nil {
		return err
	}
	msg := make([]byte, outHeaderSize+statxOutSize)
	c.s.notes.whileReplying(c.changes, func(fresh bool) {
		putStatxOut(msg[outHeaderSize:], &a, c.attrValidity(fresh, &a))
		_ = c.send(msg)
	})
	return nil
}

// access answers access(2) and chdir(2), which the kernel asks about where it does not check permissions
// itself: where all callers are root. Even root executes no file that nobody may.
func (c *call) access(r *fuse.AccessRequest) error {
	if r.Mask&unix.X_OK != 0 {
		a, err := c.s.vol.Getattr(c.ctx, uint64(r.Node))
		if err != nil {
			return err
		}
		if a.Kind != namespace.KindDir && a.Mode&0o111 == 0 {
			return syscall.EACCES
		}
	}
	return c.ok(r.Respond)
}

// setattrBits pairs the kernel's bits with the volume's.
var setattrBits = []struct {
	kernel fuse.SetattrValid
	volume volume.SetAttrMask
}{
	{fuse.SetattrMode, volume.SetMode},
	{fuse.SetattrUid, volume.SetUID},
	{fuse.SetattrGid, volume.SetGID},
	{fuse.SetattrSize, volume.SetSize},
	{fuse.SetattrAtime, volume.SetAtime},
	{fuse.SetattrMtime, volume.SetMtime},
	{fuse.SetattrAtimeNow, volume.SetAtimeNow},
	{fuse.SetattrMtimeNow, volume.SetMtimeNow},
}

func (c *call) setattr(r *fuse.SetattrRequest) error {
	if r.Size > math.MaxInt64 {
		return syscall.EFBIG
	}
	set := volume.SetAttr{
		Mode: permBits(r.Mode), UID: r.Uid, GID: r.Gid, Size: int64(r.Size),
		Atime: unixNano(r.Atime), Mtime: unixNano(r.Mtime), Held: r.Valid.Handle(),
	}
	for _, b := range setattrBits {
		if r.Valid&b.kernel != 0 {
			set.Valid |= b.volume
		}
	}
	ino := uint64(r.Node)
	var err error
	switch {
	case r.Valid == 0:
		err = c.setNothing(ino, &set)
	case r.Valid&(fuse.SetattrUid|fuse.SetattrGid) != 0, r.Valid.SetattrKillSUIDGID():
		err = c.dropPrivileges(ino, &set)
	}
	if err != nil {
		return err
	}
	a, err := c.s.vol.Setattr(c.ctx, ino, set)
	if err != nil {
		return err
	}
	defer c.s.answers.begin(ino)() // not before: it may have waited for other mounts, which wait for this one
	return c.sendAttr(&a)
}

// unixNano returns a time in Unix ns. Those before 1677 and after 2262 have none: they become the nearest that has.
func unixNano(t time.Time) int64 {
	switch {
	case t.Before(time.Unix(0, math.MinInt64)):
		return math.MinInt64
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return t.UnixNano()
}

// setNothing adds to set what a request takes away that asks for nothing. It is the kernel's before a change of content that takes
// privileges away, or chown(path, -1, -1), which does so for the owner and root, and is refused to others where there are set-id bits. The
// change itself says what it takes away, but the kernel knows the new mode at once only if this answer has it. So while the file is
// open for writing the bits go if who asks might take them away anyway.
func (c *call) setNothing(ino uint64, set *volume.SetAttr) error {
	a, err := c.s.vol.Getattr(c.ctx, ino)
	if err != nil || a.Kind == namespace.KindDir {
		return err
	}
	root, owner := c.hdr.Uid == 0, c.hdr.Uid == a.UID
	mode := c.withoutSetID(&a)
	switch written := c.s.vol.OpenForWriting(ino); {
	case !written && (root || owner):
		return c.dropPrivileges(ino, set)
	case mode == a.Mode:
		return nil
	case !written:
		return syscall.EPERM
	case root && c.keepsSetID(): // it is about capabilities alone, which go with the change
		return nil
	case root || owner || c.mayWrite(&a):
		set.Valid, set.Mode = volume.SetMode, mode
	}
	return nil
}

// keepsSetID reports whether a process of root's has what it takes to change a file and leave it its set-id
// bits. If that cannot be known, it has.
func (c *call) keepsSetID() bool {
	status, err := readProc(c.hdr.Pid, "status")
	return err != nil || hasCapability(status, unix.CAP_FSETID)
}

// hasCapability reports whether a capability is effective by a /proc/PID/status; see proc_pid_status(5).
func hasCapability(status string, bit int) bool {
	for line := range strings.Lines(status) {
		if list, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(list), 16, 64)
			return err != nil || set&(1<<bit) != 0
		}
	}
	return true
}

// mayWrite reports whether a file's mode lets who asks, who is not its owner, write to it.
func (c *call) mayWrite(a *volume.Attr) bool {
	if c.inGroup(a.GID) {
		return a.Mode&syscall.S_IWGRP != 0
	}
	return a.Mode&syscall.S_IWOTH != 0
}

// dropPrivileges adds to set that the file is no longer set-user-ID or
// set-group-ID, as a new owner or new content asks for, and removes its capabilities.
// The kernel leaves that to us, and in return does not ask for the capabilities
// before each write.
func (c *call) dropPrivileges(ino uint64, set *volume.SetAttr) error {
	a, err := c.s.vol.Getattr(c.ctx, ino)
	if err != nil {
		return err
	}
	if a.Kind == namespace.KindDir {
		return nil
	}
	if set.Valid&volume.SetMode == 0 {
		if mode := c.withoutSetID(&a); mode != a.Mode {
			set.Valid, set.Mode = set.Valid|volume.SetMode, mode
		}
	}
	return c.dropCapabilities(ino)
}

// withoutSetID returns a file's mode without the set-user-ID bit, and without the set-group-ID bit unless that means
// mandatory locking, which only the file's group may ask for.
func (c *call) withoutSetID(a *volume.Attr) uint32 {
	mode := a.Mode &^ syscall.S_ISUID
	if mode&syscall.S_ISGID != 0 && (mode&syscall.S_IXGRP != 0 || c.mustKillSetID() && !c.inGroup(a.GID)) {
		mode &^= syscall.S_ISGID
	}
	return mode
}

// inGroup reports whether who asks is in a group.
func (c *call) inGroup(gid uint32) bool {
	if c.hdr.Gid == gid {
		return true
	}
	status, err := readProc(c.hdr.Pid, "status")
	return err == nil && hasGroup(status, gid)
}

// hasGroup reports whether a group is one of the supplementary groups in a /proc/PID/status; see proc_pid_status(5).
func hasGroup(status string, gid uint32) bool {
	for line := range strings.Lines(status) {
		if list, ok := strings.CutPrefix(line, "Groups:"); ok {
			return slices.Contains(strings.Fields(list), strconv.FormatUint(uint64(gid), 10))
		}
	}
	return false
}

func (c *call) dropCapabilities(ino uint64) error {
	// Hardly a file has any: to look costs less than to change nothing.
	_, err := c.s.vol.Getxattr(c.ctx, ino, xattrCapability)
	if err == nil {
		err = c.s.vol.Removexattr(c.ctx, ino, xattrCapability)
	}
	if errors.Is(err, namespace.ErrNoXattr) {
		return nil
	}
	return err
}

func (c *call) mkdir(r *fuse.MkdirRequest) error {
	a, err := c.s.vol.Mkdir(c.ctx, c.caller(), uint64(r.Node), r.Name, permBits(r.Mode))
	if err != nil {
		return err
	}
	c.changed(r.Node)
	return c.sendEntry(r.Node, &a)
}

func (c *call) mknod(r *fuse.MknodRequest) error {
	a, err := c.s.vol.Mknod(c.ctx, c.caller(), uint64(r.Node), r.Name, nodeBits(r.Mode), r.Rdev)
	if err != nil {
		return err
	}
	c.changed(r.Node)
	return c.sendEntry(r.Node, &a)
}

func (c *call) symlink(r *fuse.SymlinkRequest) error {
	a, err := c.s.vol.Symlink(c.ctx, c.caller(), uint64(r.Node), r.NewName, r.Target)
	if err != nil {
		return err
	}
	c.changed(r.Node)
	return c.sendEntry(r.Node, &a)
}

func (c *call) readlink(r *fuse.ReadlinkRequest) error {
	target, err := c.s.vol.Readlink(c.ctx, uint64(r.Node))
	if err != nil {
		return err
	}
	return c.ok(func() { r.Respond(target) })
}

func (c *call) link(r *fuse.LinkRequest) error {
	a, err := c.s.vol.Link(c.ctx, uint64(r.OldNode), uint64(r.Node), r.NewName)
	if errors.Is(err, namespace.ErrIsDir) {
		return syscall.EPERM // link(2) says so of directories
	}
	if err != nil {
		return err
	}
	c.changed(r.Node)
	return c.sendEntry(r.Node, &a)
}

func (c *call) remove(r *fuse.RemoveRequest) error {
	var err error
	if r.Dir {
		err = c.s.vol.Rmdir(c.ctx, uint64(r.Node), r.Name)
	} else {
		err = c.s.vol.Unlink(c.ctx, uint64(r.Node), r.Name)
	}
	if err != nil {
		return err
	}
	c.changed(r.Node)
	return c.ok(r.Respond)
}

func (c *call) rename(r *fuse.RenameRequest) error {
	if err := c.moveName(r.Node, r.OldName, r.NewDir, r.NewName, 0); err != nil {
		return err
	}
	return c.ok(r.Respond)
}

// moveName renames. What was replaced the kernel looks after itself.
func (c *call) moveName(from fuse.NodeID, oldName string, to fuse.NodeID, newName string, flags uint32) error {
	moved, other, err := c.s.vol.Rename(c.ctx, c.caller(), uint64(from), oldName, uint64(to), newName, flags)
	if err != nil {
		return err
	}
	c.changed(from, to, fuse.NodeID(moved))
	if flags&volume.RenameExchange != 0 && other != 0 {
		c.changed(fuse.NodeID(other))
	}
	return nil
}

// rename2 is rename with the flags of renameat2(2). Its body is struct
// fuse_rename2_in and both names, each ending in NUL.
func (c *call) rename2(r *fuse.UnrecognizedRequest) error {
	newDir, flags, oldName, newName, ok := parseRename2(c.s.hatch.body(c.hdr))
	if !ok {
		return syscall.EIO
	}
	if err := c.moveName(r.Node, oldName, fuse.NodeID(newDir), newName, flags); err != nil {
		return err
	}
	return c.send(c.scratch[:outHeaderSize])
}

func (c *call) statfs(r *fuse.StatfsRequest) error {
	st, err := c.s.vol.Statfs(c.ctx)
	if err != nil {
		return err
	}
	return c.ok(func() {
		r.Respond(&fuse.StatfsResponse{
			Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail, Files: st.Files, Ffree: st.Ffree,
			Bsize: st.BlockSize, Frsize: st.BlockSize, Namelen: st.NameLen,
		})
	})
}
