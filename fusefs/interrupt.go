package fusefs

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/volume"
)

// The kernel sends INTERRUPT, once, when the waiting thread gets any signal. Many
// are of no concern: every Go program interrupts its own threads all the time, and no program
// expects a close or fsync of a file to fail with EINTR for that. So it is looked up which
// signal waits, and as long as none that should end the wait does, looked again.
//
// A signal that kills the process ends every wait at once. One that asks the program to stop, and that it has a handler
// for, ends only reads, and only such as take unusually long because another machine has the content: databases take
// EINTR from a file for a failure of the disk.

const (
	// interruptPoll is how often the signals of a thread are looked at after its first one.
	interruptPoll = 50 * time.Millisecond
	// farPatience is how long a read waits for another machine before a signal that the program handles ends it.
	farPatience = time.Second
)

// waiter is a request that an interrupt can reach.
type waiter struct {
	ctx     context.Context
	cancel  context.CancelFunc
	thread  uint32       // that waits, 0 if it is not known here
	wait    *volume.Wait // of a read, nil of others: it changes nothing, and may fail with EINTR
	pages   uint64       // inode of which the kernel keeps pages locked meanwhile, or 0
	lock    bool         // the kernel itself asks again if the signal does not matter
	watched bool         // guarded by Server.callMu
}

// register makes a context for the request of c that an interrupt ends, and
// returns what ends it in any case.
func (s *Server) register(c *call, req fuse.Request) (done func()) {
	_, read := req.(*fuse.ReadRequest)
	if u, ok := req.(*fuse.UnrecognizedRequest); ok {
		read = u.Opcode == opLseek
	}
	w := &waiter{thread: c.hdr.Pid}
	switch req.(type) {
	case *fuse.LockRequest, *fuse.LockWaitRequest: // not who holds a lock
		w.lock = true
	case *fuse.ReadRequest, *fuse.WriteRequest:
		w.pages = uint64(c.hdr.Node)
	}
	w.ctx, w.cancel = context.WithCancel(c.idleCtx)
	c.ctx = w.ctx
	if read {
		c.ctx, w.wait = s.vol.WithWait(w.ctx)
	}
	leave := s.enter(c.hdr.ID, w)
	return func() {
		leave()
		w.cancel()
	}
}

// enter lets interrupts find a request, until leave is called.
func (s *Server) enter(id fuse.RequestID, w *waiter) (leave func()) {
	s.callMu.Lock()
	defer s.callMu.Unlock()
	s.calls[id] = w
	return func() {
		s.callMu.Lock()
		defer s.callMu.Unlock()
		delete(s.calls, id)
	}
}

// holdsPages reports whether a request is under way that keeps pages of a file locked.
func (s *Server) holdsPages(ino uint64) bool {
	s.callMu.Lock()
	defer s.callMu.Unlock()
	for _, w := range s.calls {
		if w.pages == ino {
			return true
		}
	}
	return false
}

// interrupt ends the wait of a request if its thread is to do something else. A request
// that is not known is about to be registered, or is quick, or has just been
// answered: the kernel is asked to say it again if it is still of interest.
func (c *call) interrupt(r *fuse.InterruptRequest) error {
	s := c.s
	s.callMu.Lock()
	w, ok := s.calls[r.IntrID]
	first := ok && !w.watched
	if first {
		w.watched = true
	}
	s.callMu.Unlock()
	if !ok {
		time.Sleep(50 * time.Microsecond) // lets the request get on before the kernel asks again
		return syscall.EAGAIN
	}
	if first && !w.endIfWanted() {
		s.workers.Go(w.watch)
	}
	return c.ok(r.Respond)
}

// watch ends the wait as soon as the thread gets a signal that asks for it.
func (w *waiter) watch() {
	tick := time.NewTicker(interruptPoll)
	defer tick.Stop()
	for !w.endIfWanted() {
		select {
		case <-w.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (w *waiter) endIfWanted() bool {
	if w.lock {
		w.cancel()
		return true
	}
	sig, err := readSignals(w.thread)
	asked := err != nil || sig.asked() // if they cannot be read it may be so
	end := sig.fatal() || asked && w.wait != nil && w.wait.Far(farPatience)
	if end {
		w.cancel()
	}
	return end
}

// signals are the signals of a thread, as sets: bit n-1 is signal n.
type signals struct {
	pending, blocked, ignored, caught uint64
}

func sigset(sigs ...syscall.Signal) (set uint64) {
	for _, s := range sigs {
		set |= 1 << (s - 1)
	}
	return set
}

var (
	// harmless do not end a process that has no handler for them.
	harmless = sigset(unix.SIGCHLD, unix.SIGCONT, unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGURG, unix.SIGWINCH)
	// requests are how people ask a program to stop what it is doing.
	requests = sigset(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM)
)

// fatal reports whether the process is about to die.
func (s signals) fatal() bool { return s.pending&^(s.blocked|s.ignored|s.caught|harmless) != 0 }

// asked reports whether somebody asks the process to stop what it is doing.
func (s signals) asked() bool { return s.pending&requests&^(s.blocked|s.ignored) != 0 }

// readSignals looks up the signals of a thread.
func readSignals(thread uint32) (signals, error) {
	status, err := readProc(thread, "status")
	if err != nil {
		return signals{}, err
	}
	return parseSignals(status), nil
}

// readProc reads a file of /proc about a thread.
func readProc(thread uint32, file string) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", thread, file))
	return string(b), err
}

// parseSignals reads what it needs of /proc/PID/status; see proc_pid_status(5).
func parseSignals(status string) (s signals) {
	for line := range strings.Lines(status) {
		name, val, _ := strings.Cut(line, ":")
		set, err := strconv.ParseUint(strings.TrimSpace(val), 16, 64)
		if err != nil {
			continue
		}
		switch name {
		case "SigPnd", "ShdPnd":
			s.pending |= set
		case "SigBlk":
			s.blocked = set
		case "SigIgn":
			s.ignored = set
		case "SigCgt":
			s.caught = set
		}
	}
	return s
}
