package fusefs

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFileHandles: a handle of a file or a directory, as NFS servers use them, leads there even when the kernel has forgotten it,
// whatever the name is by then, and to nothing once it was removed.
func TestFileHandles(t *testing.T) {
	r := newVolume(t, nil)
	r.mount(nil)
	must(t, os.MkdirAll(r.path("a/b"), 0o755))
	for _, name := range []string{"top", "a/b/file", "gone"} {
		must(t, os.WriteFile(r.path(name), []byte("content of "+name), 0o600))
	}
	handles := map[string]unix.FileHandle{}
	for _, name := range []string{"", "top", "a/b", "a/b/file", "gone"} {
		h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, r.path(name), 0)
		must(t, err)
		handles[name] = h
	}
	must(t, os.Remove(r.path("gone")))
	must(t, os.Rename(r.path("a/b"), r.path("c")))
	must(t, r.Unmount())
	r.mount(nil) // the kernel knows nothing of it any more

	mount, err := os.Open(r.dir)
	must(t, err)
	defer mount.Close()
	open := func(name string) (*os.File, error) {
		fd, err := unix.OpenByHandleAt(int(mount.Fd()), handles[name], unix.O_RDONLY)
		return os.NewFile(uintptr(fd), name), err
	}
	for name, path := range map[string]string{"": "", "a/b": "c", "top": "top", "a/b/file": "c/file"} {
		f, err := open(name)
		must(t, err)
		info, err := f.Stat()
		must(t, err)
		want, err := os.Stat(r.path(path))
		must(t, err)
		if !os.SameFile(info, want) {
			t.Errorf("the handle of %q leads elsewhere", name)
		}
		if info.IsDir() {
			if at, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err != nil || at != r.path(path) {
				t.Errorf("%q is at %s, %v", name, at, err)
			}
		}
		must(t, f.Close())
	}
	if f, err := open("gone"); !errors.Is(err, unix.ESTALE) {
		t.Errorf("the handle of a removed file: %v, %v", f, err)
	}
}
