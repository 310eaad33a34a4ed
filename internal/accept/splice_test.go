package accept

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSplice has two members that cannot reach each other, as behind two NATs, work through a keyless replica that
// both reach: in step, and with contents that the replica itself has no room for. When it dies another one
// takes its place; when they can reach each other they do without.
func TestSplice(t *testing.T) {
	l := newLAN(t, 4)
	a := l.newNode(0, "")
	b := l.newNode(1, a.command("invite"))
	var middle []*node
	for host := 2; host < 4; host++ {
		r := &node{t: t, serves: true, data: filepath.Join(t.TempDir(), "data"), mnt: fmt.Sprint("r", host), listen: address(host) + ":4747", netns: l.hosts[host]}
		join := r.invocation([]string{"join", "--quota", "1MiB", "--data", r.data, strings.TrimSpace(a.command("invite", "--replica"))})
		if out, err := join.CombinedOutput(); err != nil {
			t.Fatalf("join: %v: %s", err, out)
		}
		r.start()
		middle = append(middle, r)
		a.command("devices", "rename", r.deviceName(), fmt.Sprint("middle", host))
	}
	for _, n := range []*node{a, b} {
		n.until(20*time.Second, "connections", func() bool { return n.connected() == 3 })
	}
	b.stop()
	l.sever(0, 1)
	b.start()
	via := func(n, other *node) string {
		for _, d := range n.status().Devices {
			if d.Role == "member" && !d.Self && d.Connected {
				return d.Via
			}
		}
		return "nobody"
	}
	spliced := func() time.Duration {
		return b.until(40*time.Second, "a connection through another device", func() bool {
			return strings.HasPrefix(via(a, b), "middle") && strings.HasPrefix(via(b, a), "middle")
		})
	}
	t.Logf("connected through another device after %v", spliced().Round(time.Millisecond))
	// In step: what close has returned for is there.
	steps(t, a, b, "through another device", 50, func(i int, by, at *node) error {
		by.write("turns", fmt.Sprintln("round", i))
		if !at.reads("turns", fmt.Sprintln("round", i)) {
			return errors.New("it is not on the other mount")
		}
		return nil
	})
	// A file that nobody in the middle has room for.
	content := make([]byte, 64<<20)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(content)
	if err := os.WriteFile(filepath.Join(a.mnt, "large"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	var got []byte
	took := timed(func() {
		var err error
		if got, err = os.ReadFile(filepath.Join(b.mnt, "large")); err != nil {
			t.Error(err)
		}
	})
	if sha256.Sum256(got) != sha256.Sum256(content) {
		t.Fatalf("%d bytes, or others than were written", len(got))
	}
	t.Logf("64 MiB through another device in %v", took.Round(time.Millisecond))
	for _, r := range middle {
		if st := r.status(); st.Store.Used > 2<<20 {
			t.Errorf("a replica with room for 1 MiB has %d bytes", st.Store.Used)
		}
	}

	// The one in the middle dies; the other takes over.
	dead := 0
	if via(b, a) == "middle3" {
		dead = 1
	}
	was := via(b, a)
	middle[dead].kill()
	took = b.until(40*time.Second, "a connection through the other one", func() bool { v := via(b, a); return strings.HasPrefix(v, "middle") && v != was && via(a, b) == v })
	t.Logf("through another one %v after the first died", took.Round(time.Millisecond))
	a.write("after", "after\n")
	b.until(10*time.Second, "what was written after", func() bool { return b.reads("after", "after\n") })

	// They can reach each other again.
	l.join(0)
	l.join(1)
	took = b.until(60*time.Second, "a direct connection", func() bool { return via(a, b) == "" && via(b, a) == "" })
	t.Logf("direct again after %v", took.Round(time.Millisecond))
	b.write("direct", "direct\n")
	if a.until(30*time.Second, "what was written then", func() bool { return a.reads("direct", "direct\n") }); a.connected() != 2 {
		t.Errorf("%d connections", a.connected())
	}
}
