package replica

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/foreverfs/forever/transport"
)

// writeNow appends a batch in the epoch of the moment.
func (n *testNode) writeNow(text string) error {
	_, epoch := n.Epochs()
	_, err := n.Append(n.author, epoch, []byte(text))
	return err
}

// trio starts three members, and a keyless replica, all connected, over a network that can be cut.
func trio(t *testing.T) (network *transport.Memory, a, b, d, r *testNode) {
	network = transport.NewMemory()
	a = newTestNode(t, "a", network.Transport).found().start()
	b = newTestNode(t, "b", network.Transport).joinBy(a, RoleMember).start()
	d = newTestNode(t, "d", network.Transport).joinBy(a, RoleMember).start()
	r = newTestNode(t, "r", network.Transport).joinBy(a, RoleReplica).start()
	all := []*testNode{a, b, d, r}
	eventually(t, "mesh", func() bool {
		for _, n := range all {
			if n.status(t).Connected != 3 {
				return false
			}
		}
		return true
	})
	return network, a, b, d, r
}

// cut separates a node from others; it does not wait for them to fall silent.
func cut(network *transport.Memory, n *testNode, from ...*testNode) {
	for _, o := range from {
		network.Cut(transport.PeerID(n.id()), transport.PeerID(o.id()))
		for _, s := range []*session{n.session(o.id()), o.session(n.id())} {
			if s != nil {
				s.conn.Close()
			}
		}
	}
}

func heal(network *transport.Memory, n *testNode, with ...*testNode) {
	for _, o := range with {
		network.Heal(transport.PeerID(n.id()), transport.PeerID(o.id()))
	}
}

// What a device wrote that somebody in good standing has counts everywhere, though who revoked it did not have
// it; what it writes when it is out counts nowhere.
func TestWhatOthersHoldOfTheRevokedCounts(t *testing.T) {
	for round := range 3 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			network, a, b, d, r := trio(t)
			d.write("before")
			eventually(t, "before", func() bool { return a.sees("before") && b.sees("before") && r.Vector()[d.author] == 1 })
			cut(network, a, b, d, r)
			eventually(t, "a to be alone", func() bool { return a.status(t).Connected == 0 })
			d.write("to b alone")
			eventually(t, "the batch at b", func() bool { return b.sees("before", "to b alone") })
			if err := a.Revoke(d.id(), "test"); err != nil {
				t.Fatal(err)
			}
			if last := a.limitOf(d); last != 1 {
				t.Fatalf("a takes %d batches of d", last)
			}
			heal(network, a, b, r, d)
			eventually(t, "d to be out", func() bool { return d.status(t).Connected == 0 && d.status(t).Revoked })
			d.write("alone")
			eventually(t, "what b has at a", func() bool { return a.sees("before", "to b alone") && r.Vector()[d.author] == 2 })
			for _, n := range []*testNode{a, b} {
				if err := n.writeNow("from " + n.name); err != nil {
					t.Fatal(err)
				}
			}
			want := []string{"before", "to b alone", "from a", "from b"}
			eventually(t, "all at all", func() bool {
				return len(a.texts()) == len(want)-1 && len(b.texts()) == len(want)-1 && r.Vector()[a.author] == 1 && r.Vector()[b.author] == 1
			})
			if n := r.Vector()[d.author]; n != 2 {
				t.Errorf("the replica holds %d batches of d", n)
			}
			if err := waitFor(a, 2, 5*time.Second); err != nil {
				t.Error(err)
			}
		})
	}
}

func (n *testNode) limitOf(d *testNode) uint64 {
	n.Replica.mu.Lock()
	defer n.Replica.mu.Unlock()
	last, _ := n.control.limit(d.author, d.id())
	return last
}

// Nothing is written in an epoch that a revoked device can open, whoever it is that writes first.
func TestNoWritingInAnEpochThatIsLeft(t *testing.T) {
	network, a, b, d, _ := trio(t)
	_, old := a.Epochs()
	cut(network, b, a)
	if err := a.Revoke(d.id(), ""); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*testNode{a, b} {
		eventually(t, "the revocation at "+n.name, func() bool { return len(n.Devices()) == 3 })
		if _, err := n.Append(n.author, old, []byte("x")); !errors.Is(err, ErrEpochLeft) {
			t.Fatalf("%s writes in the epoch that is left: %v", n.name, err)
		}
		if err := n.EnsureEpoch(); err != nil {
			t.Fatal(err)
		}
		if err := n.writeNow("in the next"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Append(d.author, old, []byte("for itself")); err != nil {
		t.Errorf("d cannot write for itself: %v", err)
	}
}

// Members let in by somebody who did not know of an epoch get its key without asking, and so does
// a new recovery key.
func TestKeysAreHandedOut(t *testing.T) {
	network, a, b, d, _ := trio(t)
	cut(network, a, b, d)
	eventually(t, "a to be apart", func() bool { return !a.connectedTo(b) && !a.connectedTo(d) })
	network.Cut(transport.PeerID(a.id()), transport.PeerID(idOf("r")))
	if err := a.OpenEpoch(EpochID{7}, []Wrap{{EpochID{7}, a.id(), []byte("own")}}); err != nil {
		t.Fatal(err)
	}
	c := newTestNode(t, "c", network.Transport).joinBy(b, RoleMember).start()
	heal(network, a, b, d)
	for _, n := range []*testNode{a, b, c, d} {
		eventually(t, "keys at "+n.name, func() bool {
			keys, current := n.Epochs()
			return current == EpochID{7} && len(keys) == 2
		})
	}
	eventually(t, "keys for the phrase", func() bool { return len(b.RecoveryEpochs()) == 2 })
}

func TestNobodyRevokesHimself(t *testing.T) {
	a, b := pair(t)
	if err := a.Revoke(a.id(), ""); !errors.Is(err, ErrSelf) {
		t.Error(err)
	}
	if err := a.Revoke(idOf("stranger"), ""); !errors.Is(err, ErrUnknownDevice) {
		t.Error(err)
	}
	if err := a.Revoke(b.id(), ""); err != nil {
		t.Error(err)
	}
	if err := a.Revoke(b.id(), ""); !errors.Is(err, ErrUnknownDevice) {
		t.Error(err)
	}
	eventually(t, "word of it at b", func() bool { return b.status(t).Revoked })
	if err := b.join(Invite{Volume: testVolume}); err == nil {
		t.Error("b joins again with the same keys")
	}
}
