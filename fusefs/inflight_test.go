package fusefs

import (
	"os"
	"sync/atomic"
	"testing"
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"
)

// heldAnswer keeps back one answer to a GETATTR of a node.
type heldAnswer struct {
	node          atomic.Uint64 // 0: of none
	sent          bool          // as far as the server knows it is out, and the kernel is about to take it in
	read, release chan struct{}
}

func (h *heldAnswer) hold(s *Server) {
	s.handle = func(c *call, req fuse.Request) error {
		node := uint64(c.hdr.Node)
		if _, ok := req.(*fuse.GetattrRequest); !ok || !h.node.CompareAndSwap(node, 0) {
			return c.dispatch(req)
		}
		a, err := s.vol.Getattr(c.ctx, node)
		if err != nil {
			return err
		}
		var valid time.Duration
		if h.sent {
			valid = c.attrValidity(true, &a)
		}
		close(h.read)
		<-h.release
		if !h.sent {
			return c.sendAttr(&a)
		}
		msg := c.scratch[:outHeaderSize+attrOutSize]
		putAttrOut(msg[outHeaderSize:], &a, valid)
		return c.send(msg)
	}
}

// TestLateAnswers: what the kernel learns of an inode from an answer that a change has overtaken does not stay.
func TestLateAnswers(t *testing.T) {
	h := &heldAnswer{}
	r := mount(t, nil, h.hold, func(s *Server) { s.notes.inFlight.begin(time.Hour) })
	r.write("f", "x")
	must(t, os.Mkdir(r.path("d"), 0o755))
	must(t, os.Mkdir(r.path("e"), 0o755))
	f, d := r.path("f"), r.path("d")
	for _, h.sent = range []bool{false, true} {
		for _, c := range []struct {
			name, of string
			change   func() error
		}{
			{"setxattr", f, func() error { return unix.Setxattr(f, "user.a", []byte("v"), 0) }},
			{"removexattr", f, func() error { return unix.Removexattr(f, "user.a") }},
			{"fallocate", f, func() error { return makeHole(f) }},
			{"mkdir", d, func() error { return os.Mkdir(d+"/sub", 0o755) }},
			{"rmdir", d, func() error { return os.Remove(d + "/sub") }},
			{"symlink", d, func() error { return os.Symlink("x", d+"/link") }},
			{"mknod", d, func() error { return unix.Mknod(d+"/fifo", unix.S_IFIFO|0o600, 0) }},
			{"link", d, func() error { return os.Link(f, d+"/f") }},
			{"create", d, func() error { return os.WriteFile(d+"/new", nil, 0o600) }},
			{"rename of", f, func() error { return os.Rename(f, r.path("e/f")) }},
			{"rename into", r.path("e"), func() error { return os.Mkdir(r.path("e/sub"), 0o755) }},
			{"rename back", r.path("e/f"), func() error { return os.Rename(r.path("e/f"), f) }},
			{"rename into", d, func() error { return os.Rename(r.path("e/sub"), d+"/sub") }},
			{"rename from", d, func() error { return os.Rename(d+"/sub", r.path("e/sub")) }},
			{"exchange", f, func() error { return unix.Renameat2(0, f, 0, d+"/new", unix.RENAME_EXCHANGE) }},
			{"exchange back", d + "/new", func() error { return unix.Renameat2(0, f, 0, d+"/new", unix.RENAME_EXCHANGE) }},
			{"unlink", d, func() error { return os.Remove(d + "/f") }},
		} {
			var info unix.Stat_t
			must(t, unix.Stat(c.of, &info))
			open, err := unix.Open(c.of, unix.O_PATH, 0)
			must(t, err)
			h.read, h.release = make(chan struct{}), make(chan struct{})
			h.node.Store(info.Ino)
			asked := make(chan error, 1)
			go func() {
				asked <- unix.Statx(open, "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &unix.Statx_t{})
			}()
			<-h.read
			changed := c.change()
			close(h.release)
			must(t, <-asked)
			must(t, changed)
			must(t, unix.Fstat(open, &info))
			must(t, unix.Close(open))
			want, err := r.vol.Getattr(t.Context(), info.Ino)
			must(t, err)
			if late := want.Ctime - info.Ctim.Nano(); late != 0 || uint32(info.Nlink) != want.Nlink {
				t.Errorf("%s, sent %v: ctime is %v old, nlink %d, want %d", c.name, h.sent, time.Duration(late), info.Nlink, want.Nlink)
			}
		}
		for _, name := range []string{"d/link", "d/fifo", "d/new", "e/sub"} {
			must(t, os.Remove(r.path(name)))
		}
	}
}

// makeHole makes a hole in a file.
func makeHole(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 1)
}

func TestInFlight(t *testing.T) {
	const ino, other = 7, 8
	n := newNotes()
	f := &n.inFlight
	f.begin(time.Hour)
	if f.change(ino, 1) {
		t.Error("nothing was sent")
	}
	now := f.changes.Load()
	if !f.sending(ino, now, 1) || !f.sending(other, now, 2) {
		t.Error("not changed since")
	}
	if f.change(ino, 1) {
		t.Error("a thread's own answer has not arrived")
	}
	if f.sending(ino, now, 1) {
		t.Error("changed since")
	}
	if !f.change(other, 1) || !f.change(other, 0) {
		t.Error("another thread's answer is taken for gone")
	}
	now = f.changes.Load()
	for _, thread := range []uint32{3, 1, 1} { // the last does not hide the first
		f.sending(ino, now, thread)
	}
	if !f.change(ino, 1) {
		t.Error("of two threads' answers one is forgotten")
	}
	f.start = f.start.Add(-2 * time.Hour) // as if that much later
	if f.change(ino, 1) || f.change(other, 1) {
		t.Error("what was sent long ago counts")
	}
	for range 2 {
		f.sending(ino, f.changes.Load(), 0)
	}
	if !f.change(ino, 0) {
		t.Error("threads that are not known are taken for one")
	}
}
