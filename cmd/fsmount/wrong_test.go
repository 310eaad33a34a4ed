package main

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/foreverfs/forever/cipher"
)

func TestWrongCommandLines(t *testing.T) {
	m := newMachine(t)
	m.fails(2, "unknown flag", "--no-such-flag")
	m.fails(2, "neither a command nor a directory", "statsu")
	m.fails(2, "accepts", "join")
	m.fails(2, "log level", "--log-level", "loud", m.mount)
	m.fails(2, "consistency", "--consistency", "strong", m.mount)
	m.fails(2, "expires", "invite", "--expires", "-1h")
	m.fails(2, "negative", "wait", "--replicas", "-1")
}

func TestNoVolumeNoNode(t *testing.T) {
	m := newMachine(t)
	m.fails(3, "no volume", "ls")
	m.fails(4, "no node runs", "status")
	m.must("init")
	m.fails(4, "no node runs", "invite")
	m.fails(16, "already holds a volume", "init")
	m.fails(12, "does not exist", "cat", "/nothing")
	m.fails(12, "does not exist", "get", "/nothing")
	m.fails(12, "read /no/such/file: no such file or directory; choose", "put", "/no/such/file", "x")
	m.fails(2, `keep cannot be "long"; give a length of time`, "config", "set", "keep", "long")
	m.fails(12, "directory", "cat", "/")
}

func TestWrongDataDirectories(t *testing.T) {
	m := newMachine(t)
	m.must("init")
	format := filepath.Join(m.data, "format")
	old, err := os.ReadFile(format)
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(old), "version 2", "version 3", 1)
	for text, words := range map[string]string{newer: "update fsmount", "rubbish": "damaged"} {
		if err := os.WriteFile(format, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m.fails(6, words, "ls")
		m.fails(6, words, "serve")
		m.fails(6, words, "init")
	}
	if err := os.WriteFile(format, old, 0o600); err != nil {
		t.Fatal(err)
	}
	m.must("ls")
	m.serve()
	m.fails(5, "in use", "serve")
	m.fails(5, "in use", "init")
	m.fails(5, "in use", m.mount)
	m.must("ls")
}

// TestDamagedDataDirectories: what the disk has damaged is said to be, with what to do.
func TestDamagedDataDirectories(t *testing.T) {
	whole := newMachine(t)
	whole.must("init")
	for _, name := range []string{"a", "b", "c"} {
		whole.putFile(name, "content", 0o600)
	}
	damaged := func(damage func(dir string) error) *machine {
		t.Helper()
		m := newMachine(t)
		if err := errors.Join(os.CopyFS(m.data, os.DirFS(whole.data)), damage(m.data)); err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := damaged(func(dir string) error { return os.RemoveAll(filepath.Join(dir, "chunks")) })
	for range 2 {
		m.fails(21, "restore the data directory", "ls")
	}
	m = damaged(func(dir string) error {
		tables, err := filepath.Glob(filepath.Join(dir, "state", "*.sst"))
		if err != nil || len(tables) == 0 {
			return errors.Join(err, errors.New("no tables"))
		}
		for _, name := range tables {
			f, err := os.OpenFile(name, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("XXXX"), 600)
			if err := errors.Join(err, f.Close()); err != nil {
				return err
			}
		}
		return nil
	})
	m.fails(21, "restore the data directory", "ls")
	m.fails(21, "restore the data directory", "serve", "--daemon", "--listen", "127.0.0.1:0")
}

func TestForeignDataDirectory(t *testing.T) {
	m := newMachine(t)
	if err := os.MkdirAll(m.data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.data, "letters.txt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.fails(6, "no volume in it", "init")
}

func TestKeyFilePassphrase(t *testing.T) {
	m := newMachine(t)
	m.env = []string{passphraseEnv + "=correct horse"}
	m.must("init")
	m.must("ls")
	m.env = []string{passphraseEnv + "=wrong horse"}
	m.fails(14, "passphrase", "ls")
	m.env = []string{passphraseEnv + "="}
	m.fails(14, passphraseEnv, "ls")
}

func TestWrongMountPoints(t *testing.T) {
	needMount(t)
	m := newMachine(t)
	m.fails(7, "does not exist", m.mount+"/missing")
	file := filepath.Join(m.mount, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m.fails(7, "not empty", m.mount)
	m.fails(7, "not a directory", file)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	m.fails(7, "mounted there already", "/proc")
	m.fails(7, "not a mount of fsmount", "umount", m.mount)
	// The fusermount of FUSE 2 is of no use.
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "fusermount"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	m.env = []string{"PATH=" + path}
	m.fails(8, "fuse3", m.mount)
	m.env = nil
	if _, err := os.Stat(m.data); !os.IsNotExist(err) {
		t.Errorf("a volume was created for a mount that cannot be: %v", err)
	}

	m.must("--daemon", "--listen", "127.0.0.1:0", m.mount)
	t.Cleanup(func() { m.run(nil, "umount", m.mount) })
	other := newMachine(t)
	other.fails(7, "already a mount of the node in "+m.data, m.mount)
	open, err := os.Create(filepath.Join(m.mount, "open"))
	if err != nil {
		t.Fatal(err)
	}
	m.fails(7, "in use by a program", "umount", m.mount)
	if err := open.Close(); err != nil {
		t.Fatal(err)
	}
	m.must("umount", m.mount)
}

func TestWrongListenAddress(t *testing.T) {
	taken := listen(t, func(c net.Conn) { c.Close() })
	m := newMachine(t)
	m.fails(17, "--listen", "serve", "--listen", taken)
	m.fails(17, "--listen", "serve", "--daemon", "--listen", "nonsense")
	if _, err := os.Stat(m.data); !os.IsNotExist(err) {
		t.Errorf("a volume was created for a node that cannot listen: %v", err)
	}
	m.must("init")
	m.fails(17, "--listen", "serve", "--listen", taken)
	m.fails(17, "--listen", "serve", "--daemon", "--listen", taken)
	m.fails(17, "--listen", "serve", "--listen", "nonsense")
}

// changed returns an invite with something else in it.
func changed(t *testing.T, line string, change func(*cipher.Invite)) string {
	t.Helper()
	inv, err := cipher.ParseInvite(line)
	if err != nil {
		t.Fatal(err)
	}
	change(&inv)
	return inv.String()
}

func TestWrongInvites(t *testing.T) {
	a, b := newMachine(t), newMachine(t)
	a.must("init")
	a.serve()

	b.fails(9, "invite", "join", "forever1-garbled")
	b.fails(9, "invite", "join", "hello")
	line := a.must("invite")
	if strings.ContainsAny(line, " \n\t") {
		t.Errorf("invite is not one word: %q", line)
	}
	b.fails(9, "invite", "join", line[:len(line)-2])
	flipped := []byte(line)
	flipped[len(flipped)/2] ^= 1
	b.fails(9, "invite", "join", string(flipped))

	a.fails(2, "HOST:PORT", "invite", "--addr", "nowhere")
	named, err := cipher.ParseInvite(a.must("invite", "--addr", "example.org:7"))
	if err != nil || len(named.Addrs) != 1 || named.Addrs[0] != "example.org:7" {
		t.Errorf("invite --addr: %v, %v", named.Addrs, err)
	}
	if _, err := os.Stat("/dev/fuse"); err == nil && os.Getuid() == 0 {
		replica := a.must("invite", "--replica")
		b.fails(19, "nothing to mount", "--listen", "127.0.0.1:0", "--join", replica, b.mount)
		newMachine(t).must("join", replica) // nobody has used it
	}
	short := a.must("invite", "--expires", "1s")
	time.Sleep(1200 * time.Millisecond)
	b.fails(9, "expired", "join", short)
	// The clock of the inviter decides, whatever the line says.
	b.fails(9, "expired", "join", changed(t, short, func(i *cipher.Invite) { i.Expires = time.Now().Add(time.Hour) }))

	b.fails(9, "", "join", changed(t, line, func(i *cipher.Invite) { i.Secret[0] ^= 1 }))
	b.fails(9, "volume", "join", changed(t, line, func(i *cipher.Invite) { i.Volume[0] ^= 1 }))
	if _, err := os.Stat(filepath.Join(b.data, "key")); err == nil {
		t.Error("a failed join left a key behind")
	}

	b.must("join", line)
	c := newMachine(t)
	c.fails(9, "used", "join", line)
	b.fails(16, "already holds", "join", line)

	d := newMachine(t)
	d.must("init")
	d.fails(16, "another volume", "serve", "--join", a.must("invite"))
}

// A device whose admission is forgotten, because the one that let it in was
// restored from a backup, is refused and learns why.
func TestUnknownDevice(t *testing.T) {
	a, c := newMachine(t), newMachine(t)
	a.must("init")
	backup := filepath.Join(t.TempDir(), "backup")
	if err := os.CopyFS(backup, os.DirFS(a.data)); err != nil {
		t.Fatal(err)
	}
	at := ownAddress()
	a.serve("--listen", at)
	c.must("join", a.must("invite"))
	a.end()
	if err := errors.Join(os.RemoveAll(a.data), os.Rename(backup, a.data)); err != nil {
		t.Fatal(err)
	}
	a.serve("--listen", at)
	c.serve()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		log, err := os.ReadFile(filepath.Join(c.data, "log"))
		if err != nil {
			t.Fatal(err)
		}
		// Once when it looks for what it has missed, before it serves, and once then.
		if n := strings.Count(string(log), "was not let in"); n == 1 || n == 2 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the refused device does not say so:\n%s", log)
		}
	}
}

func TestAddressesThatAreNoPeer(t *testing.T) {
	a, b := newMachine(t), newMachine(t)
	a.must("init")
	a.serve()
	line := a.must("invite")
	to := func(addr string) string {
		return changed(t, line, func(i *cipher.Invite) { i.Addrs = []string{addr} })
	}
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	silent := listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	web := listen(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
		c.Close()
	})
	b.fails(10, gone.Addr().String(), "join", to(gone.Addr().String()))
	b.fails(10, web, "join", to(web))
	b.fails(10, silent, "join", to(silent))
	b.fails(10, "", "join", changed(t, line, func(i *cipher.Invite) { i.Device[3] ^= 1 }))
	b.must("join", line)
}

// onSmallDisk gives a machine's data directory a disk of 192 MiB.
func onSmallDisk(t *testing.T, m *machine) {
	t.Helper()
	if err := os.Mkdir(m.data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", m.data, "tmpfs", 0, "size=192m"); err != nil {
		t.Skipf("no tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(m.data, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func TestFullDisk(t *testing.T) {
	needMount(t)
	m := newMachine(t)
	onSmallDisk(t, m)
	m.must("init")
	small := strings.Repeat("small ", 1000)
	if r := m.run(strings.NewReader(small), "put", "-", "small"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	r := m.run(io.LimitReader(newNoise(), 300<<20), "put", "-", "large")
	checkFailure(t, r, 13, "full", []string{"put"})
	if got := m.run(nil, "cat", "small"); got.out != small {
		t.Errorf("after the disk was full: %d bytes, %s", len(got.out), got.err)
	}
	if names := m.must("ls"); names != "small" {
		t.Errorf("after the disk was full there is %q", names)
	}
}

// TestDirectoryOfAnother: a data directory that this user may not read is not damaged.
func TestDirectoryOfAnother(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	m := newMachine(t)
	m.must("init")
	if err := os.Chmod(filepath.Dir(fsmount(t)), 0o755); err != nil { // for nobody to run it
		t.Fatal(err)
	}
	p := m.begin(func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		cmd.Dir = "/"
	}, "ls")
	checkFailure(t, result{code: p.ends(time.Minute), err: p.said.String()}, 6, "run as the user it belongs to", []string{"ls"})

	// Nor does root leave files in the directory of another, for whom they would be in the way.
	if err := filepath.WalkDir(m.data, func(path string, _ os.DirEntry, _ error) error { return os.Chown(path, 1, 1) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.end)
	for _, args := range [][]string{{"ls"}, {"serve", "--daemon"}, {"init"}, {m.mount}} {
		m.fails(6, "belongs to", args...)
	}
	err := filepath.WalkDir(m.data, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Sys().(*syscall.Stat_t).Uid != 1 {
			t.Errorf("%s belongs to root now", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
