package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/foreverfs/forever/internal/node"
)

// output keeps what a process writes, and may be read meanwhile.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// process is a command that runs in the foreground.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	said output // on its error stream
	done chan struct{}
}

// begin starts a command, which is killed at the end of the test if it still runs. prepare, if given, may change how.
func (m *machine) begin(prepare func(*exec.Cmd), args ...string) *process {
	m.t.Helper()
	p := &process{t: m.t, done: make(chan struct{})}
	p.cmd = exec.Command(fsmount(m.t), append([]string{"--data", m.data}, args...)...)
	p.cmd.Env = append(os.Environ(), m.env...)
	p.cmd.Stderr = &p.said
	if prepare != nil {
		prepare(p.cmd)
	}
	if err := p.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait()
	}()
	m.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

// beginMount is begin for a node with a mount, and waits for that.
func (m *machine) beginMount(prepare func(*exec.Cmd), args ...string) *process {
	m.t.Helper()
	p := m.begin(prepare, append([]string{"--listen", "127.0.0.1:0", "--lan=false", m.mount}, args...)...)
	m.t.Cleanup(func() { _ = syscall.Unmount(m.mount, syscall.MNT_DETACH) }) // if it is left
	m.until("the mount", func() bool { return m.mounted() && node.Running(m.data) })
	return p
}

// ends returns the exit code of the command, which ends within a time.
func (p *process) ends(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(limit):
		p.t.Fatalf("%v does not end in %v:\n%s", p.cmd.Args, limit, p.said.String())
		return 0
	}
}

func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// mounted reports whether the machine's mount is there, dead or alive.
func (m *machine) mounted() bool {
	m.t.Helper()
	mounts, err := node.Mounts()
	if err != nil {
		m.t.Fatal(err)
	}
	return slices.ContainsFunc(mounts, func(i node.MountInfo) bool { return i.Mountpoint == m.mount })
}

func (m *machine) until(what string, ok func() bool) {
	m.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Fatalf("no sign of %s", what)
		}
	}
}

// holdOpen writes a file on the mount and keeps it open.
func (m *machine) holdOpen(name, content string) *os.File {
	m.t.Helper()
	f, err := os.Create(filepath.Join(m.mount, name))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { f.Close() })
	if _, err := f.WriteString(content); err != nil {
		m.t.Fatal(err)
	}
	return f
}

// TestSignalTwice: a signal comes twice when a terminal is closed, from the shell and from the kernel, and with timeout(1).
func TestSignalTwice(t *testing.T) {
	needMount(t)
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM} {
		m := newMachine(t)
		p := m.beginMount(nil)
		m.holdOpen("open", "content")
		p.signal(sig)
		time.Sleep(5 * time.Millisecond)
		p.signal(sig)
		if code := p.ends(30 * time.Second); code != 0 || m.mounted() {
			t.Errorf("%v: exit code %d, mounted: %v\n%s", sig, code, m.mounted(), p.said.String())
		}
		if got := m.must("cat", "open"); got != "content" {
			t.Errorf("%v: the file has %q", sig, got)
		}
	}
}

// TestLogReaderGone: whoever reads the log may go first, as tee does with Ctrl-C.
func TestLogReaderGone(t *testing.T) {
	needMount(t)
	m := newMachine(t)
	m.must("init")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := m.beginMount(func(cmd *exec.Cmd) { cmd.Stdout, cmd.Stderr = w, w })
	m.holdOpen("open", "content")
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGTERM)
	if code := p.ends(30 * time.Second); code != 0 || m.mounted() {
		t.Errorf("exit code %d, mounted: %v", code, m.mounted())
	}
	if got := m.must("cat", "open"); got != "content" {
		t.Errorf("the file has %q", got)
	}
}

// fillUntil leaves so many bytes of a disk.
func fillUntil(t *testing.T, dir string, left uint64) {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, st.Bavail*uint64(st.Bsize)-left), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFlushThatFails: a node that cannot flush what was written says so when it ends, and so does umount.
func TestFlushThatFails(t *testing.T) {
	needMount(t)
	for _, end := range []string{"SIGTERM", "umount"} {
		t.Run(end, func(t *testing.T) {
			m := newMachine(t)
			onSmallDisk(t, m)
			m.must("--daemon", "--listen", "127.0.0.1:0", "--lan=false", m.mount)
			t.Cleanup(m.end)
			m.until("the reserve", func() bool { // or it is taken while the disk is filled
				_, err := os.Stat(filepath.Join(m.data, "reserve"))
				return err == nil
			})
			fillUntil(t, m.data, 7<<20) // less than chunks leave free
			f, err := os.Create(filepath.Join(m.mount, "file"))
			if err != nil {
				t.Fatal(err)
			}
			// More than the journal takes: it leaves room for others.
			if _, err := io.CopyN(f, newNoise(), 6<<20); err != nil {
				t.Fatal(err)
			}
			if end == "SIGTERM" {
				m.end()
			}
			if err := f.Close(); err == nil {
				t.Error("close says that all is well")
			}
			if end == "umount" {
				m.fails(1, "could not flush", "umount", m.mount)
			}
			log, err := os.ReadFile(filepath.Join(m.data, "log"))
			if err != nil || !strings.Contains(string(log), " is full: ") || strings.Contains(string(log), "interrupted") {
				t.Errorf("the log does not say why: %v\n%s", err, log)
			}
		})
	}
}

// TestUmountDead: the mount that a killed node left goes at once, whoever has its directory now and whoever is in there.
func TestUmountDead(t *testing.T) {
	needMount(t)
	m := newMachine(t)
	m.must("--daemon", "--listen", "127.0.0.1:0", "--lan=false", m.mount)
	t.Cleanup(func() { _ = syscall.Unmount(m.mount, syscall.MNT_DETACH) }) // if it is left
	m.holdOpen("open", "content")
	m.kill()
	m.must("umount", m.mount)
	if m.mounted() {
		t.Fatal("the dead mount is still there")
	}

	m.must("--daemon", "--listen", "127.0.0.1:0", "--lan=false", m.mount)
	m.kill()
	m.serve("--lan=false")
	began := time.Now()
	m.must("umount", m.mount)
	if took := time.Since(began); took > 2*time.Second || m.mounted() {
		t.Errorf("took %v, mounted: %v", took, m.mounted())
	}
	m.must("status")
}

// beginPut starts a put from a pipe, and returns when the node has some of the content.
func (m *machine) beginPut(name string) (*process, io.WriteCloser) {
	m.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { w.Close() })
	p := m.begin(func(cmd *exec.Cmd) { cmd.Stdin = r }, "put", "-", name)
	r.Close()
	if _, err := w.Write(make([]byte, 1<<20)); err != nil { // more than a pipe holds
		m.t.Fatal(err)
	}
	return p, w
}

// TestNodeForTheMomentIsShared: a command that uses the node of another one may take longer than that.
func TestNodeForTheMomentIsShared(t *testing.T) {
	m := newMachine(t)
	m.must("init")
	first, in := m.beginPut("first")
	second, more := m.beginPut("second")
	in.Close()
	time.Sleep(6 * time.Second) // longer than requests may take when a node is told to end
	m.must("ls")                // it can still be used
	more.Close()
	for _, p := range []*process{first, second} {
		if code := p.ends(30 * time.Second); code != 0 {
			t.Errorf("%v: exit code %d: %s", p.cmd.Args, code, p.said.String())
		}
	}
	if names := m.must("ls"); names != "first\nsecond" {
		t.Errorf("there is %q", names)
	}
}

// TestKilledDuringPut: of a file that is put nothing is seen before it is whole, and nothing left if the node is killed.
func TestKilledDuringPut(t *testing.T) {
	m := newMachine(t)
	m.must("init")
	for range 2 { // without a file of that name, and with one
		m.serve("--lan=false")
		before := m.must("ls")
		_, in := m.beginPut("file")
		for range 3 {
			if names := m.must("ls"); names != before {
				t.Errorf("during the put there is %q", names)
			}
			if _, err := in.Write(make([]byte, 8<<20)); err != nil {
				t.Fatal(err)
			}
		}
		m.kill()
		if names := m.must("ls"); names != before {
			t.Errorf("after a node was killed there is %q", names)
		}
		m.putFile("file", "content", 0o600)
		if got := m.must("cat", "file"); got != "content" || m.must("ls") != "file" {
			t.Errorf("the file has %q", got)
		}
	}
}

// TestMountAwaitsNodeForTheMoment: a node that another command has started for the moment is waited for.
func TestMountAwaitsNodeForTheMoment(t *testing.T) {
	needMount(t)
	m := newMachine(t)
	m.must("init")
	put, in := m.beginPut("file")
	p := m.begin(nil, "--listen", "127.0.0.1:0", "--lan=false", m.mount)
	t.Cleanup(func() { _ = syscall.Unmount(m.mount, syscall.MNT_DETACH) })
	select {
	case <-p.done:
		t.Fatalf("exit code %d: %s", p.cmd.ProcessState.ExitCode(), p.said.String())
	case <-time.After(2 * time.Second):
	}
	in.Close()
	m.until("the mount", m.mounted)
	if code := put.ends(30 * time.Second); code != 0 {
		t.Errorf("put: exit code %d: %s", code, put.said.String())
	}
	m.must("umount", m.mount)
}

// TestMountAmongCommands: a node starts also while commands start and end nodes for the moment, one after the other.
func TestMountAmongCommands(t *testing.T) {
	m := newMachine(t)
	m.must("init")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if r := m.run(nil, "ls"); r.code != 0 {
					t.Errorf("ls: %+v", r)
				}
			}
		})
	}
	for range 5 {
		if r := m.run(nil, "serve", "--daemon", "--listen", "127.0.0.1:0", "--lan=false"); r.code != 0 {
			t.Errorf("%+v", r)
		}
		m.end()
	}
	close(stop)
	wg.Wait()
}

// TestDataDirByALink: a node that runs with its mount is seen to do so, whatever the path it was given.
func TestDataDirByALink(t *testing.T) {
	needMount(t)
	m := newMachine(t)
	link := *m
	link.data = m.data + "-link"
	if err := os.Symlink(m.data, link.data); err != nil {
		t.Fatal(err)
	}
	m.must("init")
	link.must("--daemon", "--listen", "127.0.0.1:0", "--lan=false", m.mount)
	t.Cleanup(func() { link.must("umount", m.mount) })
	began := time.Now()
	m.fails(5, "in use", "serve", "--listen", "127.0.0.1:0")
	if took := time.Since(began); took > otherPatience/2 {
		t.Errorf("took %v", took)
	}
}

// TestUmountLeavesWhatIsOnTop: a file system that somebody mounted over a mount is not taken away in its place.
func TestUmountLeavesWhatIsOnTop(t *testing.T) {
	needMount(t)
	m := newMachine(t)
	m.must("--daemon", "--listen", "127.0.0.1:0", "--lan=false", m.mount)
	t.Cleanup(func() { m.run(nil, "umount", m.mount) })
	if err := syscall.Mount("tmpfs", m.mount, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	on := true
	defer func() {
		if on {
			_ = syscall.Unmount(m.mount, 0)
		}
	}()
	if err := os.WriteFile(filepath.Join(m.mount, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m.fails(7, "on top", "umount", m.mount)
	if _, err := os.Stat(filepath.Join(m.mount, "precious")); err != nil {
		t.Error(err)
	}
	on = syscall.Unmount(m.mount, 0) != nil
	m.must("umount", m.mount)
}

// TestUmountSomewhereElse: where the mount is also bound the node goes on; where another mount namespace has a copy of it, it ends.
func TestUmountSomewhereElse(t *testing.T) {
	needMount(t)
	m := newMachine(t)
	m.must("--daemon", "--listen", "127.0.0.1:0", "--lan=false", m.mount)
	t.Cleanup(func() { m.run(nil, "umount", m.mount) })
	bind := t.TempDir()
	if err := syscall.Mount(m.mount, bind, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(bind, syscall.MNT_DETACH) })
	if r := m.run(nil, "umount", bind); r.code != 0 || !strings.Contains(r.err, m.mount) {
		t.Fatalf("umount of the bind: %+v", r)
	}
	m.must("status")

	other := exec.Command("sh", "-c", leaveMounts(m.mount)+`echo ready; exec sleep 60`)
	other.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	ready, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	if _, err := ready.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	m.must("umount", m.mount)
	if took := time.Since(began); took > 20*time.Second || m.running() {
		t.Errorf("took %v, running: %v", took, m.running())
	}
}
