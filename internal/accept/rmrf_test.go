package accept

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestRemoveAllAgainstEdits removes a big tree on one side of a cut network while
// the other edits ten of its files: those survive with their directories, the rest is gone.
func TestRemoveAllAgainstEdits(t *testing.T) {
	fsmount(t)
	l := newLAN(t, 2)
	nodes := l.mounts(fsmount(t))
	a, b := nodes[0], nodes[1]
	files := plant(t, a, scale(2000, 50_000))
	until(t, scale(20*time.Second, 5*time.Minute), "all files on B", func() bool { return count(b.mnt) == count(a.mnt) })
	a.command("wait", "--timeout", scale("20s", "5m"))

	l.cut(1, pullSilent)
	took := timed(func() { run(t, a.mnt, "rm", "-rf", "tree") })
	if left := count(a.mnt); left != 1 {
		t.Fatalf("rm -rf left %d paths", left)
	}
	want := edits(t, b, files)
	l.join(1)
	tree, heal := oneTree(t, scale(10*time.Second, 60*time.Second), a, b)
	t.Logf("rm -rf of %d files %.2f s, one tree %.2f s after the network was back", len(files), took.Seconds(), heal.Seconds())

	noConflicts(t, tree)
	for path, e := range tree {
		if e.mode.IsRegular() && e.key != want[path] {
			t.Errorf("%s survived without its edit", path)
		}
	}
	for path, key := range want {
		if tree[path].key != key {
			t.Errorf("the edit of %s is lost: %v", path, tree[path])
		}
	}
	if got := len(tree); got != len(want) {
		t.Errorf("%d paths are left, want the %d files that were edited and their directories", got, len(want))
	}
	t.Run("history", func(t *testing.T) { bringBack(t, a, b, files, want) })
}

// perDir is how many files, and directories of files, a directory has.
const perDir = 10

// plant makes n files, two directories deep, and returns their paths.
func plant(t *testing.T, a *node, n int) (files []string) {
	t.Helper()
	for i := range n {
		dir := filepath.Join("tree", fmt.Sprintf("d%d", i/perDir/perDir), fmt.Sprintf("e%d", i/perDir%perDir))
		if i%perDir == 0 {
			if err := os.MkdirAll(filepath.Join(a.mnt, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(dir, fmt.Sprintf("f%d", i%perDir))
		at(a).write(path, original(path))
		files = append(files, path)
	}
	return files
}

func original(path string) string { return "original of " + path }

// edits edits ten of the files and returns what must be left: their paths and those
// of their directories, with the keys of the contents.
func edits(t *testing.T, n *node, files []string) map[string]string {
	t.Helper()
	want := map[string]string{".": ""}
	for i := range 10 {
		path := files[i*len(files)/10+i%perDir]
		content := "edited " + path
		at(n).write(path, content)
		want[path] = contentKey([]byte(content))
		for dir := filepath.Dir(path); dir != "."; dir = filepath.Dir(dir) {
			want[dir] = ""
		}
	}
	return want
}

// count returns how many paths there are below root, itself included.
func count(root string) (n int) {
	_ = filepath.WalkDir(root, func(_ string, _ fs.DirEntry, err error) error {
		if err == nil {
			n++
		}
		return nil
	})
	return n
}

// historyRef names a content in what fsmount history prints.
var historyRef = regexp.MustCompile(`\b[0-9a-f]{8}\b`)

// bringBack restores one of the removed files from history.
func bringBack(t *testing.T, a, b *node, files []string, left map[string]string) {
	if help, err := a.try(nil, "history", "--help"); err != nil || !strings.Contains(help, "fsmount history") {
		t.Skip("this fsmount has no history yet")
	}
	var gone string
	for _, path := range files {
		if _, kept := left[path]; !kept {
			gone = path
			break
		}
	}
	out := a.command("history", "/"+gone)
	refs := historyRef.FindAllString(out, -1)
	if len(refs) != 1 {
		t.Fatalf("history of a removed file that had one content names %d:\n%s", len(refs), out)
	}
	if _, err := os.Stat(filepath.Join(a.mnt, gone)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("asking for its history brought it back: %v", err)
	}
	a.command("restore", "/"+gone, "--at", refs[0])
	for _, n := range []*node{a, b} {
		until(t, 10*time.Second, "the restored file on "+filepath.Base(n.mnt), func() bool {
			got, err := os.ReadFile(filepath.Join(n.mnt, gone))
			return err == nil && string(got) == original(gone)
		})
	}
	tree, _ := oneTree(t, 10*time.Second, a, b)
	noConflicts(t, tree)
}
