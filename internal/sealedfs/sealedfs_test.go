package sealedfs

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

var testKey = [32]byte{1, 2, 3}

const kind = vfs.WriteCategoryUnspecified

func write(t testing.TB, fs vfs.FS, name string, parts ...[]byte) {
	t.Helper()
	f, err := fs.Create(name, kind)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		if n, err := f.Write(bytes.Clone(p)); n != len(p) || err != nil {
			t.Fatalf("write: %d, %v", n, err)
		}
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestReadWrite writes in pieces of every size and reads at every offset.
func TestReadWrite(t *testing.T) {
	fs := New(vfs.NewMem(), testKey)
	rng := rand.New(rand.NewPCG(1, 2))
	want := make([]byte, 5000)
	for i := range want {
		want[i] = byte(rng.Uint32())
	}
	var parts [][]byte
	for rest := want; len(rest) > 0; {
		n := min(1+rng.IntN(70), len(rest))
		parts = append(parts, rest[:n])
		rest = rest[n:]
	}
	write(t, fs, "f", parts...)
	if got := read(t, fs, "f"); !bytes.Equal(got, want) {
		t.Fatal("read something else than was written")
	}
	f, err := fs.Open("f", vfs.RandomReadsOption)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 500 {
		off := rng.IntN(len(want))
		buf := make([]byte, 1+rng.IntN(len(want)-off))
		if n, err := f.ReadAt(buf, int64(off)); n != len(buf) || err != nil || !bytes.Equal(buf, want[off:off+n]) {
			t.Fatalf("read %d at %d: %d, %v", len(buf), off, n, err)
		}
	}
	buf := make([]byte, 10)
	if n, err := f.ReadAt(buf, 4995); n != 5 || !errors.Is(err, io.EOF) {
		t.Fatalf("read over the end: %d, %v", n, err)
	}
	for _, stat := range []func() (vfs.FileInfo, error){f.Stat, func() (vfs.FileInfo, error) { return fs.Stat("f") }} {
		if fi, err := stat(); err != nil || fi.Size() != 5000 {
			t.Fatalf("stat: %v, %v", fi, err)
		}
	}
}

func TestContentIsHidden(t *testing.T) {
	raw := vfs.NewMem()
	fs := New(raw, testKey)
	secret := bytes.Repeat([]byte("secret"), 100)
	write(t, fs, "a", secret)
	write(t, fs, "b", secret)
	a, b := read(t, raw, "a"), read(t, raw, "b")
	if bytes.Contains(a, []byte("secret")) {
		t.Error("the content is on the disk")
	}
	if bytes.Equal(a[headerSize:], b[headerSize:]) {
		t.Error("equal files look equal on the disk")
	}
	if _, err := New(raw, [32]byte{9}).Open("a"); !errors.Is(err, ErrKey) {
		t.Errorf("another key: %v, want ErrKey", err)
	}
}

func TestReuse(t *testing.T) {
	raw := vfs.NewMem()
	fs := New(raw, testKey)
	write(t, fs, "old", bytes.Repeat([]byte("before "), 50))
	old := read(t, raw, "old")
	f, err := fs.ReuseForWrite("old", "new", kind)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("after")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got := read(t, fs, "new")
	if !bytes.HasPrefix(got, []byte("after")) || len(got) != 350 || bytes.Contains(got, []byte("before")) {
		t.Errorf("reused file reads %q", got)
	}
	if bytes.Equal(old[:headerSize], read(t, raw, "new")[:headerSize]) {
		t.Error("the nonce was used again")
	}
}

// fullFS has no room but for what is written at the end of a file.
type fullFS struct{ vfs.FS }

type fullFile struct{ vfs.File }

func (fs fullFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, category)
	return fullFile{f}, err
}

func (fullFile) WriteAt([]byte, int64) (int, error) { return 0, errors.New("no room") }

// TestLogGrowsInSteps has a log stand for some time before it grows, hold no key stream where nothing was
// written, and do without where there is no room.
func TestLogGrowsInSteps(t *testing.T) {
	for name, full := range map[string]bool{"log": false, "log on a full disk": true} {
		raw := vfs.FS(vfs.NewMem())
		below := raw
		if full {
			below = fullFS{raw}
		}
		f, err := New(below, testKey).Create("log", logCategory)
		if err != nil {
			t.Fatal(err)
		}
		var want []byte
		sizes := map[int]bool{}
		for i := range 1500 {
			p := bytes.Repeat([]byte{byte(i)}, 1000)
			want = append(want, p...)
			if n, err := f.Write(p); n != 1000 || err != nil {
				t.Fatalf("%s: write %d: %v", name, n, err)
			}
			fi, err := raw.Stat("log")
			if err != nil {
				t.Fatal(err)
			}
			sizes[int(fi.Size())] = true
			if i%250 != 0 {
				continue
			}
			disk := read(t, raw, "log")
			if rest := disk[headerSize+len(want):]; !full && (len(rest) > logStep+pageSize || !allZero(rest)) {
				t.Fatalf("%s: %d bytes lie behind %d, or not all are zero", name, len(rest), len(want))
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if got := read(t, New(raw, testKey), "log"); !bytes.HasPrefix(got, want) || full && len(got) != len(want) {
			t.Errorf("%s: reads %d bytes, not those that were written", name, len(got))
		}
		if n := len(sizes); !full && n > 4 {
			t.Errorf("%s: had %d sizes", name, n)
		}
	}
}

func TestRefused(t *testing.T) {
	raw := vfs.NewMem()
	fs := New(raw, testKey)
	write(t, fs, "sealed", []byte("x"))
	write(t, raw, "plain", bytes.Repeat([]byte("y"), 100))
	newer, _, err := encodeHeader(testKey, [16]byte{})
	if err != nil {
		t.Fatal(err)
	}
	newer[11]++
	write(t, raw, "newer", newer)
	for name, want := range map[string]error{"plain": ErrNotSealed, "newer": ErrVersion} {
		if _, err := fs.Open(name); !errors.Is(err, want) {
			t.Errorf("open %s: %v, want %v", name, err, want)
		}
	}
	if _, err := fs.OpenReadWrite("sealed", kind); !errors.Is(err, ErrRewrite) {
		t.Errorf("open to rewrite: %v", err)
	}
	f, err := fs.Create("f", kind)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, ErrRewrite) {
		t.Errorf("write anywhere: %v", err)
	}
	// What a crash leaves of a file that was never flushed is empty.
	write(t, raw, "torn", newer[:headerSize-1])
	write(t, raw, "lost", make([]byte, 5000))
	for _, name := range []string{"torn", "lost"} {
		if got := read(t, fs, name); len(got) != 0 {
			t.Errorf("%s reads %q", name, got)
		}
	}
	if d, err := fs.OpenDir(""); err != nil {
		t.Error(err)
	} else if err := errors.Join(d.Sync(), d.Close()); err != nil {
		t.Error(err)
	}
}

func openDB(t testing.TB, fs vfs.FS) *pebble.DB {
	t.Helper()
	db, err := pebble.Open("db", &pebble.Options{FS: fs, FormatMajorVersion: pebble.FormatNewest,
		MemTableSize: 256 << 10, Logger: silent{}})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

type silent struct{}

func (silent) Infof(string, ...any)           {}
func (silent) Errorf(string, ...any)          {}
func (silent) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }

func key(i int) []byte   { return fmt.Appendf(nil, "planted-key-%06d", i) }
func value(i int) []byte { return []byte(strings.Repeat(fmt.Sprintf("planted-value-%06d ", i), 20)) }

// TestPebble runs a database through flushes, compactions, recycled logs,
// restarts and crashes, on disks as crashes leave them.
func TestPebble(t *testing.T) {
	disk := vfs.NewCrashableMem()
	rng := rand.New(rand.NewPCG(3, 4))
	n := 0
	for round := range 8 {
		db := openDB(t, New(disk, testKey))
		for i := range n {
			v, closer, err := db.Get(key(i))
			if err != nil || !bytes.Equal(v, value(i)) {
				t.Fatalf("round %d: key %d: %v", round, i, err)
			}
			if err := closer.Close(); err != nil {
				t.Fatal(err)
			}
		}
		for range 1500 {
			if err := db.Set(key(n), value(n), pebble.NoSync); err != nil {
				t.Fatal(err)
			}
			n++
		}
		if err := db.LogData(nil, pebble.Sync); err != nil {
			t.Fatal(err)
		}
		crashed := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50}[round%2], RNG: rng})
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		wantNothingPlanted(t, disk, "db")
		if round%3 > 0 {
			disk = crashed
		}
	}
}

func wantNothingPlanted(t *testing.T, disk vfs.FS, dir string) {
	t.Helper()
	names, err := disk.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for _, name := range names {
		if strings.Contains(name, "planted") {
			t.Errorf("planted text in the name %s", name)
		}
		fi, err := disk.Stat(disk.PathJoin(dir, name))
		if err != nil || fi.IsDir() {
			continue
		}
		files++
		if bytes.Contains(read(t, disk, disk.PathJoin(dir, name)), []byte("planted")) {
			t.Errorf("planted text in %s", name)
		}
	}
	if files < 3 {
		t.Errorf("only %d files", files)
	}
}

// TestGolden holds the format.
func TestGolden(t *testing.T) {
	h, c, err := encodeHeader(testKey, [16]byte{7, 7})
	if err != nil {
		t.Fatal(err)
	}
	content := []byte("what pebble writes")
	c.xor(content, 0)
	if got := hex.EncodeToString(append(h, content...)); got != golden {
		t.Fatalf("file is\n%s, want\n%s", got, golden)
	}
	raw := vfs.NewMem()
	b, err := hex.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	write(t, raw, "f", b)
	if got := read(t, New(raw, testKey), "f"); string(got) != "what pebble writes" {
		t.Fatalf("opened as %q", got)
	}
}

const golden = "6676727365616c0a000000010000000007070000000000000000000000000000" +
	"3a719553aaffeda51ceb92ef2ffb7b9926f9b599270cfd67b7a7eb0c18964e24" +
	"411394df3c4aca0a01087e3ba0fb416e8fa7"

// FuzzOpen opens arbitrary bytes as a sealed file.
func FuzzOpen(f *testing.F) {
	h, _, err := encodeHeader(testKey, [16]byte{1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(h, "content"...))
	f.Add(h)
	f.Add(h[:20])
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, raw []byte) {
		disk := vfs.NewMem()
		write(t, disk, "f", raw)
		file, err := New(disk, testKey).Open("f")
		if err != nil {
			return
		}
		defer file.Close()
		got, err := io.ReadAll(file)
		if err != nil || len(got) > max(0, len(raw)-headerSize) {
			t.Fatalf("%d bytes of %d: %v", len(got), len(raw), err)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	for _, c := range []struct {
		name string
		fs   vfs.FS
	}{{"plain", vfs.Default}, {"sealed", New(vfs.Default, testKey)}} {
		b.Run(c.name, func(b *testing.B) {
			f, err := c.fs.Create(b.TempDir()+"/f", kind)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			buf := make([]byte, 32<<10)
			b.SetBytes(int64(len(buf)))
			for b.Loop() {
				if _, err := f.Write(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReadAt(b *testing.B) {
	for _, c := range []struct {
		name string
		fs   vfs.FS
	}{{"plain", vfs.Default}, {"sealed", New(vfs.Default, testKey)}} {
		b.Run(c.name, func(b *testing.B) {
			name := b.TempDir() + "/f"
			write(b, c.fs, name, make([]byte, 1<<20))
			f, err := c.fs.Open(name)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			buf := make([]byte, 4<<10)
			b.SetBytes(int64(len(buf)))
			for b.Loop() {
				if _, err := f.ReadAt(buf, 4096*rand.Int64N(255)+7); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
