package node

import (
	"context"
	"errors"
	"path"
	"strings"
	"syscall"

	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/replica"
	"github.com/foreverfs/forever/volume"
)

// maxLinks is how many symbolic links one path may lead through, as on Linux.
const maxLinks = 40

// errOutside says that a symbolic link leaves the volume.
var errOutside = errors.New("a symbolic link leads out of the volume")

// walker resolves one path inside a volume. It holds a reference on every inode
// from the root to where it stands, until done.
type walker struct {
	v     *volume.Volume
	at    []volume.Attr // from the root down; never empty
	links int
}

// walk resolves p, following symbolic links; the last one only if follow. The
// caller calls done on the walker it gets.
func walk(ctx context.Context, v *volume.Volume, p string, follow bool) (*walker, error) {
	root, err := v.Getattr(ctx, volume.RootIno)
	if err != nil {
		return nil, err
	}
	w := &walker{v: v, at: []volume.Attr{root}}
	if err := w.steps(ctx, p, follow); err != nil {
		w.done()
		return nil, err
	}
	return w, nil
}

// here returns where the walker stands.
func (w *walker) here() volume.Attr { return w.at[len(w.at)-1] }

// done gives the references back.
func (w *walker) done() {
	for len(w.at) > 1 {
		w.up()
	}
}

func (w *walker) up() {
	if len(w.at) > 1 {
		w.v.Forget(w.here().Ino, 1)
		w.at = w.at[:len(w.at)-1]
	}
}

func (w *walker) steps(ctx context.Context, p string, follow bool) error {
	names := strings.Split(p, "/")
	for i, name := range names {
		last := strings.Trim(strings.Join(names[i+1:], ""), "/") == ""
		if err := w.step(ctx, name, follow || !last); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) step(ctx context.Context, name string, follow bool) error {
	if isDots(name) {
		if w.here().Kind != namespace.KindDir {
			return namespace.ErrNotDir
		}
		if name == ".." {
			w.up()
		}
		return nil
	}
	a, err := w.v.Lookup(ctx, w.here().Ino, name)
	if err != nil {
		return err
	}
	if a.Kind != namespace.KindSymlink || !follow {
		w.at = append(w.at, a)
		return nil
	}
	target, err := w.target(ctx, a.Ino)
	w.v.Forget(a.Ino, 1)
	if err != nil {
		return err
	}
	return w.steps(ctx, target, true)
}

// target returns where a symbolic link leads that is to be followed.
func (w *walker) target(ctx context.Context, link uint64) (string, error) {
	target, err := w.v.Readlink(ctx, link)
	if err != nil {
		return "", err
	}
	if w.links++; w.links > maxLinks {
		return "", syscall.ELOOP
	}
	if path.IsAbs(target) {
		return "", errOutside
	}
	return target, nil
}

// isDots reports whether a part of a path is no name, but means a directory that is there: an empty one stands before or behind a slash.
func isDots(name string) bool { return name == "" || name == "." || name == ".." }

// walkParent resolves the directory of p and returns it with the last name; with follow, those of what a symbolic link there leads to.
func walkParent(ctx context.Context, v *volume.Volume, p string, follow bool) (*walker, string, error) {
	w, err := walk(ctx, v, "/", false)
	if err != nil {
		return nil, "", err
	}
	name, err := w.parent(ctx, p, follow)
	if err != nil {
		w.done()
		return nil, "", err
	}
	return w, name, nil
}

func (w *walker) parent(ctx context.Context, p string, follow bool) (name string, err error) {
	for linked := false; ; linked = true {
		dir, name := path.Split(strings.TrimRight(p, "/"))
		switch {
		case isDots(name) && linked:
			return "", namespace.ErrIsDir
		case name == "":
			return "", errIsRoot
		case isDots(name):
			return "", errDots
		}
		if err := w.steps(ctx, dir, true); err != nil || !follow {
			return name, err
		}
		a, err := w.v.Lookup(ctx, w.here().Ino, name)
		switch {
		case errors.Is(err, namespace.ErrNotExist) && linked:
			return "", errDangling
		case errors.Is(err, namespace.ErrNotExist):
			return name, nil
		case err != nil:
			return "", err
		}
		if a.Kind == namespace.KindSymlink {
			p, err = w.target(ctx, a.Ino)
		}
		w.v.Forget(a.Ino, 1)
		if err != nil || a.Kind != namespace.KindSymlink {
			return name, err
		}
	}
}

var (
	// errIsRoot says that an operation was asked for on the root directory.
	errIsRoot = errors.New("the root of the volume cannot be replaced or removed")
	// errDots says that it was asked for on a path without a last name.
	errDots = errors.New("a path that ends in . or .. cannot be removed")
	// errDangling says that a symbolic link leads to nothing.
	errDangling = errors.New("a symbolic link to nothing")
)

// pathError tells of a failure on a path of the tree.
func pathError(p string, err error) error {
	var e *fail.Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	kind := classify(err)
	p = "/" + strings.TrimLeft(p, "/")
	switch {
	case errors.Is(err, namespace.ErrNotExist):
		return &fail.Error{Kind: fail.Path, Op: p + " does not exist", Next: "fsmount ls shows what there is"}
	case errors.Is(err, volume.ErrReadOnly):
		return &fail.Error{Kind: fail.ReadOnly, Op: "cannot change " + p + ": the node was started with --read-only",
			Next: "start it without --read-only, or change it on another device"}
	case kind == fail.NoSpace:
		return &fail.Error{Kind: kind, Op: "cannot store " + p + ": the disk of this node's data directory is full", Next: "free some space and try again"}
	case kind == fail.Damaged:
		return &fail.Error{Kind: kind, Op: "look up " + p + ": the state of this node is damaged on the disk", Err: words(err), Next: restoreOrJoin}
	case kind == fail.Unavailable:
		return &fail.Error{Kind: kind, Op: "read " + p + ": nobody reachable holds all of its content", Err: words(root(err, replica.ErrUnavailable)),
			Next: "connect to a device that holds it (fsmount status)"}
	}
	if kind == fail.Internal && errnoLike(err) {
		kind = fail.Path
	}
	return &fail.Error{Kind: kind, Op: p, Err: words(err)}
}

// root returns the innermost error in err's chain that adds something to is: what callers said around it is not for people.
func root(err, is error) error {
	for {
		in := errors.Unwrap(err)
		if in == nil || in == is || !errors.Is(in, is) {
			return err
		}
		err = in
	}
}

// errnoLike reports whether err says something about the path rather than about
// a failure inside.
func errnoLike(err error) bool {
	for _, is := range []error{
		namespace.ErrExist, namespace.ErrNotEmpty, namespace.ErrNotDir, namespace.ErrIsDir, namespace.ErrInvalidMove,
		namespace.ErrNameTooLong, namespace.ErrInvalidName, errIsRoot, errDots, errDangling, errOutside, syscall.ELOOP, volume.ErrTooLarge,
	} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}
