package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/foreverfs/forever/fusefs"
	"github.com/foreverfs/forever/internal/fail"
)

// fuseType is the file system type our mounts show in /proc/self/mountinfo.
const fuseType = "fuse.forever"

// MountInfo is one FUSE mount of ours on this machine.
type MountInfo struct {
	Mountpoint string
	// DataDir is the node behind it: mounts name it as their source.
	DataDir string
}

// Mounts lists the mounts of forever nodes on this machine.
func Mounts() ([]MountInfo, error) {
	all, err := fusefs.MountTable()
	var ours []MountInfo
	for _, m := range all {
		if m.Type == fuseType {
			ours = append(ours, MountInfo{m.Path, m.Source})
		}
	}
	return ours, err
}

// MountAt returns the topmost mount at path, if it is one of ours.
func MountAt(path string) (MountInfo, bool) {
	all, _ := fusefs.MountTable() // what cannot be read has none
	for _, m := range slices.Backward(all) {
		if m.Path == path {
			return MountInfo{m.Path, m.Source}, m.Type == fuseType
		}
	}
	return MountInfo{}, false
}

// PrepareMountpoint checks that path can be mounted on, with others let in or not, and returns it absolute
// and free of links. A dead mount that a killed node left there is taken away; what
// lives, or is not ours, never is.
func PrepareMountpoint(path, dataDir string, allowOther bool) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if err := clearDeadMount(abs); err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, os.ErrNotExist) {
		return "", mountpointError(abs, "does not exist", "make it: mkdir -p "+abs)
	}
	if err != nil {
		return "", mountpointError(abs, plain(err).Error(), "choose another directory")
	}
	return real, checkMountpoint(real, dataDir, allowOther)
}

func checkMountpoint(path, dataDir string, allowOther bool) error {
	if m, ok := MountAt(path); ok {
		return mountpointError(path, "is already a mount of the node in "+m.DataDir,
			"end that one first: fsmount umount "+path)
	}
	if within(dataDir, path) || within(path, dataDir) {
		return mountpointError(path, "and the data directory "+dataDir+" lie inside each other", "choose another directory")
	}
	if err := fusefs.Check(path, allowOther); err != nil {
		return mountFailure(path, err)
	}
	return nil
}

func mountpointError(path, what, next string) error {
	return &fail.Error{Kind: fail.Mountpoint, Op: "mount point " + path + " " + what, Next: next}
}

// within reports whether path lies in dir or is dir.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// maxStacked is how many dead mounts are taken away from one place.
const maxStacked = 16

// clearDeadMount takes away what killed nodes left mounted at path. A connection that
// the kernel has broken off nobody can take up again: the node may be any of ours.
func clearDeadMount(path string) error {
	at := PlaceOf(path)
	for range maxStacked {
		if _, ours := MountAt(at); !ours {
			return checkNotDead(path)
		}
		if !Dead(at) {
			return nil
		}
		if err := Unmount(at, true); err != nil {
			return mountpointError(path, "is a dead mount that does not go away: "+err.Error(), "try: fusermount3 -u -z "+at)
		}
	}
	return mountpointError(path, "has many dead mounts on top of each other", "take them away: fusermount3 -u -z "+path)
}

// deadPatience is how long a mount may take to show that it is dead: one whose node does not answer keeps whoever asks.
const deadPatience = 2 * time.Second

// Dead reports whether the mount at path has lost its node. It does not wait long for a live one.
func Dead(path string) bool {
	dead := make(chan bool, 1)
	go func() {
		// Not stat: that the kernel answers for a dead mount too, from what it remembers.
		var st syscall.Statfs_t
		dead <- isBrokenOff(syscall.Statfs(path, &st))
	}()
	select {
	case d := <-dead:
		return d
	case <-time.After(deadPatience):
		return false
	}
}

// checkNotDead refuses a path in a dead mount that is not for us to take away.
func checkNotDead(path string) error {
	if _, err := os.Stat(path); !isBrokenOff(err) {
		return nil
	}
	return mountpointError(path, "is, or lies in, a dead mount of another program",
		"findmnt --target "+path+" shows it, fusermount3 -u -z takes it away")
}

// isBrokenOff reports whether an error says that a connection is dead, or has died
// while it was asked.
func isBrokenOff(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED)
}

// PlaceOf returns path as the list of mounts has it, free of links, without
// touching what is mounted there.
func PlaceOf(path string) string {
	for range 40 { // links, as many as the kernel follows
		if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
			path = filepath.Join(dir, filepath.Base(path))
		}
		to, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = filepath.Clean(to)
	}
	return path
}

// Unmount takes the mount at path away. By force means: at once, while programs
// that have files open there keep a dead mount.
func Unmount(path string, force bool) error {
	if err := fusefs.Detach(path, force); err != nil {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}
