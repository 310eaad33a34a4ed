package accept

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestStuckReadIsInterrupted reads on B what only A holds, while A does not answer: a signal ends the read
// at once, and what needs no content goes on as ever.
func TestStuckReadIsInterrupted(t *testing.T) {
	a := newNode(t, "a", "", "--upload-limit", "200K")
	b := newNode(t, "b", a.command("invite"))
	a.until(10*time.Second, "connection", func() bool { return a.connected() == 1 && b.connected() == 1 })
	const size = 16 << 20
	must(t, writeNoise(filepath.Join(a.mnt, "big"), size, make(chan struct{})))
	name := filepath.Join(b.mnt, "big")
	b.until(10*time.Second, "the file on B", func() bool { st, err := os.Stat(name); return err == nil && st.Size() == size })
	must(t, a.cmd.Process.Signal(syscall.SIGSTOP))
	resumed := false
	resume := func() {
		if !resumed {
			resumed = true
			must(t, a.cmd.Process.Signal(syscall.SIGCONT))
		}
	}
	defer resume()
	limit := scale(5*time.Second, 200*time.Millisecond)
	const soon = 300 * time.Millisecond // by then it waits for content
	for _, c := range []struct {
		sig  syscall.Signal
		wait time.Duration
		prog string
		args []string
	}{
		{syscall.SIGINT, soon, "tail", []string{"-c", "100000", name}},
		{syscall.SIGKILL, soon, "tail", []string{"-c", "100000", name}},
		{syscall.SIGTERM, soon, "cat", []string{name}},
		// dd handles this one: it ends what takes longer than a read should.
		{syscall.SIGINT, 3 * time.Second, "dd", []string{"if=" + name, "of=/dev/null", "bs=1M", "skip=12", "count=1", "iflag=direct"}},
		{syscall.SIGKILL, soon, "dd", []string{"if=" + name, "of=/dev/null", "bs=1M", "skip=14", "count=1", "iflag=direct"}},
	} {
		reader := exec.Command(c.prog, c.args...)
		must(t, reader.Start())
		time.Sleep(c.wait)
		began := time.Now()
		must(t, reader.Process.Signal(c.sig))
		err := reader.Wait()
		took := time.Since(began)
		t.Logf("%v ended %s after %v: %v", c.sig, c.prog, took.Round(100*time.Microsecond), err)
		if err == nil || took > limit {
			t.Errorf("%v ended a stuck %s after %v: %v", c.sig, c.prog, took, err)
		}
	}
	if took := timed(func() { run(t, b.mnt, "ls", "-l") }); took > scale(5*time.Second, time.Second) {
		t.Errorf("ls beside the cut-off device took %v", took)
	}
	// Nobody interrupts this one: it fails in a bounded time.
	var err error
	took := timed(func() { _, err = tryRun("", "tail", "-c", "1000", name) })
	t.Logf("without a signal: %v after %v", err, took.Round(time.Millisecond))
	if err == nil || took > 90*time.Second {
		t.Errorf("content that nobody reachable holds: %v after %v", err, took)
	}
	resume()
	b.until(60*time.Second, "the content, when A is back", func() bool {
		_, err := tryRun("", "tail", "-c", "1000", name)
		return err == nil
	})
}
