package accept

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// TestFSX runs two programs of the public suite xfstests, built in the directory that FOREVER_XFSTESTS names, on a mount: fsx, which
// compares a file with what it did to it, through write, mmap, truncate, fallocate and copy_file_range, and fsstress, which does everything
// to a tree from several processes.
func TestFSX(t *testing.T) {
	checkout := os.Getenv("FOREVER_XFSTESTS")
	if checkout == "" {
		t.Skip("FOREVER_XFSTESTS names no built checkout of xfstests (git.kernel.org, fs/xfs/xfstests-dev)")
	}
	n := newNode(t, "fsx", "")
	fsx, fsstress := filepath.Join(checkout, "ltp", "fsx"), filepath.Join(checkout, "ltp", "fsstress")
	for name, args := range map[string][]string{
		"bytes": nil, "direct": {"-r", "4096", "-w", "4096", "-t", "4096", "-R", "-W", "-Z"},
		"reopened": {"-c", "20"}, "two blocks": {"-l", "131072"}, "no holes": {"-H", "-z"},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range 3 {
				args := append(args, "-q", "-N", "10000", "-S", strconv.Itoa(seed+1))
				run(t, n.mnt, fsx, append(args, filepath.Join(n.mnt, name+strconv.Itoa(seed)))...)
			}
		})
	}
	t.Run("fsstress", func(t *testing.T) {
		dir := filepath.Join(n.mnt, "stress")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		run(t, n.mnt, fsstress, "-d", dir, "-p", "4", "-n", "1000", "-s", "1")
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
}
