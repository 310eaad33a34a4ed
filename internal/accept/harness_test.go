package accept

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/foreverfs/forever/internal/control"
)

// full says that the tests run at their whole size.
var full = os.Getenv("FOREVER_ACCEPT") == "full"

// scale returns big for the whole run and small for the everyday one.
func scale[T any](small, big T) T {
	if full {
		return big
	}
	return small
}

var (
	buildOnce sync.Once
	binary    string
	errBuild  error
)

// fsmount returns the path of the command, built once per test run.
func fsmount(t testing.TB) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting on a test directory needs root here")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no /dev/fuse")
	}
	buildOnce.Do(func() {
		dir, err := os.MkdirTemp("", "fsmount-bin-")
		if err != nil {
			errBuild = err
			return
		}
		binary = filepath.Join(dir, "fsmount")
		out, err := exec.Command("go", "build", "-o", binary, "github.com/foreverfs/forever/cmd/fsmount").CombinedOutput()
		if err != nil {
			errBuild = fmt.Errorf("build fsmount: %w\n%s", err, out)
		}
	})
	if errBuild != nil {
		t.Fatal(errBuild)
	}
	return binary
}

func TestMain(m *testing.M) {
	if os.Getenv(lockerEnv) != "" {
		runLocker()
		return
	}
	if signal.Ignored(syscall.SIGINT) { // as in the background of a shell: programs begun here would inherit it
		signal.Notify(make(chan os.Signal, 1), syscall.SIGINT)
	}
	_ = os.Setenv("CGO_ENABLED", "0") // the command is built as it is shipped
	code := m.Run()
	if binary != "" {
		_ = os.RemoveAll(filepath.Dir(binary))
	}
	os.Exit(code)
}

// node is one fsmount process.
type node struct {
	t      testing.TB
	data   string
	mnt    string
	listen string
	netns  string // network namespace it runs in; empty: that of the test
	bin    string // empty: the command as it is shipped
	serves bool   // without a mount
	cmd    *exec.Cmd
	log    *logBuffer
	exited chan struct{}
	err    error
}

// logBuffer keeps what a process writes, and may be read meanwhile.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// newNode mounts a new volume, or joins one by an invite.
func newNode(t testing.TB, name, invite string, args ...string) *node {
	t.Helper()
	return newNodeOf(t, fsmount(t), name, invite, args...)
}

// newNodeOf is newNode with a command of one's own.
func newNodeOf(t testing.TB, bin, name, invite string, args ...string) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{t: t, bin: bin, data: filepath.Join(dir, name+"-data"), mnt: filepath.Join(dir, name), listen: ownAddress()}
	if err := os.Mkdir(n.mnt, 0755); err != nil {
		t.Fatal(err)
	}
	if invite != "" {
		args = append(args, "--join", invite)
	}
	n.start(args...)
	return n
}

// start runs the node and waits until its mount is there.
func (n *node) start(args ...string) {
	n.t.Helper()
	what := n.mnt
	if n.serves {
		what = "serve"
	}
	args = append([]string{what, "--data", n.data, "--listen", n.listen, "--lan=false"}, args...)
	first := n.cmd == nil
	n.cmd = n.invocation(args)
	n.log = &logBuffer{}
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		n.err = cmd.Wait()
		close(exited)
	}(n.cmd, n.exited)
	if first {
		n.t.Cleanup(n.cleanup)
	}
	n.until(30*time.Second, "the mount", func() bool {
		select {
		case <-n.exited:
			n.t.Fatalf("node ended: %v\n%s", n.err, n.log)
		default:
		}
		if n.serves {
			_, err := n.try(nil, "status", "--json")
			return err == nil
		}
		return mounted(n.mnt)
	})
}

// newReplica runs a keyless replica that is let in by a member.
func newReplica(t testing.TB, name string, by *node, args ...string) *node {
	t.Helper()
	n := &node{t: t, serves: true, data: filepath.Join(t.TempDir(), name+"-data"), mnt: name, listen: ownAddress()}
	n.command("join", strings.TrimSpace(by.command("invite", "--replica")))
	n.start(args...)
	return n
}

// invocation returns the command line that runs the node where it belongs.
func (n *node) invocation(args []string) *exec.Cmd {
	bin := fsmount(n.t)
	if n.bin != "" {
		bin = n.bin
	}
	if n.netns == "" {
		return exec.Command(bin, args...)
	}
	// Not ip netns exec: that makes a mount namespace too, and the mount would not
	// be seen here. nsenter becomes the node, so the process ID is the node's.
	return exec.Command("nsenter", append([]string{"--net=/var/run/netns/" + n.netns, bin}, args...)...)
}

// status returns what the node says of itself.
func (n *node) status() (st control.Status) {
	n.t.Helper()
	if err := json.Unmarshal([]byte(n.command("status", "--json")), &st); err != nil {
		n.t.Fatal(err)
	}
	return st
}

// deviceName returns the name that the volume has for the node.
func (n *node) deviceName() string {
	n.t.Helper()
	for _, d := range n.status().Devices {
		if d.Self {
			return d.Name
		}
	}
	n.t.Fatal("the status does not name the device itself")
	return ""
}

// connected returns how many other devices the node has a connection with.
func (n *node) connected() int {
	n.t.Helper()
	count := 0
	for _, d := range n.status().Devices {
		if d.Connected && !d.Self {
			count++
		}
	}
	return count
}

// mounted reports whether a file system of ours is mounted at dir.
func mounted(dir string) bool {
	b, err := os.ReadFile("/proc/self/mounts")
	return err == nil && strings.Contains(string(b), " "+dir+" fuse")
}

// cleanup ends the node and its mount whatever state they are in.
func (n *node) cleanup() {
	select {
	case <-n.exited:
	default:
		_ = n.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-n.exited:
		case <-time.After(20 * time.Second):
			_ = n.cmd.Process.Kill()
			<-n.exited
		}
	}
	if mounted(n.mnt) {
		_ = syscall.Unmount(n.mnt, syscall.MNT_DETACH)
	}
	if n.t.Failed() {
		out := n.log.String()
		n.t.Logf("log of %s:\n%s", filepath.Base(n.mnt), out[max(0, len(out)-4000):])
	}
}

// stop ends the node as a user would.
func (n *node) stop() {
	n.t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	select {
	case <-n.exited:
	case <-time.After(30 * time.Second):
		n.t.Fatal("SIGTERM did not end the node in 30 s")
	}
	if n.err != nil {
		n.t.Fatalf("node ended with %v\n%s", n.err, n.log)
	}
	if mounted(n.mnt) {
		n.t.Fatal("mount is still there after SIGTERM")
	}
}

// kill ends the node as a crash would, and clears the dead mount.
func (n *node) kill() {
	n.t.Helper()
	_ = n.cmd.Process.Kill()
	<-n.exited
	_ = syscall.Unmount(n.mnt, syscall.MNT_DETACH)
}

// command runs fsmount with --data of this node and returns what it prints.
func (n *node) command(args ...string) string {
	n.t.Helper()
	out, err := n.try(nil, args...)
	if err != nil {
		n.t.Fatalf("fsmount %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func (n *node) try(in io.Reader, args ...string) (string, error) {
	cmd := exec.Command(fsmount(n.t), append(args, "--data", n.data)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// rss returns the peak resident memory of the process in bytes.
func (n *node) rss() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
	if err != nil {
		n.t.Fatal(err)
	}
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmHWM:" {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			return kb << 10
		}
	}
	return 0
}

// pair mounts one volume on two nodes.
func pair(t testing.TB) (a, b *node) {
	t.Helper()
	a = newNode(t, "a", "")
	b = newNode(t, "b", strings.TrimSpace(a.command("invite")))
	return a, b
}

// until waits for a condition and says what it waited for if it does not come.
func (n *node) until(limit time.Duration, what string, ok func() bool) time.Duration {
	n.t.Helper()
	return until(n.t, limit, what, ok)
}

func until(t testing.TB, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(start) > limit {
			t.Fatalf("no sign of %s within %v", what, limit)
		}
		<-tick.C
	}
	return time.Since(start)
}

// run runs a program and fails the test if it does.
func run(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	out, err := tryRun(dir, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, tail(out))
	}
	return out
}

func tryRun(dir, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("took over 15 minutes: %w", err)
	}
	return string(out), err
}

func tail(s string) string { return s[max(0, len(s)-2000):] }

// timed returns how long fn takes.
func timed(fn func()) time.Duration {
	start := time.Now()
	fn()
	return time.Since(start)
}
