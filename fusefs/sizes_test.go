package fusefs

import (
	"bytes"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/volume"
)

// settled returns when the kernel of a mount has been told everything.
func (r *rig) settled() {
	done := make(chan struct{})
	r.notes.Settle(false, func() { close(done) })
	<-done
}

// sent returns what sendfile(2) gives of a file from its beginning.
func sent(t *testing.T, f *os.File) string {
	t.Helper()
	fd, err := unix.MemfdCreate("sent", 0)
	must(t, err)
	out := os.NewFile(uintptr(fd), "sent")
	defer out.Close()
	var off int64
	for n := 1; n > 0; {
		n, err = syscall.Sendfile(fd, int(f.Fd()), &off, 1<<20)
		must(t, err)
	}
	got := make([]byte, off)
	_, err = out.ReadAt(got, 0)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return string(got)
}

// TestLengthIsKnown has another mount make files longer, and shorter again, of which this kernel goes by the length that it knows.
func TestLengthIsKnown(t *testing.T) {
	a, b := pair(t, nil)
	for _, name := range []string{"held", "looked at"} {
		a.write(name, strings.Repeat("x", 1000))
	}
	a.give(b)
	held, err := os.Open(b.path("held"))
	must(t, err)
	defer held.Close()
	if got := len(sent(t, held)); got != 1000 {
		t.Fatal(got)
	}
	_, err = os.Stat(b.path("looked at"))
	must(t, err)
	for i, size := range []int{9000, 4096, 4097, 100, 70000, 1} {
		want := strings.Repeat(string(rune('a'+i)), size)
		for _, name := range []string{"held", "looked at"} {
			a.write(name, want)
		}
		a.give(b)
		b.settled()
		if got := sent(t, held); got != want {
			t.Errorf("%d bytes of an open file that has %d", len(got), size)
		}
		f, err := os.Open(b.path("looked at"))
		must(t, err)
		if got := sent(t, f); got != want {
			t.Errorf("%d bytes of a file that has %d", len(got), size)
		}
		f.Close()
	}
}

// TestLengthWhileMoreArrives reads what another mount has made of a file while the kernel is told of a further change.
func TestLengthWhileMoreArrives(t *testing.T) {
	var arrives atomic.Pointer[func(fuse.Request)]
	r, p := peered(t, func(s *Server) {
		s.observe = func(req fuse.Request) {
			if fn := arrives.Load(); fn != nil && tellsSize(req) {
				(*fn)(req)
			}
		}
	})
	p.covered.Store(true)
	r.write("f", strings.Repeat("x", 20_000))
	f, beside := r.openBeside(t, "f")
	resize := func(size int) {
		_, err := f.ReadAt(make([]byte, 100), 0) // the kernel has pages
		must(t, err)
		_, err = r.vol.Setattr(t.Context(), beside.Ino(), volume.SetAttr{Valid: volume.SetSize, Size: int64(size)})
		must(t, err)
		_, err = beside.Write(t.Context(), bytes.Repeat([]byte("y"), size), 0)
		must(t, err)
		r.notes.InvalidateContent(beside.Ino())
		r.settled()
	}
	check := func(what string, size int) {
		t.Helper()
		got := make([]byte, 40_000)
		n, err := f.ReadAt(got, 0)
		arrives.Store(nil)
		if n != size || err != io.EOF || !bytes.Equal(got[:n], bytes.Repeat([]byte("y"), size)) {
			t.Errorf("%s: read %d bytes of %d, %d of them zero: %v", what, n, size, bytes.Count(got[:n], []byte{0}), err)
		}
	}
	unheld := func(fuse.Request) { _ = r.conn.InvalidateNode(fuse.NodeID(beside.Ino()), -1, 0) } // as if the request had not reached us yet
	resize(30_000)
	arrives.Store(&unheld)
	check("longer", 30_000)
	other := func(fuse.Request) {
		told := make(chan struct{})
		r.notes.InvalidateAttr(beside.Ino())
		r.notes.Settle(false, func() { close(told) })
		select {
		case <-told:
		case <-time.After(answerPatience / 5): // it waits for this very request
		}
	}
	resize(18_200)
	arrives.Store(&other)
	check("shorter", 18_200)
}

// TestNotificationsWaitForAnswers, but not long, and what is known to be forgotten is not told again.
func TestNotificationsWaitForAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAnswers()
		waited := func() time.Duration {
			began := time.Now()
			a.taken(1, began.Add(answerPatience))
			return time.Since(began)
		}
		if d := waited(); d != 0 {
			t.Errorf("%v for nothing", d)
		}
		done := a.begin(1)
		time.AfterFunc(2*takesIn, done)
		if d := waited(); d < 3*takesIn || d > 4*takesIn {
			t.Errorf("%v for an answer that takes %v", d, 2*takesIn)
		}
		done = a.begin(1)
		if d := waited(); d < answerPatience || d > answerPatience+takesIn {
			t.Errorf("%v for one that does not come", d)
		}
		done()
		for i := range uint64(1000) {
			a.begin(i)()
			time.Sleep(takesIn)
		}
		if len(a.of) > 100 {
			t.Errorf("%d inodes are remembered", len(a.of))
		}
		first, again := a.forget(7), a.forget(7)
		a.keep(7)
		if kept := a.forget(7); !first || again || !kept {
			t.Errorf("told at first: %t, again: %t, when it was given something: %t", first, again, kept)
		}
		time.Sleep(toldAgain)
		if !a.forget(7) {
			t.Error("not told again after a time")
		}
	})
}
