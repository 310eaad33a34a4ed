package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"
)

func TestPanicIsContained(t *testing.T) {
	r := mount(t, nil, func(s *Server) {
		s.observe = func(req fuse.Request) {
			if l, ok := req.(*fuse.LookupRequest); ok && l.Name == "boom" {
				panic("boom")
			}
		}
	})
	for range 3 {
		_, err := os.Stat(r.path("boom"))
		wantErr(t, err, syscall.EIO)
	}
	r.write("f", "alive")
	if got := r.read("f"); got != "alive" {
		t.Errorf("got %q", got)
	}
}

// TestPanicOfEveryKind has requests of every sort panic: quick ones, ones that may wait,
// ones that bazil does not know, and forgets, which are never answered.
func TestPanicOfEveryKind(t *testing.T) {
	var armed atomic.Value // what panics: how the name of its type ends
	var hits atomic.Int32
	armed.Store("")
	r := mount(t, nil, func(s *Server) {
		s.observe = func(req fuse.Request) {
			name := fmt.Sprintf("%T", req)
			if a := armed.Load().(string); a != "" && strings.HasSuffix(name, a) {
				hits.Add(1)
				panic("boom in " + name)
			}
		}
	})
	r.write("f", "content")
	must(t, os.Mkdir(r.path("dir"), 0o755))
	drop := func() error { // has the kernel forget inodes
		return os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0)
	}
	open := func(flags int, then func(*os.File) error) func() error {
		return func() error {
			f, err := os.OpenFile(r.path("f"), flags, 0)
			if err != nil {
				return err
			}
			return errors.Join(then(f), f.Close())
		}
	}
	for _, c := range []struct {
		req fuse.Request
		do  func() error
		err error
	}{
		{&fuse.MkdirRequest{}, func() error { return os.Mkdir(r.path("new"), 0o755) }, syscall.EIO},
		{&fuse.CreateRequest{}, func() error { return os.WriteFile(r.path("new"), nil, 0o600) }, syscall.EIO},
		{&fuse.RemoveRequest{}, func() error { return os.Remove(r.path("f")) }, syscall.EIO},
		{&fuse.RenameRequest{}, func() error { return os.Rename(r.path("f"), r.path("g")) }, syscall.EIO},
		{&fuse.OpenRequest{}, open(os.O_RDONLY, func(*os.File) error { return nil }), syscall.EIO},
		{&fuse.ReadRequest{}, open(os.O_RDONLY|syscall.O_DIRECT, func(f *os.File) error { _, err := f.Read(make([]byte, 4096)); return err }), syscall.EIO},
		{&fuse.WriteRequest{}, open(os.O_WRONLY, func(f *os.File) error { _, err := f.WriteString("x"); return err }), syscall.EIO},
		{&fuse.FsyncRequest{}, open(os.O_WRONLY, (*os.File).Sync), syscall.EIO},
		{&fuse.FlushRequest{}, open(os.O_WRONLY, func(*os.File) error { return nil }), syscall.EIO},
		{&fuse.SetattrRequest{}, func() error { return os.Truncate(r.path("f"), 3) }, syscall.EIO},
		{&fuse.StatfsRequest{}, func() error { return syscall.Statfs(r.dir, &syscall.Statfs_t{}) }, syscall.EIO},
		{&fuse.UnrecognizedRequest{}, func() error { return unix.Renameat2(0, r.path("f"), 0, r.path("dir"), unix.RENAME_EXCHANGE) }, syscall.EIO},
		{&fuse.ReleaseRequest{}, open(os.O_RDONLY, func(*os.File) error { return nil }), nil}, // the kernel waits for no answer
		{&fuse.ForgetRequest{}, drop, nil}, // alone or in a batch
	} {
		name := strings.TrimPrefix(fmt.Sprintf("%T", c.req), "*fuse.")
		hits.Store(0)
		armed.Store(name)
		err := c.do()
		until(t, "a panic in "+name, func() bool { return hits.Load() > 0 })
		armed.Store("")
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
		if b, err := os.ReadFile(r.path("f")); err != nil || string(b) != "content" {
			t.Errorf("after a panic in %s: %q, %v", name, b, err)
		}
	}
	until(t, "the workers have settled", func() bool {
		n := r.idle.Load()
		r.callMu.Lock()
		defer r.callMu.Unlock()
		return n == waitingWorkers && len(r.calls) == 0
	})
}

// evict has later reads go to the chunk store: the volume's cache is smaller than
// what this writes, and the kernel's pages are dropped.
func evict(t *testing.T, r *rig, name string) {
	t.Helper()
	for _, n := range []string{name, "filler", "filler2"} {
		data := make([]byte, 2<<20)
		for i := range data {
			data[i] = byte(i>>16) ^ n[len(n)-1]
		}
		r.write(n, string(data))
		r.read(n)
	}
	until(t, "content is published", func() bool {
		must(t, r.vol.SyncAll(t.Context()))
		return true
	})
	for _, n := range []string{"filler", "filler2"} {
		f, err := os.Open(r.path(n))
		must(t, err)
		must(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
		r.read(n)
		must(t, f.Close())
	}
	f, err := os.Open(r.path(name))
	must(t, err)
	must(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	must(t, f.Close())
}

func TestStuckReadsHoldUpNobody(t *testing.T) {
	r := mount(t, nil)
	evict(t, r, "big")
	release := r.chunks.holdUp(false)
	defer release()
	const readers = 8
	var out [readers]bytes.Buffer
	var cats [readers]*exec.Cmd
	for i := range cats {
		cats[i] = exec.Command("tail", "-c", "1000", r.path("big"))
		cats[i].Stdout = &out[i]
		must(t, cats[i].Start())
	}
	until(t, "a read waits for the store", func() bool { return r.chunks.held.Load() > 0 })
	start := time.Now()
	r.write("other", "quick")
	if got := r.read("other"); got != "quick" || time.Since(start) > 2*time.Second {
		t.Errorf("beside stuck reads: %q after %v", got, time.Since(start))
	}
	release()
	for i, cat := range cats {
		if err := cat.Wait(); err != nil || out[i].Len() != 1000 {
			t.Errorf("after the wait: %d bytes, %v", out[i].Len(), err)
		}
	}
}

func TestStuckReadIsInterrupted(t *testing.T) {
	r := mount(t, nil)
	evict(t, r, "big")
	release := r.chunks.holdUp(false)
	defer release()
	for _, sig := range []os.Signal{os.Interrupt, os.Kill} {
		cat := exec.Command("cat", r.path("big"))
		must(t, cat.Start())
		until(t, "the read waits for the store", func() bool { return r.chunks.held.Load() > 0 })
		time.Sleep(20 * time.Millisecond)
		start := time.Now()
		must(t, cat.Process.Signal(sig))
		if err := cat.Wait(); err == nil || time.Since(start) > 2*time.Second {
			t.Errorf("%v ended a stuck read after %v: %v", sig, time.Since(start), err)
		}
	}
	// A direct read is one that the process itself waits for: its request is interrupted.
	dd := stuck(t, r)
	start := time.Now()
	must(t, dd.Process.Signal(os.Interrupt))
	if err := dd.Wait(); err == nil || time.Since(start) > 2*time.Second {
		t.Errorf("a stuck direct read ended after %v: %v", time.Since(start), err)
	}
}

func TestManyAtOnce(t *testing.T) {
	r := mount(t, nil)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			dir := r.path(string(rune('a' + i)))
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Error(err)
			}
			data := strings.Repeat(string(rune('a'+i)), 10_000+i)
			for range 20 {
				if err := os.WriteFile(dir+"/tmp", []byte(data), 0o600); err != nil {
					t.Error(err)
				}
				if err := os.Rename(dir+"/tmp", dir+"/file"); err != nil {
					t.Error(err)
				}
				if b, err := os.ReadFile(dir + "/file"); err != nil || string(b) != data {
					t.Errorf("read %d bytes, %v", len(b), err)
				}
			}
		})
	}
	wg.Wait()
	until(t, "the workers have settled", func() bool {
		n := r.idle.Load()
		return n == waitingWorkers
	})
}

func TestKernelRemembersNames(t *testing.T) {
	var seen counts
	r := mount(t, nil, seen.observe)
	r.write("f", "")
	for range 3 {
		_, err := os.Stat(r.path("none"))
		wantErr(t, err, syscall.ENOENT)
		_, err = os.Stat(r.path("f"))
		must(t, err)
	}
	seen.wantNone(t, func() {
		for range 100 {
			_, err := os.Stat(r.path("none"))
			wantErr(t, err, syscall.ENOENT)
			_, err = os.Stat(r.path("f"))
			must(t, err)
		}
	}, &fuse.LookupRequest{}, &fuse.GetattrRequest{})
	r.write("none", "now")
	if got := r.read("none"); got != "now" {
		t.Errorf("got %q", got)
	}
}

func TestKernelKeepsPages(t *testing.T) {
	var seen counts
	r := mount(t, nil, seen.observe)
	r.write("f", strings.Repeat("x", 100_000))
	r.read("f")
	r.read("f")
	seen.wantNone(t, func() {
		for range 5 {
			r.read("f")
		}
	}, &fuse.ReadRequest{})
	f, err := os.OpenFile(r.path("f"), os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	before := seen.of(&fuse.GetxattrRequest{})
	for i := range 20 {
		_, err = f.WriteAt([]byte("y"), int64(i))
		must(t, err)
	}
	if n := seen.of(&fuse.GetxattrRequest{}) - before; n > 1 { // once after each refresh of attributes
		t.Errorf("the kernel asked for capabilities %d times in 20 writes", n)
	}
}

func TestReadOnlyMount(t *testing.T) {
	r := newVolume(t, nil)
	r.mount(func(c *Config) { c.ReadOnly = true })
	wantErr(t, os.Mkdir(r.path("d"), 0o755), syscall.EROFS)
	if _, err := os.ReadDir(r.dir); err != nil {
		t.Error(err)
	}
}

func TestMountErrors(t *testing.T) {
	r := mount(t, nil)
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/file", nil, 0o600))
	for _, c := range []struct {
		path string
		want error
	}{
		{dir + "/none", ErrMountpoint},
		{dir + "/none", os.ErrNotExist},
		{dir + "/file", ErrMountpoint},
		{dir, ErrMountpointNotEmpty},
		{r.dir, ErrMountpointBusy},
		{r.dir, syscall.EBUSY},
	} {
		_, err := Mount(Config{Mountpoint: c.path, Volume: r.vol})
		var typed *MountError
		if !errors.As(err, &typed) || !errors.Is(err, c.want) || typed.Next == "" {
			t.Errorf("mount on %s: %v, want %v", c.path, err, c.want)
		}
	}
	t.Setenv("PATH", dir)
	_, err := Mount(Config{Mountpoint: t.TempDir(), Volume: r.vol})
	wantErr(t, err, ErrNoFusermount)
	if err != nil && !strings.Contains(err.Error(), "apt-get install fuse3") {
		t.Errorf("error does not say what to do: %v", err)
	}
}

func TestUnmountWithOpenFiles(t *testing.T) {
	r := mount(t, nil)
	r.write("f", "")
	user := exec.Command("sh", "-c", `exec 3>>"$0"; echo written >&3; echo ready; while echo more >&3; do sleep 0.02; done; exec sleep 60`, r.path("f"))
	out, err := user.StdoutPipe()
	must(t, err)
	must(t, user.Start())
	defer func() { _ = user.Process.Kill(); _ = user.Wait() }()
	_, err = out.Read(make([]byte, 6))
	must(t, err)
	start := time.Now()
	must(t, r.Unmount())
	if d := time.Since(start); d < r.cfg.UnmountPatience || d > 8*time.Second {
		t.Errorf("unmounting took %v", d)
	}
	select {
	case <-r.Done():
	default:
		t.Error("Serve is not over")
	}
	must(t, r.Unmount())
	a, err := r.vol.Lookup(t.Context(), 1, "f")
	must(t, err)
	h, err := r.vol.Open(t.Context(), a.Ino, os.O_RDONLY)
	must(t, err)
	defer h.Release()
	buf := make([]byte, 100)
	if n, err := h.Read(t.Context(), buf, 0); err != nil || !strings.HasPrefix(string(buf[:n]), "written\nmore\n") {
		t.Errorf("volume has %q, %v", buf[:n], err)
	}
}

func TestUnmountWithStuckRead(t *testing.T) {
	r := mount(t, nil)
	evict(t, r, "big")
	release := r.chunks.holdUp(false)
	defer release()
	cat := exec.Command("cat", r.path("big"))
	must(t, cat.Start())
	until(t, "the read waits for the store", func() bool { return r.chunks.held.Load() > 0 })
	must(t, r.Unmount())
	if err := cat.Wait(); err == nil {
		t.Error("a read succeeded without its chunk")
	}
}

// TestUnmountWithEndlessRequest has a request that nothing ends.
func TestUnmountWithEndlessRequest(t *testing.T) {
	reached, release := make(chan struct{}), make(chan struct{})
	r := mount(t, nil, func(s *Server) {
		s.patience = 100 * time.Millisecond
		s.observe = func(req fuse.Request) {
			if l, ok := req.(*fuse.LookupRequest); ok && l.Name == "endless" {
				close(reached)
				<-release
			}
		}
	})
	stat := exec.Command("stat", r.path("endless"))
	must(t, stat.Start())
	<-reached
	unmounted := make(chan error, 1)
	go func() { unmounted <- r.Unmount() }()
	select {
	case err := <-unmounted:
		must(t, err)
	case <-time.After(10 * time.Second):
		t.Error("unmounting waits for it")
	}
	close(release)
	_ = stat.Wait()
	r.workers.Wait()
	must(t, r.conn.Close())
}

func TestUnmountByOthers(t *testing.T) {
	r := mount(t, nil)
	must(t, unix.Unmount(r.dir, 0))
	select {
	case <-r.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("Serve goes on")
	}
	until(t, "no goroutine is left", func() bool {
		buf := make([]byte, 1<<20)
		stacks := string(buf[:runtime.Stack(buf, true)])
		return !strings.Contains(stacks, "fusefs.(*Server)") && !strings.Contains(stacks, "fusefs.(*notes)")
	})
}

// TestUnmountLeavesOthersAlone: neither what was mounted where this mount was, nor what lies on top of it, goes with it.
func TestUnmountLeavesOthersAlone(t *testing.T) {
	for _, covered := range []bool{false, true} {
		t.Run(fmt.Sprintf("covered=%v", covered), func(t *testing.T) {
			r := mount(t, nil)
			r.write("f", "held")
			held, err := os.Open(r.path("f"))
			must(t, err)
			defer held.Close()
			if !covered {
				must(t, unix.Unmount(r.dir, unix.MNT_DETACH)) // the kernel keeps it for the open file
			}
			must(t, unix.Mount("tmpfs", r.dir, "tmpfs", 0, ""))
			defer func() {
				must(t, unix.Unmount(r.dir, unix.MNT_DETACH))
				if covered {
					must(t, unix.Unmount(r.dir, unix.MNT_DETACH))
				}
			}()
			other := filepath.Join(r.dir, "other")
			must(t, os.WriteFile(other, []byte("precious"), 0o600))
			must(t, r.Unmount())
			if data, err := os.ReadFile(other); err != nil || string(data) != "precious" {
				t.Errorf("the other mount: %q, %v", data, err)
			}
		})
	}
}

func TestDetachByHelper(t *testing.T) {
	r := mount(t, nil)
	wantErr(t, detachByHelper(t.TempDir(), false), syscall.EINVAL)
	f, err := os.Create(r.path("f"))
	must(t, err)
	wantErr(t, detachByHelper(r.dir, false), syscall.EBUSY)
	must(t, f.Close())
	until(t, "unmounted", func() bool { return detachByHelper(r.dir, false) == nil })
	select {
	case <-r.Done():
	case <-time.After(5 * time.Second):
		t.Error("Serve goes on")
	}
}
