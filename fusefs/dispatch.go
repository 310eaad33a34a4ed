package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"syscall"
	"time"

	"bazil.org/fuse"

	"github.com/foreverfs/forever/volume"
)

const (
	// waitingWorkers is how many workers wait for requests, at first and at most: more would take turns, and find
	// the processor's caches cold.
	waitingWorkers = 2
	// largeRead is how large a read must be not to count as one that a program waits for step by step: the
	// kernel reads ahead, and processors that poll would slow down those that share a core with them.
	largeRead = 64 << 10
)

// call is the request that a worker is at. Workers reuse theirs.
type call struct {
	s   *Server
	ctx context.Context // ends when the kernel takes the request back or is gone
	hdr *fuse.Header
	// changes counts the invalidations before this request began, inodes the changes of inodes here.
	changes  uint64
	inodes   uint64
	answered bool
	waits    bool            // the wait of this request is known to others
	leave    func()          // not nil: ends that
	idleCtx  context.Context // of requests that wait for nothing but other mounts
	scratch  [outHeaderSize + entryOutSize + openOutSize]byte
	entries  []volume.DirEntry // memory for those of one listing
}

// startWorker adds a worker. The caller is a worker itself, or none has ended yet.
func (s *Server) startWorker() {
	s.idle.Add(1)
	s.workers.Add(1)
	go s.work()
}

// work reads and answers requests. It ends when the kernel has gone, or when
// enough others are waiting.
func (s *Server) work() {
	defer s.workers.Done()
	c := &call{s: s}
	c.idleCtx = volume.WithBeforeWait(s.ctx, c.beforeWait)
	for {
		req, err := s.conn.ReadRequest()
		s.idle.Add(-1)
		if err == nil {
			if r, ok := req.(*fuse.ReadRequest); !ok || r.Size <= largeRead {
				s.poll.request()
			}
			s.do(c, req)
		} else if s.readFailed(err) {
			return
		}
		if !s.goIdle(waitingWorkers) {
			return
		}
	}
}

// goIdle counts the worker among those that wait, unless enough wait. It never counts one that does not
// stay: the others would take it for one, and end in its favour.
func (s *Server) goIdle(enough int32) bool {
	for {
		n := s.idle.Load()
		if n >= enough {
			return false
		}
		if s.idle.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// isGone reports whether an error of the connection says that the mount was taken
// away: ECONNABORTED is what a read gives that was under way when the connection was aborted.
func isGone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ECONNABORTED)
}

// do answers one request, whatever happens.
func (s *Server) do(c *call, req fuse.Request) {
	c.ctx, c.hdr, c.answered, c.waits, c.leave = c.idleCtx, req.Hdr(), false, false, nil
	if tellsSize(req) && !s.vol.Alone() {
		defer s.answers.begin(uint64(c.hdr.Node))()
	}
	c.changes, c.inodes = s.notes.changes.Load(), s.notes.inFlight.changes.Load()
	if mayWait(req) {
		c.waits = true
		if s.idle.Load() == 0 {
			s.startWorker()
		}
		defer s.register(c, req)()
	}
	defer func() {
		if c.leave != nil {
			c.leave()
		}
		if p := recover(); p != nil {
			s.log.Error("panic in a request", "request", fmt.Sprintf("%T", req), "node", uint64(c.hdr.Node),
				"panic", p, "stack", string(debug.Stack()))
			c.fail(req, syscall.EIO)
		}
	}()
	if s.observe != nil {
		s.observe(req)
	}
	if err := s.handle(c, req); err != nil {
		errno, known := classify(err)
		if !known {
			s.log.Warn("request failed", "request", fmt.Sprintf("%T", req), "node", uint64(c.hdr.Node), "error", err)
		}
		c.fail(req, errno)
	}
}

// beforeWait is called when a request turns out to wait for other mounts, which
// takes a bounded time and is not interrupted.
func (c *call) beforeWait() {
	if c.waits {
		return
	}
	c.waits = true
	if c.s.idle.Load() == 0 {
		c.s.startWorker()
	}
	w := &waiter{thread: c.hdr.Pid}
	w.ctx, w.cancel = context.WithCancel(c.idleCtx)
	leave := c.s.enter(c.hdr.ID, w)
	c.leave = func() {
		leave()
		w.cancel()
	}
}

// mayWait reports whether answering may wait for the network, the disk or room in memory.
func mayWait(req fuse.Request) bool {
	switch r := req.(type) {
	case *fuse.ReadRequest:
		return !r.Dir
	case *fuse.WriteRequest, *fuse.FlushRequest, *fuse.FsyncRequest, *fuse.ReleaseRequest,
		*fuse.FAllocateRequest, *fuse.RenameRequest, *fuse.LinkRequest, *fuse.StatfsRequest,
		*fuse.LockRequest, *fuse.LockWaitRequest, *fuse.UnlockRequest, *fuse.QueryLockRequest:
		return true
	case *fuse.SetattrRequest:
		return r.Valid.Size()
	case *fuse.OpenRequest:
		return r.Flags&fuse.OpenTruncate != 0
	case *fuse.UnrecognizedRequest:
		switch r.Opcode {
		case opRename2, opLseek, opCopyFileRange, opCopyFileRange64:
			return true
		}
	}
	return false
}

// dispatch carries out a request and answers it, or returns why not.
func (c *call) dispatch(req fuse.Request) error {
	switch r := req.(type) {
	case *fuse.LookupRequest:
		return c.lookup(r)
	case *fuse.GetattrRequest:
		return c.getattr(r)
	case *fuse.ReadRequest:
		if r.Dir {
			return c.readdir(r)
		}
		return c.read(r)
	case *fuse.WriteRequest:
		return c.write(r)
	case *fuse.OpenRequest:
		if r.Dir {
			return c.opendir(r)
		}
		return c.open(r)
	case *fuse.CreateRequest:
		return c.create(r)
	case *fuse.FlushRequest:
		return c.flush(r)
	case *fuse.FsyncRequest:
		return c.fsync(r)
	case *fuse.ReleaseRequest:
		return c.release(r)
	case *fuse.ForgetRequest:
		return c.forget(r)
	case *fuse.BatchForgetRequest:
		return c.batchForget(r)
	case *fuse.InterruptRequest:
		return c.interrupt(r)
	}
	return c.dispatchTree(req)
}

// dispatchTree goes on with what is asked less often.
func (c *call) dispatchTree(req fuse.Request) error {
	switch r := req.(type) {
	case *fuse.SetattrRequest:
		return c.setattr(r)
	case *fuse.AccessRequest:
		return c.access(r)
	case *fuse.MkdirRequest:
		return c.mkdir(r)
	case *fuse.MknodRequest:
		return c.mknod(r)
	case *fuse.SymlinkRequest:
		return c.symlink(r)
	case *fuse.ReadlinkRequest:
		return c.readlink(r)
	case *fuse.LinkRequest:
		return c.link(r)
	case *fuse.RemoveRequest:
		return c.remove(r)
	case *fuse.RenameRequest:
		return c.rename(r)
	case *fuse.GetxattrRequest:
		return c.getxattr(r)
	case *fuse.ListxattrRequest:
		return c.listxattr(r)
	case *fuse.SetxattrRequest:
		return c.setxattr(r)
	case *fuse.RemovexattrRequest:
		return c.removexattr(r)
	case *fuse.FAllocateRequest:
		return c.fallocate(r)
	case *fuse.StatfsRequest:
		return c.statfs(r)
	case *fuse.LockRequest:
		return c.lock(r, volume.LockTry)
	case *fuse.LockWaitRequest:
		return c.lock((*fuse.LockRequest)(r), volume.LockWait)
	case *fuse.UnlockRequest:
		return c.unlock(r)
	case *fuse.QueryLockRequest:
		return c.queryLock(r)
	case *fuse.UnrecognizedRequest:
		return c.unrecognized(r)
	case *fuse.DestroyRequest:
		c.answered = true
		r.Respond()
		return nil
	}
	return syscall.ENOSYS // the kernel does it itself, or without, and stops asking
}

// unrecognized does what bazil has no request for.
func (c *call) unrecognized(r *fuse.UnrecognizedRequest) error {
	switch r.Opcode {
	case opRename2:
		return c.rename2(r)
	case opReaddirplus:
		return c.readdirplus(r)
	case opLseek:
		return c.lseek(r)
	case opTmpfile:
		return c.tmpfile(r)
	case opStatx:
		return c.statx()
	case opCopyFileRange, opCopyFileRange64:
		return c.copyFileRange(r)
	}
	return syscall.ENOSYS
}

// fail answers with an errno unless there was an answer already.
func (c *call) fail(req fuse.Request, errno syscall.Errno) {
	if c.answered {
		return
	}
	c.answered = true
	switch req.(type) {
	case *fuse.ForgetRequest, *fuse.BatchForgetRequest: // never answered
		c.s.hatch.done(c.hdr)
	default:
		req.RespondError(errno)
	}
}

// ok answers with nothing but success.
func (c *call) ok(respond func()) error {
	c.answered = true
	respond()
	return nil
}

// send answers with a message whose first outHeaderSize bytes are left for the
// header. It fails if the kernel does not want the answer any more, and then knows
// nothing of what is in it; the request counts as answered all the same.
func (c *call) send(msg []byte) error {
	putOutHeader(msg, c.hdr.ID, 0)
	c.answered = true
	err := c.s.writeMessage(msg)
	c.s.hatch.done(c.hdr)
	return err
}

// writeMessage writes one message to the kernel.
func (s *Server) writeMessage(msg []byte) error {
	_, err := syscall.Write(s.fd, msg)
	return err
}

// sendAttr answers with attributes.
func (c *call) sendAttr(a *volume.Attr) error {
	msg := c.scratch[:outHeaderSize+attrOutSize]
	c.s.notes.whileReplying(c.changes, func(fresh bool) {
		putAttrOut(msg[outHeaderSize:], a, c.attrValidity(fresh, a))
		_ = c.send(msg) // nothing was given away that would have to be taken back
	})
	return nil
}

// sendEntry answers with an inode in a directory on which the volume took a reference.
func (c *call) sendEntry(dir fuse.NodeID, a *volume.Attr) error {
	msg := c.scratch[:outHeaderSize+entryOutSize]
	var err error
	c.s.notes.whileReplying(c.changes, func(fresh bool) {
		putEntryOut(msg[outHeaderSize:], a, c.nameValidity(fresh, uint64(dir)), c.attrValidity(fresh, a))
		err = c.send(msg)
	})
	if err != nil {
		c.s.vol.Forget(a.Ino, 1)
	}
	return nil
}

// sendNoEntry answers that a name does not exist, which the kernel remembers.
func (c *call) sendNoEntry(dir fuse.NodeID) error {
	msg := c.scratch[:outHeaderSize+entryOutSize]
	c.s.notes.whileReplying(c.changes, func(fresh bool) {
		putNoEntry(msg[outHeaderSize:], c.nameValidity(fresh, uint64(dir)))
		_ = c.send(msg)
	})
	return nil
}

const (
	// validity is how long the kernel may believe a name or attributes without a word about changes. Changes from
	// elsewhere are always told.
	validity = time.Hour
	// shortValidity is how long names are kept by a kernel that cannot be made to forget them.
	shortValidity = time.Second
)

// attrValidity is how long the kernel may keep an inode's attributes. It is asked
// while the answer is written.
func (c *call) attrValidity(fresh bool, a *volume.Attr) time.Duration {
	if !fresh || a.BlocksVary || !c.s.vol.Covered(a.Ino) || !c.s.notes.inFlight.sending(a.Ino, c.inodes, c.hdr.Pid) {
		return 0
	}
	c.s.answers.keep(a.Ino)
	return validity
}

// nameValidity is how long the kernel may keep a name in a directory, or that there is none.
func (c *call) nameValidity(fresh bool, dir uint64) time.Duration {
	switch {
	case !fresh:
		return 0
	case !c.s.notes.epochs && c.s.vol.Alone() && c.s.vol.Shared():
		return shortValidity
	case !c.s.notes.epochs && !c.s.vol.Alone(), !c.s.vol.Covered(dir):
		return 0
	}
	return validity
}

// caller is who asks.
func (c *call) caller() volume.Caller {
	return volume.Caller{UID: c.hdr.Uid, GID: c.hdr.Gid, PID: c.hdr.Pid}
}
