package replica

import (
	"testing"
	"time"
)

// A device that nobody knows an address of is reached through one that it dialed; and everything goes that way.
func TestThroughAThird(t *testing.T) {
	mk := memNet()
	r := newTestNode(t, "r", mk).found().start()
	a := newTestNode(t, "a", mk).joinBy(r, RoleMember)
	b := newTestNode(t, "b", mk).joinBy(r, RoleMember)
	for _, n := range []*testNode{a, b} {
		n.edit = func(c *Config) { c.Listen = "" } // nobody can dial it
		n.start()
	}
	eventually(t, "a connection through the third", func() bool { return a.connectedTo(b) && b.connectedTo(a) })
	for _, n := range []*testNode{a, b} {
		for _, d := range n.status(t).Devices {
			if want := map[DeviceID]string{a.id(): "r", b.id(): "r"}[d.ID]; !d.Self && d.Via != want {
				t.Errorf("%s reaches %s via %q, not %q", n.name, d.Name, d.Via, want)
			}
			for _, addr := range d.Addrs {
				if addr == "" {
					t.Errorf("%s has an empty address for %s", n.name, d.Name)
				}
			}
		}
	}
	a.write("hello")
	id := a.store.put(t, 100_000)
	a.Poke()
	eventually(t, "the batch", func() bool { return b.sees("hello") })
	if got, err := b.Fetch(t.Context(), id); err != nil || len(got) != 100_000 {
		t.Fatal(err)
	}
	if err := waitFor(a, 2, 10*time.Second); err != nil {
		t.Error(err)
	}
	// It goes with the one in the middle.
	r.stop()
	eventually(t, "the end of it", func() bool { return !a.connectedTo(b) && !b.connectedTo(a) })
}
