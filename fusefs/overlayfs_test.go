package fusefs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOverlay puts both layers of an overlayfs on a mount, as docker and podman do with their data there.
func TestOverlay(t *testing.T) {
	r := mount(t, nil)
	for _, dir := range []string{"lower/d", "upper", "work"} {
		must(t, os.MkdirAll(r.path(dir), 0o755))
	}
	r.write("lower/f", "low")
	r.write("lower/d/g", "deep")
	merged := t.TempDir()
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", r.path("lower"), r.path("upper"), r.path("work"))
	err := unix.Mount("overlay", merged, "overlay", 0, options)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EPERM) {
		t.Skipf("no overlayfs here: %v", err)
	}
	must(t, err)
	t.Cleanup(func() { _ = unix.Unmount(merged, unix.MNT_DETACH) })
	must(t, os.Rename(filepath.Join(merged, "d/g"), filepath.Join(merged, "g")))
	must(t, os.Rename(filepath.Join(merged, "f"), filepath.Join(merged, "d/g")))
	must(t, os.WriteFile(filepath.Join(merged, "new"), []byte("new"), 0o600))
	must(t, os.Rename(filepath.Join(merged, "new"), filepath.Join(merged, "f")))
	must(t, os.Remove(filepath.Join(merged, "f")))
	for name, want := range map[string]string{"g": "deep", "d/g": "low"} {
		if got, err := os.ReadFile(filepath.Join(merged, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := os.Stat(filepath.Join(merged, "f")); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("the removed file: %v", err)
	}
	must(t, unix.Unmount(merged, 0))
	if got := r.read("lower/d/g"); got != "deep" {
		t.Errorf("the lower layer has %q", got)
	}
}
