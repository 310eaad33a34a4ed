package replica

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/foreverfs/forever/transport"
)

// stuckStream is a stream that is slow to close: the link is blocked.
type stuckStream struct {
	transport.Stream
	late func() // called with a deadline in the past
	free chan struct{}
}

func (s stuckStream) Read([]byte) (int, error) {
	<-s.free
	return 0, os.ErrDeadlineExceeded
}

func (s stuckStream) SetDeadline(at time.Time) error {
	if at.Before(time.Now()) {
		s.late()
	}
	return nil
}

func (s stuckStream) Close() error {
	<-s.free
	return nil
}

// What goes through another device does not wait for the link there to say that it is closed, since
// the connection inside waits for it; the replica does.
func TestSplicedClosesAtOnce(t *testing.T) {
	r := &Replica{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	late := make(chan struct{})
	raw := stuckStream{late: sync.OnceFunc(func() { close(late) }), free: make(chan struct{})}
	c := newSpliced(&session{r: r, ctx: ctx}, newStream(raw))
	closed, gone := make(chan struct{}), make(chan struct{})
	go func() {
		_ = c.Close()
		_ = c.Close()
		close(closed)
	}()
	for what, ch := range map[string]chan struct{}{"the end of reads under way": late, "Close": closed} {
		select {
		case <-ch:
		case <-time.After(10 * time.Second):
			t.Errorf("%s waits for the link", what)
		}
	}
	go func() {
		r.wg.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		t.Error("nobody waits for the stream")
	default:
	}
	close(raw.free)
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("the stream is not closed")
	}
}

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
