package fusefs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"bazil.org/fuse"
	"github.com/hashicorp/go-hclog"

	"github.com/foreverfs/forever/volume"
)

// Config says what is mounted, where and how.
type Config struct {
	// Mountpoint is an existing, empty directory.
	Mountpoint string
	// Volume is what is shown. The server becomes its notifier while it serves.
	Volume *volume.Volume

	ReadOnly bool
	// AllowOther lets users in other than the one who mounts. Modes are enforced, but on a mount that only
	// root can enter.
	AllowOther bool
	// Options are what the mount is to have besides, in the words of mount(8): "noexec",
	// "noatime", "dev" and their like. Without "dev" and "suid" it has neither.
	Options []string
	// FSName is the source shown in the list of mounts; "" means "forever".
	FSName string
	Logger hclog.Logger // nil: none

	// IdlePoll says whether idle processors poll while programs use the mount, which they then need not wait for.
	IdlePoll IdlePolling
	// UnmountPatience is how long Unmount waits for programs to close their
	// files before it takes the mount away under them; 0 means 2 s.
	UnmountPatience time.Duration
}

func (c *Config) setDefaults() {
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.FSName == "" {
		c.FSName = "forever"
	}
	if c.UnmountPatience == 0 {
		c.UnmountPatience = 2 * time.Second
	}
}

// Server answers the kernel for one mount.
type Server struct {
	cfg   Config
	log   hclog.Logger
	vol   *volume.Volume
	conn  *fuse.Conn
	hatch hatch
	fd    int    // of conn, which outlives every use
	minor uint32 // of the mount's device number, 0 if unknown

	files table[openFile]
	dirs  table[openDir]
	notes *notes

	answers answers

	ctx    context.Context // ends when the kernel has gone
	cancel context.CancelFunc

	poll *idlePoll

	workers  sync.WaitGroup
	patience time.Duration // with workers, once the kernel has gone
	idle     atomic.Int32  // workers that wait for a request, or are about to

	callMu sync.Mutex
	calls  map[fuse.RequestID]*waiter // requests that an interrupt can reach

	unseen sync.Once // it is logged that system calls cannot be read

	serving  atomic.Bool
	done     chan struct{} // closed when Serve is over
	left     chan struct{} // closed by umountMu's holder when the kernel does not let go
	readErr  atomic.Pointer[error]
	umountMu sync.Mutex

	// handle carries out requests; a benchmark measures the rest of the dispatch with
	// something quicker.
	handle func(*call, fuse.Request) error
	// systemCall reads what a thread waits in; a test has its own.
	systemCall func(thread uint32) (string, error)
	// observe, if not nil, sees each request before it is carried out; for tests.
	observe func(fuse.Request)
}

// Serve answers requests until the mount is taken away, by Unmount or anybody
// else, and returns nil then. When ctx ends, it unmounts. Afterwards every handle is
// released and the volume has no notifier. It can be called once.
func (s *Server) Serve(ctx context.Context) error {
	if s.serving.Swap(true) {
		return errors.New("fusefs: served already")
	}
	defer close(s.done)
	defer s.poll.close()
	// The kernel holds the root without ever having looked it up; the volume must
	// know, or it would not tell of changes there.
	root, err := s.vol.OpenDir(s.ctx, volume.RootIno)
	if err != nil {
		return errors.Join(fmt.Errorf("open the root: %w", err), s.conn.Close(), s.detach(true))
	}
	defer root.Release()
	s.vol.SetNotifier(s.notes)
	stopNotes := s.notes.start(s)
	unmounted := make(chan error, 1)
	stopWatch := context.AfterFunc(ctx, func() { unmounted <- s.unmount() })
	for range waitingWorkers {
		s.startWorker()
	}
	ended := s.awaitWorkers()
	s.cancel()
	s.vol.SetNotifier(nil)
	stopNotes()
	s.releaseAll()
	if !stopWatch() {
		err = <-unmounted
	}
	if e := s.readErr.Load(); e != nil {
		err = errors.Join(err, *e)
	}
	if !ended {
		return err // workers still read from the connection
	}
	if e := s.conn.Close(); e != nil {
		err = errors.Join(err, fmt.Errorf("close the connection to the kernel: %w", e))
	}
	return err
}

// workerPatience is how long a request may go on when the kernel has gone: what waits for others ends then, so this is for disks.
const workerPatience = 30 * time.Second

// awaitWorkers waits until all workers have ended, or must be left behind because
// the kernel does not let go of them, or a request does not end.
func (s *Server) awaitWorkers() (ended bool) {
	all := make(chan struct{})
	go func() {
		s.workers.Wait()
		close(all)
	}()
	select {
	case <-all:
		return true
	case <-s.left:
		return false
	case <-s.ctx.Done():
	}
	select {
	case <-all:
		return true
	case <-time.After(s.patience):
		s.log.Error("a request does not end though the mount has gone; going on without it", "waited", s.patience)
		return false
	}
}

// releaseAll ends what programs held that the mount was taken away from. The kernel says nothing of it: not even when it
// unmounts in peace does it give its references back.
func (s *Server) releaseAll() {
	for _, f := range s.files.clear() {
		f.Release()
	}
	for _, d := range s.dirs.clear() {
		d.Release()
	}
	s.vol.KernelGone()
}

// Done is closed when Serve is over.
func (s *Server) Done() <-chan struct{} { return s.done }

// Notifier lets kernel caches follow changes that did not come through this
// mount. The volume has it already; others that change the volume beside the mount use
// it too. Its methods return at once and may be called at any time.
func (s *Server) Notifier() volume.Notifier { return s.notes }

// readFailed reports whether an error of reading requests ends the worker.
func (s *Server) readFailed(err error) bool {
	switch {
	case errors.Is(err, syscall.EINTR), errors.Is(err, syscall.EAGAIN):
		return false
	case errors.Is(err, syscall.ENOENT): // the request was taken back while it was being read
		return false
	}
	if isGone(err) {
		s.cancel()
		return true
	}
	if s.ctx.Err() != nil {
		return true
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		s.log.Error("request from the kernel not understood", "error", err)
		return false
	}
	err = fmt.Errorf("read a request from the kernel: %w", err)
	s.readErr.CompareAndSwap(nil, &err)
	s.cancel()
	return true
}
