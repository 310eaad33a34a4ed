package fusefs

import (
	"context"
	"io/fs"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/foreverfs/forever/volume"
)

// askedLocks notes what is asked of it; somebody else holds everything, until one waits.
type askedLocks []string

func (a *askedLocks) Lock(_ context.Context, l volume.Lock, mode volume.LockMode) error {
	what := map[volume.LockMode]string{volume.LockTry: "try", volume.LockWait: "wait"}[mode]
	if l.Process {
		what += " as process"
	}
	*a = append(*a, what)
	if mode == volume.LockTry {
		return volume.ErrLocked
	}
	return nil
}

// TestWhoseWait tells from a thread's system call whether its process waits, also if it has not gone to
// sleep yet. Until it has, the lock is tried for, so that only who has to wait is kept.
func TestWhoseWait(t *testing.T) {
	const (
		process = "72 0x3 0x7 0x7ffd4c 0x0 0x0 0x0 0x7ffd4c 0x7f42\n"
		open    = "72 0x3 0x26 0x7ffd4c 0x0 0x0 0x0 0x7ffd4c 0x7f42\n"
		other   = "1 0x3 0x7 0x7ffd4c 0x0 0x0 0x0 0x7ffd4c 0x7f42\n"
		outside = "-1 0x7ffd4c 0x7f42\n"
		running = "running\n"
	)
	denied := &fs.PathError{Op: "open", Path: "syscall", Err: fs.ErrPermission}
	for _, c := range []struct {
		lines []string
		want  string
	}{
		{[]string{process}, "wait as process"},
		{[]string{open}, "wait"},
		{[]string{other}, "wait"},
		{[]string{outside}, "wait"},
		{nil, "wait"},
		{[]string{running, process}, "try, wait as process"},
		{[]string{running, running, running, process}, "try, wait as process"},
		{[]string{running, open}, "try, wait"},
		{[]string{running}, "try, wait"},
	} {
		s := &Server{log: hclog.NewNullLogger()}
		n := 0
		s.systemCall = func(uint32) (string, error) {
			if n == len(c.lines) && n != 1 {
				return "", denied
			}
			n++
			return c.lines[min(n, len(c.lines))-1], nil
		}
		var asked askedLocks
		if err := (&call{s: s, ctx: t.Context()}).setLock(&asked, volume.Lock{}, volume.LockWait, 1); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(asked, ", "); got != c.want {
			t.Errorf("%q: %s, want %s", c.lines, got, c.want)
		}
	}
}

// TestUnseenWaitsAreLoggedOnce expects one line to say that the system calls of others cannot be read.
func TestUnseenWaitsAreLoggedOnce(t *testing.T) {
	var log strings.Builder
	s := &Server{log: hclog.New(&hclog.LoggerOptions{Output: &log})}
	for _, err := range []error{fs.ErrNotExist, fs.ErrPermission, fs.ErrPermission} {
		s.systemCall = func(uint32) (string, error) { return "", err }
		var asked askedLocks
		if err := (&call{s: s, ctx: t.Context()}).setLock(&asked, volume.Lock{}, volume.LockWait, 1); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines: %s", n, log.String())
	}
}
