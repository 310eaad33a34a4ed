package accept

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestJoin lets a second machine join a volume of many files: any of it can be
// listed, looked at and opened within seconds, though the contents are elsewhere. It takes a checkpoint or, where there is
// none, the logs.
func TestJoin(t *testing.T) {
	t.Run("from a checkpoint", func(t *testing.T) { testJoin(t, eager(t, scale(1000, 50_000), year, year), true) })
	t.Run("from the logs", func(t *testing.T) { testJoin(t, eager(t, 1<<40, year, year), false) })
}

func testJoin(t *testing.T, bin string, checkpoint bool) {
	files, limit := scale(3000, 100_000), 10*time.Second
	a := newNodeOf(t, bin, "a", "")
	for i := range files {
		dir := filepath.Join(a.mnt, fmt.Sprint("dir", i%100))
		if i < 100 {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("file", i)), fmt.Appendf(nil, "content of %d", i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if checkpoint {
		a.dropped(uint64(files) / 2)
	}
	last := fmt.Sprintf("dir%d/file%d", (files-1)%100, files-1)
	invite := a.command("invite")
	start := time.Now()
	b := newNodeOf(t, bin, "b", invite[:len(invite)-1])
	mount := time.Since(start)
	b.until(time.Minute, "the last file", func() bool {
		_, err := os.Stat(filepath.Join(b.mnt, last))
		return err == nil
	})
	got, err := os.ReadFile(filepath.Join(b.mnt, last))
	if want := fmt.Sprint("content of ", files-1); err != nil || string(got) != want {
		t.Fatalf("%s holds %q: %v", last, got, err)
	}
	if list, err := os.ReadDir(b.mnt); err != nil || len(list) != 100 {
		t.Fatalf("%d directories: %v", len(list), err)
	}
	took := time.Since(start)
	if began := strings.Contains(b.log.String(), "began from a checkpoint"); began != checkpoint {
		t.Errorf("began from a checkpoint: %v", began)
	}
	if n := countFiles(t, b.mnt); n != files {
		t.Fatalf("%d files, not %d", n, files)
	}
	t.Logf("%d files: mounted after %.2f s, the last one looked at, opened and read and the root listed after %.2f s, all listed and looked at after %.2f s",
		files, mount.Seconds(), took.Seconds(), time.Since(start).Seconds())
	if took > limit {
		t.Errorf("not usable within %v", limit)
	}
}

// countFiles lists and stats a whole tree.
func countFiles(t *testing.T, root string) (n int) {
	t.Helper()
	err := filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n++
		_, err = d.Info()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
