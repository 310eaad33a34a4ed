package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/volume"
)

// mmapHelper maps the file args[0] shared, writes through the mapping and reads
// the file, then the other way round.
func mmapHelper(args []string) error {
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	const size = 300 << 10
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if m[0] != 'x' || m[size-1] != 'x' {
		return fmt.Errorf("mapped %q … %q", m[0], m[size-1])
	}
	copy(m[200<<10:], "through the mapping")
	got := make([]byte, 19)
	if _, err := f.ReadAt(got, 200<<10); err != nil || string(got) != "through the mapping" {
		return fmt.Errorf("read %q, %w", got, err)
	}
	if _, err := f.WriteAt([]byte("by write"), 100<<10); err != nil {
		return err
	}
	if !bytes.HasPrefix(m[100<<10:], []byte("by write")) {
		return fmt.Errorf("mapping shows %q", m[100<<10:100<<10+8])
	}
	if err := unix.Msync(m, unix.MS_SYNC); err != nil {
		return err
	}
	copy(m[:4], "late") // the kernel writes this back when it likes
	return unix.Munmap(m)
}

func TestMappedFile(t *testing.T) {
	r := mount(t, nil)
	r.write("f", strings.Repeat("x", 300<<10))
	runHelper(t, "mmap", r.path("f"))
	got := r.read("f")
	if got[:5] != "latex" || got[100<<10:100<<10+8] != "by write" || got[200<<10:200<<10+19] != "through the mapping" {
		t.Errorf("file has %q, %q, %q", got[:5], got[100<<10:100<<10+8], got[200<<10:200<<10+19])
	}
}

// mapFullHelper stores to a mapping of the file args[0] while the file args[1] says that the disk is full, and again calls msync when it is gone.
func mapFullHelper(args []string) error {
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, 16<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if err := os.WriteFile(args[1], nil, 0o600); err != nil {
		return err
	}
	deadline := time.Now().Add(10 * time.Second)
	for err == nil && time.Now().Before(deadline) { // what was seen of the disk counts for a moment
		_, err = f.WriteAt([]byte("x"), 8<<10)
	}
	if !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("write on a full disk: %w", err)
	}
	copy(m, "stored")
	for range 2 {
		if err := unix.Msync(m, unix.MS_SYNC); !errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("msync on a full disk: %w", err)
		}
	}
	if err := os.Remove(args[1]); err != nil {
		return err
	}
	for err != nil && time.Now().Before(deadline) {
		err = unix.Msync(m, unix.MS_SYNC)
	}
	if err != nil {
		return fmt.Errorf("msync with space again: %w", err)
	}
	return unix.Munmap(m)
}

// TestMappingOnAFullDisk: what is stored to a mapping while the disk is full is not lost: msync fails until there is space, and then has it.
func TestMappingOnAFullDisk(t *testing.T) {
	full := filepath.Join(t.TempDir(), "full")
	r := newVolume(t, nil, func(c *volume.Config) {
		c.DiskUsage = func() (uint64, uint64, error) {
			if _, err := os.Stat(full); err == nil {
				return 1 << 40, 16 << 20, nil
			}
			return 1 << 40, 512 << 20, nil
		}
	})
	r.mount(nil)
	r.write("f", strings.Repeat("x", 16<<10))
	runHelper(t, "mapfull", r.path("f"), full)
	a, err := r.vol.Lookup(t.Context(), 1, "f")
	if err != nil {
		t.Fatal(err)
	}
	defer r.vol.Forget(a.Ino, 1)
	h, err := r.vol.Open(t.Context(), a.Ino, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	got := make([]byte, 8)
	if _, err := h.Read(t.Context(), got, 0); err != nil || string(got) != "storedxx" {
		t.Errorf("the file has %q, %v", got, err)
	}
}
