package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestGoneBesideTheMount: what is open on the mount is seen to have lost its name by put and rm.
func TestGoneBesideTheMount(t *testing.T) {
	needMount(t)
	m := newMachine(t)
	m.must("--daemon", "--listen", "127.0.0.1:0", m.mount)
	t.Cleanup(func() { m.run(nil, "umount", m.mount) })
	file, dir := filepath.Join(m.mount, "file"), filepath.Join(m.mount, "dir")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, change := range map[string]func(){
		file: func() {
			if r := m.run(strings.NewReader("new"), "put", "-", "file"); r.code != 0 {
				t.Fatal(r.err)
			}
		},
		dir: func() { m.must("rm", "-r", "dir") },
	} {
		open, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer open.Close()
		links := func() uint64 {
			var info unix.Stat_t
			if err := unix.Fstat(int(open.Fd()), &info); err != nil {
				t.Fatal(err)
			}
			return uint64(info.Nlink)
		}
		if links() == 0 {
			t.Fatalf("%s has no name yet", path)
		}
		change()
		m.until("no name of "+path, func() bool { return links() == 0 })
	}
}
