package readaround

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// noting is a file system that notes what is asked for ahead.
type noting struct {
	vfs.FS
	asked *[]int64
}

func (n noting) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := n.FS.Open(name, opts...)
	return notingFile{f, n.asked}, err
}

type notingFile struct {
	vfs.File
	asked *[]int64
}

func (f notingFile) Prefetch(off, n int64) error {
	if n == window {
		*f.asked = append(*f.asked, off)
	}
	return f.File.Prefetch(off, n)
}

func TestEachWindowIsAskedForOnce(t *testing.T) {
	var asked []int64
	mem := vfs.NewMem()
	content := make([]byte, 5*window/2)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	w, err := mem.Create("table", "test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(slices.Clone(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	open := func(opts ...vfs.OpenOption) func(off, n int) {
		f, err := FS{noting{mem, &asked}}.Open("table", opts...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return func(off, n int) {
			t.Helper()
			b := make([]byte, n)
			if _, err := f.ReadAt(b, int64(off)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, content[off:off+n]) {
				t.Errorf("%d bytes at %d are not what was written", n, off)
			}
		}
	}
	read := open(vfs.RandomReadsOption)
	for _, step := range []struct {
		off, n int
		want   []int64
	}{
		{window + 5, 4096, []int64{window}},
		{window + 9000, 4096, nil},
		{window - 10, 20, []int64{0}},
		{2*window - 10, 20, []int64{2 * window}},
		{0, 5 * window / 2, nil},
	} {
		asked = nil
		read(step.off, step.n)
		if !slices.Equal(asked, step.want) {
			t.Errorf("%d bytes at %d: asked for %v, not %v", step.n, step.off, asked, step.want)
		}
	}
	asked = nil
	open()(0, 4096)
	open(vfs.SequentialReadsOption)(0, 4096)
	if asked != nil {
		t.Errorf("asked for %v of a file that is not read at random", asked)
	}
}

// A table that has more windows than are remembered is read as usual behind them, and so is what is in front of it.
func TestBeyondWindows(t *testing.T) {
	var asked []int64
	f := &file{File: notingFile{endless{}, &asked}}
	b := make([]byte, 10)
	for _, w := range []int64{maxWindows - 1, maxWindows, 1 << 40, -1, -maxWindows} {
		if _, err := f.ReadAt(b, w*window); err != nil {
			t.Fatal(err)
		}
	}
	if want := []int64{(maxWindows - 1) * window}; !slices.Equal(asked, want) {
		t.Errorf("asked for %v, not %v", asked, want)
	}
}

// endless is a file that has something at every place.
type endless struct{ vfs.File }

func (endless) ReadAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (endless) Prefetch(int64, int64) error           { return nil }
