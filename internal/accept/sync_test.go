package accept

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestSyncReplicas: an fsync that returns means that the data is on another device's disk, whatever befalls both; one
// that cannot have that fails, and the data stays.
func TestSyncReplicas(t *testing.T) {
	a := newNode(t, "a", "", "--sync-replicas", "1")
	b := newNode(t, "b", a.command("invite"))
	a.until(10*time.Second, "connection", func() bool { return a.connected() == 1 && b.connected() == 1 })
	sync := func(name, content string) error {
		f, err := os.Create(filepath.Join(a.mnt, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(content); err != nil {
			t.Fatal(err)
		}
		return f.Sync()
	}
	large := make([]byte, 5<<20)
	for name, content := range map[string]string{"small": "small\n", "large": string(large)} {
		took := timed(func() {
			if err := sync(name, content); err != nil {
				t.Fatal(err)
			}
		})
		t.Logf("fsync of %d bytes, on two disks: %v", len(content), took.Round(time.Millisecond))
	}
	a.kill()
	b.kill()
	b.start()
	for name, content := range map[string]string{"small": "small\n", "large": string(large)} {
		if !b.reads(name, content) {
			t.Errorf("%s is not on the other device after both crashed", name)
		}
	}
	b.kill()
	if !scale(false, true) { // the wait for nobody is a long one
		return
	}
	a.start("--sync-replicas", "1")
	var err error
	took := timed(func() { err = sync("alone", "alone\n") })
	if !errors.Is(err, syscall.EIO) || took < 25*time.Second || took > 40*time.Second {
		t.Errorf("fsync without the other: %v after %v", err, took)
	}
	if !a.reads("alone", "alone\n") {
		t.Error("the data is gone")
	}
	b.start()
	b.until(10*time.Second, "what could not be had elsewhere", func() bool { return b.reads("alone", "alone\n") })
	if err := sync("together", "together\n"); err != nil {
		t.Error(err)
	}
}
