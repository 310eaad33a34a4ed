package fusefs

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSignals(t *testing.T) {
	const status = "Name:\tcat\nSigQ:\t5/96365\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000000202\n"
	base := parseSignals(status)
	if base.caught != sigset(unix.SIGINT, unix.SIGUSR1) || base.ignored != sigset(unix.SIGPIPE) {
		t.Fatalf("%+v", base)
	}
	for _, c := range []struct {
		sig          unix.Signal
		fatal, asked bool
	}{
		{unix.SIGKILL, true, false},
		{unix.SIGTERM, true, true},
		{unix.SIGINT, false, true}, // caught
		{unix.SIGUSR1, false, false},
		{unix.SIGUSR2, true, false},
		{unix.SIGPIPE, false, false}, // ignored
		{unix.SIGURG, false, false},
		{unix.SIGCHLD, false, false},
		{unix.SIGWINCH, false, false},
	} {
		s := base
		s.pending = sigset(c.sig)
		if s.fatal() != c.fatal || s.asked() != c.asked {
			t.Errorf("%v: fatal %v, asked %v", c.sig, s.fatal(), s.asked())
		}
		s.blocked = s.pending
		if s.asked() {
			t.Errorf("%v asks though it is blocked", c.sig)
		}
	}
	own, err := readSignals(uint32(os.Getpid()))
	if err != nil || own.caught&sigset(unix.SIGURG) == 0 {
		t.Errorf("a Go program catches SIGURG: %+v, %v", own, err)
	}
}

// stuck starts a direct read that waits for the store.
func stuck(t *testing.T, r *rig) *exec.Cmd {
	t.Helper()
	dd := exec.Command("dd", "if="+r.path("big"), "of=/dev/null", "iflag=direct", "bs=128k", "count=1", "status=none")
	must(t, dd.Start())
	until(t, "the read waits for the store", func() bool { return r.chunks.held.Load() > 0 })
	time.Sleep(20 * time.Millisecond)
	return dd
}

// TestHarmlessSignalsDoNotInterrupt sends signals that are none of a file system's business.
func TestHarmlessSignalsDoNotInterrupt(t *testing.T) {
	r := mount(t, nil)
	evict(t, r, "big")
	release := r.chunks.holdUp(false)
	defer release()
	dd := stuck(t, r)
	must(t, dd.Process.Signal(unix.SIGUSR1)) // which dd catches
	time.Sleep(3 * interruptPoll)
	if r.chunks.held.Load() == 0 {
		t.Error("the read does not wait any more")
	}
	release()
	if err := dd.Wait(); err != nil {
		t.Errorf("read: %v", err)
	}
}

// TestInterruptAfterHarmlessSignal sends what should end the wait after the kernel has
// told of another signal, and so will not tell again.
func TestInterruptAfterHarmlessSignal(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, os.Kill} {
		r := mount(t, nil)
		evict(t, r, "big")
		release := r.chunks.holdUp(false)
		defer release()
		dd := stuck(t, r)
		must(t, dd.Process.Signal(unix.SIGUSR1))
		time.Sleep(2 * interruptPoll)
		start := time.Now()
		must(t, dd.Process.Signal(sig))
		if err := dd.Wait(); err == nil || time.Since(start) > 2*time.Second {
			t.Errorf("%v ended the read after %v: %v", sig, time.Since(start), err)
		}
	}
}

// handlerHelper is a program that handles the signals by which it is asked to stop, as databases do: args are a file, and what
// to do with it. It ends with an error if that fails.
func handlerHelper(args []string) error {
	signal.Notify(make(chan os.Signal, 9), unix.SIGHUP, unix.SIGINT, unix.SIGTERM)
	fd, err := unix.Open(args[0], unix.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	if args[1] == "seek" {
		_, err = unix.Seek(fd, 0, unix.SEEK_HOLE)
		return err
	}
	buf, err := unix.Mmap(-1, 0, 128<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	n, err := unix.Pread(fd, buf, 0)
	if err == nil && n != len(buf) {
		return fmt.Errorf("%d bytes were read", n)
	}
	return err
}

// handled is such a program, and its thread that waits for the store.
type handled struct {
	*exec.Cmd
	thread int
}

func handling(t *testing.T, r *rig, what string) handled {
	t.Helper()
	before := reading(r)
	h := handled{Cmd: helper(t, "handler", r.path("big"), what)}
	must(t, h.Start())
	until(t, "the program waits for the store", func() bool {
		for thread := range reading(r) {
			if !before[thread] {
				h.thread = thread
			}
		}
		return h.thread != 0 && r.chunks.held.Load() > 0
	})
	time.Sleep(20 * time.Millisecond)
	return h
}

// signal sends a signal to the thread: another would take it otherwise.
func (h handled) signal(t *testing.T, sig unix.Signal) {
	t.Helper()
	must(t, unix.Tgkill(h.Process.Pid, h.thread, sig))
}

// reading returns the threads that read.
func reading(r *rig) map[int]bool {
	r.callMu.Lock()
	defer r.callMu.Unlock()
	threads := map[int]bool{}
	for _, w := range r.calls {
		if w.wait != nil {
			threads[int(w.thread)] = true
		}
	}
	return threads
}

// TestHandledSignalsLeaveLocalReads: a program that handles a signal has its content all the same, however
// slow the disk, or if another machine takes no longer than a disk might.
func TestHandledSignalsLeaveLocalReads(t *testing.T) {
	r := mount(t, nil)
	for _, c := range []struct {
		what string
		slow bool
		wait time.Duration
	}{
		{"read", true, farPatience * 3 / 2}, {"seek", true, farPatience * 3 / 2},
		{"read", false, farPatience / 2}, {"seek", false, farPatience / 2},
	} {
		evict(t, r, "big")
		release := r.chunks.holdUp(c.slow)
		defer release()
		start := time.Now()
		h := handling(t, r, c.what)
		for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGTERM} {
			h.signal(t, sig)
		}
		time.Sleep(c.wait)
		release()
		waited := time.Since(start) // at most
		if err := h.Wait(); err != nil && (c.slow || waited < farPatience) {
			t.Errorf("%s, slow disk: %v: %v", c.what, c.slow, err)
		}
	}
}

// TestHandledSignalsEndFarReads: a program that handles a signal is not stuck with what another machine does not
// send, also if it is not the first to wait for it.
func TestHandledSignalsEndFarReads(t *testing.T) {
	r := mount(t, nil)
	evict(t, r, "big")
	release := r.chunks.holdUp(false)
	defer release()
	start := time.Now()
	programs := []handled{handling(t, r, "read"), handling(t, r, "read"), handling(t, r, "seek")}
	for _, h := range slices.Backward(programs) { // the first to wait is the last to end
		h.signal(t, unix.SIGTERM)
		ended := make(chan error, 1)
		go func() { ended <- h.Wait() }()
		select {
		case err := <-ended:
			if err == nil || time.Since(start) < farPatience {
				t.Errorf("ended after %v: %v", time.Since(start), err)
			}
		case <-time.After(3 * farPatience):
			t.Fatalf("%v still waits", h.Args)
		}
	}
}
