package accept

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// backup copies the data directory of a node that does not run.
func (n *node) backup() string {
	n.t.Helper()
	to := filepath.Join(n.t.TempDir(), "backup")
	run(n.t, "", "cp", "-a", n.data, to)
	return to
}

// restore puts a copy in the place of the data directory of a node that does not run.
func (n *node) restore(from string) {
	n.t.Helper()
	run(n.t, "", "rm", "-rf", n.data)
	run(n.t, "", "cp", "-a", from, n.data)
}

func at(n *node) dir { return dir{n.t, n.mnt} }

// noConflicts fails the test if a tree has a conflict file.
func noConflicts(t *testing.T, tree shown) {
	t.Helper()
	for path := range tree {
		if conflictMark.MatchString(path) {
			t.Errorf("a conflict file that nobody caused: %q", path)
		}
	}
}

// TestTailLost has A's disk lose what B already received: after its next start A has
// it back from B, and both work on.
func TestTailLost(t *testing.T) {
	a, b := pair(t)
	at(a).mkdir("d")
	at(a).write("d/old", "before the copy")
	at(a).write("edited", "before the copy")
	oneTree(t, 10*time.Second, a, b)
	a.stop()
	copied := a.backup()

	a.start()
	for i := range 50 {
		at(a).write(fmt.Sprintf("d/tail%d", i), strings.Repeat(fmt.Sprint(i), 1+i*500))
	}
	at(a).write("edited", "in the tail")
	at(a).rename("d/old", "moved")
	at(a).link("edited", "second name")
	before, _ := oneTree(t, 10*time.Second, a, b)
	a.kill()
	a.restore(copied)
	a.start()
	after, took := oneTree(t, 10*time.Second, a, b)
	if diff := differences(before, after); diff != "" {
		t.Errorf("before the loss | after it\n%s", diff)
	}
	t.Logf("one tree %.2f s after A's start", took.Seconds())

	at(a).write("d/tail0", "written after the loss on A")
	at(b).write("d/tail1", "written after the loss on B")
	at(a).remove("d/tail2")
	at(b).remove("d/tail3")
	tree, _ := oneTree(t, 10*time.Second, a, b)
	noConflicts(t, tree)
	if want := len(before) - 2; len(tree) != want {
		t.Errorf("%d paths, want %d", len(tree), want)
	}
	for name, want := range map[string]string{"d/tail0": "written after the loss on A", "d/tail1": "written after the loss on B"} {
		if got := tree[name].key; got != contentKey([]byte(want)) {
			t.Errorf("%s is not what was written last", name)
		}
	}
}

// TestOldBackup restores a backup of A that is many batches old. Since then A has
// made, edited and removed files, B too; all of that must stay as it was, and what
// A writes before it meets B must be added to it.
func TestOldBackup(t *testing.T) {
	a, b := pair(t)
	at(a).write("by both", "0")
	at(a).write("removed later", "x")
	at(a).write("edited later", "x")
	at(a).write("untouched", "x")
	at(a).mkdir("dir removed later")
	at(a).write("dir removed later/f", "x")
	oneTree(t, 10*time.Second, a, b)
	a.stop()
	copied := a.backup()

	a.start()
	liveOn(t, a, b)
	before, _ := oneTree(t, 10*time.Second, a, b)
	a.command("wait", "--timeout", "30s")
	a.kill()
	a.restore(copied)
	a.start()
	after, took := oneTree(t, 10*time.Second, a, b)
	if diff := differences(before, after); diff != "" {
		t.Errorf("before the restore | after it\n%s", diff)
	}
	t.Logf("one tree of %d paths %.2f s after A's start", len(after), took.Seconds())

	t.Run("B counts on A only for what A has", func(t *testing.T) {
		b.command("wait", "--timeout", "30s")
		b.stop()
		alone, err := show(a.mnt)
		if err != nil {
			t.Fatalf("B's wait returned, but A lacks something: %v", err)
		}
		if diff := differences(before, alone); diff != "" {
			t.Errorf("with B | without it\n%s", diff)
		}
		b.start()
	})
	t.Run("restored again, and written to before it meets B", func(t *testing.T) {
		restoredAndWritten(t, a, b, copied)
	})
}

// liveOn has A and B make, edit and remove files in many batches.
func liveOn(t *testing.T, a, b *node) {
	t.Helper()
	for i := range 60 {
		n := []*node{a, b}[i%2]
		at(n).write(fmt.Sprintf("new%d", i), strings.Repeat(fmt.Sprintf("%d ", i), 1+i*400))
		at(a).write("by both", fmt.Sprint(i))
		at(a).write(fmt.Sprintf("short-lived%d", i), "made and removed by A")
		if i > 0 {
			at(a).remove(fmt.Sprintf("short-lived%d", i-1))
		}
		if i%20 == 0 {
			oneTree(t, 10*time.Second, a, b)
		}
	}
	oneTree(t, 10*time.Second, a, b)
	at(a).remove("removed later")
	at(a).write("edited later", "edited by A, after the backup")
	at(a).remove("dir removed later/f")
	at(a).remove("dir removed later")
}

// restoredAndWritten has A, back at its old state, write while B is away.
func restoredAndWritten(t *testing.T, a, b *node, copied string) {
	before, err := show(b.mnt)
	if err != nil {
		t.Fatal(err)
	}
	b.stop()
	a.kill()
	a.restore(copied)
	a.start()
	at(a).write("edited later", "edited by A, back at its old state")
	at(a).write("removed later", "edited by A, back at its old state, but removed before")
	at(a).write("dir removed later/new", "made by A, back at its old state")
	at(a).write("new0", "made by A, back at its old state")
	b.start()
	tree, _ := oneTree(t, 10*time.Second, a, b)
	for _, content := range []string{
		"edited by A, after the backup",
		"edited by A, back at its old state",
		"edited by A, back at its old state, but removed before",
		"made by A, back at its old state",
		strings.Repeat("0 ", 1),
	} {
		if !tree.contains(content) {
			t.Errorf("lost: %q", content)
		}
	}
	for path, e := range before {
		if !tree.containsKey(e.key) {
			t.Errorf("lost: what was at %q", path)
		}
	}
	if _, ok := tree["dir removed later/new"]; !ok {
		t.Error("a file made in a directory that had been removed is gone")
	}
}

func (s shown) contains(content string) bool { return s.containsKey(contentKey([]byte(content))) }

func (s shown) containsKey(key string) bool {
	for _, e := range s {
		if e.key == key {
			return true
		}
	}
	return false
}

// TestClone starts a copy of A's data directory beside the living A. The copy must be
// kept out and say why; A and B go on as if nothing had been. What was written
// into the copy is not lost: it goes to the others once A has ended.
func TestClone(t *testing.T) {
	a, b := pair(t)
	at(a).write("f", "before")
	oneTree(t, 10*time.Second, a, b)
	a.stop()
	copied := a.backup()
	a.start()
	at(a).write("g", "after the copy")
	before, _ := oneTree(t, 10*time.Second, a, b)

	clone := &node{t: t, data: copied, mnt: filepath.Join(t.TempDir(), "clone"), listen: ownAddress()}
	if err := os.Mkdir(clone.mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	clone.start()
	at(clone).write("in the copy", "written into the copy")
	until(t, 15*time.Second, "words about the copy in its status", func() bool {
		return strings.Contains(strings.Join(clone.status().Problems, "\n"), "copy of the data directory")
	})
	if got := clone.connected(); got != 0 {
		t.Errorf("the copy is connected with %d devices", got)
	}
	at(a).write("g", "A works on")
	at(b).write("h", "B works on")
	tree, _ := oneTree(t, 10*time.Second, a, b)
	noConflicts(t, tree)
	if len(tree) != len(before)+1 || !tree.contains("A works on") || !tree.contains("B works on") {
		t.Errorf("the tree is not what A and B made of it: %v", tree)
	}
	// One or two are as it should be: A and B may both dial at once.
	if log := b.log.String(); strings.Count(log, "replaced by another connection") > 3 {
		t.Errorf("A and the copy pushed each other out; B's log:\n%s", tail(log))
	}
	if problems := a.status().Problems; len(problems) > 0 {
		t.Errorf("A complains: %q", problems)
	}

	a.stop()
	tree, took := oneTree(t, 20*time.Second, clone, b)
	t.Logf("the copy was let in %.2f s after the end of A", took.Seconds())
	noConflicts(t, tree)
	for _, want := range []string{"A works on", "B works on", "written into the copy"} {
		if !tree.contains(want) {
			t.Errorf("lost: %q", want)
		}
	}
	if problems := clone.status().Problems; len(problems) > 0 {
		t.Errorf("the copy, now alone, complains: %q", problems)
	}
}
