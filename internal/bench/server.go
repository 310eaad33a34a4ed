package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// server is a process that serves a mount.
type server struct {
	args []string
	mnt  string
	// profiles is the address at which the process is to serve profiles, "" for none.
	profiles string
	cmd      *exec.Cmd
	log      *logBuffer
	exited   chan struct{} // closed when the process has ended
}

// logBuffer keeps what a process says and may be read meanwhile.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// tail returns the last that was said.
func (b *logBuffer) tail() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.buf.String()
	return s[max(0, len(s)-2000):]
}

// ceilingEnv has the test binary of fusefs serve the ceiling. The others do not know it.
const ceilingEnv = "FUSEFS_TEST_HELPER=ceiling"

// launch starts the process and returns at once.
func (s *server) launch() error {
	s.cmd, s.log, s.exited = exec.Command(s.args[0], s.args[1:]...), &logBuffer{}, make(chan struct{})
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.Env = append(os.Environ(), ceilingEnv)
	if s.profiles != "" {
		s.cmd.Env = append(s.cmd.Env, "FSMOUNT_PPROF="+s.profiles)
	}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt is ours: the mount goes when nothing is measured
	if err := s.cmd.Start(); err != nil {
		return err
	}
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait() // gocryptfs ends with a failure when it is told to end
		close(exited)
	}(s.cmd, s.exited)
	return nil
}

const (
	startPatience = time.Minute
	stopPatience  = 2 * time.Minute
)

// start returns when the mount is there.
func (s *server) start() error {
	if err := s.launch(); err != nil {
		return err
	}
	for deadline := time.Now().Add(startPatience); !isMounted(s.mnt); time.Sleep(2 * time.Millisecond) {
		select {
		case <-s.exited:
			return fmt.Errorf("%s ended: %s", filepath.Base(s.args[0]), s.log.tail())
		default:
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("%s does not mount: %s", filepath.Base(s.args[0]), s.log.tail()), s.stop())
		}
	}
	_, err := os.Stat(s.mnt) // answered: it serves
	return err
}

// stop ends the process as a user would, and the mount whatever happens.
func (s *server) stop() error {
	if s.cmd.Process == nil { // it could not be started
		return nil
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	var err error
	select {
	case <-s.exited:
	case <-time.After(stopPatience):
		err = fmt.Errorf("%s does not end: %s", filepath.Base(s.args[0]), s.log.tail())
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
	if isMounted(s.mnt) {
		err = errors.Join(err, syscall.Unmount(s.mnt, syscall.MNT_DETACH))
	}
	return err
}
