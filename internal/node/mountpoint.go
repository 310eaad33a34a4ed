package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

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
	all, err := allMounts()
	var ours []MountInfo
	for _, m := range all {
		if m.kind == fuseType {
			ours = append(ours, m.MountInfo)
		}
	}
	return ours, err
}

// anyMount is a mount of any kind; DataDir is its source.
type anyMount struct {
	MountInfo
	kind string
}

// allMounts lists what is mounted on this machine; of several at one place the
// last lies on top.
func allMounts() ([]anyMount, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return parseMountInfo(file)
}

// parseMountInfo reads the format of /proc/self/mountinfo; see proc(5).
func parseMountInfo(r io.Reader) ([]anyMount, error) {
	var found []anyMount
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		where, what := strings.Fields(before), strings.Fields(after)
		if ok && len(where) > 4 && len(what) > 1 {
			found = append(found, anyMount{MountInfo{Mountpoint: unescape(where[4]), DataDir: unescape(what[1])}, what[0]})
		}
	}
	return found, lines.Err()
}

// unescape undoes the \ooo escapes of mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountAt returns the topmost mount at path, if it is one of ours.
func mountAt(path string) (MountInfo, bool) {
	all, err := allMounts()
	if err != nil {
		return MountInfo{}, false
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Mountpoint == path {
			return all[i].MountInfo, all[i].kind == fuseType
		}
	}
	return MountInfo{}, false
}

// PrepareMountpoint checks that path can be mounted on and returns it absolute
// and free of links. A dead mount that a killed node left there is taken away; what
// lives, or is not ours, never is.
func PrepareMountpoint(path, dataDir string) (string, error) {
	if err := checkFUSE(); err != nil {
		return "", err
	}
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
	return real, checkMountpoint(real, dataDir)
}

func checkMountpoint(path, dataDir string) error {
	info, err := os.Stat(path)
	if err != nil {
		return mountpointError(path, plain(err).Error(), "choose another directory")
	}
	if !info.IsDir() {
		return mountpointError(path, "is not a directory", "choose a directory")
	}
	if m, ok := mountAt(path); ok {
		return mountpointError(path, "is already a mount of the node in "+m.DataDir,
			"end that one first: fsmount umount "+path)
	}
	if isMount(path, info) {
		return mountpointError(path, "is already a mount point", "choose another directory or unmount it")
	}
	if within(dataDir, path) || within(path, dataDir) {
		return mountpointError(path, "and the data directory "+dataDir+" lie inside each other", "choose another directory")
	}
	return checkEmpty(path)
}

func checkEmpty(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return mountpointError(path, plain(err).Error(), "choose another directory")
	}
	defer dir.Close()
	if _, err := dir.Readdirnames(1); err == nil {
		return mountpointError(path, "is not empty", "its files would be hidden; choose an empty directory")
	} else if !errors.Is(err, io.EOF) {
		return mountpointError(path, plain(err).Error(), "choose another directory")
	}
	return nil
}

func mountpointError(path, what, next string) error {
	return &fail.Error{Kind: fail.Mountpoint, Op: "mount point " + path + " " + what, Next: next}
}

// isMount reports whether path is the root of a mount: it lies on another
// device than the directory above.
func isMount(path string, info os.FileInfo) bool {
	above, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return false
	}
	a, okA := info.Sys().(*syscall.Stat_t)
	b, okB := above.Sys().(*syscall.Stat_t)
	return okA && okB && (a.Dev != b.Dev || a.Ino == b.Ino)
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
		if _, ours := mountAt(at); !ours {
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

// checkFUSE says early, and in clear words, why this machine cannot mount.
func checkFUSE() error {
	if _, err := exec.LookPath("fusermount3"); err != nil {
		if _, err := exec.LookPath("fusermount"); err != nil {
			return &fail.Error{Kind: fail.FUSE, Op: "fusermount3 not found", Next: "install the package fuse3 (apt-get install fuse3)"}
		}
	}
	file, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return &fail.Error{Kind: fail.FUSE, Op: "open /dev/fuse", Err: plain(err),
			Next: "load the module (modprobe fuse), in a container pass the device in; fsmount serve works without it"}
	}
	return file.Close()
}

// Unmount takes the mount at path away. Lazily means: at once, while programs
// that have files open there keep a dead mount.
func Unmount(path string, lazily bool) error {
	if os.Geteuid() == 0 {
		flags := 0
		if lazily {
			flags = syscall.MNT_DETACH
		}
		if err := syscall.Unmount(path, flags); err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
		return nil
	}
	args := []string{"-u", path}
	if lazily {
		args = []string{"-u", "-z", path}
	}
	tool := "fusermount3"
	if _, err := exec.LookPath(tool); err != nil {
		tool = "fusermount"
	}
	if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
		return unmountFailure(path, string(out), err)
	}
	return nil
}

// unmountFailure keeps what fusermount said; it tells "busy" only in words.
func unmountFailure(path, said string, err error) error {
	if strings.Contains(said, "busy") {
		return fmt.Errorf("unmount %s: %w", path, syscall.EBUSY)
	}
	return fmt.Errorf("unmount %s: %w: %s", path, err, strings.Join(strings.Fields(said), " "))
}
