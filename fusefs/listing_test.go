package fusefs

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dirent is a name in a directory, and where to go on behind it.
type dirent struct {
	name   string
	offset int64
}

// direntsAt reads what comes behind an offset of an open directory, but for "." and "..".
func direntsAt(t *testing.T, fd int, offset int64) (list []dirent) {
	t.Helper()
	_, err := unix.Seek(fd, offset, unix.SEEK_SET)
	must(t, err)
	buf := make([]byte, 4096)
	for len(list) == 0 {
		size, err := unix.Getdents(fd, buf)
		must(t, err)
		if size == 0 {
			return nil
		}
		for b := buf[:size]; len(b) > 0; {
			n := binary.NativeEndian.Uint16(b[unsafe.Offsetof(unix.Dirent{}.Reclen):])
			_, _, names := unix.ParseDirent(b[:n], 1, nil)
			for _, name := range names {
				list = append(list, dirent{name, int64(binary.NativeEndian.Uint64(b[unsafe.Offsetof(unix.Dirent{}.Off):]))})
			}
			b = b[n:]
		}
	}
	return list
}

// TestRemoveWhileListingAnew: a program that opens the directory for each piece of it, as an NFS server does, and removes what
// it was given, gets every name once; so does one that goes back to a place in its own listing.
func TestRemoveWhileListingAnew(t *testing.T) {
	const n = 1500
	r := mount(t, nil)
	must(t, os.Mkdir(r.path("d"), 0o755))
	open := func() int {
		fd, err := unix.Open(r.path("d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		return fd
	}
	for _, anew := range []bool{true, false} {
		for i := range n {
			must(t, os.WriteFile(fmt.Sprintf("%s/%04d", r.path("d"), i), nil, 0o644))
		}
		fd, removed := open(), 0
		for list := direntsAt(t, fd, 0); len(list) > 0; {
			list = list[:(len(list)+1)/2]
			for _, e := range list {
				must(t, os.Remove(r.path("d")+"/"+e.name))
				removed++
			}
			if anew {
				must(t, unix.Close(fd))
				fd = open()
			} else {
				_ = direntsAt(t, fd, 0) // lets go of what the handle has
			}
			list = direntsAt(t, fd, list[len(list)-1].offset)
		}
		must(t, unix.Close(fd))
		if removed != n {
			t.Errorf("opened anew: %v: %d of %d names were listed", anew, removed, n)
		}
	}
}
