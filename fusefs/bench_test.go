package fusefs

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkLookup looks up names that the kernel does not know yet.
func BenchmarkLookup(b *testing.B) {
	r := mount(b, nil)
	var st unix.Stat_t
	for i := 0; b.Loop(); i++ {
		_ = unix.Stat(r.path(fmt.Sprint(i)), &st)
	}
}

func BenchmarkCreate(b *testing.B) {
	r := mount(b, nil)
	for i := 0; b.Loop(); i++ {
		fd, err := unix.Open(r.path(fmt.Sprint(i)), unix.O_CREAT|unix.O_WRONLY, 0o600)
		must(b, err)
		must(b, unix.Close(fd))
	}
}

func BenchmarkReadCached(b *testing.B) { benchmarkRead(b, 0, 4096) }

// BenchmarkReadDirect reads past the kernel's cache, 4 KiB at a time.
func BenchmarkReadDirect(b *testing.B) { benchmarkRead(b, unix.O_DIRECT, 4096) }

// BenchmarkReadDirectLarge reads past the kernel's cache, 128 KiB at a time.
func BenchmarkReadDirectLarge(b *testing.B) { benchmarkRead(b, unix.O_DIRECT, 128<<10) }

func benchmarkRead(b *testing.B, flags, size int) {
	const fileSize = 512 << 10 // fits into the volume's cache
	r := mount(b, nil)
	r.write("f", string(make([]byte, fileSize-1))+"x")
	fd, err := unix.Open(r.path("f"), unix.O_RDONLY|flags, 0)
	must(b, err)
	defer unix.Close(fd)
	buf := make([]byte, size)
	b.SetBytes(int64(size))
	var off int64
	for b.Loop() {
		_, err := unix.Pread(fd, buf, off)
		must(b, err)
		off = (off + int64(size)*7) % fileSize &^ int64(size-1)
	}
}

func BenchmarkWrite(b *testing.B) {
	r := mount(b, nil)
	f, err := os.Create(r.path("f"))
	must(b, err)
	defer f.Close()
	buf := make([]byte, 128<<10)
	b.SetBytes(int64(len(buf)))
	for i := 0; b.Loop(); i++ {
		_, err := f.WriteAt(buf, int64(i%256)<<17)
		must(b, err)
	}
}
