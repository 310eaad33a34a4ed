package casstore

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// slowDisk takes what is written to packs at once, as a page cache does, and a flush as long as its rate asks for.
type slowDisk struct {
	vfs.FS
	rate int // bytes per second

	mu    sync.Mutex
	dirty int
	most  int // that one flush had to write
}

func (d *slowDisk) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.FS.OpenReadWrite(name, category, opts...)
	if err != nil || !strings.HasSuffix(name, packSuffix) {
		return f, err
	}
	return &slowFile{f, d}, nil
}

type slowFile struct {
	vfs.File
	disk *slowDisk
}

func (f *slowFile) WriteAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	f.disk.dirty += len(p)
	f.disk.mu.Unlock()
	return f.File.WriteAt(p, off)
}

func (f *slowFile) SyncData() error {
	f.disk.mu.Lock()
	n := f.disk.dirty
	f.disk.dirty = 0
	f.disk.most = max(f.disk.most, n)
	f.disk.mu.Unlock()
	time.Sleep(time.Duration(float64(n) / float64(f.disk.rate) * float64(time.Second)))
	return f.File.SyncData()
}

// Who puts chunks faster than the disk takes them waits in small steps: no flush takes much longer than it should, whoever
// asked for it.
func TestCrowdOnASlowDisk(t *testing.T) {
	const within, rate = 100 * time.Millisecond, 50 << 20
	disk := &slowDisk{FS: vfs.NewMem(), rate: rate}
	s, err := Open(Config{Dir: "store", FS: disk, Reserve: -1, flushWithin: within})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	data := random(64 << 10)
	for i := range 640 { // 40 MiB
		if _, err := s.Put(bg, numbered(data, i), data); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sync(bg); err != nil {
		t.Fatal(err)
	}
	if limit := int(2 * rate * within / time.Second); disk.most > limit {
		t.Errorf("a flush had to write %d MiB, which took %.1f s", disk.most>>20, float64(disk.most)/rate)
	}
}

// The bound follows the disk, and never falls below what no disk takes long for.
func TestCrowdLearns(t *testing.T) {
	c := newCrowd(time.Second)
	if c.waiting != 0 || c.limit != firstRate {
		t.Fatalf("at first %d of %d wait", c.waiting, c.limit)
	}
	if c.added(firstRate-1) || !c.added(1) {
		t.Fatal("crowded at the wrong moment")
	}
	c.flushed(c.waiting, time.Second/2)
	if c.waiting != 0 || c.limit != 2*firstRate {
		t.Fatalf("after a flush %d of %d wait", c.waiting, c.limit)
	}
	c.added(2 * slowFlush)
	c.flushed(slowFlush, time.Hour)
	if c.waiting != slowFlush || c.limit != minCrowd {
		t.Fatalf("after a slow flush %d of %d wait", c.waiting, c.limit)
	}
	c.flushed(slowFlush-1, 0)
	if c.limit != minCrowd {
		t.Fatal("a flush of hardly anything tells of the disk")
	}
}
