package accept

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRecover loses both members of a volume, data directories and all, and has it back on an empty
// machine from the phrase and a keyless replica: the same tree, and what it was before.
func TestRecover(t *testing.T) {
	a := newNode(t, "a", "")
	phrase := strings.TrimSpace(lineAfter(a.log.String(), "Recovery phrase:"))
	b := newNode(t, "b", a.command("invite"))
	r := newReplica(t, "r", a)
	for i := range scale(50, 2000) {
		dir := fmt.Sprintf("dir %d", i%7)
		if err := os.MkdirAll(filepath.Join(a.mnt, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		a.write(filepath.Join(dir, fmt.Sprint(i)), strings.Repeat(fmt.Sprintln("content", i), i*scale(20, 5)))
	}
	b.until(10*time.Second, "the first tree on b", func() bool { return b.reads("dir 0/0", "") })
	b.write("letter", "the first version\n")
	b.command("wait", "--replicas", "2", "--timeout", "60s")
	time.Sleep(10 * time.Millisecond)
	b.write("letter", "the second version\n")
	if err := os.Remove(filepath.Join(b.mnt, "dir 1/1")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("letter", filepath.Join(b.mnt, "link")); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node{a, b} {
		n.command("wait", "--replicas", "2", "--timeout", "60s")
	}
	want, _ := oneTree(t, 10*time.Second, a, b)
	a.stop()
	b.stop()
	for _, n := range []*node{a, b} {
		if err := os.RemoveAll(n.data); err != nil {
			t.Fatal(err)
		}
	}

	n := &node{t: t, data: filepath.Join(t.TempDir(), "n-data"), mnt: filepath.Join(t.TempDir(), "n"), listen: ownAddress()}
	if err := os.Mkdir(n.mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	wrong := strings.Fields(phrase)
	wrong[0], wrong[1] = wrong[1], wrong[0]
	n.failsToRecover(strings.Join(wrong, " "), r, "recovery phrase")
	n.failsToRecover("no phrase at all", r, "recovery phrase")
	began := time.Now()
	if _, err := n.try(strings.NewReader(phrase+"\n"), "recover", "--from", r.listen); err != nil {
		t.Fatal(err)
	}
	n.start()
	n.until(20*time.Second, "the tree", func() bool { return n.reads("letter", "the second version\n") })
	t.Logf("mounted, with the last file, %v after the command began", time.Since(began).Round(time.Millisecond))
	got, err := show(n.mnt)
	if err != nil {
		t.Fatal(err)
	}
	if diff := differences(want, got); diff != "" {
		t.Fatal(diff)
	}

	// An older version comes back, and a removed file; the new device writes on.
	history := n.command("history", "letter")
	var first string
	for _, line := range strings.Split(history, "\n") {
		if strings.Contains(line, " 18 B ") { // there may be an empty one, of while it was being written
			first = historyRef.FindString(line)
		}
	}
	if first == "" {
		t.Fatalf("history of the letter:\n%s", history)
	}
	n.command("restore", "letter", "--at", first, "--to", "older")
	n.until(30*time.Second, "the older version", func() bool { return n.reads("older", "the first version\n") })
	n.write("new", "written after the disaster\n")
	n.command("wait", "--timeout", "30s")
	// The lost devices are thrown out; another joins.
	for _, d := range n.status().Devices {
		if !d.Self && d.Role == "member" {
			n.command("devices", "revoke", d.ID[:16])
		}
	}
	if left := len(n.status().Devices); left != 2 {
		t.Errorf("%d devices are left, not the new one and the replica", left)
	}
	n.write("new", "written after the revocation\n")
	m := newNode(t, "m", n.command("invite"))
	m.until(10*time.Second, "the tree on another", func() bool {
		return m.reads("new", "written after the revocation\n") && m.reads("older", "the first version\n")
	})
}
