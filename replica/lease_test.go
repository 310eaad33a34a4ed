package replica

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/foreverfs/forever/internal/lease"
	"github.com/foreverfs/forever/replica/replicapb"
)

// testMount is the mount of a node whose kernel forgets at once. What arrives counts as
// applied, except while it is held up.
type testMount struct {
	n      *testNode
	leases *Leases

	mu      sync.Mutex
	applied map[AuthorID]uint64
	held    bool
	waiting []Envelope
}

var _ Mount = (*testMount)(nil)

// keepLeases has a node, before its start, keep leases for a mount.
func (n *testNode) keepLeases() *testMount {
	m := &testMount{n: n, applied: map[AuthorID]uint64{}}
	n.edit = func(cfg *Config) {
		cfg.Deliver = func(e Envelope) error {
			m.deliver(e)
			return nil
		}
	}
	n.before = func() { m.leases = n.Keep(LeaseConfig{Author: n.author, Mount: m, Applied: m.applied}) }
	return m
}

func (m *testMount) deliver(e Envelope) {
	m.mu.Lock()
	if m.held {
		m.waiting = append(m.waiting, e)
		m.mu.Unlock()
		return
	}
	m.applied[e.Author] = e.Seq
	m.mu.Unlock()
	m.leases.Applied(e.Author, e.Seq)
}

// hold has what arrives wait until it is let go.
func (m *testMount) hold() (letGo func()) {
	m.mu.Lock()
	m.held = true
	m.mu.Unlock()
	return func() {
		m.mu.Lock()
		list := m.waiting
		m.held, m.waiting = false, nil
		m.mu.Unlock()
		for _, e := range list {
			m.deliver(e)
		}
	}
}

func (m *testMount) Publish(_ context.Context, vector bool) (uint64, map[AuthorID]uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	seq := m.n.NextSeq(m.n.author) - 1
	out := map[AuthorID]uint64{m.n.author: seq}
	if vector {
		for a, n := range m.applied {
			out[a] = n
		}
	}
	return seq, out, nil
}

func (m *testMount) Forget(done func()) { done() }

func (m *testMount) ForgetDirs(_ [][16]byte, _ bool, done func([][16]byte)) { done(nil) }

// mounts starts two nodes that keep leases, and waits until they are in step.
func mounts(t *testing.T) (a, b *testMount) {
	mk := memNet()
	na, nb := newTestNode(t, "a", mk), newTestNode(t, "b", mk)
	a, b = na.keepLeases(), nb.keepLeases()
	na.found().start()
	nb.joinBy(na, RoleMember).start()
	inStepSoon(t, a, b)
	return a, b
}

func inStepSoon(t *testing.T, a, b *testMount) {
	t.Helper()
	eventually(t, "mounts in step", func() bool { return a.sees(b) == MountConnected && b.sees(a) == MountConnected })
}

// sees returns what m says of another mount.
func (m *testMount) sees(o *testMount) MountState {
	for _, d := range m.n.status(m.n.t).Devices {
		if d.ID == o.n.id() {
			return d.Mount
		}
	}
	return MountUnknown
}

var dirOne, dirTwo = []lease.Dir{{ID: [16]byte{1}}}, []lease.Dir{{ID: [16]byte{2}}}

func nothing() {}

// await reports on a channel when a write in a directory need not wait any more.
func (m *testMount) await(seq uint64, dirs []lease.Dir) <-chan time.Duration {
	out := make(chan time.Duration, 1)
	start := time.Now()
	go func() {
		m.leases.Await(context.Background(), seq, dirs, nothing)
		out <- time.Since(start)
	}()
	return out
}

func TestWriterWaitsForThoseWhoWatch(t *testing.T) {
	a, b := mounts(t)
	b.leases.Observe(t.Context(), dirOne, nothing)
	if !b.leases.Covered(dirOne) || b.leases.Covered(dirTwo) {
		t.Error("the kernel may keep what is not watched, or not what is")
	}
	if !a.leases.Watched(dirOne) || a.leases.Watched(dirTwo) {
		t.Error("the writer does not know who watches what")
	}
	letGo := b.hold()
	seq := a.n.write("one")
	<-a.await(seq, dirTwo)
	done := a.await(seq, dirOne)
	select {
	case d := <-done:
		t.Fatalf("done after %v, before it was applied", d)
	case <-time.After(50 * time.Millisecond):
	}
	letGo()
	if d := <-done; d > 2*time.Second {
		t.Errorf("waited %v for what was applied soon", d)
	}
	if a.sees(b) != MountConnected {
		t.Error("a slow peer was given up")
	}
}

// TestReaderSeesWhatWasDone has a mount ask about a directory in which something was
// done that it has not applied yet.
func TestReaderSeesWhatWasDone(t *testing.T) {
	a, b := mounts(t)
	letGo := b.hold()
	a.n.write("one")
	done := make(chan uint64, 1)
	go func() {
		b.leases.Observe(context.Background(), dirOne, nothing)
		b.mu.Lock()
		defer b.mu.Unlock()
		done <- b.applied[a.n.author]
	}()
	select {
	case <-done:
		t.Fatal("answered before what was done is applied")
	case <-time.After(50 * time.Millisecond):
	}
	letGo()
	if n := <-done; n != 1 {
		t.Errorf("answered with %d batches applied", n)
	}
}

func TestSlowPeerIsGivenUpOnce(t *testing.T) {
	a, b := mounts(t)
	b.leases.Observe(t.Context(), dirOne, nothing)
	letGo := b.hold()
	seq := a.n.write("one")
	if d := <-a.await(seq, dirOne); d < 100*time.Millisecond || d > 10*time.Second {
		t.Errorf("waited %v", d)
	}
	if a.sees(b) != MountDisconnected {
		t.Error("the writer still counts the peer as connected")
	}
	eventually(t, "the other side knows", func() bool { return b.sees(a) == MountDisconnected })
	again := time.Hour
	for range 5 { // or the machine is slow
		again = min(again, <-a.await(a.n.write("more"), dirOne))
	}
	if again > 100*time.Millisecond {
		t.Errorf("waited again, and each time: %v", again)
	}
	letGo()
	inStepSoon(t, a, b)
}

func TestCloseLetsEverybodyGo(t *testing.T) {
	a, b := mounts(t)
	b.leases.Observe(t.Context(), dirOne, nothing)
	b.hold()
	done := a.await(a.n.write("one"), dirOne)
	a.n.stop()
	<-done
	<-a.await(9, dirOne)
}

func TestLeaveFreesWriters(t *testing.T) {
	a, b := mounts(t)
	b.leases.Observe(t.Context(), dirOne, nothing)
	b.hold()
	b.leases.Leave()
	eventually(t, "nobody watches", func() bool { return !a.leases.Watched(dirOne) })
	if d := <-a.await(a.n.write("one"), dirOne); d > 2*time.Second {
		t.Errorf("waited %v for a mount that left", d)
	}
}

// Nobody waits for the mount of a node that ends in order, not even to see whether it is there again.
func TestReadersDoNotWaitForWhoLeft(t *testing.T) {
	a, b := mounts(t)
	b.leases.Leave()
	b.n.stop()
	eventually(t, "the connection's end", func() bool { return len(a.n.status(t).Devices) > 0 && a.n.status(t).Connected == 0 })
	start := time.Now()
	a.leases.Observe(t.Context(), dirTwo, nothing)
	if d := time.Since(start); d > 100*time.Millisecond {
		t.Errorf("waited %v for a mount that left", d)
	}
}

// leaseSamples are messages of each shape.
func leaseSamples() []lease.Message {
	return []lease.Message{
		{Log: lease.Log{1}, Term: 1, Join: true, Stamp: time.Second, Beat: true},
		{Term: 1, Live: true, On: true, Stamp: 2, Number: 1, Ask: [][16]byte{{1}, {2}}, Drop: [][16]byte{{3}}, Mark: 7, Applied: 9},
		{Granted: 1, Echo: 5, Joined: true, Need: []lease.Position{{Log: lease.Log{4}, Seq: 3}}, Told: 1, Upto: 2, Revoked: 8},
	}
}

func TestLeaseMessagesTravel(t *testing.T) {
	for _, m := range leaseSamples() {
		b, err := proto.Marshal(leaseProto(&m))
		if err != nil {
			t.Fatal(err)
		}
		var p replicapb.LeaseMessage
		if err := proto.Unmarshal(b, &p); err != nil {
			t.Fatal(err)
		}
		got, err := leaseMessage(&p)
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := proto.Marshal(leaseProto(&got)); string(again) != string(b) {
			t.Errorf("got %+v, sent %+v", got, m)
		}
	}
}

// FuzzLease feeds what a peer may say to a machine: it takes it or refuses it.
func FuzzLease(f *testing.F) {
	for _, m := range leaseSamples() {
		b, err := proto.Marshal(leaseProto(&m))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p replicapb.LeaseMessage
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		msg, err := leaseMessage(&p)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		m := lease.New(lease.Config{Self: lease.Log{9}, MaxDirs: 8})
		peer := lease.Peer{1}
		for now, e := range []lease.Event{
			lease.LinkUp{Peer: peer},
			lease.Receive{Peer: peer, Message: msg}, lease.Published{Seq: 1}, lease.Receive{Peer: peer, Message: msg}, lease.Tick{},
		} {
			if _, err := m.Step(time.Duration(now), e); err != nil && !errors.Is(err, lease.ErrInvalid) {
				t.Fatal(err)
			}
			m.Poll(time.Duration(now), peer)
		}
	})
}
