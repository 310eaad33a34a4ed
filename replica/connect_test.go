package replica

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/foreverfs/forever/transport"
)

func TestBothDialAtOnce(t *testing.T) {
	a, b := pair(t)
	var texts []string
	for i := range 8 {
		a.stop()
		b.stop()
		var wg sync.WaitGroup
		for _, n := range []*testNode{a, b} {
			wg.Go(func() { n.start() })
		}
		wg.Wait()
		eventually(t, "connection", func() bool { return sameConnection(a, b) })
		text := fmt.Sprintf("round %d", i)
		texts = append(texts, text)
		a.write(text)
		eventually(t, text, func() bool { return b.sees(texts...) })
		// A dial that was under way may still win; then both have moved to it.
		eventually(t, "one connection", func() bool { return sameConnection(a, b) })
	}
}

// sameConnection reports whether both sides use the connection that the same side made.
func sameConnection(a, b *testNode) bool {
	sa, sb := a.session(b.id()), b.session(a.id())
	return sa != nil && sb != nil && sa.dialer() == sb.dialer() && sa.ctx.Err() == nil && sb.ctx.Err() == nil
}

func (n *testNode) session(id DeviceID) *session {
	n.Replica.mu.Lock()
	defer n.Replica.mu.Unlock()
	return n.sessions[id]
}

// A connection that breaks without a word is made anew, and nothing is lost.
func TestBrokenConnectionComesBack(t *testing.T) {
	a, b := pair(t)
	for i := range 5 {
		if s := a.session(b.id()); s != nil {
			s.conn.Close()
		}
		a.write(fmt.Sprint(i))
		a.store.put(t, 3000)
		a.Poke()
	}
	eventually(t, "all", func() bool { return b.sees("0", "1", "2", "3", "4") && b.store.len() == 5 })
}

func TestOverTCP(t *testing.T) {
	a := tcpNode(t, "a").found().start()
	b := tcpNode(t, "b").joinBy(a, RoleMember).start()
	c := tcpNode(t, "c").joinBy(b, RoleReplica).start() // by another member than the founder
	eventually(t, "mesh", func() bool { return a.connectedTo(b) && b.connectedTo(c) && a.connectedTo(c) })
	a.write("hello")
	id := a.store.put(t, 1<<20)
	a.Poke()
	if err := waitFor(a, 2, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if !b.sees("hello") || b.store.len() != 1 {
		t.Fatal("acknowledged and not there")
	}
	if got, err := c.Fetch(t.Context(), id); err != nil || len(got) != 1<<20 {
		t.Fatal(err)
	}
	if err := a.Rename(c.id(), "cellar"); err != nil {
		t.Fatal(err)
	}
	if err := b.SetPolicy(map[string]string{"replicas": "2"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "control log", func() bool { return c.Devices()[2].Name == "cellar" && c.Policy()["replicas"] == "2" })
	// A restart moves a's port; b and c are dialed by it.
	a.stop()
	a.start()
	eventually(t, "mesh again", func() bool { return a.connectedTo(b) && a.connectedTo(c) })
}

func TestPushBeginsAtOnce(t *testing.T) {
	a := tcpNode(t, "a").found().start()
	b := tcpNode(t, "b").joinBy(a, RoleMember).start()
	eventually(t, "connection", func() bool { return a.connectedTo(b) && b.connectedTo(a) })
	var worst time.Duration
	for i := range 20 {
		began := time.Now()
		a.write(fmt.Sprint(i))
		a.store.put(t, 1000)
		a.Poke()
		for b.store.len() <= i || b.Vector()[a.author] <= uint64(i) {
			time.Sleep(200 * time.Microsecond)
			if time.Since(began) > 5*time.Second {
				t.Fatal("never")
			}
		}
		worst = max(worst, time.Since(began))
	}
	t.Logf("slowest batch and chunk on the other side after %v", worst)
}

func TestListenTwice(t *testing.T) {
	network := transport.NewMemory()
	a := newTestNode(t, "a", network.Transport).found().start()
	b := newTestNode(t, "b", network.Transport).joinBy(a, RoleMember)
	b.addr = "a"
	r, err := Open(b.config())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Listen(); err == nil {
		t.Fatal("two at one address")
	}
}

// TestLastProposed: what devices add to the control log by themselves is nothing that others have to hear of before this one ends.
func TestLastProposed(t *testing.T) {
	a := tcpNode(t, "a").found().start()
	if err := a.OpenEpoch(EpochID{7}, []Wrap{{EpochID{7}, a.id(), []byte("own")}}); err != nil {
		t.Fatal(err)
	}
	if at := a.LastProposed(); !at.IsZero() {
		t.Errorf("an epoch was asked for at %v", at)
	}
	if err := a.SetPolicy(map[string]string{"replicas": "2"}); err != nil {
		t.Fatal(err)
	}
	if a.LastProposed().IsZero() {
		t.Error("settings were not asked for")
	}
}
