package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/volume"
)

// copyBuffer is how much of a file is in hand at a time, in bytes.
const copyBuffer = 1 << 20

// listPage is how many entries of a directory are read at a time.
const listPage = 256

// files is the tree by path, for commands that work without a mount.
type files struct {
	v *volume.Volume
	// notifier returns who is told that a name has changed beside the mount, or
	// nil; it may be nil itself.
	notifier func() volume.Notifier
}

// changed tells the mount of a change to a name in a directory.
func (f files) changed(dir uint64, name string) {
	f.tell(func(to volume.Notifier) {
		to.InvalidateEntry(dir, name)
		to.InvalidateAttr(dir)
	})
}

var _ control.Files = files{}

// changedNode tells the mount that a file or directory has another number of names.
func (f files) changedNode(ino uint64) {
	f.tell(func(to volume.Notifier) { to.InvalidateAttr(ino) })
}

func (f files) tell(fn func(volume.Notifier)) {
	if f.notifier == nil {
		return
	}
	if to := f.notifier(); to != nil {
		fn(to)
	}
}

// List implements control.Files.
func (f files) List(ctx context.Context, p string, fn func(control.Entry) error) error {
	w, err := walk(ctx, f.v, p, true)
	if err != nil {
		return pathError(p, err)
	}
	defer w.done()
	if a := w.here(); a.Kind != namespace.KindDir {
		return fn(entryOf(p, a, ""))
	}
	return pathError(p, f.each(ctx, w.here().Ino, func(name string, a volume.Attr) error {
		target := ""
		if a.Kind == namespace.KindSymlink {
			t, err := f.v.Readlink(ctx, a.Ino)
			if err != nil {
				return err
			}
			target = t
		}
		return fn(entryOf(name, a, target))
	}))
}

// each calls fn for every entry of a directory but "." and "..". An entry that
// goes away meanwhile is left out.
func (f files) each(ctx context.Context, ino uint64, fn func(name string, a volume.Attr) error) error {
	d, err := f.v.OpenDir(ctx, ino)
	if err != nil {
		return err
	}
	defer d.Release()
	for cookie := uint64(0); ; {
		page, err := d.Read(cookie, listPage)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, e := range page {
			cookie = e.Cookie
			if e.Name == "." || e.Name == ".." {
				continue
			}
			if err := f.one(ctx, ino, e.Name, fn); err != nil && !errors.Is(err, namespace.ErrNotExist) {
				return err
			}
		}
	}
}

func (f files) one(ctx context.Context, dir uint64, name string, fn func(string, volume.Attr) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	a, err := f.v.Lookup(ctx, dir, name)
	if err != nil {
		return err
	}
	defer f.v.Forget(a.Ino, 1)
	return fn(name, a)
}

func entryOf(name string, a volume.Attr, target string) control.Entry {
	return control.Entry{
		Name: name, Kind: kindName(a.Kind), Mode: a.Mode, Size: a.Size,
		Mtime: time.Unix(0, a.Mtime).UTC(), Target: target, Char: a.Kind == namespace.KindChar,
	}
}

func kindName(k namespace.Kind) string {
	switch k {
	case namespace.KindDir:
		return "directory"
	case namespace.KindSymlink:
		return "symlink"
	case namespace.KindChar, namespace.KindBlock:
		return "device"
	case namespace.KindFifo:
		return "fifo"
	case namespace.KindSocket:
		return "socket"
	}
	return "file"
}

// Open implements control.Files.
func (f files) Open(ctx context.Context, p string) (io.ReadCloser, uint32, error) {
	w, err := walk(ctx, f.v, p, true)
	if err != nil {
		return nil, 0, pathError(p, err)
	}
	defer w.done()
	a := w.here()
	if err := mustBeFile(a); err != nil {
		return nil, 0, pathError(p, err)
	}
	h, err := f.v.Open(ctx, a.Ino, os.O_RDONLY)
	if err != nil {
		return nil, 0, pathError(p, err)
	}
	return &fileReader{ctx: ctx, h: h, path: p}, a.Mode & 0o777, nil
}

func mustBeFile(a volume.Attr) error {
	switch a.Kind {
	case namespace.KindFile:
		return nil
	case namespace.KindDir:
		return namespace.ErrIsDir
	}
	return fmt.Errorf("a %s, not a file: %w", kindName(a.Kind), namespace.ErrInvalidName)
}

// fileReader reads a file from front to back.
type fileReader struct {
	ctx  context.Context
	h    *volume.Handle
	path string
	off  int64
}

// Read implements io.Reader.
func (r *fileReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.h.Read(r.ctx, p, r.off)
	r.off += int64(n)
	if err == nil && n == 0 || errors.Is(err, io.EOF) {
		return n, io.EOF
	}
	return n, pathError(r.path, err)
}

// Close implements io.Closer.
func (r *fileReader) Close() error {
	r.h.Release()
	return nil
}

// Put implements control.Files: the content goes to a file without a name first, which then takes the place of the old. Symbolic
// links are followed, as they are by Open.
func (f files) Put(ctx context.Context, p string, opts control.PutOptions, r io.Reader) error {
	if isDots(p[strings.LastIndexByte(p, '/')+1:]) { // a directory if anything
		w, err := walk(ctx, f.v, p, true)
		if err == nil {
			w.done()
			err = namespace.ErrIsDir
		}
		return pathError(p, err)
	}
	w, name, err := walkParent(ctx, f.v, p, true)
	if err != nil {
		return pathError(p, err)
	}
	defer w.done()
	spec, err := f.replacing(ctx, w.here().Ino, name, opts)
	if err != nil {
		return pathError(p, err)
	}
	return pathError(p, f.putIn(ctx, w.here().Ino, name, spec, r))
}

// putSpec is what a file that is put looks like.
type putSpec struct {
	mode     uint32
	uid, gid uint32
}

// replacing says how the file at name shall look: like the one it replaces, if
// there is one.
func (f files) replacing(ctx context.Context, dir uint64, name string, opts control.PutOptions) (putSpec, error) {
	spec := putSpec{mode: opts.Mode, uid: uint32(os.Getuid()), gid: uint32(os.Getgid())}
	a, err := f.v.Lookup(ctx, dir, name)
	if errors.Is(err, namespace.ErrNotExist) {
		return spec, nil
	}
	if err != nil {
		return spec, err
	}
	defer f.v.Forget(a.Ino, 1)
	if a.Kind == namespace.KindFile {
		spec = putSpec{mode: a.Mode, uid: a.UID, gid: a.GID}
	}
	if a.Kind == namespace.KindDir {
		return spec, namespace.ErrIsDir
	}
	return spec, nil
}

// putIn writes a file that has no name before all of it is durable: if it does not come to that, also because the node
// is killed, nobody sees any of it.
func (f files) putIn(ctx context.Context, dir uint64, name string, spec putSpec, r io.Reader) error {
	caller := volume.Caller{UID: spec.uid, GID: spec.gid, PID: uint32(os.Getpid())}
	a, h, err := f.v.CreateUnnamed(ctx, caller, dir, spec.mode, os.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.v.Forget(a.Ino, 1)
	defer h.Release()
	if err := fill(ctx, h, r); err != nil {
		return err
	}
	err = f.name(ctx, a.Ino, dir, name)
	f.changed(dir, name)
	return errors.Join(err, f.v.FsyncDir(ctx, dir))
}

// name gives a file without a name one, in the place of what has it.
func (f files) name(ctx context.Context, ino, dir uint64, name string) error {
	if err := f.link(ctx, ino, dir, name); !errors.Is(err, namespace.ErrExist) {
		return err
	}
	tmp := ".put-" + rand.Text()
	if err := f.link(ctx, ino, dir, tmp); err != nil {
		return err
	}
	_, replaced, err := f.v.Rename(ctx, volume.Caller{}, dir, tmp, dir, name, 0)
	if err != nil {
		// Also when the client is gone, the rest must not stay.
		return errors.Join(err, f.v.Unlink(context.WithoutCancel(ctx), dir, tmp))
	}
	if replaced != 0 {
		f.changedNode(replaced)
	}
	return nil
}

func (f files) link(ctx context.Context, ino, dir uint64, name string) error {
	_, err := f.v.Link(ctx, ino, dir, name)
	if err == nil {
		f.v.Forget(ino, 1)
	}
	return err
}

// fill writes all of r and makes it durable.
func fill(ctx context.Context, h *volume.Handle, r io.Reader) error {
	buf := make([]byte, copyBuffer)
	for off := int64(0); ; {
		n, err := readFull(r, buf)
		if n > 0 {
			if _, werr := h.Write(ctx, buf[:n], off); werr != nil {
				return werr
			}
			off += int64(n)
		}
		if errors.Is(err, io.EOF) {
			return errors.Join(h.Flush(ctx), h.Fsync(ctx))
		}
		if err != nil {
			return fmt.Errorf("read what to store: %w", err)
		}
	}
}

// readFull is io.ReadFull that leaves errors as they are, so that the end of r
// and a connection cut in the middle stay apart.
func readFull(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// Remove implements control.Files.
func (f files) Remove(ctx context.Context, p string, recursive bool) error {
	w, name, err := walkParent(ctx, f.v, p, false)
	if err != nil {
		return pathError(p, err)
	}
	defer w.done()
	err = f.one(ctx, w.here().Ino, name, func(name string, a volume.Attr) error {
		if strings.HasSuffix(p, "/") && a.Kind != namespace.KindDir {
			return namespace.ErrNotDir
		}
		return f.remove(ctx, w.here().Ino, name, a, recursive)
	})
	if errors.Is(err, namespace.ErrIsDir) {
		err = fmt.Errorf("%w; remove it with -r", err)
	}
	if err := pathError(p, err); err != nil {
		return err
	}
	return pathError(p, f.v.FsyncDir(ctx, w.here().Ino))
}

func (f files) remove(ctx context.Context, dir uint64, name string, a volume.Attr, recursive bool) error {
	defer f.changed(dir, name)
	defer f.changedNode(a.Ino)
	if a.Kind != namespace.KindDir {
		return f.v.Unlink(ctx, dir, name)
	}
	if !recursive {
		return namespace.ErrIsDir
	}
	err := f.each(ctx, a.Ino, func(name string, in volume.Attr) error {
		return f.remove(ctx, a.Ino, name, in, true)
	})
	if err != nil {
		return err
	}
	return f.v.Rmdir(ctx, dir, name)
}

// keylessFiles is what a device without keys says of the tree.
type keylessFiles struct{}

var _ control.Files = keylessFiles{}

func (keylessFiles) List(context.Context, string, func(control.Entry) error) error {
	return errKeyless()
}

func (keylessFiles) Open(context.Context, string) (io.ReadCloser, uint32, error) {
	return nil, 0, errKeyless()
}

func (keylessFiles) Put(context.Context, string, control.PutOptions, io.Reader) error {
	return errKeyless()
}

func (keylessFiles) Remove(context.Context, string, bool) error { return errKeyless() }

func (keylessFiles) History(context.Context, string) (control.History, error) {
	return control.History{}, errKeyless()
}

func (keylessFiles) Restore(context.Context, control.RestoreRequest) (control.Restored, error) {
	return control.Restored{}, errKeyless()
}
