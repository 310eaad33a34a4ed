package node

import (
	"errors"
	"os"
	"syscall"

	"github.com/cockroachdb/pebble/v2"

	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/replica"
)

// classify finds the kind of an error that has none yet.
func classify(err error) fail.Kind {
	if k := fail.KindOf(err); k != fail.Internal {
		return k
	}
	if pebble.IsCorruptionError(err) { // which it marks in a way that errors.Is does not know
		return fail.Damaged
	}
	for _, c := range classes {
		if errors.Is(err, c.is) {
			return c.kind
		}
	}
	return fail.Internal
}

// classes says what the sentinels of the system and of the other packages mean to
// a person. The first that matches counts.
var classes = []struct {
	is   error
	kind fail.Kind
}{
	{syscall.ENOSPC, fail.NoSpace},
	{syscall.EDQUOT, fail.NoSpace},
	{os.ErrNotExist, fail.Path},
	{os.ErrPermission, fail.Path},
	{syscall.ENOTDIR, fail.Path},
	{syscall.EISDIR, fail.Path},
	{syscall.EROFS, fail.Path},
	{replica.ErrUnavailable, fail.Unavailable},
}
