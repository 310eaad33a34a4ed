package accept

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// slowLink is a TCP proxy through which everything takes a while, in either direction. It is the
// only way to what listens on the loopback of a host of its own.
type slowLink struct {
	l     net.Listener
	host  string // network namespace
	to    string
	delay time.Duration // each way
	rate  float64       // bytes per second each way; 0: no limit
	wg    sync.WaitGroup
	mu    sync.Mutex
	conns []net.Conn
}

func newSlowLink(t testing.TB, host, to string, delay time.Duration) *slowLink {
	t.Helper()
	return newThinLink(t, host, to, delay, 0)
}

// newThinLink is newSlowLink with a rate, in bytes per second.
func newThinLink(t testing.TB, host, to string, delay time.Duration, rate float64) *slowLink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s := &slowLink{l: l, host: host, to: to, delay: delay, rate: rate}
	s.wg.Add(1)
	go s.serve()
	t.Cleanup(func() {
		_ = l.Close()
		s.reset()
		s.wg.Wait()
	})
	return s
}

// reset ends every connection. The link takes others.
func (s *slowLink) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
}

func (s *slowLink) serve() {
	defer s.wg.Done()
	for {
		in, err := s.l.Accept()
		if err != nil {
			return
		}
		out, err := s.dial()
		if err != nil {
			_ = in.Close()
			continue
		}
		s.mu.Lock()
		s.conns = append(s.conns, in, out)
		s.mu.Unlock()
		s.wg.Add(2)
		go s.pipe(in, out)
		go s.pipe(out, in)
	}
}

// dial reaches what is behind the link. With a rate, a TCP would keep no more under way than the
// link holds, so the proxy's own buffers are small.
func (s *slowLink) dial() (net.Conn, error) {
	if s.host == "" {
		return net.Dial("tcp", s.to)
	}
	return dialIn(s.host, s.to)
}

// dialIn dials from inside a network namespace.
func dialIn(host, addr string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		var ns *os.File
		if ns, err = os.Open("/var/run/netns/" + host); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			conn, err = net.Dial("tcp", addr)
		}
	}()
	<-done
	return conn, err
}

// Of a link with a rate: what the proxy itself buffers, in bytes, and how far behind the link may fall.
const (
	thinBuffer = 128 << 10
	thinQueue  = 20 * time.Millisecond
)

// late is something on its way, and when it arrives.
type late struct {
	at   time.Time
	data []byte
}

func (s *slowLink) pipe(dst, src net.Conn) {
	defer s.wg.Done()
	way := make(chan late, 1<<16)
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		defer dst.Close()
		for l := range way {
			time.Sleep(time.Until(l.at)) // the delay is what this is for
			if _, err := dst.Write(l.data); err != nil {
				_ = src.Close()
				_, _ = io.Copy(io.Discard, src)
			}
		}
	}()
	defer close(way)
	var free time.Time // when the link has sent what it was given
	if s.rate > 0 {
		_ = src.(*net.TCPConn).SetReadBuffer(thinBuffer)
		_ = dst.(*net.TCPConn).SetWriteBuffer(thinBuffer)
	}
	for {
		buf := make([]byte, 16<<10)
		n, err := src.Read(buf)
		if now := time.Now(); free.Before(now) {
			free = now
		}
		if n > 0 && s.rate > 0 {
			free = free.Add(time.Duration(float64(n) / s.rate * 1e9))
		}
		if n > 0 {
			way <- late{free.Add(s.delay), buf[:n]}
		}
		// What a router queues before it makes the sender wait.
		if wait := time.Until(free); wait > thinQueue {
			time.Sleep(wait - thinQueue)
		}
		if err != nil {
			return
		}
	}
}

// TestUnpackOverSlowLink fills a fresh directory on one of two mounts with a slow link
// between them. Nobody else looks there, so nothing waits for the link; but what
// the other mount does look at does.
func TestUnpackOverSlowLink(t *testing.T) {
	const delay = 40 * time.Millisecond
	fsmount(t)
	l := newLAN(t, 1)
	dir := t.TempDir()
	a := &node{t: t, data: filepath.Join(dir, "data"), mnt: filepath.Join(dir, "a"), listen: "127.0.0.1:4747", netns: l.hosts[0]}
	must(t, os.Mkdir(a.mnt, 0o755))
	a.start()
	local := timed(func() { unpack(t, filepath.Join(a.mnt, "local")) })
	link := newSlowLink(t, a.netns, a.listen, delay)
	b := newNode(t, "b", strings.TrimSpace(a.command("invite", "--addr", link.l.Addr().String())))
	inStep(t, a, b)
	if d := timed(func() { _, _ = os.ReadDir(b.mnt) }); d < 2*delay {
		t.Fatalf("the first look into a directory took %v: the link is not in between", d)
	}
	begun := filepath.Join(a.mnt, "fresh")
	if d := timed(func() { must(t, os.Mkdir(begun, 0o755)) }); d < 2*delay || d > time.Second {
		t.Errorf("mkdir in a directory that the other mount watches took %v", d)
	}
	slow := timed(func() { unpack(t, begun) })
	t.Logf("unpacked alone in %v, beside a mount that is %v away in %v", local, 2*delay, slow)
	if slow > 3*local+2*time.Second {
		t.Errorf("unpacking took %v, alone it took %v", slow, local)
	}
	for i := range unpacked {
		name := unpackedName(i)
		got, err := os.ReadFile(filepath.Join(b.mnt, "fresh", name))
		if err != nil || string(got) != name {
			t.Fatalf("on the other mount %s is %q, %v", name, got, err)
		}
	}
}

// unpacked is how many files unpack makes.
const unpacked = 400

func unpackedName(i int) string { return fmt.Sprintf("dir%d/file%d", i%100, i) }

// unpack does what tar does, in a directory that it makes if need be.
func unpack(t testing.TB, dir string) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	for i := range unpacked {
		name := filepath.Join(dir, unpackedName(i))
		must(t, os.MkdirAll(filepath.Dir(name), 0o755))
		must(t, os.WriteFile(name, []byte(unpackedName(i)), 0o600))
		must(t, os.Chmod(name, 0o644))
		must(t, os.Chtimes(name, time.Unix(1e9, 0), time.Unix(1e9, 0)))
	}
}

// standBack lets the node work only when nobody else here does: it stands for another machine, whose work
// takes no time from this one.
func (n *node) standBack() {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", n.cmd.Process.Pid))
	must(n.t, err)
	for _, thread := range threads { // what they begin inherits it
		id, _ := strconv.Atoi(thread.Name())
		must(n.t, standBack(id))
	}
}

// standBack is node.standBack for one thread; 0 is the calling one.
func standBack(thread int) error {
	return unix.SchedSetAttr(thread, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
}

// neighbour uses a share of one processor, when nobody else does, until it is told to stop. What it
// computes concerns nobody: but where two processors are halves of one, even that slows the other down.
func neighbour(t testing.TB, share float64) (stop func()) {
	t.Helper()
	const period = 10 * time.Millisecond
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := standBack(0); err != nil {
			t.Error(err)
			return
		}
		for {
			for busy := threadCPU() + time.Duration(share*float64(period)); threadCPU() < busy; {
			}
			select {
			case <-done:
				return
			case <-time.After(time.Duration((1 - share) * float64(period))):
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

// threadCPU returns the processor time of the calling thread.
func threadCPU() time.Duration { return clock(unix.CLOCK_THREAD_CPUTIME_ID) }

// ownCPU returns the processor time of this process.
func ownCPU() time.Duration { return clock(unix.CLOCK_PROCESS_CPUTIME_ID) }

func clock(id int32) time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(id, &ts) // both exist everywhere
	return time.Duration(ts.Nano())
}

// cpu returns the processor time that the node has used.
func (n *node) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.cmd.Process.Pid))
	must(n.t, err)
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// TestUntarOverSlowLink unpacks the source of Go into a fresh directory, alone, beside a
// mount that is 40 ms away, and while a shell there looks on.
func TestUntarOverSlowLink(t *testing.T) {
	const trip = 40 * time.Millisecond
	fsmount(t)
	l := newLAN(t, 1)
	dir := t.TempDir()
	tarball := filepath.Join(dir, "src.tar")
	run(t, "", "tar", "-cf", tarball, "-C", filepath.Join(sourceTree(t), scale("http/internal", "")), ".")
	a := &node{t: t, data: filepath.Join(dir, "data"), mnt: filepath.Join(dir, "a"), listen: "127.0.0.1:4747", netns: l.hosts[0]}
	must(t, os.Mkdir(a.mnt, 0o755))
	a.start()
	untar := func(name string) time.Duration {
		to := filepath.Join(a.mnt, name)
		must(t, os.Mkdir(to, 0o755))
		return timed(func() { run(t, "", "tar", "-xf", tarball, "-C", to) })
	}
	const alone, beside, control = 0, 1, 2
	var took [3][]time.Duration
	unpackAs := func(which int, name string) {
		c0 := a.cpu()
		d := untar(name)
		took[which] = append(took[which], d)
		t.Logf("%s: %v, the node's processor time %v", name, d, a.cpu()-c0)
	}
	untar("warm")
	unpackAs(alone, "alone0")
	link := newSlowLink(t, a.netns, a.listen, trip/2)
	b := newNode(t, "b", strings.TrimSpace(a.command("invite", "--addr", link.l.Addr().String())))
	for i := range scale(1, 3) { // in turn, as the volume grows all the while
		if i > 0 {
			unpackAs(alone, fmt.Sprint("alone", i))
			b.start()
		}
		b.standBack()
		inStep(t, a, b)
		a.command("wait", "--timeout", "2m")
		c0 := b.cpu() + ownCPU()
		unpackAs(beside, fmt.Sprint("beside", i))
		// Of one processor: what the other machine and the link took, which would be elsewhere.
		share := (b.cpu() + ownCPU() - c0).Seconds() / took[beside][i].Seconds()
		a.command("wait", "--timeout", "2m")
		b.stop()
		stop := neighbour(t, min(share, 1))
		unpackAs(control, fmt.Sprintf("alone beside %.2f of a processor of other work %d", share, i))
		stop()
	}
	b.start()
	inStep(t, a, b)
	median := func(which int) float64 {
		slices.Sort(took[which])
		return took[which][len(took[which])/2].Seconds()
	}
	ratio := median(beside) / median(alone)
	t.Logf("unpacked alone in %.1f s, beside a mount that is %v away in %.1f s: %.2f", median(alone), trip, median(beside), ratio)
	t.Logf("alone beside as much other work in %.1f s: the other mount costs %.2f of that", median(control), median(beside)/median(control))
	if full && ratio > 1.3 {
		t.Errorf("unpacking took %.2f of the time it takes alone", ratio)
	}

	a.command("wait", "--timeout", "2m")
	must(t, os.Mkdir(filepath.Join(a.mnt, "seen"), 0o755))
	shell := exec.Command("sh", "-c", "cd seen && while ls >/dev/null; do sleep 0.1; done")
	shell.Dir = b.mnt
	must(t, shell.Start())
	defer func() {
		_ = shell.Process.Kill()
		_ = shell.Wait()
	}()
	until(t, 30*time.Second, "the shell in the directory", func() bool {
		cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", shell.Process.Pid))
		return err == nil && filepath.Base(cwd) == "seen"
	})
	looked := timed(func() { run(t, "", "tar", "-xf", tarball, "-C", filepath.Join(a.mnt, "seen")) })
	t.Logf("unpacked in %v while a shell there sits in the directory", looked)
	for _, name := range []string{"seen", "beside0"} {
		run(t, "", "diff", "-r", filepath.Join(b.mnt, name), filepath.Join(a.mnt, name))
	}
}
