package node

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/replica"
)

// byHand is a member whose checkpoints are made when the test says so.
type byHand struct {
	*checkpointer
	t *testing.T
}

func byHandConfig(t *testing.T, name string) Config {
	cfg := testConfig(t, filepath.Join(t.TempDir(), name))
	cfg.Checkpoints = Checkpoints{Tick: time.Hour, MinOps: 10}
	return cfg
}

func newByHand(t *testing.T, cfg Config) byHand {
	t.Helper()
	n := mustOpen(t, cfg)
	p, err := loadPresence(n.state)
	if err != nil {
		t.Fatal(err)
	}
	return byHand{newCheckpointer(n, p), t}
}

// joinByHand lets a further member in.
func (m byHand) joinByHand(name string) byHand {
	m.t.Helper()
	line, err := controlNode{m.n}.Invite(m.t.Context(), control.InviteRequest{})
	if err != nil {
		m.t.Fatal(err)
	}
	cfg := byHandConfig(m.t, name)
	if err := Join(m.t.Context(), cfg, line); err != nil {
		m.t.Fatal(err)
	}
	return newByHand(m.t, cfg)
}

func (m byHand) fill(name string) {
	m.t.Helper()
	for i := range 20 {
		m.put(fmt.Sprint(name, i))
	}
}

func (m byHand) put(name string) {
	m.t.Helper()
	err := (files{v: m.n.vol}).Put(m.t.Context(), name, control.PutOptions{Mode: 0o600}, strings.NewReader(name))
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m byHand) steps() {
	m.t.Helper()
	if err := m.step(m.t.Context()); err != nil {
		m.t.Error(err)
	}
}

// promiseAll lets all members say what they have seen, and promise it.
func promiseAll(members ...byHand) {
	for range 3 {
		for _, m := range members {
			m.t.Helper()
			err := m.n.vol.Acknowledge(func() []namespace.Device { return devicesOf(m.active()) }, namespace.Retention{})
			if err != nil {
				m.t.Fatal(err)
			}
			alike(members...)
		}
	}
}

// alike waits until all members have the same batches and entries of the control log.
func alike(members ...byHand) {
	t := members[0].t
	t.Helper()
	until(t, "the same everywhere", func() bool {
		first := members[0].n
		for _, m := range members[1:] {
			a, b := first.vector(), m.n.vector()
			if fmt.Sprint(a) != fmt.Sprint(b) || !slices.EqualFunc(first.repl.Checkpoints(), m.n.repl.Checkpoints(), func(x, y replica.Checkpoint) bool {
				return x.ID == y.ID && len(x.Endorsed) == len(y.Endorsed)
			}) {
				return false
			}
		}
		return true
	})
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no sign of %s within 20s", what)
		}
	}
}

// TestCheckpointBesideCompletion: a device makes a checkpoint while it does not know yet that another one is complete, from which the others
// would begin. That is no error, nobody waits for it, and the next one is agreed on.
func TestCheckpointBesideCompletion(t *testing.T) {
	ctx := t.Context()
	cfg := byHandConfig(t, "a")
	if _, err := Create(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	a := newByHand(t, cfg)
	b := a.joinByHand("b")
	for i, name := range []string{"one", "two"} {
		a.fill(name)
		promiseAll(a, b)
		until(t, "a complete checkpoint", func() bool {
			list := a.n.repl.Checkpoints()
			if err := errors.Join(a.endorse(ctx, list, 0), a.make(ctx, list)); err != nil { // a keeps its logs
				t.Error(err)
			}
			b.steps()
			alike(a, b)
			list = a.n.repl.Checkpoints()
			return len(list) == i+1 && list[0].Complete()
		})
	}
	list := a.n.repl.Checkpoints()
	c := a.joinByHand("c")
	a.fill("three")
	alike(a, b, c)
	// As if a heard that the second is complete while it makes the third.
	before := slices.Clone(list)
	before[0].Endorsed, a.due = before[0].Endorsed[:1], 100
	if err := a.make(ctx, before); err != nil || len(a.n.repl.Checkpoints()) != 2 {
		t.Errorf("made one that does not continue the newest one: %v", err)
	}
	// As if it hears of it after that.
	seen, active := a.n.vector(), a.n.members()
	w := newStreamWriter(ctx, a.n.streams())
	tree, err := a.n.rebuild(ctx, &list[1], seen, active, w)
	if err != nil {
		t.Fatal(err)
	}
	version, err := w.finish()
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.n.repl.ProposeCheckpoint(replica.Checkpoint{Active: active, Clock: tree.clock, Version: version, Digest: tree.digest}, list[1].ID, seen)
	if err != nil {
		t.Fatal(err)
	}
	alike(a, b, c)
	last := tree.clock
	until(t, "a complete checkpoint of all three", func() bool {
		for _, m := range []byHand{a, b, c} {
			m.steps()
		}
		cp := a.n.newestComplete()
		return cp.Clock >= last && len(cp.Active) == 3
	})
	for _, m := range []byHand{a, b, c} {
		if m.n.differs.Load() {
			t.Error("a member says that it came to another tree")
		}
	}
	if err := a.n.Close(); err != nil { // while somebody is there who hears what it said last
		t.Error(err)
	}
}
