package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/fail"
)

const stdinout = "-" // as a file name: standard input or output

func newPutCmd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "put FILE PATH",
		Short: "Copy a file into the tree; - is standard input",
		Args:  usageArgs(cobra.ExactArgs(2)),
		RunE: runner(func(ctx context.Context, args []string) error {
			return runPut(ctx, g, args[0], args[1])
		}).cobra(),
	}
}

func runPut(ctx context.Context, g *globals, from, to string) error {
	in, opts := g.in, control.PutOptions{Mode: 0o644}
	if from != stdinout {
		var file *os.File
		err := heeding(ctx, 0, func() (err error) { // a FIFO has to wait for a writer
			file, err = os.Open(from)
			return err
		})
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fileError("read "+from, err, "choose a file that is there and that you may read")
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return fileError("read "+from, err, "choose another file")
		}
		if info.IsDir() {
			return &fail.Error{Kind: fail.Path, Op: from + " is a directory", Next: "put copies single files"}
		}
		in, opts.Mode = file, uint32(info.Mode().Perm())
	}
	return withAnyNode(ctx, g, func(ctx context.Context, c *control.Client) error {
		return c.Put(ctx, to, opts, in)
	})
}

// fileError tells of a failure on a file outside the volume: what was to be done, and of the error only the cause, which may
// name another file than the user did.
func fileError(what string, err error, next string) error {
	if err == nil {
		return nil
	}
	kind := fail.Path
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		kind, next = fail.NoSpace, "free some space there and try again"
	}
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		err = errno
	}
	return &fail.Error{Kind: kind, Op: what, Err: err, Next: next}
}

func newCatCmd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "cat PATH",
		Short: "Write a file of the tree to standard output",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: runner(func(ctx context.Context, args []string) error {
			return runCat(ctx, g, args[0])
		}).cobra(),
	}
}

func runCat(ctx context.Context, g *globals, from string) error {
	return withAnyNode(ctx, g, func(ctx context.Context, c *control.Client) error {
		return c.Get(ctx, from, func(uint32) (io.Writer, error) { return g.out, nil })
	})
}

func newLsCmd(g *globals) *cobra.Command {
	var long bool
	cmd := &cobra.Command{
		Use:   "ls [PATH]",
		Short: "List a directory of the tree",
		Args:  usageArgs(cobra.MaximumNArgs(1)),
		RunE: runner(func(ctx context.Context, args []string) error {
			return runLs(ctx, g, append(args, "/")[0], long)
		}).cobra(),
	}
	cmd.Flags().BoolVarP(&long, "long", "l", false, "with mode, size and time")
	return cmd
}

func runLs(ctx context.Context, g *globals, dir string, long bool) error {
	out := bufio.NewWriter(g.out)
	return withAnyNode(ctx, g, func(ctx context.Context, c *control.Client) error {
		err := c.List(ctx, dir, func(e control.Entry) error {
			_, err := fmt.Fprintln(out, entryLine(e, long))
			return err
		})
		return errors.Join(err, out.Flush())
	})
}

// entryLine shows one entry: a directory with a slash behind its name.
func entryLine(e control.Entry, long bool) string {
	name := e.Name
	if e.Kind == "directory" {
		name += "/"
	}
	if !long {
		return name
	}
	if e.Target != "" {
		name += " -> " + e.Target
	}
	letter := map[string]string{"directory": "d", "symlink": "l", "device": "b", "fifo": "p", "socket": "s"}[e.Kind]
	switch {
	case letter == "":
		letter = "-"
	case e.Char:
		letter = "c"
	}
	return fmt.Sprintf("%s%s %12d %s %s", letter, modeText(e.Mode), e.Size, e.Mtime.Local().Format(time.DateTime), name)
}

// modeText shows a mode as ls(1) does.
func modeText(mode uint32) string {
	text := []byte("rwxrwxrwx")
	for i := range text {
		if mode>>(8-i)&1 == 0 {
			text[i] = '-'
		}
	}
	for i, bit := range []byte("sst") { // instead of the x of user, group and others
		at := 3*i + 2
		switch {
		case mode>>(11-i)&1 == 0:
		case text[at] == 'x':
			text[at] = bit
		default:
			text[at] = bit - 'a' + 'A'
		}
	}
	return string(text)
}

func newRmCmd(g *globals) *cobra.Command {
	var recursive bool
	cmd := &cobra.Command{
		Use:   "rm PATH",
		Short: "Remove a file of the tree, or with -r a directory",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: runner(func(ctx context.Context, args []string) error {
			return withAnyNode(ctx, g, func(ctx context.Context, c *control.Client) error {
				return c.Remove(ctx, args[0], recursive)
			})
		}).cobra(),
	}
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "remove a directory and all that is in it")
	return cmd
}
