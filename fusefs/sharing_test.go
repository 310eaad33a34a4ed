package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What processes on one mount see of each other.

// TestReplacedName: a name under which files are renamed over and over always exists, and reads as one of them.
func TestReplacedName(t *testing.T) {
	r := mount(t, nil)
	content := func(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "%08d", i), 30_000) }
	put := func(i int) error {
		tmp := r.path(fmt.Sprintf("tmp%d", i%3))
		if err := os.WriteFile(tmp, content(i), 0o644); err != nil {
			return err
		}
		return os.Rename(tmp, r.path("f"))
	}
	must(t, put(0))
	var stop atomic.Bool
	var reads atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				got, err := os.ReadFile(r.path("f"))
				reads.Add(1)
				if err != nil || len(got) != 240_000 || !bytes.Equal(got, bytes.Repeat(got[:8], 30_000)) {
					t.Errorf("read %d bytes: %v", len(got), err)
					return
				}
			}
		})
	}
	for i := range 150 {
		if err := put(i); err != nil {
			t.Error(err)
			break
		}
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d reads", reads.Load())
}

func appendHelper(args []string) error {
	f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	for i := range 200 {
		if _, err := fmt.Fprintf(f, "%s %03d %s\n", args[1], i, strings.Repeat(args[1], 50+i)); err != nil {
			return err
		}
	}
	return f.Close()
}

// exclHelper makes the names 0 to 99 in a directory if nobody else has, and prints how many it made.
func exclHelper(args []string) error {
	made := 0
	for i := range 100 {
		f, err := os.OpenFile(args[0]+"/"+strconv.Itoa(i), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		made++
		f.Close()
	}
	_, err := fmt.Print(made)
	return err
}

// inParallel runs a job in several processes at once, the last argument of which is its letter, and returns what they printed.
func inParallel(t *testing.T, job, arg string) (out []string) {
	t.Helper()
	var cmds []*exec.Cmd
	var bufs []*bytes.Buffer
	for i := range 6 {
		cmd := helper(t, job, arg, string(rune('a'+i)))
		buf := &bytes.Buffer{}
		cmd.Stdout, cmd.Stderr = buf, buf
		must(t, cmd.Start())
		cmds, bufs = append(cmds, cmd), append(bufs, buf)
	}
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, bufs[i])
		}
		out = append(out, bufs[i].String())
	}
	return out
}

// TestAppendFromProcesses: no record is lost, torn or out of its writer's order.
func TestAppendFromProcesses(t *testing.T) {
	r := mount(t, nil)
	inParallel(t, "append", r.path("log"))
	next := map[string]int{}
	for line := range strings.Lines(r.read("log")) {
		f := strings.Fields(line)
		if len(f) != 3 || f[1] != fmt.Sprintf("%03d", next[f[0]]) || f[2] != strings.Repeat(f[0], 50+next[f[0]]) {
			t.Fatalf("record %q", line)
		}
		next[f[0]]++
	}
	for i := range 6 {
		if who := string(rune('a' + i)); next[who] != 200 {
			t.Errorf("%d records of %s", next[who], who)
		}
	}
}

// TestExclusiveFromProcesses: of those that race for a name one makes it.
func TestExclusiveFromProcesses(t *testing.T) {
	r := mount(t, nil)
	total := 0
	for _, out := range inParallel(t, "excl", r.dir) {
		n, err := strconv.Atoi(out)
		must(t, err)
		total += n
	}
	if total != 100 {
		t.Errorf("100 names were made %d times", total)
	}
}

// mmapTwoHelper maps a file and answers, at its own place, what it finds at the other's.
func mmapTwoHelper(args []string) error {
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	mine, other := m[:1], m[4096:4097]
	if args[1] == "b" {
		mine, other = other, mine
	}
	for i := byte(1); i <= 50; i++ {
		if args[1] == "a" {
			mine[0] = i
		}
		for deadline := time.Now().Add(20 * time.Second); other[0] != i; time.Sleep(50 * time.Microsecond) {
			if time.Now().After(deadline) {
				return fmt.Errorf("%s waits for %d, sees %d", args[1], i, other[0])
			}
		}
		p := make([]byte, 1)
		if _, err := f.ReadAt(p, 4096*int64('b'-args[1][0])); err != nil || p[0] != other[0] {
			return fmt.Errorf("read %d where the mapping shows %d: %v", p[0], other[0], err)
		}
		mine[0] = i
	}
	return unix.Munmap(m)
}

// TestMappedByTwo: two processes that map one file talk to each other through it.
func TestMappedByTwo(t *testing.T) {
	r := mount(t, nil)
	r.write("f", strings.Repeat("\x00", 8192))
	a, b := helper(t, "mmap2", r.path("f"), "a"), helper(t, "mmap2", r.path("f"), "b")
	must(t, a.Start())
	must(t, b.Start())
	if err := errors.Join(a.Wait(), b.Wait()); err != nil {
		t.Error(err)
	}
	if got := r.read("f"); got[0] != 50 || got[4096] != 50 {
		t.Errorf("file has %d, %d", got[0], got[4096])
	}
}

// TestAppendThroughLinks: what is appended through one name is read through another.
func TestAppendThroughLinks(t *testing.T) {
	r := mount(t, nil)
	r.write("one", "")
	must(t, os.Link(r.path("one"), r.path("two")))
	f, err := os.OpenFile(r.path("one"), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	defer f.Close()
	g, err := os.Open(r.path("two"))
	must(t, err)
	defer g.Close()
	for i := range 50 {
		_, err := fmt.Fprintf(f, "%04d", i)
		must(t, err)
		buf := make([]byte, 8)
		n, _ := g.Read(buf)
		if string(buf[:n]) != fmt.Sprintf("%04d", i) {
			t.Fatalf("after %d: %q", i, buf[:n])
		}
	}
}

// TestDirectAndSync: writes past the kernel's pages are what readers find, and pages follow.
func TestDirectAndSync(t *testing.T) {
	r := mount(t, nil)
	for name, flag := range map[string]int{"direct": unix.O_DIRECT, "sync": unix.O_SYNC, "dsync": unix.O_DSYNC} {
		want := noise(3 * block)
		r.write(name, string(want))
		fd, err := unix.Open(r.path(name), unix.O_RDWR|flag, 0)
		must(t, err)
		copy(want[block:], bytes.Repeat([]byte{7}, 8192))
		if n, err := unix.Pwrite(fd, want[block:block+8192], block); n != 8192 || err != nil {
			t.Fatalf("%s: wrote %d, %v", name, n, err)
		}
		if r.read(name) != string(want) {
			t.Errorf("%s: reads another content than was written", name)
		}
		must(t, unix.Close(fd))
	}
}

// TestInotify: changes on this mount are announced to programs that watch.
func TestInotify(t *testing.T) {
	r := mount(t, nil)
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK)
	must(t, err)
	defer unix.Close(fd)
	_, err = unix.InotifyAddWatch(fd, r.dir, unix.IN_CREATE|unix.IN_MODIFY|unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO|unix.IN_ATTRIB|unix.IN_DELETE)
	must(t, err)
	r.write("f", "text")
	must(t, os.Chmod(r.path("f"), 0o600))
	must(t, os.Rename(r.path("f"), r.path("g")))
	must(t, os.Remove(r.path("g")))
	buf := make([]byte, 64<<10)
	n, err := unix.Read(fd, buf)
	must(t, err)
	seen := uint32(0)
	for off := 0; off < n; {
		seen |= native.Uint32(buf[off+4:])
		off += unix.SizeofInotifyEvent + int(native.Uint32(buf[off+12:]))
	}
	for _, want := range []uint32{unix.IN_CREATE, unix.IN_MODIFY, unix.IN_CLOSE_WRITE, unix.IN_MOVED_TO, unix.IN_ATTRIB, unix.IN_DELETE} {
		if seen&want == 0 {
			t.Errorf("no event %#x", want)
		}
	}
}

// TestNames: names of any bytes and of every length, deep paths, long and circular links.
func TestNames(t *testing.T) {
	r := mount(t, nil)
	var all []byte
	for b := 1; b < 256; b++ {
		if b != '/' {
			all = append(all, byte(b))
		}
	}
	names := []string{string(all), strings.Repeat("\xff", 255), strings.Repeat("ü", 127), " ", "-", "...", "\xc3\x28", "\n"}
	must(t, os.Mkdir(r.path("names"), 0o755))
	for _, name := range names {
		must(t, os.WriteFile(r.dir+"/names/"+name, []byte(name), 0o644))
	}
	list, err := os.ReadDir(r.path("names"))
	must(t, err)
	if len(list) != len(names) {
		t.Errorf("%d names, made %d", len(list), len(names))
	}
	for _, e := range list {
		if got := r.read("names/" + e.Name()); got != e.Name() {
			t.Errorf("%q has %q", e.Name(), got)
		}
	}
	// A path of more than PATH_MAX bytes, step by step.
	dir, err := unix.Open(r.dir, unix.O_DIRECTORY, 0)
	must(t, err)
	part := strings.Repeat("p", 200)
	for range 40 {
		must(t, unix.Mkdirat(dir, part, 0o755))
		next, err := unix.Openat(dir, part, unix.O_DIRECTORY, 0)
		must(t, err)
		must(t, unix.Close(dir))
		dir = next
	}
	fd, err := unix.Openat(dir, "bottom", unix.O_CREAT|unix.O_WRONLY, 0o644)
	must(t, err)
	must(t, unix.Close(fd))
	must(t, unix.Close(dir))
	_, err = os.Stat(r.path(strings.Repeat(part+"/", 18))) // below PATH_MAX
	must(t, err)
	must(t, os.RemoveAll(r.path(part)))

	must(t, os.Symlink("loop", r.path("loop")))
	_, err = os.Stat(r.path("loop"))
	wantErr(t, err, syscall.ELOOP)
	wantErr(t, os.Symlink(strings.Repeat("t", 4096), r.path("long")), syscall.ENAMETOOLONG)
	out := t.TempDir() + "/elsewhere"
	wantErr(t, os.Rename(r.path("loop"), out), syscall.EXDEV)
	r.write("f", "")
	wantErr(t, os.Link(r.path("f"), out), syscall.EXDEV)
}

// TestAppendAfterAnotherMount: what is appended goes behind what another mount has appended meanwhile, though the kernel takes
// the file to be as long as it was, and reads as it is.
func TestAppendAfterAnotherMount(t *testing.T) {
	a, b := pair(t, nil)
	a.write("log", "one\n")
	a.give(b)
	f, err := os.OpenFile(b.path("log"), os.O_RDWR|os.O_APPEND, 0)
	must(t, err)
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() != 4 { // the kernel knows it
		t.Fatal(st, err)
	}
	g, err := os.OpenFile(a.path("log"), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = g.WriteString("two\n")
	must(t, errors.Join(err, g.Close()))
	a.give(b)
	for _, line := range []string{"three\n", "four\n"} {
		_, err = f.WriteString(line)
		must(t, err)
	}
	until(t, "all lines", func() bool { return b.read("log") == "one\ntwo\nthree\nfour\n" })
	must(t, f.Close())
	b.give(a)
	if got := a.read("log"); got != "one\ntwo\nthree\nfour\n" {
		t.Errorf("the other mount reads %q", got)
	}
}

// TestCapabilitiesFromAnotherMount: those that a file was given on another mount go when this one writes to it, though it has
// written through the same handle before.
func TestCapabilitiesFromAnotherMount(t *testing.T) {
	a, b := pair(t, nil)
	a.write("f", "one\n")
	a.give(b)
	f, err := os.OpenFile(b.path("f"), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteString("x")
	must(t, err)
	b.give(a)
	const name = "security.capability"
	must(t, unix.Setxattr(a.path("f"), name, []byte("\x01\x00\x00\x02\x00\x20"+strings.Repeat("\x00", 14)), 0))
	a.give(b)
	_, err = unix.Getxattr(b.path("f"), name, make([]byte, 100))
	must(t, err)
	_, err = f.WriteString("y")
	must(t, err)
	if _, err = unix.Getxattr(b.path("f"), name, make([]byte, 100)); !errors.Is(err, syscall.ENODATA) {
		t.Errorf("capabilities after a write: %v, want ENODATA", err)
	}
}
