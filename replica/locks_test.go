package replica

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/foreverfs/forever/internal/lock"
	"github.com/foreverfs/forever/replica/replicapb"
)

// lockMount is a mount on which nothing is written.
type lockMount struct{}

func (lockMount) PublishFile(context.Context, [16]byte) (uint64, error) { return 0, nil }
func (lockMount) DropPages(_ [16]byte, done func())                     { done() }

// lockers starts two nodes that share locks, and waits until they do.
func lockers(t *testing.T) (a, b *Locks) {
	mk := memNet()
	na, nb := newTestNode(t, "a", mk), newTestNode(t, "b", mk)
	na.before = func() { a = na.KeepLocks(LockConfig{Author: na.author, Mount: lockMount{}}) }
	nb.before = func() { b = nb.KeepLocks(LockConfig{Author: nb.author, Mount: lockMount{}}) }
	na.found().start()
	nb.joinBy(na, RoleMember).start()
	eventually(t, "each other's locks", func() bool {
		probe := exclusive(99, 1)
		if d, err := a.Acquire(t.Context(), probe); err != nil || d.Result != lock.Granted {
			t.Fatal(d, err)
		}
		defer func() { _ = a.Release(lock.Release{File: probe.File, Held: probe.Held}) }()
		d, err := b.Acquire(t.Context(), lock.Acquire{File: probe.File, Held: exclusive(99, 2).Held, Test: true})
		if err != nil {
			t.Fatal(err)
		}
		return d.Result == lock.Refused
	})
	return a, b
}

// exclusive asks for a whole file, and waits.
func exclusive(file byte, owner uint64) lock.Acquire {
	return lock.Acquire{
		File: lock.File{file}, Wait: true, Held: lock.Held{Owner: owner, Lock: lock.Lock{Exclusive: true, End: 1<<63 - 1}},
	}
}

func TestLocksExclude(t *testing.T) {
	a, b := lockers(t)
	one, two := exclusive(1, 1), exclusive(1, 2)
	if d, err := a.Acquire(t.Context(), one); err != nil || d.Result != lock.Granted {
		t.Fatal(d, err)
	}
	try := two
	try.Wait = false
	if d, err := b.Acquire(t.Context(), try); err != nil || d.Result != lock.Refused {
		t.Fatal(d, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan lock.Result, 1)
	wait := func(ctx context.Context) {
		d, err := b.Acquire(ctx, two)
		if err != nil {
			t.Error(err)
		}
		ended <- d.Result
	}
	go wait(ctx)
	cancel()
	if got := <-ended; got != lock.Interrupted {
		t.Fatal(got)
	}
	go wait(t.Context())
	if err := a.Release(lock.Release{File: one.File, Held: one.Held}); err != nil {
		t.Fatal(err)
	}
	if got := <-ended; got != lock.Granted {
		t.Fatal(got)
	}
	// Nobody waits for ever for a node that ends.
	failed := make(chan error, 1)
	go func() {
		_, err := a.Acquire(t.Context(), one)
		failed <- err
	}()
	if err := a.r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func lockSamples() []lock.Message {
	return []lock.Message{
		{Log: lock.Log{1}, Mine: 1, Time: time.Second, Beat: true, Clock: 4, Items: []lock.Item{{Kind: lock.Ask, File: lock.File{2}, Stamp: 4}}},
		{Yours: 1, Time: 2, Echo: time.Second, Clock: 9, Items: []lock.Item{
			{Kind: lock.Give, File: lock.File{2}, Want: true, Seq: 7, Locks: []lock.Lock{
				{Exclusive: true, Start: 3, End: 4}, {Class: lock.Flock, End: 1<<63 - 1},
			}},
			{Kind: lock.Show, File: lock.File{3}, Seq: 8}, {Kind: lock.Leave, File: lock.File{4}},
		}},
	}
}

func TestLockMessagesTravel(t *testing.T) {
	for i, m := range lockSamples() {
		b, err := proto.Marshal(lockProto(&m))
		if err != nil {
			t.Fatal(err)
		}
		golden(t, fmt.Sprint("lock-", i+1), b)
		var p replicapb.LockMessage
		if err := proto.Unmarshal(b, &p); err != nil {
			t.Fatal(err)
		}
		got, err := lockMessage(&p)
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := proto.Marshal(lockProto(&got)); string(again) != string(b) {
			t.Errorf("got %+v, sent %+v", got, m)
		}
	}
}

// FuzzLocks feeds a machine whatever a peer may send.
func FuzzLocks(f *testing.F) {
	for _, m := range lockSamples() {
		b, err := proto.Marshal(lockProto(&m))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p replicapb.LockMessage
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		msg, err := lockMessage(&p)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		m := lock.New(lock.Config{Self: lock.Peer{1}, Log: lock.Log{1}})
		peer := lock.Peer{2}
		events := []lock.Event{
			lock.LinkUp{Peer: peer}, lock.Receive{Peer: peer, Message: lock.Message{Log: lock.Log{2}, Mine: 1}}, exclusive(2, 1),
			lock.Receive{Peer: peer, Message: msg}, lock.Published{Token: 1}, lock.Receive{Peer: peer, Message: msg}, lock.LinkDown{Peer: peer},
		}
		for i, e := range events {
			if _, err := m.Step(time.Duration(i), e); err != nil && !errors.Is(err, lock.ErrInvalid) {
				t.Fatal(err)
			}
			m.Poll(time.Duration(i), peer)
		}
		if _, err := m.Step(time.Hour, lock.Tick{}); err != nil {
			t.Fatal(err)
		}
	})
}
