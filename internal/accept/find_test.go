package accept

import (
	"fmt"
	"testing"
	"time"
)

// move gives a host another address, in a network where the old one does not exist.
func (l *lan) move(host, network int) string {
	l.t.Helper()
	addr := fmt.Sprintf("10.99.%d.%d", network, 100-host)
	l.ip("-n", l.hosts[host], "addr", "flush", "dev", "eth0")
	l.ip("-n", l.hosts[host], "addr", "add", addr+"/24", "dev", "eth0")
	return addr
}

// TestFindEachOther moves devices to addresses that nobody has heard of. They find each other on the local network,
// or by an address that somebody gives; with neither they do not.
func TestFindEachOther(t *testing.T) {
	l := newLAN(t, 3)
	a := l.newNode(0, "", "--lan=true", "--log-level=debug")
	a.listen = ":4747"
	a.stop()
	a.start("--lan=true", "--log-level=debug")
	b := l.newNode(1, through(t, a.command("invite"), address(0)+":4747"), "--lan=true", "--log-level=debug")
	b.listen = ":4747"
	b.until(10*time.Second, "connection", func() bool { return b.connected() == 1 })

	// Both move while they are down.
	for round := range 2 {
		a.stop()
		b.stop()
		l.move(0, 7+round)
		l.move(1, 7+round)
		a.start("--lan=true", "--log-level=debug")
		b.start("--lan=true", "--log-level=debug")
		took := b.until(30*time.Second, "connection after both have moved", func() bool { return a.connected() == 1 && b.connected() == 1 })
		t.Logf("found each other after %v", took.Round(time.Millisecond))
	}
	// One moves while it runs: the old connection is dead, the new one comes without waiting for that.
	l.move(0, 20)
	l.move(1, 20)
	took := b.until(15*time.Second, "connection after moving", func() bool {
		b.write("moved", "moved\n")
		return a.reads("moved", "moved\n")
	})
	t.Logf("moved while running: together again after %v", took.Round(time.Millisecond))

	// Without looking on the network they do not find each other, and with an address they do.
	a.stop()
	b.stop()
	at := l.move(0, 30)
	l.move(1, 30)
	a.start()
	b.start()
	time.Sleep(3 * time.Second) // nothing shall happen
	if a.connected() != 0 || b.connected() != 0 {
		t.Fatal("they found each other without looking")
	}
	b.stop()
	b.start("--peer", "10.99.30.77:4747", "--peer", at+":4747")
	b.until(30*time.Second, "connection by an address that was given", func() bool { return a.connected() == 1 && b.connected() == 1 })
	// What is learnt that way is remembered.
	b.stop()
	b.start()
	b.until(30*time.Second, "connection by an address that is remembered", func() bool { return b.connected() == 1 })
}
