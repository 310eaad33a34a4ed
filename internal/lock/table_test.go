package lock

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// byteModel is who locks each byte of a small file, and how: 0 nobody, 1 shared, 2 exclusive.
type byteModel map[uint64]*[32]int

func (b byteModel) set(h *Held, how int) {
	if b[h.Owner] == nil {
		b[h.Owner] = &[32]int{}
	}
	for i := h.Start; i <= h.End; i++ {
		b[h.Owner][i] = how
	}
}

func (b byteModel) blocked(h *Held) bool {
	for owner, bytes := range b {
		for i := h.Start; i <= h.End && owner != h.Owner; i++ {
			if bytes[i] == 2 || bytes[i] == 1 && h.Exclusive {
				return true
			}
		}
	}
	return false
}

func (b byteModel) covers(h *Held) bool {
	for i := h.Start; i <= h.End; i++ {
		if b[h.Owner] == nil || b[h.Owner][i] == 0 || h.Exclusive && b[h.Owner][i] == 1 {
			return false
		}
	}
	return true
}

// TestTable sets and gives up random ranges beside a model that keeps every byte.
func TestTable(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 300 {
		var held table
		model := byteModel{}
		for range 60 {
			h := Held{Owner: rng.Uint64N(3)}
			h.Start = rng.Uint64N(32)
			h.End = h.Start + rng.Uint64N(32-h.Start)
			h.Exclusive = rng.IntN(2) == 0
			_, blocked := held.blocker(&h)
			if want := model.blocked(&h); blocked != want {
				t.Fatalf("%+v on %+v: blocked %v, want %v", h, held, blocked, want)
			}
			if got, want := held.covers(&h), model.covers(&h); got != want {
				t.Fatalf("%+v on %+v: covered %v, want %v", h, held, got, want)
			}
			switch {
			case rng.IntN(3) == 0:
				held, _ = held.without(&h)
				model.set(&h, 0)
			case !blocked && h.Exclusive:
				held = held.with(h)
				model.set(&h, 2)
			case !blocked:
				held = held.with(h)
				model.set(&h, 1)
			}
			checkTable(t, held, model)
		}
	}
}

// checkTable expects the same as the model says, in as few pieces as can be.
func checkTable(t *testing.T, held table, model byteModel) {
	t.Helper()
	back := byteModel{}
	for i := range held {
		h := &held[i]
		back.set(h, map[bool]int{false: 1, true: 2}[h.Exclusive])
		for j := range held {
			o := &held[j]
			if i != j && o.Owner == h.Owner && (o.overlaps(&h.Lock) || o.Exclusive == h.Exclusive && o.End+1 == h.Start) {
				t.Fatalf("%+v and %+v are two", *h, *o)
			}
		}
	}
	shown := [32]int{}
	for _, l := range held.shown(100) {
		for i := l.Start; i <= l.End; i++ {
			shown[i] = max(shown[i], map[bool]int{false: 1, true: 2}[l.Exclusive])
		}
	}
	for i := range 32 {
		want := 0
		for owner := range uint64(3) {
			var a, b int
			if m := model[owner]; m != nil {
				a = m[i]
			}
			if m := back[owner]; m != nil {
				b = m[i]
			}
			if a != b {
				t.Fatalf("byte %d of %d: %d, want %d", i, owner, b, a)
			}
			want = max(want, a)
		}
		if shown[i] != want {
			t.Fatalf("byte %d is shown as %d, want %d", i, shown[i], want)
		}
	}
}

// alone is a machine without peers, and what its requests came to.
type alone struct {
	t       *testing.T
	m       *Machine
	op      Op
	results map[Op]Result
}

func newAlone(t *testing.T, cfg Config) *alone {
	return &alone{t: t, m: New(cfg), results: map[Op]Result{}}
}

func (a *alone) step(e Event) {
	a.t.Helper()
	effects, err := a.m.Step(0, e)
	if err != nil {
		a.t.Fatal(err)
	}
	for _, f := range effects {
		if d, ok := f.(Done); ok {
			a.results[d.Op] = d.Result
		}
	}
}

// ask has an owner ask for a range, waiting, and returns the request.
func (a *alone) ask(file byte, owner, start, end uint64, process bool) Op {
	a.t.Helper()
	a.op++
	a.step(Acquire{
		Op: a.op, File: File{file}, Wait: true, Process: process,
		Held: Held{Owner: owner, Lock: Lock{Exclusive: true, Start: start, End: end}},
	})
	return a.op
}

func (a *alone) expect(op Op, want ...Result) {
	a.t.Helper()
	got, done := a.results[op]
	if done != (len(want) > 0) || done && !slices.Contains(want, got) {
		a.t.Fatalf("request %d: done %v, %v, want %v", op, done, got, want)
	}
}

// TestCircles has processes wait for each other, in one file and over several.
func TestCircles(t *testing.T) {
	a := newAlone(t, Config{})
	for owner := range uint64(3) {
		a.expect(a.ask(byte(owner), owner, 0, 9, true), Granted)
	}
	first, second := a.ask(1, 0, 5, 5, true), a.ask(2, 1, 5, 5, true)
	a.expect(first)
	a.expect(second)
	a.expect(a.ask(0, 2, 5, 5, true), Deadlock)
	other := a.ask(0, 2, 5, 5, false) // not a process: it may unlock while it waits
	a.expect(other)
	a.step(Release{File: File{2}, Held: Held{Owner: 2, Lock: Lock{End: 9}}})
	a.expect(second, Granted)
	a.step(Cancel{first})
	a.expect(first, Interrupted)
	a.step(Release{File: File{0}, Held: Held{Owner: 0, Lock: Lock{End: 9}}})
	a.expect(other, Granted)
}

// TestTooMany expects bounds on what is kept.
func TestTooMany(t *testing.T) {
	a := newAlone(t, Config{MaxFiles: 3, MaxLocks: 2})
	for f := range byte(3) {
		a.expect(a.ask(f, 1, 0, 0, false), Granted)
	}
	a.expect(a.ask(3, 1, 0, 0, false), TooMany)
	a.expect(a.ask(0, 1, 2, 2, false), Granted)
	a.expect(a.ask(0, 1, 4, 4, false), TooMany)
	a.step(Release{File: File{1}, Held: Held{Owner: 1, Lock: Lock{End: 9}}})
	if a.m.sweepAt = 0; true { // what nobody locks is forgotten
		if _, err := a.m.Step(a.m.cfg.Idle*2, Tick{}); err != nil {
			t.Fatal(err)
		}
	}
	a.expect(a.ask(3, 1, 0, 0, false), Granted)
}

// TestUnlockedFilesDoNotCount locks and unlocks as many files as may be locked, and at once another.
func TestUnlockedFilesDoNotCount(t *testing.T) {
	a := newAlone(t, Config{MaxFiles: 3})
	for f := range byte(6) {
		a.expect(a.ask(f, 1, 0, 9, false), Granted)
		a.step(Release{File: File{f}, Held: Held{Owner: 1, Lock: Lock{End: 9}}})
	}
	for f := range byte(3) {
		a.expect(a.ask(f, 1, 0, 9, false), Granted)
	}
	a.expect(a.ask(3, 1, 0, 9, false), TooMany)
	a.expect(a.ask(0, 1, 10, 19, false), Granted)
}

// TestTooManyPieces expects a bound on what unlocking here and there, or a waiter's turn, makes of a lock.
func TestTooManyPieces(t *testing.T) {
	a := newAlone(t, Config{MaxLocks: 2})
	unlock := func(at uint64) error {
		_, err := a.m.Step(0, Release{Held: Held{Owner: 1, Lock: Lock{Start: at, End: at}}})
		return err
	}
	a.expect(a.ask(0, 1, 0, 99, false), Granted)
	waits := a.ask(0, 2, 1, 1, false)
	for _, at := range []uint64{3, 5, 7} {
		if err := unlock(at); err != nil {
			t.Fatal(err)
		}
	}
	if err := unlock(9); !errors.Is(err, ErrTooMany) {
		t.Fatalf("got %v", err)
	}
	if len(a.m.files[File{}].held) != 4 {
		t.Fatal(a.m.files[File{}].held)
	}
	a.step(Release{Held: Held{Owner: 1, Lock: Lock{End: 1}}}) // not in the middle
	a.expect(waits, TooMany)
	a.step(Release{Held: Held{Owner: 1, Lock: Lock{End: 99}}})
	a.expect(a.ask(0, 2, 1, 1, false), Granted)
}

// TestHostile expects messages that no honest peer sends to be refused.
func TestHostile(t *testing.T) {
	log := Log{9}
	many := make([]Lock, 5)
	for what, msg := range map[string]Message{
		"no log":               {},
		"clock":                {Log: log, Clock: 1 << 63},
		"outside of a session": {Log: log, Clock: 5, Items: []Item{{Kind: Ask, Stamp: 5}}},
		"no stamp":             {Log: log, Mine: 1, Clock: 5, Items: []Item{{Kind: Ask}}},
		"stamp of the future":  {Log: log, Mine: 1, Clock: 5, Items: []Item{{Kind: Ask, Stamp: 6}}},
		"too many locks":       {Log: log, Mine: 1, Items: []Item{{Kind: Give, Locks: many}}},
	} {
		m := New(Config{MaxLocks: 4})
		if _, err := m.Step(0, LinkUp{Peer{1}}); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Step(0, Receive{Peer{1}, msg}); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	m := New(Config{MaxFiles: 1})
	_, _ = m.Step(0, LinkUp{Peer{1}})
	msg := Message{Log: log, Mine: 1, Clock: 5}
	for f := range byte(5) {
		msg.Items = append(msg.Items, Item{Kind: Ask, Stamp: 5, File: File{f}})
	}
	if _, err := m.Step(0, Receive{Peer{1}, msg}); err == nil {
		t.Error("asked for any number of files")
	}
}
