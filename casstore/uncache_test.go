package casstore

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/chunk"
)

// resident returns how many bytes of a file the kernel has in its page cache.
func resident(t testing.TB, path string) int64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(fi.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(m) }()
	page := os.Getpagesize()
	in := make([]byte, (len(m)+page-1)/page)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(unsafe.Pointer(&in[0]))); errno != 0 {
		t.Fatal(errno)
	}
	pages := 0
	for _, b := range in {
		pages += int(b & 1)
	}
	return int64(pages * page)
}

// onDisk returns an empty directory on a disk, or skips the test.
func onDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Type == unix.TMPFS_MAGIC {
		t.Skip("what is on a tmpfs is in memory")
	}
	return dir
}

func TestUncache(t *testing.T) {
	dir := onDisk(t)
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const n = 256
	var ids [n]chunk.ID
	data := random(64 << 10)
	for i := range ids {
		ids[i] = numbered(data, i)
		if _, err := s.Put(bg, ids[i], data); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sync(bg); err != nil {
		t.Fatal(err)
	}
	pack := filepath.Join(dir, packName(1))
	all := resident(t, pack)
	for _, wrong := range [][2]int{{n - 1, 0}, {5, 5}} {
		if err := s.Uncache(ids[wrong[0]], ids[wrong[1]]); err != nil {
			t.Error(err)
		}
	}
	if err := s.Uncache(ids[0], chunk.ID{1}); !errors.Is(err, ErrNotFound) {
		t.Errorf("to a chunk that is not there: %v", err)
	}
	if err := s.Uncache(ids[n/2], ids[n-1]); err != nil {
		t.Fatal(err)
	}
	left := resident(t, pack)
	if all-left < 6<<20 || left < 2<<20 {
		t.Errorf("of %d bytes in the page cache %d are left", all, left)
	}
	for _, id := range ids {
		if _, err := s.Get(bg, nil, id); err != nil {
			t.Fatal(err)
		}
	}
}
