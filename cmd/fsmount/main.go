// Command fsmount mounts a directory that lives on several machines at once, and
// does what there is to do around it. docs/commands.md lists every command, its
// output and its exit codes.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/foreverfs/forever/internal/fail"
)

func main() {
	os.Exit(run(os.Args[1:], &streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}

// streams are the standard streams of one run of the command.
type streams struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

// run runs one command line and returns its exit code. What fails is told in one
// line on the error stream.
func run(args []string, std *streams) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// The first signal ends in good order; a second one ends at once.
	context.AfterFunc(ctx, stop)
	root := newRootCmd(std)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if ctx.Err() != nil && fail.KindOf(err) == fail.Internal {
		err = &fail.Error{Kind: fail.Interrupted, Op: "interrupted"}
	}
	fmt.Fprintf(std.err, "fsmount: %s\n", fail.OneLine(err))
	return exitCode(err)
}
