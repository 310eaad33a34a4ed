package casstore

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/hashtree"
)

// openedOnDisk returns a store with some chunks of four groups on a file system that can be read directly, and the path of its pack.
func openedOnDisk(t *testing.T) (s *Store, chunks [][]byte, path string) {
	dir := onDisk(t)
	path = filepath.Join(dir, packName(1))
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for range 20 {
		data := random(4*hashtree.GroupSize - 100)
		chunks = append(chunks, data)
		if _, _, err := s.Add(bg, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sync(bg); err != nil {
		t.Fatal(err)
	}
	f, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no direct reads here: %v", err)
	}
	if err := unix.Close(f); err != nil {
		t.Fatal(err)
	}
	return s, chunks, path
}

func uncacheAll(t *testing.T, s *Store) {
	t.Helper()
	p, err := s.packs.acquire(1)
	if err != nil {
		t.Fatal(err)
	}
	if err := uncache(p.file, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.packs.release(p); err != nil {
		t.Fatal(err)
	}
}

// TestPartsAroundTheCache: parts are read without filling the page cache, wherever they lie, and like everything else where that does not work.
func TestPartsAroundTheCache(t *testing.T) {
	s, chunks, path := openedOnDisk(t)
	check := func() {
		t.Helper()
		uncacheAll(t, s)
		rapid.Check(t, func(rt *rapid.T) {
			n := rapid.IntRange(1, hashtree.GroupSize+1).Draw(rt, "n")
			data := rapid.SampledFrom(chunks).Draw(rt, "chunk")
			wantPart(t, s, data, rapid.IntRange(0, len(data)-n).Draw(rt, "off"), n)
		})
	}
	check()
	if n := resident(t, path); n != 0 && kernelTells() {
		t.Errorf("%d bytes of the pack are in the page cache", n)
	}
	p, err := s.packs.acquire(1)
	if err != nil {
		t.Fatal(err)
	}
	s.packs.directOf(p).off.Store(true)
	if err := s.packs.release(p); err != nil {
		t.Fatal(err)
	}
	check()
	if resident(t, path) == 0 {
		t.Error("nothing is in the page cache")
	}
}

// TestPartFromTheCache: what is in the page cache is not read from the disk.
func TestPartFromTheCache(t *testing.T) {
	s, chunks, _ := openedOnDisk(t)
	id, _ := hashtree.Sum(nil, chunks[0])
	uncacheAll(t, s)
	for _, cached := range []bool{false, true} {
		if cached {
			if got, err := s.Get(bg, nil, id); err != nil || !bytes.Equal(got, chunks[0]) {
				t.Fatalf("chunk of %d bytes: %v", len(got), err)
			}
		}
		p, err := s.packs.acquire(1)
		if err != nil {
			t.Fatal(err)
		}
		l, err := s.locate(chunk.ID(id))
		if err != nil {
			t.Fatal(err)
		}
		if use := s.packs.directOf(p).use(l.chunk(), l.size); use == cached && kernelTells() {
			t.Errorf("read directly: %v, in the page cache: %v", use, cached)
		}
		if err := s.packs.release(p); err != nil {
			t.Fatal(err)
		}
	}
}

// kernelTells reports whether the kernel has cachestat(2).
func kernelTells() bool {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return false
	}
	defer f.Close()
	of, st := unix.CachestatRange{Len: 1}, unix.Cachestat_t{}
	return unix.Cachestat(uint(f.Fd()), &of, &st, 0) == nil
}
