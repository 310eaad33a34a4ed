package accept

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lockerEnv has the test's own program be a locker.
const lockerEnv = "FOREVER_TEST_LOCKER"

// locker is a process of its own that locks what it is told to, line by line.
type locker struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
}

func newLocker(t testing.TB) *locker {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	l := &locker{t: t, cmd: exec.Command(self), lines: make(chan string, 16)}
	l.cmd.Env = append(os.Environ(), lockerEnv+"=1")
	l.cmd.Stderr = os.Stderr
	l.in, err = l.cmd.StdinPipe()
	must(t, err)
	out, err := l.cmd.StdoutPipe()
	must(t, err)
	must(t, l.cmd.Start())
	go func() {
		defer close(l.lines)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			l.lines <- sc.Text()
		}
	}()
	t.Cleanup(l.kill)
	return l
}

// kill ends the process as nothing it could catch.
func (l *locker) kill() {
	_ = l.cmd.Process.Kill()
	_ = l.cmd.Wait()
}

// begin gives an order and does not wait for the answer.
func (l *locker) begin(order string, args ...any) {
	l.t.Helper()
	if _, err := fmt.Fprintf(l.in, order+"\n", args...); err != nil {
		l.t.Fatalf("%s: %v", order, err)
	}
}

// answer returns what the last order came to: "ok" or the name of an error.
func (l *locker) answer(limit time.Duration) string {
	l.t.Helper()
	select {
	case line, ok := <-l.lines:
		if !ok {
			l.t.Fatal("the locker has gone")
		}
		return line
	case <-time.After(limit):
		l.t.Fatalf("no answer within %v", limit)
	}
	return ""
}

// waits reports whether there is no answer for a while.
func (l *locker) waits(d time.Duration) bool {
	select {
	case line := <-l.lines:
		l.t.Logf("answered %q", line)
		return false
	case <-time.After(d):
		return true
	}
}

// do gives an order and expects what it comes to.
func (l *locker) do(want, order string, args ...any) {
	l.t.Helper()
	l.begin(order, args...)
	if got := l.answer(20 * time.Second); got != want {
		l.t.Fatalf("%s: %s, want %s", fmt.Sprintf(order, args...), got, want)
	}
}

// runLocker is the locker's own side: orders from standard input, answers on standard output.
func runLocker() {
	files := map[string]int{}
	for sc := bufio.NewScanner(os.Stdin); sc.Scan(); {
		f := strings.Fields(sc.Text())
		fmt.Println(obey(files, f))
	}
}

// obey carries out one order.
//
//	open NAME PATH | openro NAME PATH | dup NAME OLD | close NAME
//	flock NAME sh|ex|un [nb]
//	set|wait|oset|owait NAME r|w|u START LEN
//	get|oget NAME r|w START LEN
//	write NAME OFFSET TEXT | read NAME OFFSET LEN
//	count KIND PATH TIMES
func obey(files map[string]int, f []string) string {
	fd := files[f[1]]
	switch f[0] {
	case "open", "openro":
		flags := unix.O_RDWR | unix.O_CREAT
		if f[0] == "openro" {
			flags = unix.O_RDONLY
		}
		fd, err := unix.Open(f[2], flags|unix.O_CLOEXEC, 0o644)
		files[f[1]] = fd
		return verdict(err)
	case "dup":
		fd, err := unix.Dup(files[f[2]])
		files[f[1]] = fd
		return verdict(err)
	case "close":
		return verdict(unix.Close(fd))
	case "flock":
		how := map[string]int{"sh": unix.LOCK_SH, "ex": unix.LOCK_EX, "un": unix.LOCK_UN}[f[2]]
		if len(f) > 3 {
			how |= unix.LOCK_NB
		}
		return verdict(again(func() error { return unix.Flock(fd, how) }))
	case "set", "wait", "oset", "owait", "get", "oget":
		return record(fd, f)
	case "write":
		_, err := unix.Pwrite(fd, []byte(f[3]), number(f[2]))
		return verdict(err)
	case "read":
		b := make([]byte, number(f[3]))
		n, err := unix.Pread(fd, b, number(f[2]))
		if err != nil {
			return verdict(err)
		}
		return string(b[:n])
	case "count":
		return verdict(countUp(f[1], f[2], int(number(f[3]))))
	}
	return "what?"
}

// record sets, waits for or asks about a record lock.
func record(fd int, f []string) string {
	cmd := map[string]int{
		"set": unix.F_SETLK, "wait": unix.F_SETLKW, "get": unix.F_GETLK,
		"oset": unix.F_OFD_SETLK, "owait": unix.F_OFD_SETLKW, "oget": unix.F_OFD_GETLK,
	}[f[0]]
	l := unix.Flock_t{Start: number(f[3]), Len: number(f[4])}
	l.Type = map[string]int16{"r": unix.F_RDLCK, "w": unix.F_WRLCK, "u": unix.F_UNLCK}[f[2]]
	err := again(func() error { return unix.FcntlFlock(uintptr(fd), cmd, &l) })
	if err != nil || !strings.HasSuffix(f[0], "get") {
		return verdict(err)
	}
	if l.Type == unix.F_UNLCK {
		return "free"
	}
	return fmt.Sprintf("%s %d %d", map[int16]string{unix.F_RDLCK: "r", unix.F_WRLCK: "w"}[l.Type], l.Start, l.Len)
}

// again calls fn until no signal comes between.
func again(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func verdict(err error) string {
	var errno unix.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// countUp adds one to the number in a file, again and again, each time under a lock of
// the kind, reading it through the descriptor that holds the lock.
func countUp(kind, path string, times int) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for range times {
		if err := lockAs(kind, fd, true); err != nil {
			return fmt.Errorf("lock: %w", err)
		}
		b := make([]byte, 32)
		n, err := unix.Pread(fd, b, 0)
		if err != nil {
			return err
		}
		next := fmt.Appendf(nil, "%d", number(strings.TrimSpace(string(b[:n])))+1)
		if _, err := unix.Pwrite(fd, next, 0); err != nil {
			return err
		}
		if err := lockAs(kind, fd, false); err != nil {
			return fmt.Errorf("unlock: %w", err)
		}
	}
	return nil
}

func lockAs(kind string, fd int, on bool) error {
	how, l := unix.LOCK_UN, unix.Flock_t{Type: unix.F_UNLCK}
	if on {
		how, l.Type = unix.LOCK_EX, unix.F_WRLCK
	}
	return again(func() error {
		switch kind {
		case "flock":
			return unix.Flock(fd, how)
		case "fcntl":
			return unix.FcntlFlock(uintptr(fd), unix.F_SETLKW, &l)
		}
		return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLKW, &l)
	})
}
