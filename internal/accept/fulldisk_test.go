package accept

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestDiskFilledByOthers fills the disk under the data directory to the last byte while programs work on the mount: they
// get ENOSPC, what fsync acknowledged stays, and all goes on once there is space again.
func TestDiskFilledByOthers(t *testing.T) {
	n := newNodeOn(t, smallDisk(t, "192m"))
	acked := &ledger{want: map[string]string{}}
	stop := make(chan struct{})
	worked := make(chan struct{})
	go func() {
		defer close(worked)
		load(n, acked, "before", stop)
	}()
	n.until(10*time.Second, "acknowledged writes", func() bool { return acked.len() > 40 })
	filler := fillDisk(t, filepath.Dir(n.data))
	close(stop)
	<-worked
	root, err := os.OpenRoot(n.mnt)
	must(t, err)
	defer root.Close()
	given := 0 // how often there was room again: a log that the state drops had taken some ahead
	refused := func(what string, err error) {
		if err == nil && given < 50 {
			given++
			fillFile(t, filler)
		} else if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("%s on a full disk: %v", what, err)
		}
	}
	for i := range 200 {
		refused("mkdir", os.Mkdir(filepath.Join(n.mnt, fmt.Sprintf("dir%d", i)), 0o755))
		name := fmt.Sprintf("file%d", i)
		refused("create", writeSynced(root, name, "x", acked))
	}
	if _, err := os.ReadDir(n.mnt); err != nil {
		t.Fatalf("the full disk takes the mount away: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	n.until(30*time.Second, "space", func() bool {
		return writeSynced(root, "after", "after", acked) == nil
	})
	acked.check(t, n)
	must(t, root.Close())
	n.stop()
	n.start()
	acked.check(t, n)
}

// TestDiskFilledAtOnce takes all space at the very moment that acknowledged work goes to the disk, and what the node has in
// reserve too. A node that cannot go on ends as it should, and what fsync acknowledged is there when it starts again.
func TestDiskFilledAtOnce(t *testing.T) {
	disk := smallDisk(t, "192m")
	n := newNodeOn(t, disk)
	acked := &ledger{want: map[string]string{}}
	for round := range scale(3, 20) {
		stop := make(chan struct{})
		var work sync.WaitGroup
		for w := range 3 {
			work.Go(func() { load(n, acked, fmt.Sprintf("r%d-%d", round, w), stop) })
		}
		before := acked.len()
		n.until(10*time.Second, "acknowledged writes", func() bool { return acked.len() > before+40 })
		_ = os.Remove(filepath.Join(n.data, "reserve"))
		filler := fillDisk(t, disk)
		time.Sleep(time.Second) // longer than anything gathers
		close(stop)
		work.Wait()
		_ = n.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-n.exited:
		case <-time.After(30 * time.Second):
			t.Fatal("the node does not end")
		}
		code := n.cmd.ProcessState.ExitCode()
		if code != 0 && (code != 13 || !strings.Contains(n.log.String(), "is full")) || mounted(n.mnt) {
			t.Fatalf("the node ended with code %d, still mounted: %v", code, mounted(n.mnt))
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		n.start()
		acked.check(t, n)
	}
}

// newNodeOn is newNode with the data directory on a disk of its own.
func newNodeOn(t *testing.T, disk string) *node {
	t.Helper()
	n := &node{t: t, data: filepath.Join(disk, "data"), mnt: filepath.Join(t.TempDir(), "mnt"), listen: "127.0.0.1:0"}
	if err := os.Mkdir(n.mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	n.start()
	return n
}

// smallDisk mounts a disk of a size.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	fsmount(t) // or the test is skipped
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("no tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fillDisk takes all space that is left, and returns the file that has it.
func fillDisk(t *testing.T, dir string) string {
	t.Helper()
	filler := filepath.Join(dir, "filler")
	fillFile(t, filler)
	return filler
}

// fillFile appends to a file until its disk is full.
func fillFile(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := strings.Repeat("x", 1<<20); len(block) > 0; {
		if _, err := f.WriteString(block); err != nil {
			block = block[:len(block)/2]
		}
	}
}
