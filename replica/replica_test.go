package replica

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/foreverfs/forever/chunk"
)

func TestTwoConverge(t *testing.T) {
	a, b := pair(t)
	for i := range 20 {
		a.write(fmt.Sprintf("a%d", i))
		b.write(fmt.Sprintf("b%d", i))
		a.store.put(t, 1000)
		a.Poke()
		b.store.put(t, 1000)
		b.Poke()
	}
	eventually(t, "envelopes", func() bool { return a.sees(numbered("b", 20)...) && b.sees(numbered("a", 20)...) })
	eventually(t, "chunks", func() bool { return a.store.len() == 40 && b.store.len() == 40 })
	for i, text := range b.texts() {
		if text != fmt.Sprintf("a%d", i) {
			t.Fatalf("envelope %d is %q", i, text)
		}
	}
}

func TestThreeConvergeAndFindEachOther(t *testing.T) {
	mk := memNet()
	a := newTestNode(t, "a", mk).found().start()
	b := newTestNode(t, "b", mk).joinBy(a, RoleMember).start()
	c := newTestNode(t, "c", mk).joinBy(a, RoleMember).start()
	eventually(t, "full mesh", func() bool { return b.connectedTo(c) && c.connectedTo(b) && a.connectedTo(b) && a.connectedTo(c) })
	for i := range 10 {
		for _, n := range []*testNode{a, b, c} {
			n.write(fmt.Sprintf("%s%d", n.name, i))
			n.store.put(t, 5000)
			n.Poke()
		}
	}
	as, bs, cs := numbered("a", 10), numbered("b", 10), numbered("c", 10)
	eventually(t, "envelopes", func() bool {
		return a.sees(append(bs[:10:10], cs...)...) && b.sees(append(as[:10:10], cs...)...) && c.sees(append(as[:10:10], bs...)...)
	})
	eventually(t, "chunks", func() bool { return a.store.len() == 30 && b.store.len() == 30 && c.store.len() == 30 })
	if n := len(a.Devices()); n != 3 {
		t.Fatalf("%d devices", n)
	}
}

func TestCatchUpAndRestart(t *testing.T) {
	a, b := pair(t)
	a.write("one")
	eventually(t, "first", func() bool { return b.sees("one") })
	b.stop()
	for i := range 700 {
		a.write(fmt.Sprintf("x%d", i))
	}
	for range 1500 {
		a.store.put(t, 100)
	}
	b.start()
	eventually(t, "catch up", func() bool { return b.sees(append(numbered("x", 700), "one")...) })
	eventually(t, "chunks", func() bool { return b.store.len() == 1500 })
	// The other way, with both restarted and a only dialed by b.
	b.write("after")
	b.stop()
	a.stop()
	a.start()
	b.start()
	eventually(t, "the other way", func() bool { return a.sees("after") })
	if err := waitFor(a, 1, 10*time.Second); err != nil {
		t.Fatal(err)
	}
}

func waitFor(n *testNode, replicas int, d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return n.Wait(ctx, replicas, nil)
}

func TestKeylessReplicaForwards(t *testing.T) {
	mk := memNet()
	a := newTestNode(t, "a", mk).found().start()
	r := newTestNode(t, "r", mk)
	r.edit = func(c *Config) { c.Deliver, c.Admit = nil, nil }
	r.joinBy(a, RoleReplica).start()
	b := newTestNode(t, "b", mk).joinBy(a, RoleMember)
	eventually(t, "connection", func() bool { return a.connectedTo(r) })
	a.write("for b")
	id := a.store.put(t, 70000)
	a.Poke()
	if err := waitFor(a, 1, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	a.stop()
	// b has never met r; it learns r's address only from what a told it when it joined.
	b.start()
	b.Replica.mu.Lock()
	b.learnAddrs(r.id(), []string{"r"}, false)
	b.Replica.mu.Unlock()
	eventually(t, "relayed", func() bool { return b.sees("for b") })
	if _, err := b.Fetch(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Append(AuthorOf(r.id(), [8]byte{1}), testEpoch, []byte("x")); !errors.Is(err, ErrNotMember) {
		t.Fatalf("replica writes: %v", err)
	}
	if _, err := r.CreateInvite(RoleMember, time.Hour); !errors.Is(err, ErrNotMember) {
		t.Fatalf("replica invites: %v", err)
	}
}

func TestDeliverLater(t *testing.T) {
	mk := memNet()
	a := newTestNode(t, "a", mk).found().start()
	b := newTestNode(t, "b", mk)
	// Everything of c comes first, though it arrives last.
	seenC := false
	b.edit = func(c *Config) {
		plain := c.Deliver
		c.Deliver = func(e Envelope) error {
			if string(e.Sealed) == "c" {
				seenC = true
			}
			if !seenC {
				return fmt.Errorf("too early: %w", ErrLater)
			}
			return plain(e)
		}
	}
	b.joinBy(a, RoleMember).start()
	eventually(t, "connection", func() bool { return a.connectedTo(b) })
	a.write("a1")
	a.write("a2")
	eventually(t, "stored", func() bool { return b.Vector()[a.author] == 2 })
	if len(b.texts()) != 0 {
		t.Fatal("delivered too early")
	}
	c := newTestNode(t, "c", mk).joinBy(a, RoleMember).start()
	c.write("c")
	eventually(t, "all", func() bool { return b.sees("a1", "a2", "c") })
}

func TestDeliverErrorIsRetried(t *testing.T) {
	mk := memNet()
	a := newTestNode(t, "a", mk).found().start()
	b := newTestNode(t, "b", mk)
	failed := false
	b.edit = func(c *Config) {
		plain := c.Deliver
		c.Deliver = func(e Envelope) error {
			if !failed {
				failed = true
				return errors.New("disk on fire")
			}
			return plain(e)
		}
	}
	b.joinBy(a, RoleMember).start()
	a.write("1")
	a.write("2")
	eventually(t, "retry", func() bool { return b.sees("1", "2") })
}

func TestReplay(t *testing.T) {
	a, b := pair(t)
	for i := range 5 {
		a.write(fmt.Sprintf("a%d", i))
	}
	b.write("b0")
	b.write("b1")
	eventually(t, "envelopes", func() bool { return b.sees(numbered("a", 5)...) })
	b.stop()
	r, err := Open(b.config())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []string
	err = r.Replay(map[AuthorID]uint64{a.author: 3, b.author: 1}, func(e Envelope) error {
		if string(e.Sealed) == "b1" && len(got) < 2 {
			return ErrLater
		}
		got = append(got, string(e.Sealed))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[2] != "b1" || got[0] != "a3" {
		t.Fatalf("replayed %q", got)
	}
}

func TestWaitAndStatus(t *testing.T) {
	a, b := pair(t)
	b.stop()
	eventually(t, "a to notice", func() bool { return !a.status(t).Devices[1].Connected })
	for range 10 {
		a.write("x")
		a.store.put(t, 1000)
	}
	st := a.status(t)
	if d := st.Devices[1]; d.Connected || d.MissingBatches != 10 || d.MissingChunks != 10 || d.MissingBytes != 10000 {
		t.Fatalf("status: %+v", d)
	}
	if err := waitFor(a, 1, 50*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("wait without anybody: %v", err)
	}
	done, began := make(chan error, 1), make(chan struct{})
	var first Progress
	go func() {
		done <- a.Wait(context.Background(), 1, func(p Progress) {
			if first.Want == 0 {
				first = p
				close(began)
			}
		})
	}()
	<-began
	b.start()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if first.MissingBatches != 10 || first.MissingChunks != 10 || first.Have != 0 {
		t.Fatalf("first progress %+v", first)
	}
	if d := a.status(t).Devices[1]; !d.Connected || d.MissingBatches+d.MissingChunks+d.MissingBytes != 0 || d.AckedBatches != 10 {
		t.Fatalf("status: %+v", d)
	}
	if n := b.store.flushed(); n != 10 {
		t.Fatalf("acknowledged without a flush: %d", n)
	}
	// What b writes itself it has.
	b.write("own")
	eventually(t, "b's own", func() bool { return a.sees("own") })
	if err := waitFor(a, 1, 5*time.Second); err != nil {
		t.Fatal(err)
	}
}

func TestFetch(t *testing.T) {
	a, b := pair(t)
	id := a.store.put(t, 50000) // not poked
	got, err := b.Fetch(t.Context(), id)
	if err != nil || len(got) != 50000 {
		t.Fatal(len(got), err)
	}
	began := time.Now()
	_, err = b.Fetch(t.Context(), chunk.ID{1})
	if !errors.Is(err, ErrUnavailable) || time.Since(began) > 5*time.Second {
		t.Fatalf("after %v: %v", time.Since(began), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := b.Fetch(ctx, chunk.ID{2}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

// TestFetchAtOnce: who is connected has the last word, unless somebody else waits for the same chunk.
func TestFetchAtOnce(t *testing.T) {
	mk := memNet()
	a := newTestNode(t, "a", mk).found().start()
	b := newTestNode(t, "b", mk)
	b.edit = func(c *Config) { c.FetchTimeout, c.FetchGrace = time.Minute, time.Minute }
	b.joinBy(a, RoleMember).start()
	eventually(t, "connection", func() bool { return b.connectedTo(a) })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := b.FetchAtOnce(ctx, chunk.ID{1}); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	id := a.store.put(t, 50000)
	if got, err := b.FetchAtOnce(ctx, id); err != nil || len(got) != 50000 {
		t.Fatal(len(got), err)
	}
	patient, giveUp := context.WithCancel(ctx)
	waits := make(chan error, 1)
	go func() {
		_, err := b.Fetch(patient, chunk.ID{2})
		waits <- err
	}()
	eventually(t, "call", func() bool { return b.fetches.has(chunk.ID{2}) })
	short, stop := context.WithTimeout(ctx, 500*time.Millisecond)
	defer stop()
	if _, err := b.FetchAtOnce(short, chunk.ID{2}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("beside a patient one: %v", err)
	}
	giveUp()
	if err := <-waits; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestFetchWithoutOthers: where there is no other device, none is waited for.
func TestFetchWithoutOthers(t *testing.T) {
	a := newTestNode(t, "a", memNet())
	a.edit = func(c *Config) { c.FetchTimeout, c.FetchGrace = time.Minute, time.Minute }
	a.found().start()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := a.Fetch(ctx, chunk.ID{1}); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "no other device") {
		t.Fatal(err)
	}
}

func TestFetchHedgesSlowPeer(t *testing.T) {
	mk := memNet()
	a := newTestNode(t, "a", mk).found().start()
	b := newTestNode(t, "b", mk).joinBy(a, RoleMember).start()
	c := newTestNode(t, "c", mk).joinBy(a, RoleMember).start()
	eventually(t, "mesh", func() bool { return c.connectedTo(a) && c.connectedTo(b) })
	id := a.store.put(t, 3000)
	eventually(t, "copy", func() bool { a.Poke(); return b.store.len() == 1 && c.store.len() == 1 })
	c.store.mu.Lock()
	delete(c.store.chunks, id)
	c.store.mu.Unlock()
	a.store.mu.Lock()
	a.store.slow = time.Minute
	a.store.mu.Unlock()
	began := time.Now()
	if _, err := c.Fetch(t.Context(), id); err != nil || time.Since(began) > 2*time.Second {
		t.Fatal(time.Since(began), err)
	}
}

func TestFetchFromSilentPeerIsBounded(t *testing.T) {
	mk := memNet()
	a := newTestNode(t, "a", mk).found().start()
	b := newTestNode(t, "b", mk)
	b.edit = func(c *Config) { c.FetchTimeout = 200 * time.Millisecond }
	b.joinBy(a, RoleMember).start()
	eventually(t, "connection", func() bool { return b.connectedTo(a) })
	id := a.store.put(t, 100)
	a.store.mu.Lock()
	a.store.slow = time.Minute
	a.store.mu.Unlock()
	began := time.Now()
	_, err := b.Fetch(t.Context(), id)
	if !errors.Is(err, ErrUnavailable) || time.Since(began) > 3*time.Second {
		t.Fatalf("after %v: %v", time.Since(began), err)
	}
	t.Log(err)
}

func TestPushSurvivesFullDisk(t *testing.T) {
	a, b := pair(t)
	b.store.mu.Lock()
	b.store.fail = errors.New("no space left")
	b.store.mu.Unlock()
	a.store.put(t, 100)
	a.Poke()
	a.write("x")
	eventually(t, "log goes on", func() bool { return b.sees("x") })
	b.Replica.mu.Lock()
	s := b.sessions[a.id()]
	b.Replica.mu.Unlock()
	eventually(t, "the push to be refused", func() bool {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		return b.store.failed > 0
	})
	b.write("y")
	eventually(t, "the log still", func() bool { return a.sees("y") })
	if s == nil || s.ctx.Err() != nil {
		t.Error("the connection broke")
	}
	b.store.mu.Lock()
	b.store.fail = nil
	b.store.mu.Unlock()
	eventually(t, "chunk", func() bool { return b.store.len() == 1 })
}

func TestCrashPullsCursorsBack(t *testing.T) {
	a, b := pair(t)
	for range 10 {
		a.store.put(t, 100)
	}
	a.Poke()
	if err := waitFor(a, 1, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	a.stop()
	// A power cut takes the last five; others come in their place.
	a.store.mu.Lock()
	for _, it := range a.store.order[5:] {
		delete(a.store.chunks, it.ID)
	}
	a.store.order = a.store.order[:5]
	a.store.mu.Unlock()
	a.start()
	for range 5 {
		a.store.put(t, 100)
	}
	a.Poke()
	eventually(t, "all 15", func() bool { return b.store.len() == 15 })
}
