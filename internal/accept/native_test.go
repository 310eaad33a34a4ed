package accept

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestSameAsNative does the same random things on a mount and in a directory of the
// local file system, and compares every result and errno; at the end both trees,
// and that of the other mount, are the same.
func TestSameAsNative(t *testing.T) {
	a, b := pair(t)
	for i := range scale(1, 8) {
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		name := fmt.Sprintf("run%d", i)
		tw := &twins{t: t, rng: rand.New(rand.NewPCG(seed, 0)), dirs: [2]string{filepath.Join(a.mnt, name), filepath.Join(t.TempDir(), name)}}
		for _, dir := range tw.dirs {
			if err := os.Mkdir(dir, 0755); err != nil {
				t.Fatal(err)
			}
		}
		steps := scale(1500, 5000)
		for step := range steps {
			tw.step(step)
		}
		tw.closeAll()
		run(t, "", "diff", "-r", "--no-dereference", tw.dirs[0], tw.dirs[1])
		until(t, 10*time.Second, "the tree on the other mount", func() bool {
			_, err := tryRun("", "diff", "-r", "--no-dereference", filepath.Join(b.mnt, name), tw.dirs[1])
			return err == nil
		})
	}
}

// twins are a directory on a mount and one of the local file system that go through the same.
type twins struct {
	t    *testing.T
	rng  *rand.Rand
	dirs [2]string
	open [][2]*os.File
}

// outcome is what an operation gave: a value, or an errno.
type outcome struct {
	val any
	err error
}

// both runs fn on either side and fails the test if the outcomes differ.
func (tw *twins) both(what string, fn func(side int) (any, error)) {
	tw.t.Helper()
	var got [2]outcome
	for side := range got {
		val, err := fn(side)
		got[side] = outcome{val, errnoOf(err)}
	}
	if !reflect.DeepEqual(got[0], got[1]) {
		tw.t.Fatalf("%s: on the mount %.200v, natively %.200v", what, got[0], got[1])
	}
}

// errnoOf strips paths from an error.
func errnoOf(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func (tw *twins) path() string {
	dirs := []string{"", "x", "y", "x/z", "x/z/w"}
	return filepath.Join(dirs[tw.rng.IntN(len(dirs))], string("abcdexyzw"[tw.rng.IntN(9)]))
}

func (tw *twins) step(n int) {
	p, q, num := tw.path(), tw.path(), tw.rng.IntN(100_000)
	at := func(side int, path string) string { return filepath.Join(tw.dirs[side], path) }
	none := func(err error) (any, error) { return nil, err }
	kinds := []struct {
		name string
		do   func(side int) (any, error)
	}{
		{"truncate", func(s int) (any, error) { return none(os.Truncate(at(s, p), int64(num))) }},
		{"rename", func(s int) (any, error) { return none(os.Rename(at(s, p), at(s, q))) }},
		{"link", func(s int) (any, error) { return none(os.Link(at(s, p), at(s, q))) }},
		{"unlink", func(s int) (any, error) { return none(syscall.Unlink(at(s, p))) }},
		{"mkdir", func(s int) (any, error) { return none(os.Mkdir(at(s, p), 0755)) }},
		{"rmdir", func(s int) (any, error) { return none(syscall.Rmdir(at(s, p))) }},
		{"symlink", func(s int) (any, error) { return none(os.Symlink("to "+p, at(s, q))) }},
		{"chmod", func(s int) (any, error) { return none(syscall.Chmod(at(s, p), uint32(num)&07777)) }},
		{"stat", func(s int) (any, error) { return statOf(at(s, p)) }},
		{"list", func(s int) (any, error) { return namesIn(at(s, p)) }},
		{"read", func(s int) (any, error) { return os.ReadFile(at(s, p)) }},
		{"utimes", func(s int) (any, error) { return utimes(at(s, p), int64(num)-50_000) }},
		{"setxattr", func(s int) (any, error) {
			return none(syscall.Setxattr(at(s, p), "user.k", fmt.Append(nil, num), num%3))
		}},
	}
	switch k := tw.rng.IntN(len(kinds) + 14); {
	case k < len(kinds):
		tw.both(fmt.Sprintf("step %d: %s %s %s %d", n, kinds[k].name, p, q, num), kinds[k].do)
	case k < len(kinds)+3:
		tw.openFile(n, p)
	default:
		tw.useFile(n)
	}
}

func statOf(path string) (any, error) {
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		return nil, err
	}
	if st.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		st.Size = 0 // every file system has its own idea
	}
	return fmt.Sprint(st.Mode, st.Nlink, st.Size, st.Uid, st.Gid), nil
}

func namesIn(path string) (any, error) {
	list, err := os.ReadDir(path) // sorted
	var names []string
	for _, e := range list {
		names = append(names, e.Name()+" "+e.Type().String())
	}
	return names, err
}

// utimes sets times, also before 1970, and returns what they then are.
func utimes(path string, sec int64) (any, error) {
	if err := os.Chtimes(path, time.Unix(sec, 5), time.Unix(sec, 123456789)); err != nil {
		return nil, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return st.ModTime().UnixNano(), nil
}

// openFile opens a file on both sides, in one of the usual ways.
func (tw *twins) openFile(n int, p string) {
	flags := []int{os.O_RDWR | os.O_CREATE, os.O_RDWR | os.O_CREATE | os.O_TRUNC, os.O_RDWR, os.O_RDWR | os.O_CREATE | os.O_EXCL, os.O_RDWR | os.O_APPEND}
	flag := flags[tw.rng.IntN(len(flags))]
	var files [2]*os.File
	tw.both(fmt.Sprintf("step %d: open %s %#x", n, p, flag), func(side int) (any, error) {
		f, err := os.OpenFile(filepath.Join(tw.dirs[side], p), flag, 0640)
		files[side] = f
		return nil, err
	})
	if files[0] == nil {
		return
	}
	if tw.open = append(tw.open, files); len(tw.open) > 6 {
		tw.close(tw.rng.IntN(len(tw.open)))
	}
}

func (tw *twins) close(i int) {
	files := tw.open[i]
	tw.open = append(tw.open[:i], tw.open[i+1:]...)
	tw.both("close", func(side int) (any, error) { return nil, files[side].Close() })
}

func (tw *twins) closeAll() {
	for len(tw.open) > 0 {
		tw.close(0)
	}
}

// useFile does something to an open file.
func (tw *twins) useFile(n int) {
	if len(tw.open) == 0 {
		return
	}
	i := tw.rng.IntN(len(tw.open))
	files := tw.open[i]
	off := []int64{0, tw.rng.Int64N(200_000), tw.rng.Int64N(5000), 65536 * tw.rng.Int64N(4)}[tw.rng.IntN(4)]
	data := bytes.Repeat([]byte{byte(n)}, []int{1, 100, 4096, 1 + tw.rng.IntN(150_000)}[tw.rng.IntN(4)])
	kind := tw.rng.IntN(8)
	tw.both(fmt.Sprintf("step %d: use %d of open file %d at %d, %d bytes", n, kind, i, off, len(data)), func(side int) (any, error) {
		fd := int(files[side].Fd())
		switch kind {
		case 0, 1:
			return syscall.Pwrite(fd, data, off)
		case 2:
			return syscall.Write(fd, data[:min(len(data), 5000)])
		case 3, 4:
			p := make([]byte, len(data))
			got, err := syscall.Pread(fd, p, off)
			return string(p[:max(0, got)]), err
		case 5:
			return nil, syscall.Ftruncate(fd, off)
		case 6:
			return nil, syscall.Fsync(fd)
		}
		return syscall.Seek(fd, off, 0)
	})
}

// TestEverybodyAtOnce lets processes on both mounts work on the same few names without
// any order between them; then both mounts must show one tree.
func TestEverybodyAtOnce(t *testing.T) {
	a, b := pair(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	ops := scale(1500, 20_000)
	var wg sync.WaitGroup
	for i := range 4 {
		root := []string{a.mnt, b.mnt}[i%2]
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range ops {
				disturb(root, rng)
			}
		}()
	}
	wg.Wait()
	defer func() {
		if t.Failed() {
			out, _ := tryRun("", "diff", "-r", "--no-dereference", a.mnt, b.mnt)
			t.Logf("differences:\n%s\na:\n%s\nb:\n%s", out, listing(t, a.mnt), listing(t, b.mnt))
			for _, n := range []*node{a, b} {
				ls, _ := n.try(nil, "ls", "-l")
				t.Logf("%s by its node:\n%s\n%s", filepath.Base(n.mnt), ls, n.command("status"))
			}
		}
	}()
	took := until(t, 20*time.Second, "one tree on both mounts", func() bool {
		_, err := tryRun("", "diff", "-r", "--no-dereference", a.mnt, b.mnt)
		return err == nil && listing(t, a.mnt) == listing(t, b.mnt)
	})
	t.Logf("4 x %d operations on both mounts at once: one tree of %d names %.2f s later", ops, strings.Count(listing(t, a.mnt), "\n"), took.Seconds())
}

// disturb does one random thing; that it fails, as things are, is part of it.
func disturb(root string, rng *rand.Rand) {
	path := func() string {
		dirs := []string{"", "x", "y", "x/z", "x/z/w", "y/v"}
		return filepath.Join(root, dirs[rng.IntN(len(dirs))], string("abcdexyzwv"[rng.IntN(10)]))
	}
	p, q := path(), path()
	switch rng.IntN(12) {
	case 0, 1, 2:
		_ = os.WriteFile(p, bytes.Repeat([]byte{byte(rng.IntN(256))}, []int{1, 100, 5000, 20_000}[rng.IntN(4)]), 0644)
	case 3, 4:
		_ = os.Rename(p, q)
	case 5:
		_ = os.Link(p, q)
	case 6:
		_ = syscall.Unlink(p)
	case 7, 8:
		_ = os.Mkdir(p, 0755)
	case 9:
		_ = syscall.Rmdir(p)
	case 10:
		_ = os.Symlink("elsewhere", p)
	case 11:
		_ = os.Chmod(p, os.FileMode(rng.IntN(0o1000)))
	}
}

// listing returns kind, mode, links and size of everything below root, one a line.
func listing(t *testing.T, root string) string {
	t.Helper()
	lines := strings.Split(run(t, root, "find", ".", "-printf", "%p %y %m %n %s %l\n"), "\n")
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}
