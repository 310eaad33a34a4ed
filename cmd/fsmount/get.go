package main

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/foreverfs/forever/internal/control"
)

func newGetCmd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "get PATH [FILE]",
		Short: "Copy a file out of the tree; - is standard output",
		Args:  usageArgs(cobra.RangeArgs(1, 2)),
		RunE: runner(func(ctx context.Context, args []string) error {
			to := path.Base(args[0])
			if len(args) == 2 {
				to = args[1]
			}
			return runGet(ctx, g, args[0], to)
		}).cobra(),
	}
}

func runGet(ctx context.Context, g *globals, from, to string) error {
	if to == stdinout {
		return runCat(ctx, g, from)
	}
	if info, err := os.Stat(to); err == nil && info.IsDir() {
		to = filepath.Join(to, path.Base(from))
	}
	return withAnyNode(ctx, g, func(ctx context.Context, c *control.Client) (err error) {
		out := &outFile{name: to}
		err = c.Get(ctx, from, func(mode uint32) (io.Writer, error) { return out, out.failed(out.open(mode)) })
		return errors.Join(err, out.close(err == nil))
	})
}

// outFile is a file outside the volume that is written. A regular file appears under its name only when all of it is there.
type outFile struct {
	name string
	file *os.File // nil before it is open
	real string   // the name that a regular file shall get, with no link in it; else empty
}

// open opens a new file for name, with a mode as the umask leaves it. What is there keeps its mode and owner; what is no
// regular file (a device, a FIFO) is written to itself.
func (o *outFile) open(mode uint32) error {
	info, err := os.Stat(o.name)
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Lstat(o.name); err == nil {
			return syscall.ENOENT // a link to nothing
		}
		return o.create(o.name, os.FileMode(mode))
	}
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return syscall.EISDIR
	case !info.Mode().IsRegular():
		o.file, err = os.OpenFile(o.name, os.O_WRONLY, 0)
		return err
	}
	real, err := filepath.EvalSymlinks(o.name)
	if err != nil {
		return err
	}
	if err := o.create(real, 0o600); err != nil {
		return err
	}
	perm := info.Mode().Perm()
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || o.file.Chown(int(st.Uid), int(st.Gid)) != nil {
		perm &^= 0o070 // which was meant for another group
	}
	return o.file.Chmod(perm)
}

// create opens a file of another name beside real.
func (o *outFile) create(real string, perm os.FileMode) (err error) {
	o.real = real
	o.file, err = os.OpenFile(filepath.Join(filepath.Dir(real), ".get-"+rand.Text()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	return err
}

// Write implements io.Writer.
func (o *outFile) Write(p []byte) (int, error) {
	n, err := o.file.Write(p)
	return n, o.failed(err)
}

// close closes the file, if it was opened, and gives it its name if it is whole.
func (o *outFile) close(whole bool) error {
	if o.file == nil {
		return nil
	}
	err := o.file.Close()
	if o.real == "" {
		return o.failed(err)
	}
	if whole && err == nil {
		if err = os.Rename(o.file.Name(), o.real); err == nil {
			return nil
		}
	}
	return o.failed(errors.Join(err, os.Remove(o.file.Name())))
}

func (o *outFile) failed(err error) error {
	return fileError("write "+o.name, err, "choose a file in a directory that is there and that you may write to, or - for standard output")
}
