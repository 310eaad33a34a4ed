package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestJSONOfGroups: what is shown without a further word takes the flags of that.
func TestJSONOfGroups(t *testing.T) {
	m := newMachine(t)
	m.must("init")
	for _, args := range [][]string{{"devices"}, {"config"}} {
		if got := m.must(append(args, "--json")...); !strings.HasPrefix(got, "[{") {
			t.Errorf("%v --json: %q", args, got)
		}
	}
	m.fails(2, "unknown flag", "devices", "rename", "--json", "a", "b")
}

// TestLongList: ls -l shows kinds and modes as ls(1) does.
func TestLongList(t *testing.T) {
	needMount(t)
	m := newMachine(t)
	m.must("--daemon", "--listen", "127.0.0.1:0", "--lan=false", m.mount)
	t.Cleanup(func() { m.run(nil, "umount", m.mount) })
	for _, c := range []struct {
		name string
		kind uint32
		mode uint32
		want string
	}{
		{"char", unix.S_IFCHR, 0o640, "crw-r-----"}, {"block", unix.S_IFBLK, 0o600, "brw-------"}, {"fifo", unix.S_IFIFO, 0o644, "prw-r--r--"},
		{"setuid", unix.S_IFREG, 0o4755, "-rwsr-xr-x"}, {"setgid", unix.S_IFREG, 0o2710, "-rwx--s---"}, {"sticky", unix.S_IFREG, 0o1777, "-rwxrwxrwt"},
		{"odd", unix.S_IFREG, 0o7644, "-rwSr-Sr-T"},
	} {
		path := filepath.Join(m.mount, c.name)
		if err := unix.Mknod(path, c.kind|0o600, int(unix.Mkdev(1, 3))); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		if got := m.must("ls", "-l", c.name); !strings.HasPrefix(got, c.want+" ") {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestDaemonKeepsNothingOpen: a lock that a script holds while it starts a node goes with the script.
func TestDaemonKeepsNothingOpen(t *testing.T) {
	m := newMachine(t)
	m.must("init")
	path := filepath.Join(t.TempDir(), "lock")
	held, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(held.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	p := m.begin(func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{held, held} }, "serve", "--daemon", "--listen", "127.0.0.1:0")
	t.Cleanup(m.end)
	<-p.done
	held.Close()
	other, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("the daemon holds the lock: %v", err)
	}
	m.must("status")
}
