package accept

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestStreaming reads files that are only on the other side of a link of 200 Mbit/s and 40 ms
// round trip: from the beginning to the end, and at random.
func TestStreaming(t *testing.T) {
	const (
		trip = 40 * time.Millisecond
		rate = 200e6 / 8
	)
	size := scale(int64(64<<20), 1<<30)
	fsmount(t)
	l := newLAN(t, 1)
	dir := t.TempDir()
	a := &node{t: t, data: filepath.Join(dir, "data"), mnt: filepath.Join(dir, "a"), listen: "127.0.0.1:4747", netns: l.hosts[0]}
	must(t, os.Mkdir(a.mnt, 0o755))
	a.start()
	inOrder := writeRandom(t, filepath.Join(a.mnt, "in-order"), size)
	writeRandom(t, filepath.Join(a.mnt, "at-random"), size)

	plain := plainRate(t, trip/2, rate, size/8)
	link := newThinLink(t, a.netns, a.listen, trip/2, rate)
	b := newNode(t, "b", strings.TrimSpace(a.command("invite", "--addr", link.l.Addr().String())))
	inStep(t, a, b)
	must(t, tryStat(filepath.Join(b.mnt, "in-order")))

	opened, first, all, sum := readAll(t, filepath.Join(b.mnt, "in-order"))
	got := float64(size) / all.Seconds()
	t.Logf("opened after %v, first byte %v (%.1f round trips) after that; %d MiB at %.1f MB/s, %.2f of the link; a plain TCP copy through it: %.2f",
		opened, first, first.Seconds()/trip.Seconds(), size>>20, got/1e6, got/rate, plain/rate)
	if sum != inOrder {
		t.Error("what was read is not what was written")
	}
	// In every test run others may be beside it, so only the whole one judges how long things take.
	if full && first > 4*trip {
		t.Errorf("the first byte took %v", first)
	}
	if full && got < 0.85*rate {
		t.Errorf("read at %.2f of the link", got/rate)
	}
	each := readAtRandom(t, filepath.Join(b.mnt, "at-random"), filepath.Join(a.mnt, "at-random"), size, scale(100, 500))
	t.Logf("4 KiB at random: %v each, %.2f round trips", each, each.Seconds()/trip.Seconds())
	if full && each > trip*12/10 {
		t.Errorf("a random read took %v", each)
	}
}

func tryStat(path string) error {
	_, err := os.Stat(path)
	return err
}

// writeRandom writes a file in which no block repeats, and returns what it hashes to.
func writeRandom(t testing.TB, path string, size int64) (sum [32]byte) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	h := sha256.New()
	src := rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32.32s", filepath.Base(path)))))
	_, err = io.CopyBuffer(io.MultiWriter(struct{ io.Writer }{f}, h), io.LimitReader(src, size), make([]byte, 1<<20))
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
	return [32]byte(h.Sum(nil))
}

// readAll reads a file from its beginning and returns how long the open took, how long after it the first
// byte was there, and how long all took.
func readAll(t testing.TB, path string) (opened, first, all time.Duration, sum [32]byte) {
	t.Helper()
	start := time.Now()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	opened = time.Since(start)
	b := make([]byte, 128<<10)
	_, err = io.ReadFull(f, b[:1])
	must(t, err)
	first = time.Since(start) - opened
	h := sha256.New()
	h.Write(b[:1])
	_, err = io.CopyBuffer(h, struct{ io.Reader }{f}, b)
	must(t, err)
	return opened, first, time.Since(start), [32]byte(h.Sum(nil))
}

// readAtRandom reads 4 KiB at places of a file that were not read before, compares them with
// another copy, and returns the mean time of one, the open included.
func readAtRandom(t testing.TB, path, other string, size int64, times int) time.Duration {
	t.Helper()
	g, err := os.Open(other)
	must(t, err)
	defer g.Close()
	blocks := rand.Perm(int(size >> 16))[:times]
	var sum time.Duration
	start := time.Now()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	sum += time.Since(start)
	b, want := make([]byte, 4096), make([]byte, 4096)
	for _, i := range blocks {
		off := int64(i)<<16 + int64(rand.IntN(15))<<12
		start := time.Now()
		_, err := f.ReadAt(b, off)
		sum += time.Since(start)
		must(t, err)
		_, err = g.ReadAt(want, off)
		must(t, err)
		if string(b) != string(want) {
			t.Fatalf("at %d stands what was not written there", off)
		}
	}
	return sum / time.Duration(times)
}

// plainRate returns how many bytes per second one TCP connection gets through such a link.
func plainRate(t testing.TB, delay time.Duration, rate float64, size int64) float64 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.CopyBuffer(struct{ io.Writer }{c}, io.LimitReader(rand.NewChaCha8([32]byte{}), size), make([]byte, 64<<10))
	}()
	link := newThinLink(t, "", l.Addr().String(), delay, rate)
	c, err := net.Dial("tcp", link.l.Addr().String())
	must(t, err)
	defer c.Close()
	start := time.Now()
	n, err := io.Copy(io.Discard, c)
	must(t, err)
	if n != size {
		t.Fatalf("%d of %d bytes came through", n, size)
	}
	return float64(n) / time.Since(start).Seconds()
}
