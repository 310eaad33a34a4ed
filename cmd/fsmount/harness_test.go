package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/foreverfs/forever/internal/node"
)

// The tests run the real binary, built once.
var (
	buildOnce sync.Once
	binary    string
	errBuild  error
)

func TestMain(m *testing.M) {
	_ = os.Setenv("CGO_ENABLED", "0") // the command is built as it is shipped
	code := m.Run()
	if binary != "" {
		_ = os.RemoveAll(filepath.Dir(binary))
	}
	os.Exit(code)
}

func fsmount(t testing.TB) string {
	t.Helper()
	buildOnce.Do(func() {
		dir, err := os.MkdirTemp("", "fsmount-test-")
		if err != nil {
			errBuild = err
			return
		}
		binary = filepath.Join(dir, "fsmount")
		if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
			errBuild = fmt.Errorf("build: %w\n%s", err, out)
		}
	})
	if errBuild != nil {
		t.Fatal(errBuild)
	}
	return binary
}

// machine is one data directory and a mount point.
type machine struct {
	t     testing.TB
	data  string
	mount string
	env   []string
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	// A short name of its own: the base of the data and the mount must not be each other's parent.
	dir := t.TempDir()
	m := &machine{t: t, data: filepath.Join(dir, "data"), mount: filepath.Join(dir, "mnt")}
	if err := os.Mkdir(m.mount, 0o755); err != nil {
		t.Fatal(err)
	}
	return m
}

// result is how a command ended.
type result struct {
	code     int
	out, err string
}

// run runs the command on this machine's node.
func (m *machine) run(stdin io.Reader, args ...string) result {
	m.t.Helper()
	path := fsmount(m.t) // which may have to be built first
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append([]string{"--data", m.data}, args...)...)
	cmd.Env = append(os.Environ(), m.env...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	start := time.Now()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatalf("fsmount %v: %v", args, err)
	}
	if took := time.Since(start); took > 45*time.Second {
		m.t.Errorf("fsmount %v took %v", args, took)
	}
	return result{code: cmd.ProcessState.ExitCode(), out: out.String(), err: errs.String()}
}

// must runs the command and returns its standard output.
func (m *machine) must(args ...string) string {
	m.t.Helper()
	r := m.run(nil, args...)
	if r.code != 0 {
		m.t.Fatalf("fsmount %v: exit code %d\n%s", args, r.code, r.err)
	}
	return strings.TrimSpace(r.out)
}

// fails runs a command that must fail with a code and one line that has words.
func (m *machine) fails(code int, words string, args ...string) {
	m.t.Helper()
	r := m.run(nil, args...)
	checkFailure(m.t, r, code, words, args)
}

func checkFailure(t testing.TB, r result, code int, words string, args []string) {
	t.Helper()
	said := ""
	for _, line := range strings.Split(strings.TrimSpace(r.err), "\n") {
		if strings.HasPrefix(line, "fsmount: ") {
			said += line + "\n"
		}
	}
	switch {
	case r.code != code:
		t.Errorf("fsmount %v: exit code %d, want %d\n%s", args, r.code, code, r.err)
	case strings.Count(said, "\n") != 1 || strings.Contains(r.err, "goroutine "):
		t.Errorf("fsmount %v does not fail in one line:\n%s", args, r.err)
	case !strings.Contains(said, words):
		t.Errorf("fsmount %v does not speak of %q: %s", args, words, said)
	default:
		t.Logf("exit code %d: %s", code, strings.TrimSpace(said))
	}
}

// serve starts a node without a mount in the background and ends it with the test.
func (m *machine) serve(args ...string) {
	m.t.Helper()
	m.must(append([]string{"serve", "--daemon", "--listen", "127.0.0.1:0"}, args...)...)
	m.t.Cleanup(m.end)
}

// ownAddress returns an address that nobody else listens at, also while the node is down: the host is this process's alone.
func ownAddress() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d:10000", 64+pid>>16, pid>>8&0xff, pid&0xff)
}

// end ends the machine's node, if one runs, by the ID in its lock.
func (m *machine) end() {
	m.t.Helper()
	pid := 0
	b, err := os.ReadFile(filepath.Join(m.data, "lock"))
	if _, serr := fmt.Sscan(string(b), &pid); err != nil || serr != nil || !m.running() {
		return
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		m.t.Errorf("end node %d: %v", pid, err)
	}
	for deadline := time.Now().Add(30 * time.Second); m.running(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Errorf("node %d does not end", pid)
			_ = syscall.Kill(pid, syscall.SIGKILL)
			return
		}
	}
}

// running reports whether a process has the data directory.
func (m *machine) running() bool {
	return node.Running(m.data)
}

// leaveMounts returns a line of shell that has a new mount namespace keep no copies of mounts, but that of one: other tests wait for
// theirs to go.
func leaveMounts(but string) string {
	return fmt.Sprintf("findmnt -rno TARGET -t fuse.forever | while read -r at; do at=$(printf %%b \"$at\"); test \"$at\" = %q || umount -l \"$at\"; done\n", but)
}

// needMount skips tests that mount where that cannot be.
func needMount(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse")
	}
}

// listen runs fn for each connection until the test ends.
func listen(t testing.TB, fn func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go fn(c)
		}
	}()
	return l.Addr().String()
}
