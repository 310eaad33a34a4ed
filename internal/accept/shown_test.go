package accept

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shown is what a mount shows: path below its root → what is there.
type shown map[string]thing

// thing is what a path shows; things of two mounts that look alike are equal.
type thing struct {
	mode  fs.FileMode // kind and permissions
	links uint64
	size  int64  // 0 for directories
	key   string // of the content or target, see keyOf; empty for directories
	first string // the first path of the same file, where it has several names
}

func (e thing) String() string {
	return fmt.Sprintf("%v links %d size %d %.16s first %q", e.mode, e.links, e.size, e.key, e.first)
}

// show walks a mount. An error may come from changes under way.
func show(root string) (shown, error) {
	out := shown{}
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		out[rel], err = look(path, rel, first)
		return err
	})
	return out, err
}

func look(path, rel string, first map[uint64]string) (e thing, err error) {
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		return e, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	e.links = st.Nlink
	info, err := os.Lstat(path)
	if err != nil {
		return e, err
	}
	if e.mode = info.Mode(); e.mode.IsDir() {
		return e, nil
	}
	if e.size, e.key = st.Size, keyOf(path); e.key == "" {
		return e, fmt.Errorf("%s cannot be read", path)
	}
	if e.links > 1 {
		if first[st.Ino] == "" { // the walk is in order of names
			first[st.Ino] = rel
		}
		e.first = first[st.Ino]
	}
	return e, nil
}

// keyOf names the content of a file or the target of a symbolic link; it is empty
// for anything else, and if there is nothing to be read.
func keyOf(path string) string {
	info, err := os.Lstat(path)
	if err != nil {
		return ""
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return ""
		}
		return targetKey(target)
	case info.Mode().IsRegular():
		content, err := os.ReadFile(path)
		if err != nil {
			return ""
		}
		return contentKey(content)
	}
	return ""
}

func contentKey(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func targetKey(target string) string { return "-> " + target }

// differences says in what two trees differ; empty: in nothing.
func differences(a, b shown) string {
	paths := slices.Sorted(maps.Keys(a))
	for p := range b {
		if _, ok := a[p]; !ok {
			paths = append(paths, p)
		}
	}
	var out strings.Builder
	for _, p := range paths {
		x, inA := a[p]
		y, inB := b[p]
		if !inA || !inB || x != y {
			fmt.Fprintf(&out, "%q: %s | %s\n", p, has(x, inA), has(y, inB))
		}
	}
	return out.String()
}

func has(e thing, there bool) string {
	if !there {
		return "nothing"
	}
	return e.String()
}

// oneTree waits until all mounts show one tree, and returns it.
func oneTree(t testing.TB, limit time.Duration, nodes ...*node) (shown, time.Duration) {
	t.Helper()
	start := time.Now()
	tree, why := settle(nodes, limit)
	if why != "" {
		t.Fatalf("no one tree on all mounts within %v: %s", limit, tail(why))
	}
	return tree, time.Since(start)
}

// settle waits until all mounts show one tree and returns it, or in what they differ
// when the time is over.
func settle(nodes []*node, limit time.Duration) (shown, string) {
	start := time.Now()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		tree, why := compare(nodes)
		if why == "" || time.Since(start) > limit {
			return tree, why
		}
		<-tick.C
	}
}

func compare(nodes []*node) (shown, string) {
	var tree shown
	for i, n := range nodes {
		got, err := show(n.mnt)
		if err != nil {
			return nil, err.Error()
		}
		if i == 0 {
			tree = got
		} else if why := differences(tree, got); why != "" {
			return nil, fmt.Sprintf("%s | %s\n%s", filepath.Base(nodes[0].mnt), filepath.Base(n.mnt), why)
		}
	}
	return tree, ""
}
