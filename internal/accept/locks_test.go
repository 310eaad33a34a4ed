package accept

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLocksCount has several processes on two mounts add to one number under a lock:
// none gets lost.
func TestLocksCount(t *testing.T) {
	a, b := pair(t)
	inStep(t, a, b)
	for _, kind := range []string{"flock", "fcntl", "ofd"} {
		t.Run(kind, func(t *testing.T) { testCount(t, kind, a, b) })
	}
}

func testCount(t *testing.T, kind string, nodes ...*node) {
	since := inStep(t, nodes[0], nodes[1])
	name := "counter-" + kind
	must(t, os.WriteFile(filepath.Join(nodes[0].mnt, name), []byte("0"), 0o644))
	const total, each = 2000, 2
	begin := time.Now()
	var lockers []*locker
	for _, n := range nodes {
		for range each {
			l := newLocker(t)
			l.begin("count %s %s %d", kind, filepath.Join(n.mnt, name), total/(each*len(nodes)))
			lockers = append(lockers, l)
		}
	}
	for _, l := range lockers {
		if got := l.answer(4 * time.Minute); got != "ok" {
			t.Fatalf("a process: %s", got)
		}
	}
	t.Logf("%d times in %v", total, time.Since(begin).Round(time.Millisecond))
	for _, n := range nodes {
		got, err := os.ReadFile(filepath.Join(n.mnt, name))
		must(t, err)
		if strings.TrimSpace(string(got)) != fmt.Sprint(total) {
			skipIfParted(t, nodes[0], nodes[1], since)
			t.Errorf("%s counts %s, not %d", filepath.Base(n.mnt), got, total)
		}
	}
}

// TestLocksOnOneMount expects of locks what Linux gives on a disk, whether the kernel
// keeps them alone or the node does.
func TestLocksOnOneMount(t *testing.T) {
	for _, mode := range []string{"local", "cluster"} {
		t.Run(mode, func(t *testing.T) {
			n := newNode(t, "a", "", "--locks", mode)
			for _, test := range []struct {
				name string
				run  func(t *testing.T, path string)
			}{
				{"flock", testFlock}, {"records", testRecords}, {"close gives up", testCloseGivesUp}, {"ofd", testOFD},
				{"deadlock", testDeadlock}, {"interrupted", testInterrupted}, {"exit", testExit},
			} {
				t.Run(test.name, func(t *testing.T) {
					test.run(t, filepath.Join(n.mnt, strings.ReplaceAll(test.name, " ", "-")))
				})
			}
		})
	}
}

// opened returns some processes that have one file open as f.
func opened(t *testing.T, path string, n int) (list []*locker) {
	t.Helper()
	for range n {
		l := newLocker(t)
		l.do("ok", "open f %s", path)
		list = append(list, l)
	}
	return list
}

// shortly is how long something must not happen for a test to believe that it does not.
const shortly = 150 * time.Millisecond

func testFlock(t *testing.T, path string) {
	p := opened(t, path, 3)
	p[0].do("ok", "flock f sh")
	p[1].do("ok", "flock f sh")
	p[2].do("EAGAIN", "flock f ex nb")
	p[2].begin("flock f ex")
	if !p[2].waits(shortly) {
		t.Fatal("did not wait for those who share")
	}
	p[0].do("ok", "flock f un")
	p[1].do("ok", "dup g f")
	p[1].do("ok", "close f")
	if !p[2].waits(shortly) {
		t.Fatal("did not wait for a lock that a copy of the descriptor keeps")
	}
	p[1].do("ok", "close g")
	if got := p[2].answer(10 * time.Second); got != "ok" {
		t.Fatal(got)
	}
	p[0].do("EAGAIN", "flock f sh nb")
	p[2].do("ok", "flock f sh")
	p[0].do("ok", "flock f sh nb")
	p[2].do("EAGAIN", "flock f ex nb")
	p[0].do("ok", "flock f ex nb") // p[2] lost its own in trying
	p[2].do("ok", "open g %s", path)
	p[2].do("EAGAIN", "flock g ex nb")
	p[2].do("ok", "set f w 0 0") // the two kinds have nothing to do with each other
}

func testRecords(t *testing.T, path string) {
	p := opened(t, path, 2)
	p[0].do("ok", "set f w 0 100")
	p[1].do("EAGAIN", "set f w 50 1")
	p[1].do("w 0 100", "get f r 99 1")
	p[1].do("free", "get f w 100 1")
	p[0].do("ok", "set f u 40 20") // splits
	p[1].do("ok", "set f w 40 20")
	p[0].do("w 40 20", "get f r 0 0")
	p[1].do("w 0 40", "get f r 39 1")
	p[1].do("w 60 40", "get f r 60 1")
	p[1].do("ok", "set f u 0 0")
	p[0].do("ok", "set f w 40 20") // merges
	p[1].do("w 0 100", "get f r 45 1")
	p[0].do("ok", "set f r 10 10") // weaker in the middle
	p[1].do("ok", "set f r 12 1")
	p[1].do("EAGAIN", "set f r 9 1")
	p[0].do("EAGAIN", "set f w 12 1")
	p[0].begin("wait f w 12 1")
	if !p[0].waits(shortly) {
		t.Fatal("did not wait")
	}
	p[1].do("ok", "set f u 12 1")
	if got := p[0].answer(10 * time.Second); got != "ok" {
		t.Fatal(got)
	}
	p[1].do("ok", "set f w 1000 0") // to the end, wherever that is
	p[0].do("EAGAIN", "set f r 1000000 1")
	p[0].do("w 1000 0", "get f r 2000 1")
	p[0].do("ok", "openro g %s", path)
	p[0].do("EBADF", "set g w 500 1")
}

// testCloseGivesUp closes another descriptor of the file, also one for reading: by that a process loses its locks.
func testCloseGivesUp(t *testing.T, path string) {
	p := opened(t, path, 2)
	for _, open := range []string{"open", "openro"} {
		p[0].do("ok", "set f w 0 10")
		p[1].do("EAGAIN", "set f w 0 10")
		p[0].do("ok", "%s g %s", open, path)
		p[0].do("ok", "close g")
		p[1].do("ok", "set f w 0 10")
		p[1].do("ok", "set f u 0 10")
	}
}

func testOFD(t *testing.T, path string) {
	p := opened(t, path, 2)
	p[0].do("ok", "oset f w 0 10")
	p[0].do("ok", "open g %s", path)
	p[0].do("EAGAIN", "oset g w 5 1") // another description of the same process
	p[0].do("EAGAIN", "set g w 5 1")
	p[0].do("ok", "close g") // which gives up nothing of f's
	p[1].do("EAGAIN", "oset f r 5 1")
	p[1].do("w 0 10", "oget f r 5 1")
	p[0].do("ok", "dup h f")
	p[0].do("ok", "close f")
	p[1].do("EAGAIN", "oset f r 5 1")
	p[1].begin("owait f r 5 1")
	if !p[1].waits(shortly) {
		t.Fatal("did not wait")
	}
	p[0].do("ok", "close h") // the last one
	if got := p[1].answer(10 * time.Second); got != "ok" {
		t.Fatal(got)
	}
}

func testDeadlock(t *testing.T, path string) {
	p := opened(t, path, 3)
	p[0].do("ok", "set f w 0 1")
	p[1].do("ok", "set f w 1 1")
	p[2].do("ok", "set f w 2 1")
	p[0].begin("wait f w 1 1")
	p[1].begin("wait f w 2 1")
	if !p[0].waits(shortly) || !p[1].waits(shortly) {
		t.Fatal("did not wait")
	}
	p[2].begin("wait f w 0 1")
	last, got := 0, "" // who asked last, which is the third one unless the others were slow, is told
	select {
	case got = <-p[0].lines:
	case got = <-p[1].lines:
		last = 1
	case got = <-p[2].lines:
		last = 2
	case <-time.After(20 * time.Second):
		t.Fatal("nobody is told of the circle")
	}
	if got != "EDEADLK" {
		t.Fatal(got)
	}
	p[last].do("ok", "set f u %d 1", last)
	for _, i := range []int{(last + 2) % 3, (last + 1) % 3} { // who waits for the one before
		if got := p[i].answer(10 * time.Second); got != "ok" {
			t.Fatal(got)
		}
		p[i].do("ok", "set f u 0 0")
	}
	// A circle through descriptions is nobody's business but theirs.
	q := opened(t, path+"-ofd", 2)
	q[0].do("ok", "oset f w 0 1")
	q[1].do("ok", "oset f w 1 1")
	q[0].begin("owait f w 1 1")
	q[1].begin("owait f w 0 1")
	if !q[0].waits(shortly) || !q[1].waits(shortly) {
		t.Fatal("did not wait")
	}
}

// testInterrupted has a timer's signal and the user end waits for locks.
func testInterrupted(t *testing.T, path string) {
	p := opened(t, path, 3)
	p[0].do("ok", "flock f ex")
	p[0].do("ok", "set f w 0 0")
	took := timed(func() {
		if out, err := tryRun("", "flock", "--timeout", "0.3", "--conflict-exit-code", "7", path, "true"); err == nil || !strings.Contains(err.Error(), "7") {
			t.Errorf("flock: %v %s", err, out)
		}
	})
	if took > 5*time.Second {
		t.Errorf("a timer's signal was heeded after %v", took)
	}
	for i, order := range []string{"flock f ex", "wait f w 0 1"} {
		l := p[i+1]
		l.begin("%s", order)
		if !l.waits(shortly) {
			t.Fatal("did not wait")
		}
		took := timed(func() {
			must(t, l.cmd.Process.Signal(syscall.SIGINT))
			_ = l.cmd.Wait()
		})
		if took > scale(10*time.Second, 2*time.Second) {
			t.Errorf("%s: ended %v after the user wanted it", order, took)
		}
	}
	p[0].do("ok", "flock f un")
	p[0].do("ok", "set f u 0 0")
	q := opened(t, path, 1)[0]
	q.do("ok", "flock f ex nb") // those who were interrupted have nothing
	q.do("ok", "set f w 0 0")
}

// testExit kills a process that holds locks of every kind.
// testCloseGivesUpAtOnce tries for a lock right after the descriptor was closed that had it.
func testCloseGivesUpAtOnce(t *testing.T, paths ...string) {
	must(t, os.WriteFile(paths[0], nil, 0o644))
	for i := range 300 {
		f, err := os.OpenFile(paths[i%len(paths)], os.O_RDWR, 0)
		must(t, err)
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			t.Fatalf("%s, try %d: %v", f.Name(), i, err)
		}
		_, err = f.WriteString("x")
		must(t, err)
		must(t, f.Close())
	}
}

func testExit(t *testing.T, path string) {
	p := opened(t, path, 2)
	p[0].do("ok", "flock f ex")
	p[0].do("ok", "set f w 0 10")
	p[0].do("ok", "oset f w 20 10")
	p[1].begin("flock f ex")
	if !p[1].waits(shortly) {
		t.Fatal("did not wait")
	}
	p[0].kill()
	if got := p[1].answer(10 * time.Second); got != "ok" {
		t.Fatal(got)
	}
	p[1].do("ok", "wait f w 0 0")
}
