package accept

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestPJDFSTest runs the public suite pjdfstest, built in the directory that
// FOREVER_PJDFSTEST names, on a mount and on the file system of the test's own
// directory. Whatever holds there must hold on the mount.
func TestPJDFSTest(t *testing.T) {
	checkout := os.Getenv("FOREVER_PJDFSTEST")
	if checkout == "" {
		t.Skip("FOREVER_PJDFSTEST names no built checkout of github.com/pjd/pjdfstest")
	}
	n := newNode(t, "pjd", "", "--allow-other")
	native := openTempDir(t)
	suite := copyPJDFSTest(t, checkout)
	var scripts []string
	for _, pattern := range []string{"tests/*.t", "tests/*/*.t"} {
		found, err := filepath.Glob(filepath.Join(suite, pattern))
		if err != nil {
			t.Fatal(err)
		}
		scripts = append(scripts, found...)
	}
	if len(scripts) == 0 {
		t.Fatalf("%s holds no tests", checkout)
	}
	c := &comparison{suite: suite, roots: [2]string{n.mnt, native}}
	c.runAll(t, scripts)
	t.Logf("%d files, %d assertions hold natively, %d on the mount", len(scripts), c.held[1], c.held[0])
	if c.held[1] == 0 {
		t.Error("nothing holds natively: the suite did not run")
	}
}

// openTempDir returns a directory of the local file system that every user may enter.
func openTempDir(t *testing.T) string {
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// copyPJDFSTest copies the suite, so that it can be told to expect of the mount what it
// expects of ext4: by itself it asks less of what it does not know.
func copyPJDFSTest(t *testing.T, checkout string) string {
	to := openTempDir(t)
	if err := os.CopyFS(filepath.Join(to, "tests"), os.DirFS(filepath.Join(checkout, "tests"))); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(checkout, "pjdfstest")); errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%s is not built: autoreconf -ifs && ./configure && make pjdfstest", checkout)
	}
	run(t, "", "cp", filepath.Join(checkout, "pjdfstest"), to)
	conf, err := os.OpenFile(filepath.Join(to, "tests", "conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer conf.Close()
	if _, err := conf.WriteString("\nfs=EXT4\n"); err != nil {
		t.Fatal(err)
	}
	return to
}

// comparison runs scripts on two file systems: roots[0] is ours.
type comparison struct {
	suite string
	roots [2]string

	mu   sync.Mutex
	held [2]int
}

// runAll runs the scripts, a few at a time.
func (c *comparison) runAll(t *testing.T, scripts []string) {
	work := make(chan string)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for script := range work {
				c.compare(t, script)
			}
		})
	}
	for _, s := range scripts {
		work <- s
	}
	close(work)
	wg.Wait()
}

// compare runs one script on both sides.
func (c *comparison) compare(t *testing.T, script string) {
	name, _ := filepath.Rel(filepath.Join(c.suite, "tests"), script)
	var got [2]map[int]assertion
	for side, root := range c.roots {
		var err error
		if got[side], err = runTAP(script, filepath.Join(root, strings.ReplaceAll(name, "/", "-"))); err != nil {
			t.Errorf("%s in %s: %v", name, root, err)
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for side := range got {
		for _, a := range got[side] {
			if a.holds {
				c.held[side]++
			}
		}
	}
	if len(got[0]) != len(got[1]) {
		t.Errorf("%s: %d assertions on the mount, %d natively", name, len(got[0]), len(got[1]))
	}
	for _, num := range slices.Sorted(maps.Keys(got[1])) {
		ours, theirs := got[0][num], got[1][num]
		switch {
		case ours.holds == theirs.holds:
		case ours.holds:
			t.Logf("%s %d holds on the mount only: %s", name, num, theirs.line)
		default:
			t.Errorf("%s %d holds natively only: %s", name, num, ours.line)
		}
	}
}

// assertion is one line of the Test Anything Protocol.
type assertion struct {
	holds bool
	line  string
}

// runTAP runs a script in a new directory and returns its assertions by number.
func runTAP(script, dir string) (map[int]assertion, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", script)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, tail(string(out)))
	}
	found := map[int]assertion{}
	for lines := bufio.NewScanner(strings.NewReader(string(out))); lines.Scan(); {
		line := lines.Text()
		rest, ok := strings.CutPrefix(strings.TrimPrefix(line, "not "), "ok ")
		word, _, _ := strings.Cut(rest, " ")
		if num, err := strconv.Atoi(word); ok && err == nil {
			found[num] = assertion{holds: strings.HasPrefix(line, "ok "), line: line}
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no assertions\n%s", tail(string(out)))
	}
	return found, nil
}
