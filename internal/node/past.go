package node

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/volume"
)

// pathNames splits a path from the root of the volume. Links are not followed:
// what they led to in the past may have been another.
func pathNames(p string) []string {
	p = strings.Trim(path.Clean("/"+p), "/")
	if p == "" {
		return nil
	}
	return strings.Split(p, "/")
}

// History implements control.Files.
func (f files) History(ctx context.Context, p string) (h control.History, err error) {
	list, err := f.v.History(ctx, pathNames(p))
	if errors.Is(err, namespace.ErrIsDir) {
		return f.listPast(p)
	}
	if err != nil {
		return h, noPast(p, err)
	}
	for _, e := range list {
		h.Contents = append(h.Contents, contentOf(e))
	}
	return h, nil
}

func contentOf(e namespace.Past) control.PastContent {
	c := control.PastContent{
		Version: e.Ref, Time: time.Unix(0, e.Content.Time).UTC(), Device: e.Device, Kind: kindName(e.Kind),
		Size: e.Content.Size, State: e.State.String(), RemovedBy: e.RemovedBy, Target: e.Target,
	}
	if e.Removed != 0 {
		c.Removed = time.Unix(0, e.Removed).UTC()
	}
	return c
}

func (f files) listPast(p string) (h control.History, err error) {
	list, err := f.v.ListPast(pathNames(p))
	if err != nil {
		return h, noPast(p, err)
	}
	for _, e := range list {
		c := control.PastEntry{Name: e.Name, Kind: kindName(e.Kind), Created: time.Unix(0, e.From).UTC()}
		if e.To != 0 {
			c.Removed = time.Unix(0, e.To).UTC()
		}
		h.Entries = append(h.Entries, c)
	}
	return h, nil
}

func noPast(p string, err error) error {
	if errors.Is(err, namespace.ErrNotExist) {
		return &fail.Error{Kind: fail.Path, Op: "/" + strings.TrimLeft(p, "/") + " is not there and nothing is known that was",
			Next: "fsmount history DIRECTORY shows what was in one"}
	}
	return pathError(p, err)
}

// Restore implements control.Files.
func (f files) Restore(ctx context.Context, req control.RestoreRequest) (done control.Restored, err error) {
	to := req.To
	if to == "" {
		to = req.Path
	}
	r := restorer{files: f, req: req, done: &done}
	list, err := f.v.History(ctx, pathNames(req.Path))
	switch {
	case errors.Is(err, namespace.ErrIsDir) && req.Version != "":
		err = &fail.Error{Kind: fail.Usage, Op: "/" + strings.TrimLeft(req.Path, "/") + " is a directory, which has no versions", Next: "give a time with --at"}
	case errors.Is(err, namespace.ErrIsDir):
		err = r.dir(ctx, pathNames(req.Path), pathNames(to))
	case err != nil:
		err = noPast(req.Path, err)
	default:
		err = r.file(ctx, list, pathNames(req.Path), pathNames(to))
	}
	if err == nil {
		err = f.v.FsyncDir(ctx, volume.RootIno)
	}
	return done, pathError(to, err)
}

// restorer brings back what one request asks for.
type restorer struct {
	files
	req  control.RestoreRequest
	done *control.Restored
}

// choose returns the content that a request means.
func (r restorer) choose(list []namespace.Past) (namespace.Past, bool) {
	at := r.req.Time.UnixNano()
	var best namespace.Past
	found := false
	for _, p := range list {
		if r.req.Version != "" {
			if p.Ref == r.req.Version {
				return p, true
			}
			continue
		}
		was := p.Content.Time <= at && (p.Removed == 0 || p.Removed > at) && p.State != namespace.PastConflict
		if was && (!found || p.Content.Time > best.Content.Time) {
			best, found = p, true
		}
	}
	return best, found
}

// file restores one path.
func (r restorer) file(ctx context.Context, list []namespace.Past, from, to []string) error {
	p, ok := r.choose(list)
	if !ok {
		name := "/" + strings.Join(from, "/")
		oldest := list[len(list)-1]
		for _, p := range list {
			if p.Content.Time < oldest.Content.Time {
				oldest = p
			}
		}
		if r.req.Version != "" {
			return &fail.Error{Kind: fail.Path, Op: fmt.Sprintf("%s never had a version %s", name, r.req.Version), Next: "fsmount history " + name + " lists them"}
		}
		return &fail.Error{Kind: fail.Path, Op: fmt.Sprintf("%s was not there at that time; the oldest known is of %s", name, time.Unix(0, oldest.Content.Time).Format(time.DateTime)),
			Next: "fsmount history " + name + " lists what there is"}
	}
	return r.put(ctx, p, to)
}

// dir restores what a directory held at a time: what was removed or changed since. What was made since stays.
func (r restorer) dir(ctx context.Context, from, to []string) error {
	list, err := r.v.ListPast(from)
	if err != nil {
		return err
	}
	at := r.req.Time.UnixNano()
	for _, e := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.From > at || e.To != 0 && e.To <= at {
			continue
		}
		source, target := append(from[:len(from):len(from)], e.Name), append(to[:len(to):len(to)], e.Name)
		if e.Kind == namespace.KindDir {
			err = r.subdir(ctx, source, target)
		} else {
			err = r.entry(ctx, source, target)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r restorer) subdir(ctx context.Context, from, to []string) error {
	w, err := r.parents(ctx, to)
	if err != nil {
		return err
	}
	w.done()
	return r.dir(ctx, from, to)
}

// entry restores a file of a directory, if it had something at that time.
func (r restorer) entry(ctx context.Context, from, to []string) error {
	list, err := r.v.History(ctx, from)
	if err != nil {
		return err
	}
	if p, ok := r.choose(list); ok {
		return r.put(ctx, p, to)
	}
	return nil
}

// parents goes to a directory, which it makes if it is not there.
func (r restorer) parents(ctx context.Context, names []string) (*walker, error) {
	w, err := walk(ctx, r.v, "/", false)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		a, err := r.v.Lookup(ctx, w.here().Ino, name)
		if errors.Is(err, namespace.ErrNotExist) {
			here := w.here()
			if a, err = r.v.Mkdir(ctx, volume.Caller{UID: here.UID, GID: here.GID}, here.Ino, name, here.Mode&0o777); err == nil {
				r.changed(here.Ino, name)
			}
		}
		if err == nil && a.Kind != namespace.KindDir {
			r.v.Forget(a.Ino, 1)
			err = namespace.ErrNotDir
		}
		if err != nil {
			w.done()
			return nil, err
		}
		w.at = append(w.at, a)
	}
	return w, nil
}

// put makes a path be what it was.
func (r restorer) put(ctx context.Context, p namespace.Past, to []string) error {
	w, err := r.parents(ctx, to[:len(to)-1])
	if err != nil {
		return err
	}
	defer w.done()
	dir, name := w.here(), to[len(to)-1]
	a, err := r.v.Lookup(ctx, dir.Ino, name)
	if errors.Is(err, namespace.ErrNotExist) {
		a, err = r.remake(ctx, p, dir.Ino, name)
	} else if err == nil {
		defer r.v.Forget(a.Ino, 1)
		if a.Kind != p.Kind || a.Kind != namespace.KindFile {
			return r.inTheWay(ctx, p, a, to)
		}
		var n namespace.Node
		if n, err = r.v.NodeOf(p.Node); err == nil && p.State == namespace.PastCurrent && n.ID.Ino() == a.Ino {
			return nil // it is what it was
		}
		err = r.v.SetVersion(ctx, a.Ino, p.Content)
	}
	if err == nil {
		r.changed(dir.Ino, name)
		r.changedNode(a.Ino)
		r.done.Files++
	}
	return err
}

// inTheWay judges a name that is no file to be written: what is there may be just what was.
func (r restorer) inTheWay(ctx context.Context, p namespace.Past, a volume.Attr, to []string) error {
	if a.Kind == p.Kind {
		target, err := r.v.Readlink(ctx, a.Ino)
		if a.Kind != namespace.KindSymlink || err == nil && target == p.Target {
			return nil
		}
	}
	return &fail.Error{Kind: fail.Path, Op: "/" + strings.Join(to, "/") + " is there and is something else", Next: "move it away, or restore to another path with --to"}
}

// remake makes a node anew that was removed.
func (r restorer) remake(ctx context.Context, p namespace.Past, dir uint64, name string) (a volume.Attr, err error) {
	n, err := r.v.NodeOf(p.Node)
	if err != nil {
		return a, err
	}
	who := volume.Caller{UID: n.UID, GID: n.GID}
	switch p.Kind {
	case namespace.KindSymlink:
		a, err = r.v.Symlink(ctx, who, dir, name, p.Target)
	case namespace.KindFile:
		if a, err = r.v.Mknod(ctx, who, dir, name, syscall.S_IFREG|n.Mode, 0); err == nil && p.Content.Size > 0 {
			err = r.v.SetVersion(ctx, a.Ino, p.Content)
		}
	case namespace.KindFifo:
		a, err = r.v.Mknod(ctx, who, dir, name, syscall.S_IFIFO|n.Mode, 0)
	default:
		next := "make it anew with mknod"
		if p.Kind == namespace.KindSocket {
			next = "the program that listens on it makes it anew"
		}
		return a, &fail.Error{Kind: fail.Path, Op: name + " was a " + kindName(p.Kind) + ", which is not restored", Next: next}
	}
	if err == nil {
		r.v.Forget(a.Ino, 1)
	}
	return a, err
}
