package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrStillMounted says that the mount could not be taken away.
var ErrStillMounted = errors.New("fusefs: still mounted")

// exitPatience is how long the kernel may take to end a connection whose mount has gone.
const exitPatience = 2 * time.Second

// Unmount takes the mount away and returns when Serve is over. Programs that have files
// open there get UnmountPatience to close them; then what they wrote through
// mappings is written back, the mount goes and their files answer with errors.
// What was written is in the volume; closing the volume makes it durable. It may be called twice.
func (s *Server) Unmount() error {
	if !s.serving.Load() {
		go func() { _ = s.Serve(context.Background()) }() // the kernel needs an answer to leave
	}
	err := s.unmount()
	<-s.done
	return err
}

// unmount is Unmount without waiting for Serve to be over.
func (s *Server) unmount() error {
	s.umountMu.Lock()
	defer s.umountMu.Unlock()
	deadline := time.Now().Add(s.cfg.UnmountPatience)
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		if s.ctx.Err() != nil {
			return nil // the kernel has gone already
		}
		err := s.detach(false)
		if err == nil || errors.Is(err, syscall.EINVAL) { // or is not mounted here any more
			break
		}
		if !errors.Is(err, syscall.EBUSY) {
			s.log.Warn("cannot unmount", "mountpoint", s.cfg.Mountpoint, "error", err)
		}
		if time.Now().After(deadline) {
			return s.force()
		}
		time.Sleep(wait)
	}
	return s.awaitEnd()
}

// detach is Detach of this mount and no other: something may be mounted over it, or where it was. EINVAL: it is not in this mount
// namespace any more; EBUSY: somebody uses it, or something lies on top of it.
func (s *Server) detach(force bool) error {
	path, covered := s.place()
	switch {
	case path == "":
		return syscall.EINVAL
	case covered:
		return syscall.EBUSY
	}
	return Detach(path, force)
}

// place is placeOf this mount.
func (s *Server) place() (path string, covered bool) {
	if s.minor == 0 {
		return s.cfg.Mountpoint, false
	}
	table, _ := MountTable()
	return placeOf(s.minor, table)
}

// force takes the mount away from the programs that use it.
func (s *Server) force() error {
	s.log.Warn("mount is in use; taking it away: open files there answer with errors from now on", "mountpoint", s.cfg.Mountpoint)
	s.writeBack()
	err := s.detach(true)
	if end := s.awaitEnd(); end != nil {
		return errors.Join(end, err)
	}
	return nil
}

// writeBack has the kernel write out what programs changed through mappings.
func (s *Server) writeBack() {
	path, covered := s.place()
	if path == "" || covered {
		return
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		root, err := os.Open(path)
		if err != nil {
			return
		}
		defer root.Close()
		if err := unix.Syncfs(int(root.Fd())); err != nil {
			s.log.Warn("cannot write back mapped files", "error", err)
		}
	}()
	select {
	case <-written:
	case <-time.After(s.cfg.UnmountPatience): // breaking off the connection ends it
	}
}

// awaitEnd waits until the kernel has gone, breaking off the connection if it
// stays: somebody may hold the mount in another mount namespace.
func (s *Server) awaitEnd() error {
	if s.gone(exitPatience) {
		return nil
	}
	err := s.abort()
	if err == nil && s.gone(exitPatience) {
		return nil
	}
	select {
	case <-s.left:
	default:
		close(s.left)
	}
	return fmt.Errorf("%w at %s: its connection does not end (%v)", ErrStillMounted, s.cfg.Mountpoint, err)
}

func (s *Server) gone(wait time.Duration) bool {
	select {
	case <-s.ctx.Done():
		return true
	case <-time.After(wait):
		return false
	}
}

// abort breaks off the connection; every request fails from then on.
func (s *Server) abort() error {
	if s.minor == 0 {
		return errors.New("its number is not known")
	}
	return os.WriteFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", s.minor), []byte("1"), 0)
}

// Detach takes away what is mounted at path: for good and at once if by force, which whoever has files open there finds
// broken, else only if nobody uses it (EBUSY). EINVAL means that nothing is mounted there.
func Detach(path string, force bool) error {
	if os.Geteuid() != 0 {
		return detachByHelper(path, force)
	}
	flags := unix.UMOUNT_NOFOLLOW
	if force {
		flags |= unix.MNT_DETACH | unix.MNT_FORCE
	}
	return unix.Unmount(path, flags)
}

// detachByHelper is Detach for those who may not unmount by themselves. The
// connection outlives it if force was needed.
func detachByHelper(path string, force bool) error {
	args := []string{"-u", "--", path}
	if force {
		args = []string{"-u", "-z", "--", path}
	}
	cmd := exec.Command("fusermount3", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	said := strings.TrimSpace(string(out))
	for words, errno := range map[string]error{ // it tells these apart in words only
		"busy": syscall.EBUSY, "not mounted": syscall.EINVAL, "not found in": syscall.EINVAL, "Invalid argument": syscall.EINVAL,
	} {
		if strings.Contains(said, words) {
			return errno
		}
	}
	return fmt.Errorf("fusermount3: %w: %s", err, said)
}
