package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/internal/node"
)

// readyFD is the descriptor on which a daemon reports; the first of ExtraFiles.
const readyFD = 3

// report is what a daemon says once: that it is usable, or why not.
type report struct {
	OK   bool      `json:"ok"`
	Kind fail.Kind `json:"kind,omitempty"`
	Text string    `json:"text,omitempty"`
}

// startDaemon starts this program again in the background and returns when that
// process is usable, or with its failure.
func startDaemon(ctx context.Context, g *globals, dir string, opts *nodeOptions, mount *mountOptions) error {
	log, err := logFile(dir)
	if err != nil {
		return fmt.Errorf("open the daemon's log: %w", err)
	}
	defer log.Close()
	pr, pw, err := os.Pipe()
	if err != nil {
		return err
	}
	defer pr.Close()
	cmd, err := daemonCommand(dir, opts, mount)
	if err != nil {
		return errors.Join(err, pw.Close())
	}
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{pw}
	// What this process was given besides (a lock of the script that runs it) is not for the daemon to keep open. A kernel
	// before 5.11 cannot say that.
	_ = unix.CloseRange(readyFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if err := errors.Join(cmd.Start(), pw.Close()); err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	if err := awaitReport(ctx, pr, dir); err != nil {
		// A daemon that failed ends by itself; one that was not waited for is told to.
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_, _ = cmd.Process.Wait()
		return err
	}
	if !g.quiet {
		fmt.Fprintf(g.err, "fsmount: running as process %d, log in %s\n", cmd.Process.Pid, log.Name())
	}
	return cmd.Process.Release()
}

func daemonCommand(dir string, opts *nodeOptions, mount *mountOptions) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := append([]string{"--data", dir, "--ready-fd", strconv.Itoa(readyFD)}, opts.given()...)
	if mount.point == "" {
		args = append([]string{"serve"}, args...)
	} else {
		args = append(args, "--", absolute(mount.point))
	}
	cmd := exec.Command(self, args...)
	cmd.Dir = "/"
	if node.NeedsPassphrase(dir) {
		// The daemon has no terminal to ask on.
		p, err := passphrase(false)
		if err != nil {
			return nil, err
		}
		cmd.Env = append(os.Environ(), passphraseEnv+"="+string(p))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, nil
}

// awaitReport waits for the daemon's one line.
func awaitReport(ctx context.Context, pr *os.File, dir string) error {
	done := make(chan error, 1)
	go func() {
		var r report
		err := json.NewDecoder(io.LimitReader(pr, 64<<10)).Decode(&r)
		switch {
		case err != nil:
			err = &fail.Error{Kind: fail.Internal, Op: "the daemon ended without a word", Next: "see " + dir + "/" + node.LogName}
		case !r.OK:
			err = &fail.Error{Kind: r.Kind, Op: r.Text}
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// runChild is the daemon itself: it reports on the descriptor it was given.
func runChild(ctx context.Context, opts *nodeOptions, mount *mountOptions, cfg node.Config) error {
	pipe := os.NewFile(uintptr(opts.readyFD), "ready")
	if pipe == nil {
		return usageError(errors.New("--ready-fd is no open descriptor"))
	}
	syscall.CloseOnExec(opts.readyFD)
	told := false
	tell := func(r report) error {
		told = true
		return errors.Join(json.NewEncoder(pipe).Encode(r), pipe.Close())
	}
	err := serveNode(ctx, cfg, mount, func() error { return tell(report{OK: true}) })
	if err != nil && !told {
		// If the parent is gone too, the log has the line.
		_ = tell(report{Kind: fail.KindOf(err), Text: fail.OneLine(err)})
	}
	return err
}
