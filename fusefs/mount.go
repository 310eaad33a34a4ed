package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"bazil.org/fuse"
)

// Subtype makes mounts appear as "fuse.forever" in the list of mounts.
const Subtype = "forever"

// Why a mount fails, in a MountError.
var (
	// ErrMountpoint says that the mount point does not exist, is not a directory, or cannot be looked at.
	ErrMountpoint = errors.New("not an existing directory")
	// ErrMountpointDead says that a mount is there whose program has gone.
	ErrMountpointDead = errors.New("a dead mount is there")
	// ErrMountpointBusy says that something is mounted there already.
	ErrMountpointBusy = errors.New("something is mounted there already")
	// ErrMountpointNotEmpty says that files are there which the mount would hide.
	ErrMountpointNotEmpty = errors.New("the directory is not empty")
	// ErrNoFusermount says that the program fusermount3 is missing.
	ErrNoFusermount = errors.New("fusermount3 not found")
	// ErrNoDevice says that /dev/fuse cannot be opened.
	ErrNoDevice = errors.New("cannot open /dev/fuse")
	// ErrAllowOther says that /etc/fuse.conf does not let this user admit others.
	ErrAllowOther = errors.New("users other than root may not let others in")
)

// MountError says why nothing was mounted and what to do next.
type MountError struct {
	Mountpoint string
	// Err is one of the errors above where the cause is known.
	Err error
	// Next is what to do about it, in words for a person.
	Next string
}

func (e *MountError) Error() string {
	return fmt.Sprintf("mount on %s: %v; %s", e.Mountpoint, e.Err, e.Next)
}

// Unwrap returns the cause.
func (e *MountError) Unwrap() error { return e.Err }

// Is has ErrMountpointBusy count as EBUSY too.
func (e *MountError) Is(target error) bool {
	return target == syscall.EBUSY && errors.Is(e.Err, ErrMountpointBusy)
}

// Mount mounts a volume. Programs that use the mount wait until Serve answers
// them. The caller must call Serve, or Unmount and Serve. It fails with a *MountError,
// having changed nothing.
func Mount(cfg Config) (*Server, error) {
	cfg.setDefaults()
	h, err := newHatch()
	if err != nil {
		return nil, err
	}
	if err := Check(cfg.Mountpoint, cfg.AllowOther); err != nil {
		return nil, err
	}
	if cfg.Mountpoint, err = filepath.Abs(cfg.Mountpoint); err != nil {
		return nil, fmt.Errorf("find the mount point: %w", err)
	}
	conn, err := fuse.Mount(cfg.Mountpoint, mountOptions(cfg, h)...)
	if err != nil {
		return nil, &MountError{cfg.Mountpoint, err, "see what fusermount3 said above, and whether this machine can mount: ls -l /dev/fuse"}
	}
	s := &Server{
		cfg: cfg, log: cfg.Logger, vol: cfg.Volume, conn: conn, hatch: h, fd: h.fd(conn),
		notes: newNotes(), answers: newAnswers(), calls: map[fuse.RequestID]*waiter{}, done: make(chan struct{}), left: make(chan struct{}),
		patience: workerPatience,
		handle:   (*call).dispatch, systemCall: readSystemCall,
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.notes.epochs = s.incEpoch() == nil
	s.minor = mountMinor(cfg.Mountpoint)
	s.readFurtherAhead()
	if s.poll, err = openIdlePoll(cfg.IdlePoll); err != nil {
		s.log.Warn("the mount is slower than it could be", "error", err)
	}
	s.log.Debug("mounted", "mountpoint", cfg.Mountpoint, "protocol", conn.Protocol().String(), "epochs", s.notes.epochs)
	return s, nil
}

// kernelReadAhead is how far the kernel reads ahead, in bytes, where it lets us say so.
const kernelReadAhead = 1 << 20

func mountOptions(cfg Config, h hatch) []fuse.MountOption {
	opts := []fuse.MountOption{
		fuse.FSName(cfg.FSName), fuse.Subtype(Subtype),
		fuse.MaxReadahead(kernelReadAhead), fuse.AsyncRead(), fuse.MaxBackground(1024), fuse.CongestionThreshold(1024),
		fuse.HandleKillPriv(),
		// Without asynchronous direct I/O: its waits cannot be interrupted.
		h.initOption(fuse.InitAtomicTrunc|fuse.InitDoReaddirplus|fuse.InitReaddirplusAuto|fuse.InitExportSupport, fuse.InitAsyncDIO),
	}
	if !onlyRoot(cfg) {
		opts = append(opts, fuse.DefaultPermissions())
	}
	opts = append(opts, lockOptions(cfg.Volume)...)
	if cfg.AllowOther {
		opts = append(opts, fuse.AllowOther())
	}
	if cfg.ReadOnly {
		opts = append(opts, fuse.ReadOnly())
	}
	for _, name := range cfg.Options {
		opts = append(opts, h.option(name))
	}
	return opts
}

// onlyRoot reports whether nobody but root can come in, who passes every check of permissions. Then the
// kernel does not check them: to do so it asks for the attributes of a directory anew after each change in
// it, which makes removing a file cost two requests, not one. What is left to check is whether root
// may execute something; see access.
func onlyRoot(cfg Config) bool { return os.Geteuid() == 0 && !cfg.AllowOther }

// Check finds out why Mount would fail: because of the mount point, this machine, or the user, who may let others in or
// not. It changes nothing. What it returns is a *MountError.
func Check(mountpoint string, allowOther bool) error {
	if err := checkMountpoint(mountpoint); err != nil {
		return err
	}
	if _, err := exec.LookPath("fusermount3"); err != nil {
		return &MountError{mountpoint, ErrNoFusermount, "install the package fuse3 (apt-get install fuse3)"}
	}
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return &MountError{mountpoint, because(ErrNoDevice, err), "load the module (modprobe fuse), or in a container pass the device in"}
	}
	dev.Close()
	if allowOther && os.Geteuid() != 0 && !userAllowOther() {
		return &MountError{mountpoint, ErrAllowOther, "add the line user_allow_other to /etc/fuse.conf"}
	}
	return nil
}

// because is one of the errors above with its cause, without the path that a MountError has already.
func because(what, cause error) error {
	var pe *os.PathError
	if errors.As(cause, &pe) {
		cause = pe.Err
	}
	return fmt.Errorf("%w: %w", what, cause)
}

// userAllowOther reports whether /etc/fuse.conf has user_allow_other. If it
// cannot be read, fusermount3 decides.
func userAllowOther() bool {
	conf, err := os.ReadFile("/etc/fuse.conf")
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	for line := range strings.Lines(string(conf)) {
		if strings.TrimSpace(line) == "user_allow_other" {
			return true
		}
	}
	return false
}

// checkMountpoint refuses what should not be mounted over.
func checkMountpoint(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, syscall.ENOTCONN):
		return &MountError{path, ErrMountpointDead, "take it away: fusermount3 -u -z " + path}
	case errors.Is(err, os.ErrNotExist):
		return &MountError{path, because(ErrMountpoint, err), "make it: mkdir -p " + path}
	case err != nil:
		return &MountError{path, because(ErrMountpoint, err), "choose another directory"}
	case !info.IsDir():
		return &MountError{path, because(ErrMountpoint, syscall.ENOTDIR), "choose a directory"}
	case isMountpoint(path, info):
		return &MountError{path, ErrMountpointBusy, "unmount it (fusermount3 -u " + path + ") or choose another directory"}
	}
	dir, err := os.Open(path)
	if err != nil {
		return &MountError{path, because(ErrMountpoint, err), "choose another directory"}
	}
	defer dir.Close()
	switch _, err := dir.Readdirnames(1); {
	case err == nil:
		return &MountError{path, ErrMountpointNotEmpty, "its files would be hidden; choose an empty directory"}
	case !errors.Is(err, io.EOF):
		return &MountError{path, because(ErrMountpoint, err), "choose another directory"}
	}
	return nil
}

// isMountpoint reports whether path is on another device than the directory above it.
func isMountpoint(path string, info os.FileInfo) bool {
	above, err := os.Stat(filepath.Join(path, ".."))
	if err != nil {
		return false
	}
	a, ok1 := info.Sys().(*syscall.Stat_t)
	b, ok2 := above.Sys().(*syscall.Stat_t)
	return ok1 && ok2 && (a.Dev != b.Dev || a.Ino == b.Ino)
}

// readFurtherAhead lifts the limit of 128 KiB that the kernel starts every mount
// with. That takes root; without, reads stay as they are.
func (s *Server) readFurtherAhead() {
	if s.minor == 0 {
		return
	}
	path := fmt.Sprintf("/sys/class/bdi/0:%d/read_ahead_kb", s.minor)
	if err := os.WriteFile(path, fmt.Appendf(nil, "%d", kernelReadAhead>>10), 0); err != nil {
		s.log.Debug("reading ahead stays at the kernel's default", "error", err)
	}
}
