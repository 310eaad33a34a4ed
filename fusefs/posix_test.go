package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestEverydayFiles(t *testing.T) {
	r := mount(t, nil)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *rig)
	}{
		{"content", testContent},
		{"append", testAppend},
		{"sparse", testSparse},
		{"truncate", testTruncate},
		{"unlinked", testUnlinked},
		{"directories", testDirectories},
		{"links", testLinks},
		{"rename", testRename},
		{"rename2", testRename2},
		{"modes and owners", testModes},
		{"times", testTimes},
		{"special files", testSpecial},
		{"xattrs", testXattrs},
		{"errors", testErrors},
		{"set-id bits go", testSetIDGoes},
		{"statfs", testStatfs},
	} {
		t.Run(test.name, func(t *testing.T) {
			sub := *r
			sub.t, sub.dir = t, filepath.Join(r.dir, "d "+test.name)
			must(t, os.Mkdir(sub.dir, 0o755))
			test.run(t, &sub)
		})
	}
}

func testContent(t *testing.T, r *rig) {
	data := make([]byte, 3<<20+17)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	must(t, os.WriteFile(r.path("big"), data, 0o600))
	if r.read("big") != string(data) {
		t.Error("read another content than was written")
	}
	f, err := os.OpenFile(r.path("big"), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	for range 50 {
		off, n := rand.IntN(len(data)), rand.IntN(200<<10)
		p := bytes.Repeat([]byte{byte(rand.Uint32())}, min(n, len(data)-off))
		copy(data[off:], p)
		_, err := f.WriteAt(p, int64(off))
		must(t, err)
	}
	must(t, f.Sync())
	got, err := io.ReadAll(f)
	must(t, err)
	if !bytes.Equal(got, data) {
		t.Error("wrong content after writing in the middle")
	}
	direct, err := unix.Open(r.path("big"), unix.O_RDONLY|unix.O_DIRECT, 0)
	must(t, err)
	defer unix.Close(direct)
	buf := make([]byte, 1<<20)
	n, err := unix.Pread(direct, buf, 1<<20)
	if err != nil || n != len(buf) || !bytes.Equal(buf, data[1<<20:2<<20]) {
		t.Errorf("direct read: %d bytes, %v", n, err)
	}
}

func testAppend(t *testing.T, r *rig) {
	f, err := os.OpenFile(r.path("log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	must(t, err)
	g, err := os.OpenFile(r.path("log"), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	for i := range 5 {
		_, err = fmt.Fprintf(f, "f%d", i)
		must(t, err)
		_, err = fmt.Fprintf(g, "g%d", i)
		must(t, err)
	}
	must(t, f.Close())
	must(t, g.Close())
	if got := r.read("log"); got != "f0g0f1g1f2g2f3g3f4g4" {
		t.Errorf("got %q", got)
	}
}

func testSparse(t *testing.T, r *rig) {
	f, err := os.Create(r.path("hole"))
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("end"), 10<<20)
	must(t, err)
	buf := make([]byte, 1<<20)
	_, err = f.ReadAt(buf, 5<<20)
	must(t, err)
	if !bytes.Equal(buf, make([]byte, 1<<20)) {
		t.Error("a hole is not zero")
	}
	info, err := f.Stat()
	must(t, err)
	if info.Size() != 10<<20+3 {
		t.Errorf("size is %d", info.Size())
	}
}

func testTruncate(t *testing.T, r *rig) {
	r.write("f", strings.Repeat("x", 1000))
	must(t, os.Truncate(r.path("f"), 10))
	must(t, os.Truncate(r.path("f"), 20))
	if got := r.read("f"); got != "xxxxxxxxxx"+strings.Repeat("\x00", 10) {
		t.Errorf("got %q", got)
	}
	f, err := os.OpenFile(r.path("f"), os.O_RDWR|os.O_TRUNC, 0)
	must(t, err)
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("after O_TRUNC: %v, %v", info.Size(), err)
	}
	_, err = f.WriteString("new")
	must(t, err)
	must(t, f.Truncate(2))
	if got := r.read("f"); got != "ne" {
		t.Errorf("got %q", got)
	}
}

func testUnlinked(t *testing.T, r *rig) {
	f, err := os.Create(r.path("f"))
	must(t, err)
	defer f.Close()
	_, err = f.WriteString("before ")
	must(t, err)
	must(t, os.Remove(r.path("f")))
	_, err = f.WriteString("after")
	must(t, err)
	must(t, f.Chmod(0o640))
	must(t, f.Truncate(11))
	must(t, f.Sync())
	buf := make([]byte, 100)
	n, err := f.ReadAt(buf, 0)
	if string(buf[:n]) != "before afte" || !errors.Is(err, io.EOF) {
		t.Errorf("got %q, %v", buf[:n], err)
	}
	var st syscall.Stat_t
	must(t, syscall.Fstat(int(f.Fd()), &st))
	if st.Nlink != 0 || st.Mode&0o7777 != 0o640 || st.Size != 11 {
		t.Errorf("links %d, mode %o, size %d", st.Nlink, st.Mode, st.Size)
	}
	r.write("f", "another")
	r.write("g", "old")
	g, err := os.Open(r.path("g"))
	must(t, err)
	defer g.Close()
	must(t, os.Rename(r.path("f"), r.path("g")))
	if b, err := io.ReadAll(g); err != nil || string(b) != "old" {
		t.Errorf("file renamed over reads %q, %v", b, err)
	}
}

func testDirectories(t *testing.T, r *rig) {
	var want []string
	for i := range 2000 {
		name := fmt.Sprintf("%04d-%s", i, strings.Repeat("n", i%200))
		want = append(want, name)
		fd, err := unix.Open(r.path(name), unix.O_CREAT|unix.O_WRONLY, 0o600)
		must(t, err)
		must(t, unix.Close(fd))
	}
	entries, err := os.ReadDir(r.dir)
	must(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
		if e.Type() != 0 {
			t.Errorf("%s has type %v", e.Name(), e.Type())
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %d names, made %d", len(got), len(want))
	}
	must(t, os.MkdirAll(r.path("a/b/c"), 0o700))
	wantErr(t, os.Remove(r.path("a/b")), syscall.ENOTEMPTY)
	must(t, os.Remove(r.path("a/b/c")))
	must(t, os.RemoveAll(r.dir))
	must(t, os.Mkdir(r.dir, 0o755))
}

func testLinks(t *testing.T, r *rig) {
	r.write("one", "text")
	must(t, os.Link(r.path("one"), r.path("two")))
	must(t, os.WriteFile(r.path("two"), []byte("changed"), 0))
	if got := r.read("one"); got != "changed" {
		t.Errorf("got %q", got)
	}
	var st syscall.Stat_t
	must(t, syscall.Stat(r.path("one"), &st))
	if st.Nlink != 2 {
		t.Errorf("%d links", st.Nlink)
	}
	wantErr(t, os.Link(r.dir, r.path("dir")), syscall.EPERM)
	target := strings.Repeat("t", 4095)
	must(t, os.Symlink(target, r.path("sym")))
	if got, err := os.Readlink(r.path("sym")); err != nil || got != target {
		t.Errorf("symlink: %d bytes, %v", len(got), err)
	}
	must(t, os.Remove(r.path("one")))
	if got := r.read("two"); got != "changed" {
		t.Errorf("got %q", got)
	}
}

func testRename(t *testing.T, r *rig) {
	r.write("a", "A")
	r.write("b", "B")
	must(t, os.Rename(r.path("a"), r.path("b")))
	if got := r.read("b"); got != "A" {
		t.Errorf("got %q", got)
	}
	must(t, os.MkdirAll(r.path("d/e"), 0o755))
	must(t, os.Mkdir(r.path("empty"), 0o755))
	must(t, syscall.Rename(r.path("d"), r.path("empty"))) // os.Rename would refuse
	wantErr(t, syscall.Rename(r.path("empty"), r.path("empty/e/below")), syscall.EINVAL)
	wantErr(t, syscall.Rename(r.path("b"), r.path("empty")), syscall.EISDIR)
	wantErr(t, syscall.Rename(r.path("empty"), r.path("b")), syscall.ENOTDIR)
	must(t, os.Rename(r.path("b"), r.path("empty/e/b")))
	if got := r.read("empty/e/b"); got != "A" {
		t.Errorf("got %q", got)
	}
}

func testRename2(t *testing.T, r *rig) {
	r.write("a", "A")
	r.write("b", "B")
	rename := func(from, to string, flags uint) error {
		return unix.Renameat2(unix.AT_FDCWD, r.path(from), unix.AT_FDCWD, r.path(to), flags)
	}
	wantErr(t, rename("a", "b", unix.RENAME_NOREPLACE), unix.EEXIST)
	must(t, rename("a", "b", unix.RENAME_EXCHANGE))
	if a, b := r.read("a"), r.read("b"); a != "B" || b != "A" {
		t.Errorf("after the exchange: %q and %q", a, b)
	}
	must(t, rename("a", "c", unix.RENAME_NOREPLACE))
	wantErr(t, rename("c", "none", unix.RENAME_EXCHANGE), unix.ENOENT)
	wantErr(t, rename("b", "c", unix.RENAME_WHITEOUT|unix.RENAME_EXCHANGE), unix.EINVAL)
	wantErr(t, rename("b", "c", unix.RENAME_WHITEOUT|unix.RENAME_NOREPLACE), unix.EEXIST)
	must(t, rename("b", "c", unix.RENAME_WHITEOUT))
	must(t, rename("c", "d", unix.RENAME_WHITEOUT))
	must(t, rename("b", "e", unix.RENAME_WHITEOUT))
	if got := r.read("d"); got != "A" {
		t.Errorf("moved twice it has %q", got)
	}
	for _, name := range []string{"b", "c", "e"} {
		var st unix.Stat_t
		must(t, unix.Lstat(r.path(name), &st))
		if st.Mode != unix.S_IFCHR || st.Rdev != 0 {
			t.Errorf("left at %s: mode %o, device %d", name, st.Mode, st.Rdev)
		}
	}
}

func testModes(t *testing.T, r *rig) {
	r.write("f", "")
	for _, mode := range []uint32{0, 0o777, 0o4755, 0o2755, 0o1644, 0o7777} {
		must(t, syscall.Chmod(r.path("f"), mode))
		var st syscall.Stat_t
		must(t, syscall.Stat(r.path("f"), &st))
		if st.Mode != mode|syscall.S_IFREG {
			t.Errorf("mode is %o, want %o", st.Mode, mode)
		}
	}
	must(t, os.Mkdir(r.path("sticky"), 0o700))
	must(t, syscall.Chmod(r.path("sticky"), 0o1777))
	var st syscall.Stat_t
	must(t, syscall.Stat(r.path("sticky"), &st))
	if st.Mode != syscall.S_IFDIR|0o1777 {
		t.Errorf("mode is %o", st.Mode)
	}
	must(t, os.Chown(r.path("f"), 12, 34))
	must(t, syscall.Stat(r.path("f"), &st))
	if st.Uid != 12 || st.Gid != 34 || st.Mode&0o6000 != 0 {
		t.Errorf("owner %d:%d, mode %o", st.Uid, st.Gid, st.Mode)
	}
}

func testTimes(t *testing.T, r *rig) {
	r.write("f", "")
	for _, ns := range []int64{0, 1, -1, -1e9, -1500000000, 5e18, 1700000000123456789} {
		ts := []unix.Timespec{unix.NsecToTimespec(ns), unix.NsecToTimespec(ns / 2)}
		if ns < 0 && ts[0].Nsec < 0 {
			t.Fatal("bad test value")
		}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, r.path("f"), ts, 0))
		var st unix.Stat_t
		must(t, unix.Stat(r.path("f"), &st))
		if st.Atim != ts[0] || st.Mtim != ts[1] {
			t.Errorf("times %v %v, want %v", st.Atim, st.Mtim, ts)
		}
	}
	before := time.Now().Add(-time.Second)
	r.write("f", "x")
	if info, err := os.Stat(r.path("f")); err != nil || info.ModTime().Before(before) {
		t.Errorf("a write did not move mtime: %v, %v", info.ModTime(), err)
	}
}

func testSpecial(t *testing.T, r *rig) {
	for _, c := range []struct {
		name string
		mode uint32
		dev  int
	}{
		{"fifo", unix.S_IFIFO | 0o644, 0},
		{"sock", unix.S_IFSOCK | 0o600, 0},
		{"chr", unix.S_IFCHR | 0o644, int(unix.Mkdev(1, 3))},
		{"blk", unix.S_IFBLK | 0o600, int(unix.Mkdev(259, 70000))},
		{"reg", unix.S_IFREG | 0o640, 0},
	} {
		must(t, unix.Mknod(r.path(c.name), c.mode, c.dev))
		var st unix.Stat_t
		must(t, unix.Lstat(r.path(c.name), &st))
		if st.Mode != c.mode || st.Rdev != uint64(c.dev) {
			t.Errorf("%s: mode %o rdev %x, want %o %x", c.name, st.Mode, st.Rdev, c.mode, c.dev)
		}
	}
}

func testXattrs(t *testing.T, r *rig) {
	r.write("f", "")
	f := r.path("f")
	big := bytes.Repeat([]byte("v"), 60<<10)
	must(t, unix.Setxattr(f, "user.a", []byte("1"), unix.XATTR_CREATE))
	wantErr(t, unix.Setxattr(f, "user.a", []byte("2"), unix.XATTR_CREATE), unix.EEXIST)
	wantErr(t, unix.Setxattr(f, "user.b", []byte("2"), unix.XATTR_REPLACE), unix.ENODATA)
	must(t, unix.Setxattr(f, "user.big", big, 0))
	must(t, unix.Setxattr(f, "user.empty", nil, 0))
	buf := make([]byte, 64<<10)
	if n, err := unix.Getxattr(f, "user.big", buf); err != nil || !bytes.Equal(buf[:n], big) {
		t.Errorf("big value: %d bytes, %v", n, err)
	}
	if n, err := unix.Getxattr(f, "user.big", nil); err != nil || n != len(big) {
		t.Errorf("size of the big value: %d, %v", n, err)
	}
	_, err := unix.Getxattr(f, "user.big", buf[:10])
	wantErr(t, err, unix.ERANGE)
	_, err = unix.Getxattr(f, "user.none", buf)
	wantErr(t, err, unix.ENODATA)
	n, err := unix.Listxattr(f, buf)
	must(t, err)
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	if !slices.Equal(names, []string{"user.a", "user.big", "user.empty"}) {
		t.Errorf("listed %q", names)
	}
	must(t, unix.Removexattr(f, "user.a"))
	wantErr(t, unix.Removexattr(f, "user.a"), unix.ENODATA)
	wantErr(t, unix.Setxattr(f, "system.posix_acl_access", []byte{2, 0, 0, 0}, 0), unix.EOPNOTSUPP)
}

func testErrors(t *testing.T, r *rig) {
	r.write("f", "")
	long := strings.Repeat("l", 256)
	_, err := os.Stat(r.path(long))
	wantErr(t, err, syscall.ENAMETOOLONG)
	wantErr(t, os.Mkdir(r.path(long), 0o755), syscall.ENAMETOOLONG)
	must(t, os.Mkdir(r.path(long[:255]), 0o755))
	must(t, os.Remove(r.path(long[:255])))
	must(t, os.WriteFile(r.path("\xff\x01\n*"), nil, 0o600))
	must(t, os.Remove(r.path("\xff\x01\n*")))
	_, err = os.Stat(r.path("none"))
	wantErr(t, err, syscall.ENOENT)
	_, err = os.Stat(r.path("f/below"))
	wantErr(t, err, syscall.ENOTDIR)
	wantErr(t, syscall.Mkdir(r.path("f"), 0o755), syscall.EEXIST)
	wantErr(t, syscall.Rmdir(r.path("f")), syscall.ENOTDIR)
	wantErr(t, syscall.Unlink(r.dir), syscall.EISDIR)
	_, err = os.OpenFile(r.path("f"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	wantErr(t, err, syscall.EEXIST)
	wantErr(t, os.Truncate(r.path("f"), 1<<60), syscall.EFBIG)
}

func testSetIDGoes(t *testing.T, r *rig) {
	must(t, os.Chmod(r.dir, 0o777))
	r.write("prog", "#!")
	must(t, syscall.Chmod(r.path("prog"), 0o6777))
	must(t, unix.Setxattr(r.path("prog"), xattrCapability,
		append([]byte{1, 0, 0, 2, 1}, make([]byte, 15)...), 0))
	f, err := os.OpenFile(r.path("prog"), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = f.WriteString("x")
	must(t, err)
	must(t, f.Close())
	var st unix.Stat_t
	must(t, unix.Stat(r.path("prog"), &st))
	if st.Mode&0o7777 != 0o6777 {
		t.Errorf("root's write made the mode %o", st.Mode)
	}
	_, err = unix.Getxattr(r.path("prog"), xattrCapability, make([]byte, 100))
	wantErr(t, err, unix.ENODATA)
	must(t, os.Chown(r.path("prog"), 1, 1))
	must(t, unix.Stat(r.path("prog"), &st))
	if st.Mode&0o7777 != 0o777 {
		t.Errorf("chown left the mode %o", st.Mode)
	}
}

func testStatfs(t *testing.T, r *rig) {
	var st unix.Statfs_t
	must(t, unix.Statfs(r.dir, &st))
	if st.Bsize != 4096 || st.Blocks != 1<<28 || st.Bfree != 1<<27 || st.Bavail != 1<<27-1<<14 || st.Namelen != 255 || st.Files == 0 {
		t.Errorf("%+v", st)
	}
	d, err := os.Open(r.dir)
	must(t, err)
	defer d.Close()
	must(t, d.Sync())
}

// TestRemoveWhileListing: a program that removes what it has just listed, and then lists on, gets every name once.
func TestRemoveWhileListing(t *testing.T) {
	r := mount(t, nil)
	for _, c := range []struct{ buffer, length int }{{4096, 10}, {32768, 60}, {4096, 200}, {32768, 200}} {
		dir := r.path(fmt.Sprintf("d%d-%d", c.buffer, c.length))
		must(t, os.Mkdir(dir, 0o755))
		const n = 2000
		for i := range n {
			must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%0*d", c.length, i)), nil, 0o644))
		}
		d, err := os.Open(dir)
		must(t, err)
		defer d.Close()
		buf := make([]byte, c.buffer)
		removed := 0
		for {
			size, err := unix.Getdents(int(d.Fd()), buf)
			must(t, err)
			if size == 0 {
				break
			}
			_, _, names := unix.ParseDirent(buf[:size], -1, nil)
			for _, name := range names {
				must(t, os.Remove(filepath.Join(dir, name)))
				removed++
			}
		}
		if removed != n {
			t.Errorf("names of %d bytes, buffer of %d: %d of %d were listed", c.length, c.buffer, removed, n)
		}
	}
}

// TestChangeTimeStays: the time of a change does not move when the change enters the tree, nor does the time that a file is given become it.
func TestChangeTimeStays(t *testing.T) {
	r := mount(t, nil)
	changed := func(f *os.File) time.Time {
		t.Helper()
		var st unix.Statx_t
		must(t, unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_CTIME, &st))
		return time.Unix(st.Ctime.Sec, int64(st.Ctime.Nsec))
	}
	for _, size := range []int{10, 100_000} {
		f, err := os.Create(r.path("f"))
		must(t, err)
		_, err = f.Write(make([]byte, size))
		must(t, err)
		wrote := changed(f)
		must(t, r.vol.SyncAll(t.Context()))
		if got := changed(f); !got.Equal(wrote) {
			t.Errorf("%d bytes: changed at %v, in the tree at %v", size, wrote, got)
		}
		_, err = f.Write(make([]byte, size))
		must(t, err)
		must(t, f.Chmod(0o600))
		mode := changed(f)
		must(t, r.vol.SyncAll(t.Context()))
		if got := changed(f); !got.Equal(mode) {
			t.Errorf("%d bytes: mode changed at %v, in the tree at %v", size, mode, got)
		}
		_, err = f.Write(make([]byte, size))
		must(t, err)
		must(t, os.Chtimes(r.path("f"), time.Time{}, time.Now().Add(time.Hour)))
		if got := changed(f); got.After(time.Now().Add(time.Minute)) {
			t.Errorf("%d bytes: the time it was given counts as that of the change", size)
		}
		must(t, f.Close())
	}
}

// TestXattrNames: names that are nothing but a prefix are refused, and those for root are not shown to others.
func TestXattrNames(t *testing.T) {
	r := mount(t, func(c *Config) { c.AllowOther = true })
	r.write("f", "")
	for _, prefix := range keptXattrs {
		if err := unix.Setxattr(r.path("f"), prefix, []byte("x"), 0); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v, want EINVAL", prefix, err)
		}
		if _, err := unix.Getxattr(r.path("f"), prefix, nil); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("get %s: %v, want EINVAL", prefix, err)
		}
		if err := unix.Removexattr(r.path("f"), prefix); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("remove %s: %v, want EINVAL", prefix, err)
		}
	}
	must(t, unix.Setxattr(r.path("f"), "trusted.a", []byte("x"), 0))
	must(t, unix.Setxattr(r.path("f"), "user.a", []byte("x"), 0))
	f, err := os.Open(r.path("f"))
	must(t, err)
	defer f.Close()
	list := func() string {
		b := make([]byte, 100)
		n, err := unix.Flistxattr(int(f.Fd()), b)
		if err != nil {
			return err.Error()
		}
		return string(b[:n])
	}
	if got := list(); got != "trusted.a\x00user.a\x00" {
		t.Errorf("root sees %q", got)
	}
	call := func(number, a, b, c uintptr) {
		if _, _, errno := syscall.RawSyscall(number, a, b, c); errno != 0 {
			t.Error(errno)
		}
	}
	become := func() { call(syscall.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)) }
	const noSetuidFixup = 1 << 2
	for _, c := range []struct {
		who    string
		change func()
		want   string
	}{
		{"another user", become, "user.a\x00"},
		{"another user with root's capabilities", func() {
			call(syscall.SYS_PRCTL, unix.PR_SET_SECUREBITS, noSetuidFixup, 0)
			become()
		}, "trusted.a\x00user.a\x00"},
		{"root without capabilities", func() {
			if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &make([]unix.CapUserData, 2)[0]); err != nil {
				t.Error(err)
			}
		}, "user.a\x00"},
	} {
		done := make(chan string)
		go func() {
			runtime.LockOSThread() // for ever: the thread ends with its user
			c.change()
			done <- list()
		}()
		if got := <-done; got != c.want {
			t.Errorf("%s sees %q", c.who, got)
		}
	}
}

// TestBirthTime: statx tells when a file was made, whatever happens to it, along with all else.
func TestBirthTime(t *testing.T) {
	r := mount(t, nil)
	before := time.Now().Add(-time.Millisecond)
	must(t, os.WriteFile(r.path("f"), make([]byte, 5000), 0o640))
	after := time.Now()
	must(t, unix.Mknod(r.path("dev"), unix.S_IFCHR|0o600, int(unix.Mkdev(8, 300))))
	must(t, os.Chtimes(r.path("f"), time.Unix(1, 2), time.Unix(3, 4)))
	must(t, os.Link(r.path("f"), r.path("g")))
	const all = unix.STATX_BASIC_STATS | unix.STATX_BTIME
	var st unix.Statx_t
	must(t, unix.Statx(unix.AT_FDCWD, r.path("g"), unix.AT_STATX_FORCE_SYNC, all, &st))
	born := time.Unix(st.Btime.Sec, int64(st.Btime.Nsec))
	if st.Mask&all != all || born.Before(before) || born.After(after) {
		t.Errorf("mask %#x, made at %v, not between %v and %v", st.Mask, born, before, after)
	}
	if st.Mode != unix.S_IFREG|0o640 || st.Size != 5000 || st.Nlink != 2 || st.Atime != (unix.StatxTimestamp{Sec: 1, Nsec: 2}) || st.Mtime != (unix.StatxTimestamp{Sec: 3, Nsec: 4}) {
		t.Errorf("%+v", st)
	}
	must(t, unix.Statx(unix.AT_FDCWD, r.path("."), unix.AT_STATX_FORCE_SYNC, all, &st))
	if st.Mask&all != unix.STATX_BASIC_STATS {
		t.Errorf("root directory: mask %#x", st.Mask)
	}
	must(t, unix.Statx(unix.AT_FDCWD, r.path("dev"), unix.AT_STATX_FORCE_SYNC, all, &st))
	if st.Mode != unix.S_IFCHR|0o600 || st.Rdev_major != 8 || st.Rdev_minor != 300 {
		t.Errorf("%+v", st)
	}
}

// TestNewFileHasOneTime: O_CREAT with O_TRUNC does not change a file that it has just made.
func TestNewFileHasOneTime(t *testing.T) {
	r := mount(t, nil)
	f, err := os.Create(r.path("f"))
	must(t, err)
	var made, later unix.Stat_t
	must(t, unix.Fstat(int(f.Fd()), &made))
	must(t, f.Close())
	must(t, r.vol.SyncAll(t.Context()))
	var st unix.Statx_t
	must(t, unix.Statx(unix.AT_FDCWD, r.path("f"), unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st))
	must(t, unix.Stat(r.path("f"), &later))
	if made.Mtim != later.Mtim || made.Ctim != later.Ctim || st.Btime != st.Mtime && st.Mask&unix.STATX_BTIME != 0 {
		t.Errorf("made at %v, changed at %v", made.Mtim, later.Mtim)
	}
}
