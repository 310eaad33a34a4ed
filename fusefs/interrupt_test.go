package fusefs

import (
	"os"
	"os/exec"
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
	release := r.chunks.holdUp()
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
		release := r.chunks.holdUp()
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
