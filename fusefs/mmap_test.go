package fusefs

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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
