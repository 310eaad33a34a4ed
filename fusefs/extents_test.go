package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	zero  = unix.FALLOC_FL_ZERO_RANGE
	block = 1 << 16
)

// noise returns bytes that do not repeat.
func noise(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rand.Uint32())
	}
	return p
}

// create makes a file with some content and leaves it open.
func (r *rig) create(name string, data []byte) *os.File {
	r.t.Helper()
	f, err := os.OpenFile(r.path(name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	must(r.t, err)
	r.t.Cleanup(func() { f.Close() })
	_, err = f.Write(data)
	must(r.t, err)
	return f
}

// shows fails the test if a file holds something else.
func shows(t *testing.T, f *os.File, want []byte) {
	t.Helper()
	got := make([]byte, len(want)+10)
	n, err := f.ReadAt(got, 0)
	if err != io.EOF || !bytes.Equal(got[:n], want) {
		t.Errorf("%s: %d bytes, want %d (equal so far: %v), %v", filepath.Base(f.Name()), n, len(want), bytes.Equal(got[:min(n, len(want))], want[:min(n, len(want))]), err)
	}
}

func TestFallocate(t *testing.T) {
	r := mount(t, nil)
	for _, state := range []string{"dirty", "synced"} {
		t.Run(state, func(t *testing.T) {
			want := noise(5*block + 1000)
			f := r.create("f "+state, want)
			fd := int(f.Fd())
			if state == "synced" {
				must(t, f.Sync())
			}
			at := func(mode uint32, off, n int64) {
				t.Helper()
				var before, after unix.Stat_t
				must(t, unix.Fstat(fd, &before))
				time.Sleep(2 * time.Millisecond)
				must(t, unix.Fallocate(fd, mode, off, n))
				must(t, unix.Fstat(fd, &after))
				if after.Mtim == before.Mtim || after.Ctim == before.Ctim {
					t.Errorf("mode %#x left the times", mode)
				}
				if mode&unix.FALLOC_FL_KEEP_SIZE == 0 && off+n > int64(len(want)) {
					want = append(want, make([]byte, off+n-int64(len(want)))...)
				}
				if mode&^unix.FALLOC_FL_KEEP_SIZE != 0 {
					clear(want[min(off, int64(len(want))):min(off+n, int64(len(want)))])
				}
				shows(t, f, want)
			}
			at(unix.FALLOC_FL_KEEP_SIZE, 0, 1<<30)
			at(punch, 100, 50)
			at(punch, block/2, 2*block)
			at(punch, 4*block+10, 10*block)
			at(zero, 10, 100)
			at(zero|unix.FALLOC_FL_KEEP_SIZE, 3*block, 100*block)
			at(0, 6*block, 77)
			at(zero, 6*block, 2*block)
			must(t, f.Sync())
			at(zero, 0, 8*block)
			must(t, f.Sync())
			shows(t, f, want)
			if _, err := unix.Seek(fd, 0, unix.SEEK_DATA); err != unix.ENXIO {
				t.Errorf("data in a file of zeros: %v", err)
			}
		})
	}
	f := r.create("refused", []byte("text"))
	for _, mode := range []uint32{unix.FALLOC_FL_COLLAPSE_RANGE, unix.FALLOC_FL_INSERT_RANGE, unix.FALLOC_FL_UNSHARE_RANGE, unix.FALLOC_FL_PUNCH_HOLE} {
		wantErr(t, unix.Fallocate(int(f.Fd()), mode, 0, 1<<16), unix.EOPNOTSUPP)
	}
	wantErr(t, unix.Fallocate(int(f.Fd()), 0, 0, 0), unix.EINVAL)
	wantErr(t, unix.Fallocate(int(f.Fd()), 0, 1<<62, 1), unix.EFBIG)
	wantErr(t, unix.Fallocate(int(f.Fd()), 0, 0, 1<<40), unix.ENOSPC) // half of that is free
	must(t, unix.Fallocate(int(f.Fd()), 0, 0, 1<<38))
	g, err := os.Open(r.path("refused"))
	must(t, err)
	defer g.Close()
	wantErr(t, unix.Fallocate(int(g.Fd()), 0, 0, 1), unix.EBADF)
}

// TestHoleOfTenGiB: a hole costs the same whatever its size.
func TestHoleOfTenGiB(t *testing.T) {
	r := mount(t, nil)
	f := r.create("huge", nil)
	huge(t, f, 10<<30)
	start := time.Now()
	must(t, unix.Fallocate(int(f.Fd()), punch, 12345, 10<<30-100_000))
	took := time.Since(start)
	t.Logf("a hole of 10 GiB in %v", took)
	if took > time.Second {
		t.Errorf("took %v", took)
	}
	if at, err := unix.Seek(int(f.Fd()), block, unix.SEEK_DATA); err != nil || at < 10<<30-2*block {
		t.Errorf("data at %d, %v", at, err)
	}
}

func TestSeekHoleAndData(t *testing.T) {
	r := mount(t, nil)
	f := r.create("f", nil)
	fd := int(f.Fd())
	seek := func(off int64, whence int, want int64) {
		t.Helper()
		got, err := unix.Seek(fd, off, whence)
		if want < 0 && err == unix.ENXIO || err == nil && got == want {
			return
		}
		t.Errorf("seek %d, %d: %d, %v, want %d", off, whence, got, err, want)
	}
	check := func() {
		t.Helper()
		const size = 9*block + 5
		seek(0, unix.SEEK_DATA, 2*block)
		seek(0, unix.SEEK_HOLE, 0)
		seek(2*block+7, unix.SEEK_DATA, 2*block+7)
		seek(2*block+7, unix.SEEK_HOLE, 4*block)
		seek(4*block, unix.SEEK_DATA, 9*block)
		seek(9*block, unix.SEEK_HOLE, size)
		seek(size-1, unix.SEEK_DATA, size-1)
		seek(size, unix.SEEK_DATA, -1)
		seek(size, unix.SEEK_HOLE, -1)
		seek(-1, unix.SEEK_DATA, -1)
		seek(0, unix.SEEK_END, size)
	}
	seek(0, unix.SEEK_DATA, -1)
	_, err := f.WriteAt(noise(2*block), 2*block)
	must(t, err)
	_, err = f.WriteAt([]byte("tail."), 9*block)
	must(t, err)
	check()
	must(t, f.Sync())
	check()
	_, err = f.WriteAt([]byte("x"), 6*block+100)
	must(t, err)
	seek(4*block, unix.SEEK_DATA, 6*block)
	seek(6*block, unix.SEEK_HOLE, 7*block)
	must(t, unix.Fallocate(fd, punch, 6*block, block))
	check()
	must(t, f.Truncate(20*block))
	seek(10*block, unix.SEEK_DATA, -1)
	seek(9*block, unix.SEEK_HOLE, 10*block)
}

func copyRange(src *os.File, from int64, dst *os.File, to int64, n int) (int, error) {
	return unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &to, n, 0)
}

// huge fills a file with data by copying it onto its own end.
func huge(t *testing.T, f *os.File, size int64) {
	t.Helper()
	_, err := f.WriteAt(noise(16<<20), 0)
	must(t, err)
	for at := int64(16 << 20); at < size; {
		n, err := copyRange(f, 0, f, at, int(min(at, size-at)))
		if err != nil || n == 0 {
			t.Fatalf("copy at %d: %d, %v", at, n, err)
		}
		at += int64(n)
	}
}

func TestCopyFileRange(t *testing.T) {
	r := mount(t, nil)
	data := noise(5*block + 333)
	src := r.create("src", data)
	for _, c := range []struct {
		name     string
		old      int // bytes in the destination
		from, to int64
		n        int
	}{
		{"whole", 0, 0, 0, len(data)},
		{"whole over something", 3 * block, 0, 0, len(data)},
		{"over something small", 10, 0, 0, len(data)},
		{"more than there is", 0, 0, 0, 100 * block},
		{"blocks", 9 * block, block, 3 * block, 2 * block},
		{"tail into the middle", 9 * block, 4 * block, block, 3 * block},
		{"behind a gap", 100, 0, 7 * block, len(data)},
		{"same place in a block", 5 * block, 1000, block + 1000, 3*block + 50},
		{"unaligned", 5 * block, 1000, 77, 3 * block},
		{"little", 5 * block, 1000, 77, 500},
		{"to an odd place at the end", block + 9, 0, block + 9, len(data)},
		{"at the end", 100, int64(len(data)), 0, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := noise(c.old)
			dst := r.create("dst "+c.name, want)
			m, err := unix.Mmap(int(dst.Fd()), 0, 20*block, unix.PROT_READ, unix.MAP_SHARED)
			must(t, err)
			defer unix.Munmap(m)
			shows(t, dst, want) // its pages are in the kernel
			n := min(c.n, len(data)-int(c.from))
			got, err := copyRange(src, c.from, dst, c.to, c.n)
			if err != nil || got != n {
				t.Fatalf("copied %d, want %d: %v", got, n, err)
			}
			if n > 0 {
				want = append(want, make([]byte, max(0, int(c.to)+n-len(want)))...)
				copy(want[c.to:], data[c.from:int(c.from)+n])
			}
			shows(t, dst, want)
			must(t, dst.Sync())
			shows(t, dst, want)
			_, err = dst.WriteAt([]byte("later"), 7)
			must(t, err)
			shows(t, src, data)
		})
	}
	if _, err := copyRange(src, 0, src, block, 2*block); err != unix.EINVAL {
		t.Errorf("overlapping: %v", err)
	}
	_, err := copyRange(src, block, src, 3*block, block)
	must(t, err)
	copy(data[3*block:4*block], data[block:])
	shows(t, src, data)
	app, err := os.OpenFile(r.path("src"), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	defer app.Close()
	if _, err := copyRange(src, 0, app, 0, 10); err != unix.EBADF {
		t.Errorf("to a file open for appending: %v", err)
	}
}

// TestCopyIsOneState: a copy of a file that is written over and over has one fill, not two.
func TestCopyIsOneState(t *testing.T) {
	r := mount(t, nil)
	const size = 128 << 10 // one write request
	src := r.create("src", make([]byte, size))
	stop := make(chan struct{})
	done := make(chan error)
	go func() {
		for i := byte(0); ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if _, err := src.WriteAt(bytes.Repeat([]byte{i}, size), 0); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 50 {
		dst := r.create("dst", nil)
		n, err := copyRange(src, 0, dst, 0, size)
		must(t, err)
		got := make([]byte, n)
		_, err = dst.ReadAt(got, 0)
		if n != size || err != nil || !bytes.Equal(got, bytes.Repeat(got[:1], n)) {
			t.Fatalf("%d bytes, %v: of several states", n, err)
		}
		must(t, dst.Close())
	}
	close(stop)
	must(t, <-done)
}

// TestCopyTenGiB has cp copy a large file.
func TestCopyTenGiB(t *testing.T) {
	r := mount(t, nil)
	f := r.create("src", nil)
	huge(t, f, 10<<30+12345)
	must(t, f.Close())
	best := time.Hour
	for i := range 3 {
		start := time.Now()
		out, err := exec.Command("cp", r.path("src"), r.path(fmt.Sprintf("dst%d", i))).CombinedOutput()
		took := time.Since(start)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Logf("cp of 10 GiB: %v", took)
		best = min(best, took)
	}
	if best > 100*time.Millisecond {
		t.Errorf("cp of 10 GiB took %v", best)
	}
	for _, off := range []int64{0, 5<<30 + 100, 10<<30 + 12000} {
		a, b := make([]byte, 300), make([]byte, 300)
		for name, p := range map[string][]byte{"src": a, "dst0": b} {
			g, err := os.Open(r.path(name))
			must(t, err)
			_, err = g.ReadAt(p, off)
			must(t, err)
			must(t, g.Close())
		}
		if !bytes.Equal(a, b) {
			t.Errorf("at %d the copy differs", off)
		}
	}
	info, err := os.Stat(r.path("dst0"))
	if err != nil || info.Size() != 10<<30+12345 {
		t.Errorf("%v, %v", info, err)
	}
}

// TestChangesTakePrivileges: whoever is not root and changes a file's content, in whatever way, takes its set-id bits away, and who
// looks at nothing but the mode sees that at once, also if he who changes it could not open it. Without permission for the group to execute
// it the set-group-ID bit goes, too, unless who changes it is in that group.
func TestChangesTakePrivileges(t *testing.T) {
	r := newVolume(t, nil)
	r.mount(func(c *Config) { c.AllowOther = true })
	must(t, os.Chmod(r.dir, 0o777))
	for _, how := range []string{"punch", "copy", "write", "direct", "trunc"} {
		f := r.create(how, noise(2*block))
		for _, c := range []struct {
			mode, want uint16
			uid, gid   int // of the file
		}{{0o6777, 0o777, 1, 1}, {0o6766, 0o2766, 1, 1}, {0o6766, 0o2766, 1, 5}, {0o6766, 0o766, 1, 7}, {0o6766, 0o766, 0, 0}, {0o6711, 0o711, 0, 0}} {
			if how == "trunc" && c.mode&2 == 0 {
				continue
			}
			must(t, os.Chown(r.path(how), c.uid, c.gid))
			must(t, syscall.Chmod(r.path(how), uint32(c.mode)))
			runHelper(t, "setid", how, r.path(how))
			var st unix.Statx_t
			must(t, unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MODE, &st))
			if st.Mode&0o7777 != c.want {
				t.Errorf("%s left %o of the mode %o, want %o; owner %d:%d", how, st.Mode&0o7777, c.mode, c.want, c.uid, c.gid)
			}
		}
	}
}

// setIDHelper changes the content of the file args[1] as args[0] says, as another user.
func setIDHelper(args []string) error {
	flags := os.O_RDWR
	if args[0] == "direct" {
		flags |= unix.O_DIRECT
	}
	f, err := os.OpenFile(args[1], flags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// A member of the groups 1 and 5.
	if err := errors.Join(syscall.Setgroups([]int{5}), syscall.Setgid(1), syscall.Setuid(1)); err != nil {
		return err
	}
	return change(f, args[0])
}

// change changes the content of an open file in a certain way.
func change(f *os.File, how string) (err error) {
	switch how {
	case "punch":
		return unix.Fallocate(int(f.Fd()), punch, 0, 100)
	case "copy":
		_, err = copyRange(f, 0, f, block, block)
	case "trunc":
		_, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY|os.O_TRUNC, 0)
	default:
		var page []byte
		if page, err = unix.Mmap(-1, 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON); err == nil {
			_, err = f.WriteAt(page, 0)
		}
	}
	return err
}
