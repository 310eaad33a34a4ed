package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// coldness says what is forgotten before the clock starts.
type coldness int

const (
	warm    coldness = iota
	noNames          // the kernel forgets names and attributes
	nothing          // the server begins anew, and the kernel forgets pages too
)

// dropCaches has the kernel forget what it can read again.
func dropCaches(dir string, c coldness) error {
	if err := syncDisk(dir); err != nil {
		return err
	}
	what := "2"
	if c == nothing {
		what = "3"
	}
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte(what), 0)
}

// syncDisk has the kernel write what it owes the disk that dir is on.
func syncDisk(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// written returns how many bytes were written to the block device that dir is on.
func written(dir string) (int64, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return 0, err
	}
	stat, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return 0, fmt.Errorf("%s is on no block device: %w", dir, err)
	}
	f := strings.Fields(string(stat))
	if len(f) < 7 {
		return 0, fmt.Errorf("not understood: %s", stat)
	}
	sectors, err := strconv.ParseInt(f[6], 10, 64)
	return sectors * 512, err
}

// isMounted reports whether a FUSE file system is at dir.
func isMounted(dir string) bool {
	mounts, err := os.ReadFile("/proc/self/mounts")
	return err == nil && strings.Contains(string(mounts), " "+dir+" fuse")
}
