package accept

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRevokeWithoutANode: whoever revokes a device where no node runs is sure that another device knows it, though that is
// far away, or is told that none does.
func TestRevokeWithoutANode(t *testing.T) {
	const delay = 150 * time.Millisecond
	fsmount(t)
	l := newLAN(t, 1)
	dir := t.TempDir()
	b := &node{t: t, data: filepath.Join(dir, "data"), mnt: filepath.Join(dir, "b"), listen: "127.0.0.1:4747", netns: l.hosts[0]}
	must(t, os.Mkdir(b.mnt, 0o755))
	b.start()
	link := newSlowLink(t, b.netns, b.listen, delay) // the only way to b
	join := func(name string) *node {
		n := newNode(t, name, strings.TrimSpace(b.command("invite", "--addr", link.l.Addr().String())))
		n.until(10*time.Second, "connection", func() bool { return n.connected() > 0 })
		n.command("devices", "rename", n.deviceName(), name)
		b.until(10*time.Second, "the new name", func() bool { return b.sees(name) != nil })
		return n
	}
	a := join("ann")
	for _, thief := range []string{"thief", "another"} {
		n := join(thief)
		a.until(10*time.Second, "the device", func() bool { return a.sees(thief) != nil })
		n.stop()
	}
	a.stop()
	a.command("devices", "revoke", "thief")
	b.until(30*time.Second, "the revocation", func() bool { return b.sees("thief") == nil })

	b.stop()
	said, err := a.invocation([]string{"devices", "revoke", "another", "--data", a.data}).CombinedOutput()
	must(t, err)
	if !strings.Contains(string(said), "no other device has heard of it") {
		t.Errorf("with nobody there: %q", said)
	}
}
