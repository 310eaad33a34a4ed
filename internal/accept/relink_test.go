package accept

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLockOutlivesItsConnection resets the connection of two mounts, which have another one a moment later, while one
// of them holds a lock and the other waits for it: that gets it when it is unlocked, and not before. What is written at
// that moment is seen as ever once the file is closed.
func TestLockOutlivesItsConnection(t *testing.T) {
	fsmount(t)
	l := newLAN(t, 1)
	dir := t.TempDir()
	a := &node{t: t, data: filepath.Join(dir, "data"), mnt: filepath.Join(dir, "a"), listen: "127.0.0.1:4747", netns: l.hosts[0]}
	must(t, os.Mkdir(a.mnt, 0o755))
	a.start()
	link := newSlowLink(t, a.netns, a.listen, 10*time.Millisecond) // the only way to a
	b := newNode(t, "b", strings.TrimSpace(a.command("invite", "--addr", link.l.Addr().String())))
	since := inStep(t, a, b)
	p, q := opened(t, filepath.Join(b.mnt, "f"), 1)[0], opened(t, filepath.Join(a.mnt, "f"), 1)[0]
	b.write("g", "before\n")
	if !a.reads("g", "before\n") {
		t.Fatal("not in step")
	}
	p.do("ok", "flock f ex")
	q.begin("flock f ex")
	if !q.waits(6 * time.Second) { // as long as it takes for a connection to be had again soon
		t.Fatal("did not wait")
	}
	link.reset()
	b.write("g", "after\n")
	seen := a.reads("g", "after\n")
	until(t, 10*time.Second, "another connection", func() bool { return inStep(t, a, b).After(since) })
	waits := q.waits(time.Second)
	for _, n := range []*node{a, b} {
		if d := n.apart(); d > 400*time.Millisecond {
			t.Skipf("had no connection for %v, which nobody promises anything for", d)
		}
	}
	if !seen {
		t.Error("a closed file shows as it was before")
	}
	if !waits {
		t.Fatal("both have the lock")
	}
	p.do("ok", "flock f un")
	if got := q.answer(5 * time.Second); got != "ok" {
		t.Fatal(got)
	}
}

// apart returns how long the node had no connection when it lost one last, by its log.
func (n *node) apart() time.Duration {
	n.t.Helper()
	var lost, back time.Time
	for line := range strings.Lines(n.log.String()) {
		at, _ := time.Parse("2006-01-02T15:04:05.000Z", line[:min(24, len(line))])
		switch {
		case strings.Contains(line, " connected: "):
			back = at
		case strings.Contains(line, " disconnected: ") && !strings.Contains(line, "replaced"):
			lost = at
		}
	}
	if lost.IsZero() {
		n.t.Fatalf("lost no connection:\n%s", n.log)
	}
	return back.Sub(lost)
}
