package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// The systems that are measured, in the order in which they take turns.
const (
	native    = "native"
	ours      = "forever"
	gocryptfs = "gocryptfs"
	ceiling   = "ceiling"
)

var systemNames = []string{native, ours, gocryptfs, ceiling}

// system is a file system to be measured, fresh and empty.
type system struct {
	name string
	dir  string // where files go
	srv  *server
	// keeps says that the server would lose everything if it ended.
	keeps bool
}

// newSystem starts a system below a directory of its own. It returns nil if it is not on this machine.
func (b *bench) newSystem(ctx context.Context, name, below string) (*system, error) {
	base := filepath.Join(b.base, below, name)
	s := &system{name: name, dir: filepath.Join(base, "files"), keeps: name == ceiling}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	state := filepath.Join(base, "state")
	var args []string
	switch name {
	case native:
		return s, nil
	case ours:
		args = []string{b.tools.fsmount, s.dir, "--data", state, "--listen", "127.0.0.1:0", "--lan=false"}
	case ceiling:
		args = []string{b.tools.ceiling, s.dir, strconv.FormatInt(b.room(below), 10)}
	case gocryptfs:
		if b.tools.gocryptfs == "" {
			return nil, nil
		}
		if err := initGocryptfs(ctx, b.tools.gocryptfs, state); err != nil {
			return nil, err
		}
		args = []string{b.tools.gocryptfs, "-fg", "-q", "-extpass", "echo x", state, s.dir}
	}
	s.srv = &server{args: args, mnt: s.dir}
	if name == ours && b.profile {
		var err error
		if s.srv.profiles, err = freeAddress(); err != nil {
			return s, err
		}
	}
	return s, s.srv.start()
}

// room is how much memory the ceiling has ready for contents; more comes as it is needed.
func (b *bench) room(group string) int64 {
	if group == bigName {
		return b.scale.Size * 5 / 4
	}
	return 64 * mib
}

func initGocryptfs(ctx context.Context, bin, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, bin, "-q", "-init", "-extpass", "echo x", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("gocryptfs -init: %w: %s", err, out)
	}
	return nil
}

// pid returns the process that serves, or 0.
func (s *system) pid() int {
	if s.srv == nil {
		return 0
	}
	return s.srv.cmd.Process.Pid
}

// forget makes caches cold.
func (s *system) forget(base string, c coldness) error {
	if c == warm {
		return syncDisk(base)
	}
	if c == nothing && s.srv != nil && !s.keeps {
		if err := s.srv.stop(); err != nil {
			return err
		}
		if err := s.srv.start(); err != nil {
			return err
		}
	}
	return dropCaches(base, c)
}

// stop ends the system.
func (s *system) stop() error {
	if s.srv == nil {
		return nil
	}
	return s.srv.stop()
}
