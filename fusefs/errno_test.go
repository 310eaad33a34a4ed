package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"

	"bazil.org/fuse"

	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/volume"
)

func TestErrno(t *testing.T) {
	for _, c := range []struct {
		err  error
		want syscall.Errno
	}{
		{nil, 0},
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
		{namespace.ErrNotReady, syscall.EIO},
		{namespace.ErrInvalid, syscall.EIO},
		{namespace.ErrPending, syscall.EIO},
		{namespace.ErrFolded, syscall.EIO},
		{namespace.ErrUnknowing, syscall.EIO},
		{namespace.ErrUnfinished, syscall.EIO},
		{namespace.ErrDamaged, syscall.EIO},
		{volume.ErrStale, syscall.ESTALE},
		{volume.ErrReadOnly, syscall.EROFS},
		{volume.ErrBadHandle, syscall.EBADF},
		{volume.ErrInvalid, syscall.EINVAL},
		{volume.ErrBusy, syscall.EBUSY},
		{volume.ErrTooLarge, syscall.EFBIG},
		{volume.ErrNotSupported, syscall.EOPNOTSUPP},
		{volume.ErrNoSuchOffset, syscall.ENXIO},
		{volume.ErrClosed, syscall.EIO},
		{volume.ErrLocked, syscall.EAGAIN},
		{volume.ErrDeadlock, syscall.EDEADLK},
		{volume.ErrTooManyLocks, syscall.ENOLCK},
		{context.Canceled, syscall.EINTR},
		{context.DeadlineExceeded, syscall.EIO},
		{fmt.Errorf("store a block: %w", syscall.ENOSPC), syscall.ENOSPC},
		{&os.PathError{Op: "write", Path: "pack", Err: syscall.EDQUOT}, syscall.EDQUOT},
		{&os.PathError{Op: "open", Path: "pack", Err: syscall.ENOENT}, syscall.EIO},
		{os.ErrNotExist, syscall.EIO},
		{io.EOF, syscall.EIO},
		{errors.New("anything"), syscall.EIO},
	} {
		if got, _ := classify(c.err); got != c.want {
			t.Errorf("%v is %v, want %v", c.err, got, c.want)
		}
		if c.err == nil {
			continue
		}
		wrapped := fmt.Errorf("open: %w", errors.Join(errors.New("first"), fmt.Errorf("inode 7: %w", c.err)))
		if got, _ := classify(wrapped); got != c.want {
			t.Errorf("%v, wrapped, is %v, want %v", c.err, got, c.want)
		}
	}
	for _, bare := range []error{syscall.ENOENT, fuse.Errno(syscall.ENOENT)} {
		if got, _ := classify(bare); got != syscall.ENOENT {
			t.Errorf("bare %T is %v", bare, got)
		}
	}
}
