package fusefs

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bazil.org/fuse"
)

// pair mounts two volumes that share a chunk store.
func pair(t *testing.T, change func(*Server)) (a, b *rig) {
	t.Helper()
	a = newVolume(t, nil)
	b = newVolume(t, a.chunks)
	for _, r := range []*rig{a, b} {
		if change != nil {
			r.mount(nil, change)
		} else {
			r.mount(nil)
		}
	}
	a.give(b)
	b.give(a)
	return a, b
}

func TestOtherMountFollows(t *testing.T) {
	for _, epochs := range []bool{true, false} {
		t.Run(fmt.Sprintf("epochs %v", epochs), func(t *testing.T) {
			a, b := pair(t, func(s *Server) { s.notes.epochs = s.notes.epochs && epochs })
			if epochs && !a.notes.epochs {
				t.Skip("this kernel has no epochs")
			}
			testFollowing(t, a, b)
		})
	}
}

func testFollowing(t *testing.T, a, b *rig) {
	_, err := os.Stat(b.path("f"))
	wantErr(t, err, syscall.ENOENT) // which the kernel now believes for an hour
	a.write("f", strings.Repeat("one", 5000))
	a.give(b)
	until(t, "new file appears", func() bool { _, err := os.Stat(b.path("f")); return err == nil })
	if got := b.read("f"); got != strings.Repeat("one", 5000) {
		t.Errorf("read %d bytes", len(got))
	}
	open, err := os.Open(b.path("f"))
	must(t, err)
	defer open.Close()
	a.write("f", "two")
	must(t, os.Chmod(a.path("f"), 0o600))
	a.give(b)
	until(t, "new content shows", func() bool { return b.read("f") == "two" })
	until(t, "new attributes show", func() bool {
		info, err := os.Stat(b.path("f"))
		return err == nil && info.Size() == 3 && info.Mode() == 0o600
	})
	until(t, "open handle follows", func() bool {
		_, err := open.Seek(0, io.SeekStart)
		must(t, err)
		got, err := io.ReadAll(open)
		return err == nil && string(got) == "two"
	})
	must(t, os.Rename(a.path("f"), a.path("g")))
	a.give(b)
	until(t, "old name goes", func() bool { _, err := os.Stat(b.path("f")); return os.IsNotExist(err) })
	until(t, "new name comes", func() bool { return b.read("g") == "two" })
	must(t, os.Remove(a.path("g")))
	a.give(b)
	until(t, "removed file goes", func() bool { _, err := os.Stat(b.path("g")); return os.IsNotExist(err) })
}

// TestNothingOldStays changes names and attributes on one mount while the other looks
// at them all the time, and expects the last state to show there.
func TestNothingOldStays(t *testing.T) {
	a, b := pair(t, nil)
	must(t, os.Mkdir(a.path("d"), 0o755))
	a.give(b)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				_, _ = os.Stat(b.path("d/x"))
				_, _ = os.Stat(b.path("d/y"))
				_, _ = os.ReadDir(b.path("d"))
			}
		})
	}
	a.write("d/x", "")
	for i := range 60 {
		from, to := "d/x", "d/y"
		if i%2 == 1 {
			from, to = to, from
		}
		must(t, os.Rename(a.path(from), a.path(to)))
		must(t, os.Chmod(a.path(to), os.FileMode(0o600+i%64)))
		a.give(b)
		until(t, "last state shows", func() bool {
			info, err := os.Stat(b.path(to))
			_, gone := os.Stat(b.path(from))
			return err == nil && info.Mode() == os.FileMode(0o600+i%64) && os.IsNotExist(gone)
		})
	}
	close(stop)
	wg.Wait()
}

// TestCrossingNotifications has both sides rename and remove in the directory that
// the other's notifications are about.
func TestCrossingNotifications(t *testing.T) {
	for _, epochs := range []bool{true, false} {
		a, b := pair(t, func(s *Server) { s.notes.epochs = s.notes.epochs && epochs })
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for i, r := range []*rig{a, b} {
			wg.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					name := r.path(fmt.Sprintf("%d-%d", i, n%7))
					_ = os.WriteFile(name, nil, 0o600)
					_ = os.Rename(name, r.path("common"))
					_ = os.Remove(r.path("common"))
				}
			})
			other := []*rig{b, a}[i]
			wg.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
						other.notes.InvalidateEntry(1, fmt.Sprintf("%d-%d", 1-i, n%7))
						other.notes.InvalidateEntry(1, "common")
						other.notes.InvalidateContent(1)
						time.Sleep(100 * time.Microsecond)
					}
				}
			})
		}
		time.Sleep(300 * time.Millisecond)
		close(stop)
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("the mounts hang")
		}
	}
}

// TestLateReplyIsNotKept answers a lookup that began before an invalidation.
func TestLateReplyIsNotKept(t *testing.T) {
	var s *Server
	r := mount(t, nil, func(srv *Server) {
		s = srv
		s.observe = func(req fuse.Request) {
			if l, ok := req.(*fuse.LookupRequest); ok && l.Name == "late" {
				s.notes.moved()
			}
		}
	})
	var seen int
	for range 5 {
		before := s.notes.changes.Load()
		_, err := os.Stat(r.path("late"))
		wantErr(t, err, syscall.ENOENT)
		seen += int(s.notes.changes.Load() - before)
	}
	if seen != 5 {
		t.Errorf("of 5 lookups of a name that may have changed, %d reached us", seen)
	}
}

// TestCreateOfNameTakenElsewhere creates a file whose name the kernel wrongly thinks free.
func TestCreateOfNameTakenElsewhere(t *testing.T) {
	r := mount(t, nil)
	_, err := os.Stat(r.path("f"))
	wantErr(t, err, syscall.ENOENT)
	_, h, err := r.vol.Create(t.Context(), callerRoot, 1, "f", 0o600, os.O_RDWR)
	must(t, err)
	_, err = h.Write(t.Context(), []byte("there"), 0)
	must(t, err)
	must(t, h.Flush(t.Context()))
	h.Release()
	f, err := os.OpenFile(r.path("f"), os.O_CREATE|os.O_RDWR, 0o600)
	must(t, err)
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "there" {
		t.Errorf("got %q, %v", b, err)
	}
}

// TestPagesToBeDroppedAreNotKept: whoever opens a file before the kernel has dropped what is wrong is not to keep it.
func TestPagesToBeDroppedAreNotKept(t *testing.T) {
	n := newNotes() // which tells nobody yet
	n.InvalidateContent(5)
	if n.mayKeep(5) || !n.mayKeep(6) {
		t.Errorf("to be dropped are kept: %t, others: %t", n.mayKeep(5), n.mayKeep(6))
	}
}
