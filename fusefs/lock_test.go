package fusefs

import (
	"context"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/namespace"
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

// slowLocks have a request wait until answer is closed.
type slowLocks struct {
	noLocks
	asked, answer chan struct{}
}

func (s slowLocks) Acquire(ctx context.Context, _ namespace.NodeID, _ uint64, l volume.Lock, _ volume.LockMode, _ uint64) (volume.Lock, error) {
	close(s.asked)
	select {
	case <-s.answer:
		return l, volume.ErrLocked
	case <-ctx.Done():
		return l, ctx.Err()
	}
}

// TestQueryIsNotInterrupted sends a signal that is of no concern to a thread that asks who holds a lock: the
// kernel would not ask again.
func TestQueryIsNotInterrupted(t *testing.T) {
	locks := slowLocks{asked: make(chan struct{}), answer: make(chan struct{})}
	r := newVolume(t, nil, func(cfg *volume.Config) { cfg.Locks = locks })
	r.mount(nil)
	f, err := os.Create(r.path("f"))
	must(t, err)
	defer f.Close()
	thread, result := make(chan int, 1), make(chan error, 1)
	l := unix.Flock_t{Type: unix.F_WRLCK}
	go func() {
		runtime.LockOSThread()
		thread <- unix.Gettid()
		result <- unix.FcntlFlock(f.Fd(), unix.F_GETLK, &l)
	}()
	<-locks.asked
	must(t, unix.Tgkill(os.Getpid(), <-thread, unix.SIGURG))
	until(t, "the interrupt is dealt with", func() bool {
		r.callMu.Lock()
		defer r.callMu.Unlock()
		for _, w := range r.calls {
			return w.watched
		}
		return true // by ending the request
	})
	close(locks.answer)
	if err := <-result; err != nil || l.Type != unix.F_WRLCK {
		t.Errorf("%v, %+v", err, l)
	}
}
