package fusefs

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"
)

// TestOnlyRoot: where nobody but root comes in, the kernel asks for no permissions, and root may still
// not do what even root may not.
func TestOnlyRoot(t *testing.T) {
	var seen counts
	r := mount(t, nil, seen.observe)
	r.write("plain", "#!/bin/sh\n")
	r.write("script", "#!/bin/sh\n")
	must(t, os.Chmod(r.path("script"), 0o700))
	must(t, os.Mkdir(r.path("closed"), 0))
	r.write("closed/f", "x")
	must(t, os.Chmod(r.path("closed/f"), 0))

	wantErr(t, unix.Access(r.path("plain"), unix.X_OK), unix.EACCES)
	if err := run(r.path("plain")); err == nil {
		t.Error("ran a file that is not executable")
	}
	must(t, unix.Access(r.path("plain"), unix.R_OK|unix.W_OK))
	must(t, unix.Access(r.path("script"), unix.X_OK))
	must(t, run(r.path("script")))
	must(t, unix.Access(r.path("closed"), unix.R_OK|unix.W_OK|unix.X_OK))
	if got := r.read("closed/f"); got != "x" {
		t.Errorf("read %q", got)
	}
	must(t, os.Chmod(r.path("plain"), 0o755))
	must(t, unix.Access(r.path("plain"), unix.X_OK))

	before := seen.of(&fuse.GetattrRequest{})
	for _, name := range []string{"plain", "script", "closed/f"} {
		must(t, os.Remove(r.path(name)))
	}
	if n := seen.of(&fuse.GetattrRequest{}) - before; n != 0 {
		t.Errorf("to remove three files took %d questions for attributes", n)
	}
}

// run has a shell run a program. This process serves the mount, so it must not begin one from there itself: until the
// program is loaded it stands still, and may be asked for it.
func run(path string) error { return exec.Command("sh", "-c", `"$0"`, path).Run() }

// TestOthersAreChecked: with others let in, modes count for them.
func TestOthersAreChecked(t *testing.T) {
	r := mount(t, func(c *Config) { c.AllowOther = true })
	for dir := r.dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
	r.write("secret", "x")
	must(t, os.Chmod(r.path("secret"), 0o600))
	r.write("open", "x")
	must(t, os.Chmod(r.path("open"), 0o644))
	cat := func(name string) error {
		cmd := exec.Command("cat", r.path(name))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		return cmd.Run()
	}
	if err := cat("secret"); err == nil {
		t.Error("somebody else read a file of mode 600")
	}
	if err := cat("open"); err != nil {
		t.Errorf("somebody else could not read a file of mode 644: %v", err)
	}
}
