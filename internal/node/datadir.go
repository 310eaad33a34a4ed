package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/internal/fail"
)

const (
	lockName   = "lock"
	keyName    = "key"
	socketName = "socket"
	stateName  = "state"
	chunksName = "chunks"
	// LogName is the file in the data directory that a daemon logs to.
	LogName = "log"
)

// DefaultDir returns the data directory of a node that was given none:
// /var/lib/forever for root, else forever in the user's data directory.
func DefaultDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/forever", nil
	}
	if d := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "forever"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", &fail.Error{Kind: fail.Usage, Op: "choose a data directory", Err: err, Next: "name one with --data"}
	}
	return filepath.Join(home, ".local", "share", "forever"), nil
}

// Initialised reports whether dir holds a whole volume. It takes no lock.
func Initialised(dir string) (bool, error) {
	f, err := readFormat(dir)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, formatError(dir, err)
	}
	return !f.Creating, checkOwner(dir)
}

// checkOwner refuses to open what another user has created, also for root, who could: files that this process makes would belong
// to this user, and lock the other out.
func checkOwner(dir string) error {
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(dir, formatName), &st); err != nil {
		return formatError(dir, err)
	}
	if int(st.Uid) == os.Geteuid() {
		return nil
	}
	name := strconv.Itoa(int(st.Uid))
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return notOurs(dir, errors.New("it belongs to "+name))
}

// dataDir is a data directory that this process has locked.
type dataDir struct {
	path string
	lock *os.File
}

// openDataDir locks an existing data directory and reads its format.
func openDataDir(path string) (*dataDir, format, error) {
	if ok, err := Initialised(path); err != nil {
		return nil, format{}, err
	} else if !ok {
		return nil, format{}, noVolume(path)
	}
	d, err := lockDir(path)
	if err != nil {
		return nil, format{}, err
	}
	f, err := readFormat(path)
	if err != nil {
		return nil, f, errors.Join(formatError(path, err), d.Close())
	}
	return d, f, nil
}

// createDataDir locks path for a new volume, making the directory if it is
// missing. It refuses what is in use, holds a volume, or holds anything that is
// not the rest of a creation cut short.
func createDataDir(path string) (*dataDir, error) {
	if err := makeDirs(path); err != nil {
		return nil, &fail.Error{Kind: dirKind(err), Op: "create data directory " + path, Err: plain(err),
			Next: "choose another with --data"}
	}
	d, err := lockDir(path)
	if err != nil {
		return nil, err
	}
	if err := d.begin(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// begin marks the directory as one being created and empties it of what an
// earlier creation left.
func (d *dataDir) begin() error {
	f, err := readFormat(d.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := d.refuseForeign(); err != nil {
			return err
		}
	case err != nil:
		return formatError(d.path, err)
	default:
		if err := checkOwner(d.path); err != nil {
			return err
		}
		if !f.Creating {
			return &fail.Error{Kind: fail.Exists, Op: "data directory " + d.path + " already holds a volume",
				Next: "mount it with fsmount MOUNTPOINT, or choose another directory with --data"}
		}
	}
	if err := writeFormat(d.path, format{Version: FormatVersion, Creating: true}); err != nil {
		return &fail.Error{Kind: dirKind(err), Op: "write to data directory", Err: plain(err)}
	}
	return d.empty()
}

// empty removes what a creation makes besides the format file.
func (d *dataDir) empty() error {
	for _, name := range []string{keyName, keyName + ".new", stateName, chunksName} {
		if err := os.RemoveAll(d.join(name)); err != nil {
			return fmt.Errorf("remove an unfinished volume: %w", err)
		}
	}
	return nil
}

// abandon undoes a creation that failed.
func (d *dataDir) abandon() error {
	if err := d.empty(); err != nil {
		return err
	}
	if err := os.Remove(d.join(formatName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// refuseForeign refuses a directory with files of others, so that a mistyped
// --data never gets a volume strewn into it.
func (d *dataDir) refuseForeign() error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("read data directory: %w", err)
	}
	ours := []string{lockName, LogName, socketName, formatName + ".new", "lost+found"}
	for _, e := range entries {
		if !slices.Contains(ours, e.Name()) {
			return &fail.Error{Kind: fail.Format, Op: "directory " + d.path + " has files but no volume in it",
				Next: "give an empty or new directory with --data"}
		}
	}
	return nil
}

// finish marks the creation as whole; the directory counts from here on.
func (d *dataDir) finish(volume [16]byte, role string) error {
	return writeFormat(d.path, format{Version: FormatVersion, Volume: volume, Role: role})
}

// lockDir takes the lock of a data directory for this process. The kernel drops
// it with the process, however that ends.
func lockDir(path string) (*dataDir, error) {
	name := filepath.Join(path, lockName)
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &fail.Error{Kind: dirKind(err), Op: "open " + name, Err: plain(err), Next: "check --data and its permissions"}
	}
	err = unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, wholeFile())
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		who := holder(file)
		return nil, errors.Join(&fail.Error{Kind: fail.InUse, Op: "data directory " + path + " is in use" + who,
			Next: "talk to that node (fsmount status), end it, or choose another directory with --data"}, file.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), file.Close())
	}
	if err := file.Truncate(0); err == nil {
		// The process ID is only for messages; failing to leave it (a full disk) harms nothing.
		_, _ = file.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	return &dataDir{path: path, lock: file}, nil
}

// holder names the process that has the lock, as far as it left its ID.
func holder(file *os.File) string {
	b, _ := io.ReadAll(io.NewSectionReader(file, 0, 32))
	if pid := strings.TrimSpace(string(b)); pid != "" {
		return " by process " + pid
	}
	return ""
}

// Running reports whether a process has the data directory, without touching it.
func Running(dir string) bool {
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDONLY, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	lock := wholeFile()
	err = unix.FcntlFlock(file.Fd(), unix.F_OFD_GETLK, lock)
	return err == nil && lock.Type != unix.F_UNLCK
}

// wholeFile asks for a file to oneself.
func wholeFile() *unix.Flock_t { return &unix.Flock_t{Type: unix.F_WRLCK} }

func (d *dataDir) join(name string) string { return filepath.Join(d.path, name) }

// Close gives the lock back.
func (d *dataDir) Close() error { return d.lock.Close() }

func noVolume(dir string) error {
	return &fail.Error{Kind: fail.NoVolume, Op: "no volume in " + dir,
		Next: "create one with fsmount init or fsmount MOUNTPOINT, or join one with fsmount join INVITE"}
}

// formatError explains a format file that cannot be used.
func formatError(dir string, err error) error {
	if errors.Is(err, errNewerFormat) {
		return &fail.Error{Kind: fail.Format, Op: "data directory " + dir, Err: err, Next: "update fsmount; nothing was changed"}
	}
	if errors.Is(err, os.ErrPermission) {
		return notOurs(dir, err)
	}
	return &fail.Error{Kind: fail.Format, Op: "data directory " + dir + " has a damaged format file", Err: plain(err),
		Next: "restore it from a copy, or choose another directory with --data"}
}

// notOurs says that this user may not use a data directory.
func notOurs(dir string, err error) error {
	return &fail.Error{Kind: fail.Format, Op: "open data directory " + dir, Err: plain(err),
		Next: "run as the user it belongs to (sudo -u USER fsmount …), or give it to this one with chown -R"}
}

// dirKind is the kind of a failure to make or write something in the data directory.
func dirKind(err error) fail.Kind {
	if k := classify(err); k != fail.Path {
		return k
	}
	return fail.Format
}

// plain drops the operation and path that the os package put before the cause.
func plain(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
