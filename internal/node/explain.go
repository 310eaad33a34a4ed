package node

import (
	"errors"
	"os"

	"github.com/foreverfs/forever/casstore"
	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/internal/sealedfs"
	"github.com/foreverfs/forever/replica"
)

// explain tells a failure to start, to go on or to end in words that say what to do.
func explain(cfg Config, err error) error {
	var e *fail.Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	in := "data directory " + cfg.Dir
	switch kind := classify(err); {
	case kind == fail.NoSpace:
		return &fail.Error{Kind: kind, Op: "the disk of " + in + " is full", Err: words(err), Next: "free some space and start again; what fsync has returned for is there"}
	case errors.Is(err, casstore.ErrIndex):
		return &fail.Error{Kind: fail.Damaged, Op: "the index of the chunks in " + in + " is damaged on the disk", Err: words(err),
			Next: "start again: it is made anew from the chunks, and nothing is lost"}
	case errors.Is(err, sealedfs.ErrKey), errors.Is(err, sealedfs.ErrNotSealed):
		return &fail.Error{Kind: fail.Key, Op: "open the state in " + in, Err: words(err), Next: "key and state do not belong together: restore both from one copy"}
	case errors.Is(err, sealedfs.ErrVersion), errors.Is(err, casstore.ErrVersion):
		return &fail.Error{Kind: fail.Format, Op: in, Err: words(err), Next: "update fsmount; nothing was changed"}
	case errors.Is(err, replica.ErrNoVolume):
		return &fail.Error{Kind: fail.Format, Op: in + " has lost its control log", Err: words(err), Next: "restore it from a copy, or join anew with another --data"}
	case kind == fail.Damaged:
		return &fail.Error{Kind: kind, Op: "the state in " + in + " is damaged on the disk", Err: words(err), Next: restoreOrJoin}
	case errors.Is(err, os.ErrPermission):
		return notOurs(cfg.Dir, err)
	}
	return err
}
