package fusefs

import (
	"context"
	"errors"
	"syscall"

	"bazil.org/fuse"

	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/volume"
)

// errnos says what the sentinels of the packages below mean to a program. The
// first that matches counts.
var errnos = []struct {
	is    error
	errno syscall.Errno
}{
	{namespace.ErrNotExist, syscall.ENOENT},
	{namespace.ErrExist, syscall.EEXIST},
	{namespace.ErrNotEmpty, syscall.ENOTEMPTY},
	{namespace.ErrNotDir, syscall.ENOTDIR},
	{namespace.ErrIsDir, syscall.EISDIR},
	{namespace.ErrInvalidMove, syscall.EINVAL},
	{namespace.ErrNameTooLong, syscall.ENAMETOOLONG},
	{namespace.ErrInvalidName, syscall.EINVAL},
	{namespace.ErrNoXattr, syscall.ENODATA},
	{namespace.ErrTooManyLinks, syscall.EMLINK},
	{namespace.ErrTooLarge, syscall.E2BIG},
	{namespace.ErrInvalidArgument, syscall.EINVAL},
	{volume.ErrStale, syscall.ESTALE},
	{volume.ErrReadOnly, syscall.EROFS},
	{volume.ErrBadHandle, syscall.EBADF},
	{volume.ErrInvalid, syscall.EINVAL},
	{volume.ErrBusy, syscall.EBUSY},
	{volume.ErrTooLarge, syscall.EFBIG},
	{volume.ErrLocked, syscall.EAGAIN},
	{volume.ErrDeadlock, syscall.EDEADLK},
	{volume.ErrTooManyLocks, syscall.ENOLCK},
	{volume.ErrNotSupported, syscall.EOPNOTSUPP},
	{volume.ErrNoSuchOffset, syscall.ENXIO},
	{context.Canceled, syscall.EINTR},
	// What the disk below says counts only where it means the same to the program. The
	// ENOENT of a lost pack, say, is an I/O error to one that reads an existing file.
	{syscall.ENOSPC, syscall.ENOSPC},
	{syscall.EDQUOT, syscall.EDQUOT},
	{syscall.ENOMEM, syscall.ENOMEM},
}

// classify returns what a program is told about err: 0 for nil, a bare errno as it
// is, what the sentinels of namespace and volume mean however they are wrapped,
// and EIO for everything else, which is not known.
func classify(err error) (errno syscall.Errno, known bool) {
	switch e := err.(type) { // not errors.As: a wrapped errno is another thing than a bare one
	case nil:
		return 0, true
	case syscall.Errno:
		return e, true
	case fuse.Errno:
		return syscall.Errno(e), true
	}
	for _, m := range errnos {
		if errors.Is(err, m.is) {
			return m.errno, true
		}
	}
	return syscall.EIO, false
}
