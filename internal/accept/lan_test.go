package accept

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lanPrefix begins the names of the network namespaces of all test processes; the
// process ID follows.
const lanPrefix = "forever-test-"

// lan is a network of its own: each host a network namespace, joined by a bridge in
// one more. Nothing of it is on this machine's own network, so that the
// addresses are free.
type lan struct {
	t     testing.TB
	hub   string
	hosts []string
}

var lans int // made by this process

// newLAN joins hosts by a bridge, all cables plugged in.
func newLAN(t testing.TB, hosts int) *lan {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("no ip command (Debian package iproute2)")
	}
	if _, err := exec.LookPath("nsenter"); err != nil {
		t.Skip("no nsenter command (Debian package util-linux)")
	}
	sweepLANs()
	lans++
	l := &lan{t: t, hub: fmt.Sprintf("%s%d-%d", lanPrefix, os.Getpid(), lans)}
	if out, err := exec.Command("ip", "netns", "add", l.hub).CombinedOutput(); err != nil {
		t.Skipf("cannot make network namespaces here: %s", strings.TrimSpace(string(out)))
	}
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", l.hub).Run() })
	l.ip("-n", l.hub, "link", "add", "hub", "type", "bridge")
	l.ip("-n", l.hub, "link", "set", "hub", "up")
	for range hosts {
		l.addHost()
	}
	return l
}

// sweepLANs removes what test processes left that were killed.
func sweepLANs() {
	entries, _ := os.ReadDir("/var/run/netns")
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), lanPrefix)
		pid, err := strconv.Atoi(strings.SplitN(rest, "-", 2)[0])
		if ok && err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			_ = exec.Command("ip", "netns", "del", e.Name()).Run()
		}
	}
}

func (l *lan) addHost() {
	i := len(l.hosts)
	host := fmt.Sprintf("%s-%d", l.hub, i)
	l.ip("netns", "add", host)
	l.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", host).Run() })
	l.hosts = append(l.hosts, host)
	l.ip("-n", l.hub, "link", "add", port(i), "type", "veth", "peer", "name", "eth0", "netns", host)
	l.ip("-n", l.hub, "link", "set", port(i), "master", "hub", "up")
	l.ip("-n", host, "addr", "add", address(i)+"/24", "dev", "eth0")
	l.ip("-n", host, "link", "set", "eth0", "up")
	l.ip("-n", host, "link", "set", "lo", "up")
}

func port(host int) string    { return fmt.Sprintf("port%d", host) }
func address(host int) string { return fmt.Sprintf("10.99.0.%d", host+1) }

func (l *lan) ip(args ...string) {
	l.t.Helper()
	run(l.t, "", "ip", args...)
}

// pull is a way for a host to be cut off.
type pull int

const (
	pullOwn    pull = iota // its own interface goes down: it knows at once
	pullHub                // the other end of the cable goes down: it sees the carrier go
	pullSilent             // the cable looks plugged in, but nothing passes
	pullKinds
)

func (p pull) String() string {
	return [...]string{"interface down", "cable out", "silent"}[p]
}

// cut cuts a host off from all others.
func (l *lan) cut(host int, how pull) {
	l.t.Helper()
	switch how {
	case pullOwn:
		l.ip("-n", l.hosts[host], "link", "set", "eth0", "down")
	case pullHub:
		l.ip("-n", l.hub, "link", "set", port(host), "down")
	default:
		l.ip("-n", l.hub, "link", "set", port(host), "nomaster")
	}
}

// join undoes every cut of a host, whichever there were, and every severed pair it is in.
func (l *lan) join(host int) {
	l.t.Helper()
	l.ip("-n", l.hosts[host], "link", "set", "eth0", "up")
	l.ip("-n", l.hub, "link", "set", port(host), "master", "hub", "up")
	l.ip("-n", l.hub, "link", "set", port(host), "type", "bridge_slave", "isolated", "off")
}

// sever lets nothing pass between two hosts that others still reach.
func (l *lan) sever(one, other int) {
	l.t.Helper()
	for _, host := range []int{one, other} {
		l.ip("-n", l.hub, "link", "set", port(host), "master", "hub") // a silent cut took it away
		l.ip("-n", l.hub, "link", "set", port(host), "type", "bridge_slave", "isolated", "on")
	}
}

// newNode mounts on a host of the network a new volume, or one joined by an
// invite. The mount is this machine's: only the network is the host's.
func (l *lan) newNode(host int, invite string, args ...string) *node {
	l.t.Helper()
	return l.newNodeOf(fsmount(l.t), host, invite, args...)
}

// newNodeOf is newNode with a command of one's own.
func (l *lan) newNodeOf(bin string, host int, invite string, args ...string) *node {
	l.t.Helper()
	name := string(rune('a' + host))
	dir := l.t.TempDir()
	n := &node{t: l.t, data: filepath.Join(dir, name+"-data"), mnt: filepath.Join(dir, name), listen: address(host) + ":4747",
		netns: l.hosts[host], bin: bin}
	if err := os.Mkdir(n.mnt, 0755); err != nil {
		l.t.Fatal(err)
	}
	if invite != "" {
		args = append(args, "--join", invite)
	}
	n.start(args...)
	return n
}

// mounts mounts one volume on every host with a command, and returns once all are connected with all.
func (l *lan) mounts(bin string) []*node {
	l.t.Helper()
	nodes := []*node{l.newNodeOf(bin, 0, "")}
	for host := 1; host < len(l.hosts); host++ {
		nodes = append(nodes, l.newNodeOf(bin, host, strings.TrimSpace(nodes[0].command("invite"))))
	}
	for _, n := range nodes {
		n.until(20*time.Second, "connections with all others", func() bool { return n.connected() == len(nodes)-1 })
	}
	return nodes
}
