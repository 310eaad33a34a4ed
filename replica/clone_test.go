package replica

import (
	"errors"
	"testing"

	"github.com/foreverfs/forever/transport"
)

// TestCloneIsKeptOut runs two processes with one device's key: the second is refused
// as long as the first is there, and says so; then it is let in.
func TestCloneIsKeptOut(t *testing.T) {
	mk := memNet()
	a := newTestNode(t, "a", mk).found().start()
	b := newTestNode(t, "b", mk).joinBy(a, RoleMember)
	clone := newTestNode(t, "b", mk)
	clone.addr = "clone"
	clone.joinBy(a, RoleMember)
	b.start()
	eventually(t, "connection", func() bool { return a.connectedTo(b) && b.connectedTo(a) })
	clone.start()
	eventually(t, "a complaint in the clone's status", func() bool { return clone.status(t).Clone })
	if clone.connectedTo(a) || !a.connectedTo(b) || !b.connectedTo(a) {
		t.Error("the clone is connected, or the original is not")
	}
	if a.status(t).Clone || b.status(t).Clone {
		t.Error("others complain of the clone as well")
	}
	clone.write("in the clone")
	b.stop()
	eventually(t, "the clone's batch, once it is alone", func() bool { return a.sees("in the clone") })
	if clone.status(t).Clone {
		t.Error("the clone still complains")
	}
}

// TestNextStartIsNoClone connects a device anew whose old connection hangs: it stays
// open, but nobody answers there.
func TestNextStartIsNoClone(t *testing.T) {
	a := newTestNode(t, "a", memNet()).found().start()
	old := evil(t, a)
	eventually(t, "connection", func() bool { return a.status(t).Connected == 1 })
	n := newTestNode(t, "evil", a.make)
	hello := helloOf(n)
	hello.Instance[0] = 1
	conn, err := n.dialWith(t, a, func(s transport.Stream) (any, error) { return dialHello(s, hello, testVolume) })
	var refused *RefusedError
	if errors.As(err, &refused) {
		t.Fatalf("refused: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	<-old.conn.Done() // the newer takes its place
	conn.Close()
}
