package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// putFile stores a file of a mode in the machine's tree.
func (m *machine) putFile(name, content string, mode os.FileMode) {
	m.t.Helper()
	from := filepath.Join(m.t.TempDir(), "from")
	if err := os.WriteFile(from, []byte(content), mode); err != nil {
		m.t.Fatal(err)
	}
	m.must("put", from, name)
}

// TestGetInto: a file that is got replaces what is there as cp would: modes, links and devices stay what they are.
func TestGetInto(t *testing.T) {
	m := newMachine(t)
	m.must("init")
	m.serve()
	m.putFile("x", "content", 0o644)
	long := strings.Repeat("n", 255)
	m.putFile(long, "content", 0o664)
	defer syscall.Umask(syscall.Umask(0o077))
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	check := func(name string, mode os.FileMode) {
		t.Helper()
		info, err := os.Lstat(in(name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != mode {
			t.Errorf("%s: mode %v, want %v", name, info.Mode(), mode)
		}
		if !mode.IsRegular() {
			return
		}
		if got, err := os.ReadFile(in(name)); err != nil || string(got) != "content" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}

	m.must("get", "x", in("new"))
	check("new", 0o600)
	m.must("get", long, dir)
	check(long, 0o600)

	if err := os.WriteFile(in("old"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(in("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("old", in("link")); err != nil {
		t.Fatal(err)
	}
	m.must("get", "x", in("link"))
	check("link", os.ModeSymlink|0o777)
	check("old", 0o640)

	if err := os.Symlink("nowhere", in("dangling")); err != nil {
		t.Fatal(err)
	}
	m.fails(12, "no such file", "get", "x", in("dangling"))

	if err := unix.Mkfifo(in("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo, err := os.OpenFile(in("fifo"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer fifo.Close()
	m.must("get", "x", in("fifo"))
	check("fifo", os.ModeNamedPipe|0o600)
	got := make([]byte, 100)
	if n, err := fifo.Read(got); err != nil || string(got[:n]) != "content" {
		t.Errorf("from the FIFO: %q, %v", got[:n], err)
	}
	if os.Getuid() == 0 {
		null := int(unix.Mkdev(1, 3))
		if err := unix.Mknod(in("null"), unix.S_IFCHR|0o600, null); err != nil {
			t.Fatal(err)
		}
		m.must("get", "x", in("null"))
		check("null", os.ModeDevice|os.ModeCharDevice|0o600)
		if err := os.Chown(in("old"), 1, 2); err != nil {
			t.Fatal(err)
		}
		m.must("get", "x", in("old"))
		check("old", 0o640)
		if info, err := os.Stat(in("old")); err != nil || info.Sys().(*syscall.Stat_t).Uid != 1 || info.Sys().(*syscall.Stat_t).Gid != 2 {
			t.Errorf("the file has another owner: %+v, %v", info.Sys(), err)
		}
	}

	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	m.fails(13, "write /dev/full: no space left on device; free", "get", "x", "/dev/full")
	p := m.begin(func(cmd *exec.Cmd) { cmd.Stdout = full }, "cat", "x")
	checkFailure(t, result{code: p.ends(time.Minute), err: p.said.String()}, 13, "no space left", []string{"cat"})

	m.fails(12, "is a directory", "get", "/")
	m.fails(12, "is a directory", "get", "/", in("root"))
	m.fails(12, "write "+in("no/x")+": no such file or directory; choose", "get", "x", in("no/x"))
	if left, err := filepath.Glob(in(".*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
