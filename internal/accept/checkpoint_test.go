package accept

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// eager builds the command so that it makes a checkpoint of every handful of ops, and goes on
// without a device that was silent, or forgets history, after a few seconds.
func eager(t testing.TB, ops int, forgetAfter, keep time.Duration) string {
	t.Helper()
	fsmount(t) // skips where nothing can be mounted
	bin := filepath.Join(t.TempDir(), "fsmount")
	set := fmt.Sprintf("-X 'main.checkpointing=100ms %d %v %v'", ops, forgetAfter, keep)
	run(t, "", "go", "build", "-o", bin, "-ldflags", set, "github.com/foreverfs/forever/cmd/fsmount")
	return bin
}

// dropped waits until a node has dropped the logs before a checkpoint of at least so many ops.
func (n *node) dropped(ops uint64) {
	n.t.Helper()
	n.until(30*time.Second, "a checkpoint", func() bool {
		cp := n.status().Checkpoint
		return cp != nil && cp.Dropped && cp.Ops >= ops
	})
}

// fill makes files of different contents.
func (d dir) fill(name string, count int) {
	d.t.Helper()
	d.mkdir(name)
	for i := range count {
		d.write(fmt.Sprintf("%s/%d", name, i), fmt.Sprintf("%s %d", name, i))
	}
}

func (d dir) exists(name string) bool {
	_, err := os.Lstat(d.at(name))
	return err == nil
}

// TestCheckpoint: members agree on a checkpoint and drop the logs before it; who
// joins then begins from it, and takes part like the others. So does a member that was
// away for a moment, and one whose node was killed.
func TestCheckpoint(t *testing.T) {
	l := newLAN(t, 3)
	bin := eager(t, 400, time.Hour, year)
	a := l.newNodeOf(bin, 0, "")
	b := l.newNodeOf(bin, 1, strings.TrimSpace(a.command("invite")))
	at(a).fill("one", 500)
	a.dropped(500)
	b.dropped(500)
	at(b).fill("two", 100)
	c := l.newNodeOf(bin, 2, strings.TrimSpace(a.command("invite")))
	if !strings.Contains(c.log.String(), "began from a checkpoint") {
		t.Errorf("the third did not begin from a checkpoint:\n%s", c.log)
	}
	allInStep(t, a, b, c)
	oneTree(t, 10*time.Second, a, b, c)
	at(c).fill("three", 500)
	at(c).remove("one/7")
	oneTree(t, 10*time.Second, a, b, c)
	for _, n := range []*node{a, b, c} {
		n.dropped(1500)
	}
	l.cut(2, pullOwn)
	at(c).fill("four", 50)
	at(a).fill("five", 500)
	l.join(2)
	tree, _ := oneTree(t, 10*time.Second, a, b, c)
	for _, name := range []string{"four/49", "five/499", "one/8"} {
		if _, ok := tree[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
	for _, n := range []*node{a, b, c} {
		n.dropped(2000)
		n.kill()
		n.start()
	}
	allInStep(t, a, b, c)
	again, _ := oneTree(t, 20*time.Second, a, b, c)
	if d := differences(tree, again); d != "" {
		t.Errorf("after a restart of all: %s", d)
	}
	noConflicts(t, again)
}

// TestForget: what was removed or replaced for longer than history is kept is forgotten, on every
// device alike, and nothing else.
func TestForget(t *testing.T) {
	bin := eager(t, 200, time.Hour, 4*time.Second)
	a := newNodeOf(t, bin, "a", "")
	b := newNodeOf(t, bin, "b", strings.TrimSpace(a.command("invite")))
	at(a).write("edited", "one")
	at(a).write("removed", "gone")
	at(a).save("edited", "two")
	oneTree(t, 10*time.Second, a, b)
	at(b).write("edited", "three")
	at(b).remove("removed")
	if h := a.history("removed"); !strings.Contains(h, "removed") {
		t.Fatalf("no history of what was just removed: %q", h)
	}
	for i := 0; ; i++ {
		at(a).fill(fmt.Sprint("more", i), 60)
		at(b).write("edited too", fmt.Sprint(i))
		if a.history("removed") == "" && b.history("removed") == "" {
			break
		}
		if i > 300 {
			t.Fatalf("still there:\n%s", a.history("removed"))
		}
	}
	tree, _ := oneTree(t, 10*time.Second, a, b)
	if !tree.contains("three") || !tree.contains("more0 59") {
		t.Error("what is there was forgotten")
	}
	for _, n := range []*node{a, b} {
		if h := n.history("edited"); strings.Count(h, "\n") != 2 { // a heading and what is there
			t.Errorf("history of an edited file:\n%s", h)
		}
	}
}

// history returns what a node knows of a path, nothing if that is nothing.
func (n *node) history(path string) string {
	out, err := n.try(nil, "history", path)
	if err != nil {
		return ""
	}
	return out
}

// flash runs the node for a moment, and kills it in whatever it is doing.
func (n *node) flash(life time.Duration) {
	n.t.Helper()
	cmd := n.invocation([]string{n.mnt, "--data", n.data, "--listen", n.listen})
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	time.Sleep(life) // the length of its life, no synchronisation
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	_ = syscall.Unmount(n.mnt, syscall.MNT_DETACH)
}

// TestReturn: the others go on without a member that is silent for too long. When it is
// back it begins anew, however often it is killed on the way, and what only it had is there beside what they did.
func TestReturn(t *testing.T) {
	t.Run("its node was down", func(t *testing.T) { testReturn(t, true) })
	t.Run("its node ran on", func(t *testing.T) { testReturn(t, false) })
}

func testReturn(t *testing.T, down bool) {
	l := newLAN(t, 3)
	bin := eager(t, 300, 3*time.Second, year)
	a := l.newNodeOf(bin, 0, "")
	b := l.newNodeOf(bin, 1, strings.TrimSpace(a.command("invite")))
	c := l.newNodeOf(bin, 2, strings.TrimSpace(a.command("invite")))
	at(a).fill("common", 40)
	at(a).write("edited", "before")
	at(a).write("kept", "before")
	oneTree(t, 10*time.Second, a, b, c)

	l.cut(2, pullOwn)
	at(c).fill("mine", 20)
	at(c).write("edited", "by the one that was away")
	at(c).write("common/5", "edited while it was being removed")
	at(c).remove("common/6")
	at(c).rename("kept", "kept under another name")
	if down {
		c.stop()
	}
	at(a).remove("common/5")
	at(a).write("edited", "by those that went on")
	at(b).write("mine", "a file where the other has a directory")
	for i := range 8 {
		at(a).fill(fmt.Sprint("more", i), 100)
		b.until(10*time.Second, "the files", func() bool { return at(b).exists(fmt.Sprintf("more%d/99", i)) })
	}
	a.dropped(900)
	b.dropped(900)

	l.join(2)
	if !down {
		c.until(30*time.Second, "the word that it must begin anew", func() bool {
			return strings.Contains(strings.Join(c.status().Problems, " "), "went on without this device")
		})
		c.stop()
	}
	for life := 5 * time.Millisecond; down && life < 300*time.Millisecond; life = life * 5 / 4 {
		c.flash(life)
	}
	c.start()
	if !down && !strings.Contains(c.log.String(), "carried the work of this device over") {
		t.Fatalf("it did not begin anew:\n%s", c.log)
	}
	tree, took := oneTree(t, 20*time.Second, a, b, c)
	allInStep(t, a, b, c)
	t.Logf("one tree after %.2f s", took.Seconds())
	for _, content := range []string{"by the one that was away", "by those that went on", "edited while it was being removed",
		"a file where the other has a directory", "mine 0", "mine 19", "more7 99", "common 7"} {
		if !tree.contains(content) {
			t.Errorf("content %q is missing", content)
		}
	}
	if p := c.status().Problems; len(p) > 0 {
		t.Errorf("problems: %v", p)
	}
	at(c).write("afterwards", "by the one that is back")
	at(a).write("afterwards too", "by another")
	oneTree(t, 10*time.Second, a, b, c)
	at(c).fill("again", 700)
	for _, n := range []*node{a, b, c} {
		n.dropped(1700)
	}
	if _, err := os.Stat(filepath.Join(b.mnt, "again/699")); err != nil {
		t.Error(err)
	}
	oneTree(t, 10*time.Second, a, b, c)
}
