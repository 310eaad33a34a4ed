package casstore

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"

	"github.com/foreverfs/forever/chunk"
)

// failNth fails the n-th operation that changes anything but the index.
type failNth struct {
	mu   sync.Mutex
	left int
	hit  string
}

func (f *failNth) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || op.Kind == errorfs.OpFileClose || strings.Contains(op.Path, "index") {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left--; f.left == 0 {
		f.hit = fmt.Sprintf("op %d on %s", op.Kind, op.Path)
		return &os.PathError{Op: "write", Path: op.Path, Err: syscall.ENOSPC}
	}
	return nil
}

func (f *failNth) String() string { return "fail one" }

// TestFaults fails every operation in turn: errors are reported, what was
// reported as done is there, now and after a crash.
func TestFaults(t *testing.T) {
	onEach(t, func(t *testing.T, k kind, _ *vfs.MemFS) {
		for n := 1; n < 400; n++ {
			f := &failNth{left: n}
			disk := vfs.NewCrashableMem()
			held, synced := faultWorkload(t, k, errorfs.Wrap(disk, f), f)
			if f.hit == "" {
				t.Logf("%d operations", n-1)
				return
			}
			afterFault(t, k, f, disk.CrashClone(vfs.CrashCloneCfg{}), synced)
			afterFault(t, k, f, disk, held)
		}
		t.Error("no end of operations")
	})
}

// faultWorkload puts and syncs, going on after failures. It returns what was
// put and what was synced without an error.
func faultWorkload(t *testing.T, k kind, fs vfs.FS, f *failNth) (held, synced []int) {
	b, err := k.open(fs)
	if err != nil {
		wantFault(t, f, err)
		return nil, nil
	}
	for n := range 24 {
		id, data := blob(n)
		if _, err := b.Put(bg, id, data); err != nil {
			wantFault(t, f, err)
		} else {
			held = append(held, n)
		}
		if n%8 != 7 {
			continue
		}
		if err := b.Sync(bg); err != nil {
			wantFault(t, f, err)
		} else {
			synced = append([]int(nil), held...)
		}
	}
	wantHeld(t, b, held...)
	if err := b.Close(); err != nil {
		wantFault(t, f, err)
		return synced, synced
	}
	return held, held
}

func wantFault(t *testing.T, f *failNth, err error) {
	t.Helper()
	if f.hit == "" || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("%s: %v", f.hit, err)
	}
}

func afterFault(t *testing.T, k kind, f *failNth, disk vfs.FS, held []int) {
	t.Helper()
	b, err := k.open(disk)
	if errors.Is(err, ErrInUse) {
		return // the run before could not close
	}
	if err != nil {
		t.Fatalf("%s: open: %v", f.hit, err)
	}
	for _, n := range held {
		id, _ := blob(n)
		if _, err := b.Get(bg, nil, id); err != nil {
			t.Fatalf("%s: chunk %d: %v", f.hit, n, err)
		}
	}
	put(t, b, 99)
	if err := b.Close(); err != nil {
		t.Fatalf("%s: close: %v", f.hit, err)
	}
}

// tornFS writes only half of a pack's record, then says the disk is full.
type tornFS struct {
	vfs.FS
	torn bool
}

type tornFile struct {
	vfs.File
	fs *tornFS
}

func (fs *tornFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.OpenReadWrite(name, c, o...)
	return &tornFile{f, fs}, err
}

func (f *tornFile) WriteAt(p []byte, off int64) (int, error) {
	if !f.fs.torn {
		return f.File.WriteAt(p, off)
	}
	n, _ := f.File.WriteAt(p[:len(p)/2], off)
	return n, syscall.ENOSPC
}

func TestTornWrites(t *testing.T) {
	disk := vfs.NewCrashableMem()
	fs := &tornFS{FS: disk}
	k := kinds[0]
	b := mustOpen(t, k, fs)
	var want []int
	for n := range 40 {
		id, data := blob(n)
		fs.torn = n%3 == 1
		_, err := b.Put(bg, id, data)
		if fs.torn && !errors.Is(err, syscall.ENOSPC) || !fs.torn && err != nil {
			t.Fatalf("put %d: %v", n, err)
		}
		if !fs.torn {
			want = append(want, n)
		}
	}
	fs.torn = false
	wantHeld(t, b, want...)
	if err := b.Sync(bg); err != nil {
		t.Fatal(err)
	}
	order := ids(arrivals(t, b, Position{}))
	again := mustOpen(t, k, disk.CrashClone(vfs.CrashCloneCfg{}))
	wantHeld(t, again, want...)
	if diff := cmp.Diff(order, ids(arrivals(t, again, Position{}))); diff != "" {
		t.Fatal(diff)
	}
}

func TestReserve(t *testing.T) {
	disk := vfs.NewMem()
	usage := func(free uint64) {
		disk.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: 1 << 30})
	}
	usage(60 << 20)
	s, err := Open(Config{Dir: "store", FS: disk, Reserve: 50 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put(t, s, 1)
	usage(50 << 20)
	n := 2
	for ; n < 10_000; n++ { // until it looks again
		id, data := blob(n)
		if _, err = s.Put(bg, id, data); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("a full disk gave %v", err)
	}
	wantHeld(t, s, 1, n-1)
	wantGone(t, s, n)
	usage(60 << 20)
	put(t, s, n)
}

// eioFS fails to read packs.
type eioFS struct{ on bool }

func (e *eioFS) String() string { return "EIO" }

func (e *eioFS) MaybeError(op errorfs.Op) error {
	if e.on && op.Kind == errorfs.OpFileReadAt && strings.HasSuffix(op.Path, packSuffix) {
		return syscall.EIO
	}
	return nil
}

// TestReadError: a disk that fails to read may recover, so nothing is forgotten.
func TestReadError(t *testing.T) {
	e := &eioFS{}
	s, err := Open(Config{Dir: "store", FS: errorfs.Wrap(vfs.NewMem(), e)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for n := range 3 {
		put(t, s, n)
	}
	e.on = true
	id, data := blob(1)
	if _, err := s.Get(bg, nil, id); !errors.Is(err, ErrDamaged) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("get: %v", err)
	}
	if has, err := s.Has(id); has || err != nil {
		t.Fatalf("has: %v, %v", has, err)
	}
	e.on = false
	wantHeld2 := func() {
		t.Helper()
		if got, err := s.Get(bg, nil, id); err != nil || !slices.Equal(got, data) {
			t.Fatalf("get: %v", err)
		}
		if has, err := s.Has(id); !has || err != nil {
			t.Fatalf("has: %v, %v", has, err)
		}
	}
	wantHeld2()
	e.on = true
	if _, err := s.Get(bg, nil, id); !errors.Is(err, ErrDamaged) {
		t.Fatalf("get: %v", err)
	}
	if added, err := s.Put(bg, id, data); !added || err != nil {
		t.Fatalf("mend: %v, %v", added, err)
	}
	e.on = false
	wantHeld2()
	if st, err := s.Stats(); st.Chunks != 3 || err != nil {
		t.Fatalf("stats %+v, %v", st, err)
	}
}

// TestFailedFlush: after one nothing is accepted until the store is opened again.
func TestFailedFlush(t *testing.T) {
	fail := false
	disk := vfs.NewCrashableMem()
	inj := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if fail && op.Kind == errorfs.OpFileSyncData {
			return syscall.EIO
		}
		return nil
	})
	s, err := Open(Config{Dir: "store", FS: errorfs.Wrap(disk, inj)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put(t, s, 1)
	fail = true
	if err := s.Sync(bg); !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("sync: %v", err)
	}
	fail = false
	if err := s.Sync(bg); !errors.Is(err, ErrFailed) {
		t.Fatalf("sync again: %v", err)
	}
	id, data := blob(2)
	if _, err := s.Put(bg, id, data); !errors.Is(err, ErrFailed) {
		t.Fatalf("put: %v", err)
	}
	wantHeld(t, s, 1)
	var none []chunk.ID
	if got := ids(arrivals(t, s, s.End())); !slices.Equal(got, none) {
		t.Fatal(got)
	}
}
