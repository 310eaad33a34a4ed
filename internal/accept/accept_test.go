package accept

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// noise is an endless, incompressible stream that depends on its seed alone.
func noise(seed uint64) io.Reader {
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	return rand.NewChaCha8(key)
}

// sourceTree returns a real tree of files: the Go library, or a part of it.
func sourceTree(t testing.TB) string {
	t.Helper()
	return filepath.Join(goRoot(t), "src", scale("net", ""))
}

func goRoot(t testing.TB) string {
	t.Helper()
	return strings.TrimSpace(run(t, "", "go", "env", "GOROOT"))
}

// TestTreeCrossesOver copies a real source tree in through A and finds it on B, then
// edits and removes on B and finds that on A.
func TestTreeCrossesOver(t *testing.T) {
	a, b := pair(t)
	src := sourceTree(t)
	native := timed(func() { run(t, "", "cp", "-r", src, filepath.Join(t.TempDir(), "copy")) })
	ours := timed(func() { run(t, "", "cp", "-r", src, filepath.Join(a.mnt, "tree")) })
	same := func(x, y string) func() bool {
		return func() bool {
			out, err := tryRun("", "diff", "-r", x, y)
			if err != nil {
				t.Logf("not yet: %s", firstLines(out, 2))
			}
			return err == nil
		}
	}
	seen := until(t, scale(30*time.Second, 60*time.Second), "the whole tree on B", same(src, filepath.Join(b.mnt, "tree")))
	t.Logf("cp -r into A: %.2f s, to native ext4 %.2f s (%.1fx); diff -r on B clean %.2f s after cp's return", ours.Seconds(), native.Seconds(), ours.Seconds()/native.Seconds(), seen.Seconds())

	edited := filepath.Join("tree", scale("dial.go", "net/dial.go"))
	if err := os.WriteFile(filepath.Join(b.mnt, edited), []byte("// edited on B\n"), 0644); err != nil {
		t.Fatal(err)
	}
	gone := filepath.Join("tree", scale("http", "net/http"))
	rm := timed(func() { run(t, "", "rm", "-r", filepath.Join(b.mnt, gone)) })
	back := until(t, 30*time.Second, "B's changes on A", func() bool {
		got, err := os.ReadFile(filepath.Join(a.mnt, edited))
		_, errGone := os.Stat(filepath.Join(a.mnt, gone))
		return err == nil && string(got) == "// edited on B\n" && os.IsNotExist(errGone)
	})
	t.Logf("rm -r on B %.2f s, seen on A %.3f s later", rm.Seconds(), back.Seconds())
	until(t, 30*time.Second, "one tree on both", same(filepath.Join(a.mnt, "tree"), filepath.Join(b.mnt, "tree")))
}

func firstLines(s string, n int) string {
	lines := strings.SplitN(s, "\n", n+1)
	return strings.Join(lines[:min(n, len(lines))], "; ")
}

// TestReadWhileWritten reads a big file on B while A still writes its second half.
func TestReadWhileWritten(t *testing.T) {
	a, b := pair(t)
	size := scale[int64](96<<20, 4<<30)
	half := make(chan struct{})
	wrote := make(chan error, 1)
	start := time.Now()
	go func() { wrote <- writeNoise(filepath.Join(a.mnt, "big"), size, half) }()
	<-half
	name := filepath.Join(b.mnt, "big")
	until(t, 10*time.Second, "the file on B", func() bool { st, err := os.Stat(name); return err == nil && st.Size() > 0 })
	if err := compareGrowing(name, size, 60*time.Second); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB written on A and compared on B in %.2f s (%.0f MiB/s); peak RSS A %d MiB, B %d MiB",
		size>>20, took.Seconds(), float64(size>>20)/took.Seconds(), a.rss()>>20, b.rss()>>20)
	if limit := int64(400 << 20); a.rss() > limit || b.rss() > limit {
		t.Errorf("peak RSS over 400 MiB: A %d, B %d", a.rss()>>20, b.rss()>>20)
	}
}

// writeNoise writes size bytes of noise and closes half when half is written.
func writeNoise(name string, size int64, half chan struct{}) error {
	f, err := os.Create(name)
	if err != nil {
		close(half)
		return err
	}
	src := noise(1)
	_, err = io.CopyN(f, src, size/2)
	close(half)
	if err == nil {
		_, err = io.CopyN(f, src, size-size/2)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// compareGrowing compares a file that still grows with the noise it should hold.
func compareGrowing(name string, size int64, patience time.Duration) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	want, src := make([]byte, 1<<20), noise(1)
	got := make([]byte, 1<<20)
	moved := time.Now()
	for off := int64(0); off < size; {
		n, err := f.ReadAt(got[:min(int64(len(got)), size-off)], off)
		if err != nil && err != io.EOF {
			return err
		}
		if n == 0 {
			if time.Since(moved) > patience {
				return fmt.Errorf("nothing new at %d for %v", off, patience)
			}
			time.Sleep(5 * time.Millisecond) // paces the polling only
			continue
		}
		if _, err := io.ReadFull(src, want[:n]); err != nil {
			return err
		}
		if !bytes.Equal(got[:n], want[:n]) {
			return fmt.Errorf("bytes differ in [%d, %d)", off, off+int64(n))
		}
		off, moved = off+int64(n), time.Now()
	}
	return nil
}

// TestPutGet moves a big file through the command and reads the same bytes through the mount.
func TestPutGet(t *testing.T) {
	a, b := pair(t)
	size := scale[int64](64<<20, 1<<30)
	sum := func(r io.Reader) string {
		h := sha256.New()
		if _, err := io.Copy(h, r); err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(h.Sum(nil))
	}
	want := sum(io.LimitReader(noise(7), size))
	put := timed(func() {
		if _, err := a.try(io.LimitReader(noise(7), size), "put", "-", "/piped"); err != nil {
			t.Fatal(err)
		}
	})
	if out := run(t, "", "sha256sum", filepath.Join(a.mnt, "piped")); !strings.HasPrefix(out, want) {
		t.Errorf("through the mount: %s, want %s", out, want)
	}
	get := timed(func() {
		cmd := exec.Command(fsmount(t), "get", "/piped", "-", "--data", b.data)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if got := sum(out); got != want {
			t.Errorf("get on B: %s, want %s", got, want)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("%d MiB: put %.2f s, get on the other node %.2f s; peak RSS A %d MiB, B %d MiB", size>>20, put.Seconds(), get.Seconds(), a.rss()>>20, b.rss()>>20)
}
