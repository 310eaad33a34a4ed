package fusefs

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTmpfile: a file without a name is a file, shows nowhere, and can be given a name with all that is in it.
func TestTmpfile(t *testing.T) {
	r := mount(t, nil)
	must(t, os.Mkdir(r.path("d"), 0o755))
	for _, c := range []struct {
		name string
		data []byte
		sync bool
	}{{"small", []byte("text"), false}, {"large", noise(5*block + 7), false}, {"synced", noise(3 * block), true}, {"empty", nil, false}} {
		fd, err := unix.Open(r.path("d"), unix.O_TMPFILE|unix.O_RDWR, 0o640)
		must(t, err)
		f := os.NewFile(uintptr(fd), c.name)
		defer f.Close()
		if len(c.data) > 0 {
			_, err = f.Write(c.data)
			must(t, err)
		}
		if c.sync {
			must(t, f.Sync())
		}
		shows(t, f, c.data)
		var st unix.Stat_t
		must(t, unix.Fstat(fd, &st))
		if st.Nlink != 0 || st.Mode != unix.S_IFREG|0o640 || st.Size != int64(len(c.data)) {
			t.Errorf("%s: %d links, mode %o, %d bytes", c.name, st.Nlink, st.Mode, st.Size)
		}
		if list, err := os.ReadDir(r.path("d")); err != nil || len(list) > 0 {
			t.Errorf("%s: listed %v, %v", c.name, list, err)
		}
		must(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, r.path("d", c.name), unix.AT_SYMLINK_FOLLOW))
		must(t, unix.Fstat(fd, &st))
		if st.Nlink != 1 {
			t.Errorf("%s: %d links", c.name, st.Nlink)
		}
		if got := r.read("d/" + c.name); got != string(c.data) {
			t.Errorf("%s: reads %d bytes, want %d", c.name, len(got), len(c.data))
		}
		_, err = f.WriteAt([]byte("more"), 2)
		must(t, err)
		must(t, os.Link(r.path("d", c.name), r.path(c.name)))
		must(t, os.Remove(r.path("d", c.name)))
		if got := r.read(c.name); len(got) < 6 || got[2:6] != "more" {
			t.Errorf("%s: reads %.10q", c.name, got)
		}
	}
	fd, err := unix.Open(r.path("d"), unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL, 0o600)
	must(t, err)
	err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, r.path("no"), unix.AT_SYMLINK_FOLLOW)
	wantErr(t, err, unix.ENOENT)
	must(t, unix.Close(fd))
}

// TestHeldByPath: a descriptor of O_PATH keeps all that is in a file without a name, though nobody has it open: for who opens it again
// by that or gives it a name. Without it the file is gone.
func TestHeldByPath(t *testing.T) {
	r := mount(t, nil)
	data := noise(5*block + 7)
	for name, file := range map[string]func() int{
		"made": func() int {
			fd, err := unix.Open(r.dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
			must(t, err)
			return fd
		},
		"removed": func() int {
			fd, err := unix.Open(r.path("f"), unix.O_CREAT|unix.O_RDWR, 0o600)
			must(t, err)
			must(t, os.Remove(r.path("f")))
			return fd
		},
	} {
		fd := file()
		_, err := unix.Write(fd, data)
		must(t, err)
		path, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_PATH, 0)
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Fstat(fd, &st))
		must(t, unix.Close(fd))
		until(t, "the handle is gone", func() bool { return !r.vol.OpenForWriting(st.Ino) })
		held := fmt.Sprintf("/proc/self/fd/%d", path)
		must(t, unix.Fstatat(path, "", &st, unix.AT_EMPTY_PATH))
		if st.Size != int64(len(data)) || st.Nlink != 0 {
			t.Errorf("%s: %d bytes, %d links", name, st.Size, st.Nlink)
		}
		if got, err := os.ReadFile(held); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: read %d bytes, %v", name, len(got), err)
		}
		if name == "made" {
			must(t, unix.Linkat(unix.AT_FDCWD, held, unix.AT_FDCWD, r.path("named"), unix.AT_SYMLINK_FOLLOW))
			if got := r.read("named"); got != string(data) {
				t.Errorf("under its name it has %d bytes", len(got))
			}
			must(t, os.Remove(r.path("named")))
		}
		must(t, unix.Close(path))
		until(t, "the kernel forgets the file", func() bool { return !r.vol.InKernel(st.Ino) })
	}
	// What is held when the mount is taken away goes with it.
	fd, err := unix.Open(r.dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	must(t, err)
	_, err = unix.Write(fd, data)
	must(t, err)
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	must(t, r.Unmount())
	if r.vol.InKernel(st.Ino) {
		t.Error("a file is held by a kernel that is gone")
	}
	_ = unix.Close(fd)
}

// TestTmpfileElsewhere: another device sees the file with its name and content, and never the name it was made under.
func TestTmpfileElsewhere(t *testing.T) {
	r, other := mount(t, nil), newVolume(t, nil)
	other.mount(nil)
	data := noise(3*block + 1)
	fd, err := unix.Open(r.dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	must(t, err)
	_, err = unix.Write(fd, data)
	must(t, err)
	r.give(other)
	must(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, r.path("named"), unix.AT_SYMLINK_FOLLOW))
	must(t, unix.Close(fd))
	must(t, r.vol.SyncAll(t.Context()))
	r.chunks.mu.Lock()
	other.chunks.mu.Lock()
	maps.Copy(other.chunks.chunks, r.chunks.chunks)
	other.chunks.mu.Unlock()
	r.chunks.mu.Unlock()
	r.give(other)
	list, err := os.ReadDir(other.dir)
	must(t, err)
	if !slices.ContainsFunc(list, func(e os.DirEntry) bool { return e.Name() == "named" }) || len(list) != 1 {
		t.Errorf("the other lists %v", list)
	}
	if got := other.read("named"); got != string(data) {
		t.Errorf("the other reads %d bytes", len(got))
	}
}
