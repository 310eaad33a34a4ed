package casstore

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWriteBackBegins sees what was appended go to the disk without a flush, long before the kernel would by itself.
func TestWriteBackBegins(t *testing.T) {
	dir := onDisk(t)
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	data := random(64 << 10)
	for i := range 3 * writebackStep / len(data) {
		if _, err := s.Put(bg, numbered(data, i), data); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(filepath.Join(dir, packName(1)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	first := unix.CachestatRange{Len: writebackStep}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var st unix.Cachestat_t
		if err := unix.Cachestat(uint(f.Fd()), &first, &st, 0); err != nil {
			t.Skip("the kernel does not say what it has written: ", err)
		}
		if st.Dirty == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d pages wait to be written", st.Dirty)
		}
	}
	if s.durable().Offset >= writebackStep {
		t.Fatal("what was only begun to be written counts as durable")
	}
}
