package namespace

import (
	"errors"
	"fmt"
)

// What operations refuse, as POSIX names it.
var (
	// ErrNotExist says that a node or a name does not exist (ENOENT).
	ErrNotExist = errors.New("namespace: does not exist")
	// ErrExist says that a name is taken (EEXIST).
	ErrExist = errors.New("namespace: exists already")
	// ErrNotEmpty says that a directory has entries (ENOTEMPTY).
	ErrNotEmpty = errors.New("namespace: directory not empty")
	// ErrNotDir says that something is not a directory (ENOTDIR).
	ErrNotDir = errors.New("namespace: not a directory")
	// ErrIsDir says that something is a directory (EISDIR; for Link, EPERM).
	ErrIsDir = errors.New("namespace: is a directory")
	// ErrInvalidMove says that a directory would come to lie below itself (EINVAL).
	ErrInvalidMove = errors.New("namespace: cannot move a directory into itself")
	// ErrNameTooLong says that a name, an attribute's name or a symlink's target is too long (ENAMETOOLONG).
	ErrNameTooLong = errors.New("namespace: name too long")
	// ErrInvalidName says that a name is empty, ".", "..", or has a slash or NUL (EINVAL).
	ErrInvalidName = errors.New("namespace: invalid name")
	// ErrNoXattr says that an extended attribute does not exist (ENODATA).
	ErrNoXattr = errors.New("namespace: no such attribute")
	// ErrTooManyLinks says that a file has MaxLinks names (EMLINK).
	ErrTooManyLinks = errors.New("namespace: too many links")
	// ErrTooLarge says that an attribute's value or inline content passes its limit (E2BIG).
	ErrTooLarge = errors.New("namespace: value too large")
	// ErrInvalidArgument says that an argument is impossible: an unknown kind,
	// flag or version (EINVAL).
	ErrInvalidArgument = errors.New("namespace: invalid argument")
)

// What exchange with other devices refuses.
var (
	// ErrNotReady says that batches a batch builds on were not merged yet: try again after them.
	ErrNotReady = errors.New("namespace: earlier batches missing")
	// ErrInvalid says that a batch is malformed or impossible, and always will be.
	ErrInvalid = errors.New("namespace: invalid batch")
	// ErrPending says that pending ops must be cut and committed before a merge,
	// or else they would claim to have known what it brings.
	ErrPending = errors.New("namespace: pending ops must be cut before a merge")
	// ErrFolded says that a batch comes too late: its author did not know what was
	// folded away, and nobody who takes part merges it any more. What it did can
	// only be carried over by its author (Rebase).
	ErrFolded = errors.New("namespace: batch does not know what was folded")
	// ErrUnknowing says that a batch does not know what this device promised that all would: it is an
	// ErrNotReady that may last, unless somebody turns up who merged it before promising the same.
	ErrUnknowing = fmt.Errorf("%w, or it does not know what was promised", ErrNotReady)
	// ErrUnfinished says that an import did not get to its end: the state is no tree until another one does.
	ErrUnfinished = errors.New("namespace: unfinished import")
	// ErrDamaged says that the state holds a record that cannot be read.
	ErrDamaged = errors.New("namespace: damaged state")
)
