// Command fsmount mounts a directory that lives on several machines at once, and
// does what there is to do around it. docs/commands.md lists every command, its
// output and its exit codes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/foreverfs/forever/internal/fail"
)

func main() {
	// The threads that wait for the kernel's requests count as running in the eyes of Go's scheduler. Had
	// it no more than one for each core, it would take their turns away and give them back, with
	// a wake-up of another thread each time: metadata operations take half as long again.
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + waitingThreads)
	}
	defer runtime.KeepAlive(tuneMemory())
	// Whoever reads the output or the log may go first; that is no reason for a node to end without a flush, nor for one that is
	// there for the moment to leave other commands alone.
	signal.Ignore(syscall.SIGPIPE)
	std := &streams{in: os.Stdin, out: outWriter{os.Stdout}, err: os.Stderr}
	if args, ok := helperArgs(os.Args); ok {
		os.Exit(runHelper(args, std))
	}
	os.Exit(run(os.Args[1:], std))
}

// waitingThreads is how many threads wait for requests of the kernel most of the time.
const waitingThreads = 2

// streams are the standard streams of one run of the command.
type streams struct {
	in  io.Reader
	out io.Writer
	err io.Writer
	// quiet: nothing is said of what went well.
	quiet bool
}

// errNoReader says that nobody reads the standard output any more.
var errNoReader = &fail.Error{Kind: fail.Interrupted, Op: "nobody reads the standard output any more"}

// outWriter is the standard output; it says what cannot be written.
type outWriter struct{ io.Writer }

// Write implements io.Writer.
func (w outWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		return n, errNoReader
	}
	return n, fileError("write to standard output", err, "")
}

// run runs one command line and returns its exit code.
func run(args []string, std *streams) int {
	if err := execute(args, std); err != nil {
		return exitCode(err)
	}
	return 0
}

// execute runs one command line. What fails is told in one line on the error stream.
func execute(args []string, std *streams) error {
	ctx, stop := untilSignal()
	defer stop()
	defer context.AfterFunc(ctx, func() { endAtOnceLater(stop) })()
	root := newRootCmd(std)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) && fail.KindOf(err) == fail.Internal {
		err = &fail.Error{Kind: fail.Interrupted, Op: "interrupted"}
	}
	if !errors.Is(err, errNoReader) { // as in fsmount cat FILE | head, which wants no words
		std.tell(err)
	}
	return err
}

// untilSignal returns a context that is done with a signal to end. A hangup that whoever started this process has it ignore,
// as nohup(1) does, is none.
func untilSignal() (context.Context, context.CancelFunc) {
	ending := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		ending = append(ending, syscall.SIGHUP)
	}
	return signal.NotifyContext(context.Background(), ending...)
}

// tidyPatience is how long what was interrupted may take to leave things in order.
const tidyPatience = time.Second

// heeding runs fn, and gives it up when ctx has been done for as long as patience says: a read of a terminal or a pipe heeds no
// signal. What fn still waits for then ends with the process.
func heeding(ctx context.Context, patience time.Duration, fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		return ctx.Err()
	}
}

// secondSignal is how soon after the first signal another counts for the same: a terminal that is closed
// sends two, and so may timeout(1).
const secondSignal = 2 * time.Second

// endAtOnceLater has the process end at once at a second signal, while the first ends it in good order.
func endAtOnceLater(stop func()) {
	time.Sleep(secondSignal)
	signal.Ignore(syscall.SIGHUP) // which nobody sends out of impatience
	stop()
}

// tell says in one line why something failed.
func (s *streams) tell(err error) {
	fmt.Fprintf(s.err, "fsmount: %s\n", fail.OneLine(err))
}
