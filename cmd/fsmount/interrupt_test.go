package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a new terminal: a person's and a program's.
func openTerminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return person, program
}

func echoes(t *testing.T, tty *os.File) bool {
	t.Helper()
	attrs, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return attrs.Lflag&unix.ECHO != 0
}

// TestInterruptedAtAPrompt: Ctrl-C ends what asks for a secret, and leaves a terminal that shows what is typed.
func TestInterruptedAtAPrompt(t *testing.T) {
	m := newMachine(t)
	m.env = []string{passphraseEnv + "=correct horse"}
	m.must("init")
	m.env = []string{passphraseEnv + "="}
	other := newMachine(t)
	for _, c := range []struct {
		on     *machine
		prompt string
		args   []string
	}{
		{m, "Passphrase: ", []string{"ls"}},
		{m, "Passphrase: ", []string{"serve"}},
		{other, "Recovery phrase: ", []string{"recover", "--from", "127.0.0.1:1"}},
	} {
		person, program := openTerminal(t)
		p := c.on.begin(func(cmd *exec.Cmd) {
			cmd.Stdin = program
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		}, c.args...)
		c.on.until("the prompt", func() bool { return strings.Contains(p.said.String(), c.prompt) && !echoes(t, program) })
		if _, err := person.Write([]byte{3}); err != nil {
			t.Fatal(err)
		}
		checkFailure(t, result{code: p.ends(10 * time.Second), err: strings.TrimPrefix(p.said.String(), c.prompt)}, 130, "interrupted", c.args)
		if !echoes(t, program) {
			t.Errorf("%v leaves a terminal that shows nothing", c.args)
		}
	}
}

// TestInterruptedWaitingForInput: a signal ends what waits for a pipe or a FIFO, and nothing is stored.
func TestInterruptedWaitingForInput(t *testing.T) {
	m := newMachine(t)
	m.must("init")
	for _, node := range []string{"its own", "another"} {
		if node == "another" {
			m.serve()
		}
		put, _ := m.beginPut("file")
		put.signal(os.Interrupt)
		checkFailure(t, result{code: put.ends(15 * time.Second), err: put.said.String()}, 130, "interrupted", put.cmd.Args)
		if names := m.must("ls"); names != "" {
			t.Errorf("with the node of %s there is %q", node, names)
		}
	}

	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan error, 1)
	go func() { done <- runPut(ctx, &globals{streams: &streams{}, data: m.data}, fifo, "file") }()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a FIFO that nobody writes to is still waited for")
	}
	other, err := os.OpenFile(fifo, os.O_RDWR, 0) // for what waits to end
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
}

// signals returns a set of signals of a process: SigIgn or SigCgt.
func signals(t *testing.T, p *process, set string) (mask uint64) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := bytes.Cut(status, []byte("\n"+set+":\t"))
	if _, err := fmt.Sscanf(string(rest), "%x", &mask); !ok || err != nil {
		t.Fatalf("no %s: %v", set, err)
	}
	return mask
}

// TestHangupIgnored: a node that nohup(1) starts lasts longer than its terminal.
func TestHangupIgnored(t *testing.T) {
	nohup, err := exec.LookPath("nohup")
	if err != nil {
		t.Skip(err)
	}
	m := newMachine(t)
	m.must("init")
	p := m.begin(func(cmd *exec.Cmd) {
		cmd.Path, cmd.Args = nohup, append([]string{"nohup"}, cmd.Args...)
	}, "serve", "--listen", "127.0.0.1:0", "--lan=false")
	m.until("the node", func() bool { return m.run(nil, "status").code == 0 })
	if signals(t, p, "SigIgn")&(1<<(syscall.SIGHUP-1)) == 0 {
		t.Error("the node ends when its terminal does")
	}
	p.signal(syscall.SIGTERM)
	if code := p.ends(30 * time.Second); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.said.String())
	}
}
