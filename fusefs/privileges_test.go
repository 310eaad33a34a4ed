package fusefs

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestChownOfNothing: chown(path, -1, -1) takes set-id bits away for the owner and root, and from nobody else: they get EPERM if
// there are any. The kernel's request for it is the one before a write, so while the file is open for writing it goes by who may
// write, and root keeps the bits.
func TestChownOfNothing(t *testing.T) {
	r := newVolume(t, nil)
	r.mount(func(c *Config) { c.AllowOther = true })
	for _, c := range []struct {
		mode, want uint16
		owner, uid int
		open       bool // for writing, by somebody
		refused    bool
	}{
		{0o6711, 0o6711, 0, 1, false, true},
		{0o6777, 0o6777, 0, 1, false, true},
		{0o755, 0o755, 0, 1, false, false},
		{0o6711, 0o711, 1, 1, false, false},
		{0o6711, 0o711, 1, 0, false, false},
		{0o6711, 0o6711, 0, 1, true, false},
		{0o6711, 0o711, 1, 1, true, false},
		{0o6711, 0o6711, 1, 0, true, false}, // as before a write of root's to a file with capabilities
		{0o6777, 0o777, 0, 1, true, false},  // he might as well write
	} {
		r.write("f", "program")
		must(t, os.Chown(r.path("f"), c.owner, c.owner))
		must(t, syscall.Chmod(r.path("f"), uint32(c.mode)))
		var st unix.Stat_t
		must(t, unix.Stat(r.path("f"), &st))
		until(t, "the handle is gone", func() bool { return !r.vol.OpenForWriting(st.Ino) })
		how := "closed"
		if c.open {
			how = "open"
		}
		out, err := helper(t, "chown", how, strconv.Itoa(c.uid), r.path("f")).CombinedOutput()
		if refused := err != nil && strings.Contains(string(out), unix.EPERM.Error()); refused != c.refused || err != nil && !refused {
			t.Errorf("%+v: %v %s", c, err, out)
		}
		must(t, unix.Stat(r.path("f"), &st))
		if uint16(st.Mode&0o7777) != c.want {
			t.Errorf("%+v: left %o", c, st.Mode&0o7777)
		}
		must(t, os.Remove(r.path("f")))
	}
}

// TestRootWithoutFSETID: root that gave up CAP_FSETID leaves no set-id bits either to what it changes.
func TestRootWithoutFSETID(t *testing.T) {
	r := mount(t, nil)
	for _, how := range []string{"punch", "copy", "write"} {
		r.write(how, string(noise(2*block)))
		must(t, syscall.Chmod(r.path(how), 0o6755))
		runHelper(t, "fsetid", how, r.path(how))
		var st unix.Stat_t
		must(t, unix.Stat(r.path(how), &st))
		if st.Mode&0o7777 != 0o755 {
			t.Errorf("%s left the mode %o", how, st.Mode&0o7777)
		}
	}
}

// fsetidHelper changes the content of the file args[1] as args[0] says, without CAP_FSETID.
func fsetidHelper(args []string) error {
	runtime.LockOSThread()
	head, data := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	if err := unix.Capget(&head, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_FSETID
	if err := unix.Capset(&head, &data[0]); err != nil {
		return err
	}
	f, err := os.OpenFile(args[1], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return change(f, args[0])
}

// chownHelper calls chown(path, -1, -1) for the file args[2], as the user args[1].
func chownHelper(args []string) error {
	if args[0] == "open" {
		f, err := os.OpenFile(args[2], os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
	}
	fd, err := unix.Open(args[2], unix.O_PATH, 0)
	if err != nil {
		return err
	}
	id, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(id), syscall.Setuid(id)); err != nil {
		return err
	}
	return unix.Fchownat(fd, "", -1, -1, unix.AT_EMPTY_PATH)
}
