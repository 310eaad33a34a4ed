package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestLinksAndSlashes: put goes through symbolic links as cp does, and what ends in a slash is a directory or nothing.
func TestLinksAndSlashes(t *testing.T) {
	needMount(t)
	m := newMachine(t)
	m.must("--daemon", "--listen", "127.0.0.1:0", "--lan=false", m.mount)
	t.Cleanup(func() { m.run(nil, "umount", m.mount) })
	in := func(name string) string { return filepath.Join(m.mount, name) }
	if err := os.Mkdir(in("dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{
		"link": "dir/loop", "dir/loop": "../other", "other": "file", "dirlink": "dir", "up": "..", "nothing": "gone", "out": "/etc/passwd", "a": "b", "b": "a",
	} {
		if err := os.Symlink(to, in(name)); err != nil {
			t.Fatal(err)
		}
	}
	m.putFile("file", "old", 0o640)
	m.putFile("link", "new", 0o600)
	if b, err := os.ReadFile(in("file")); err != nil || string(b) != "new" {
		t.Errorf("put through links: the file has %q, %v", b, err)
	}
	if info, err := os.Lstat(in("file")); err != nil || info.Mode() != 0o640 {
		t.Errorf("put through links: %v, %v", info, err)
	}
	for _, link := range []string{"link", "dir/loop", "other"} {
		if info, err := os.Lstat(in(link)); err != nil || info.Mode().Type() != os.ModeSymlink {
			t.Errorf("%s is no link any more: %v, %v", link, info, err)
		}
	}
	m.putFile("dirlink/../beside", "x", 0o600)
	m.putFile("dirlink/in", "x", 0o600)
	from := filepath.Join(t.TempDir(), "from")
	if err := os.WriteFile(from, []byte("from"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, words := range map[string]string{
		"dir": "is a directory", "dir/": "is a directory", "dirlink": "is a directory", "up": "is a directory", "/": "is a directory", "..": "is a directory", "dir/.": "is a directory",
		"new/": "does not exist", "file/": "not a directory", "file/x": "not a directory",
		"nothing": "a symbolic link to nothing", "out": "leads out of the volume", "a": "too many levels of symbolic links",
	} {
		m.fails(12, words, "put", from, path)
	}
	for _, path := range []string{"file/", "dirlink/", "file/."} {
		m.fails(12, "", "rm", "-r", path)
	}
	for _, args := range [][]string{{"cat", "file/"}, {"get", "file/", "-"}, {"ls", "file/"}, {"cat", "file/."}, {"cat", "file/../file"}} {
		m.fails(12, "not a directory", args...)
	}
	m.fails(12, "ends in .", "rm", "-r", "dir/.")
	m.fails(12, "root", "rm", "-r", "/")
	m.must("rm", "-r", "dir/")
	m.must("rm", "link")
	if got := m.must("ls"); got != "a\nb\nbeside\ndirlink\nfile\nnothing\nother\nout\nup" {
		t.Errorf("there is %q", got)
	}
}
