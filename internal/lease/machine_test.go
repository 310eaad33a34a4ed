package lease

import (
	"errors"
	"testing"
	"time"
)

// pair is two machines that talk without delay, on one clock.
type pair struct {
	t    *testing.T
	now  time.Duration
	m    [2]*Machine
	cut  bool
	done map[Op]time.Duration // and when
}

func newPair(t *testing.T) *pair {
	p := &pair{t: t, done: map[Op]time.Duration{}}
	for i := range p.m {
		p.m[i] = New(Config{Self: Log{byte(i + 1)}})
	}
	var first [2][]Effect
	for i := range p.m {
		first[i], _ = p.m[i].Step(p.now, LinkUp{p.name(1 - i)})
	}
	for i, effects := range first {
		for _, f := range effects {
			p.carryOut(i, f)
		}
	}
	p.pass(time.Second)
	return p
}

func (p *pair) name(i int) Peer { return Peer{byte(i + 1)} }

func (p *pair) step(i int, e Event) {
	p.t.Helper()
	effects, err := p.m[i].Step(p.now, e)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range effects {
		p.carryOut(i, f)
	}
}

func (p *pair) carryOut(i int, f Effect) {
	switch f := f.(type) {
	case Send:
		msg, ok := p.m[i].Poll(p.now, p.name(1-i))
		if ok && !p.cut {
			p.step(1-i, Receive{p.name(i), msg})
		}
	case Done:
		p.done[f.Op] = p.now
	case Publish:
		p.step(i, Published{})
	case Flush:
		p.step(i, Flushed(f))
	case Drop:
		p.step(i, Dropped{Token: f.Token})
	}
}

// pass lets time go by in small steps.
func (p *pair) pass(d time.Duration) {
	p.t.Helper()
	for end := p.now + d; p.now < end; {
		p.now += time.Millisecond
		for i := range p.m {
			if p.m[i].Deadline() <= p.now {
				p.step(i, Tick{})
			}
		}
	}
}

var home = Dir{ID: [16]byte{15: 9}}

// TestBothSidesKnow cuts two mounts apart while one of them waits for the other, and
// wants the one that is waited for to know before the other stops waiting.
func TestBothSidesKnow(t *testing.T) {
	p := newPair(t)
	if !p.m[0].Connected(p.name(1)) || !p.m[1].Connected(p.name(0)) {
		t.Fatal("not connected after a second")
	}
	p.step(1, Observe{1, []Dir{home}})
	if _, ok := p.done[1]; !ok {
		t.Fatal("a read waits although the answer is there")
	}
	p.cut = true
	cut := p.now
	p.step(0, Write{2, 1, []Dir{home}})
	for !p.isDone(2) {
		if p.m[1].Connected(p.name(0)) && p.now-cut > 450*time.Millisecond {
			t.Fatal("the side that is cut off does not know after its term")
		}
		p.pass(time.Millisecond)
	}
	if waited := p.done[2] - cut; waited > 500*time.Millisecond {
		t.Errorf("waited for %v", waited)
	}
	for i := range p.m {
		if p.m[i].Connected(p.name(1 - i)) {
			t.Errorf("%d counts the other as connected", i)
		}
	}
	p.step(0, Write{3, 2, []Dir{home}})
	if !p.isDone(3) {
		t.Error("the second write waits too")
	}
	p.cut = false
	p.pass(time.Second)
	if !p.m[0].Connected(p.name(1)) || !p.m[1].Connected(p.name(0)) {
		t.Error("not connected again")
	}
}

func (p *pair) isDone(op Op) bool { _, ok := p.done[op]; return ok }

// TestWriterWaitsForWhoWatches has writes wait exactly for those that watch.
func TestWriterWaitsForWhoWatches(t *testing.T) {
	p := newPair(t)
	own := Dir{ID: [16]byte{1}, Maker: Log{2}, At: 7}
	if p.m[0].Watched(p.now, []Dir{home}) {
		t.Error("watched although nobody looked")
	}
	if !p.m[0].Watched(p.now, []Dir{own}) {
		t.Error("what the other made is not watched")
	}
	if p.m[1].Watched(p.now, []Dir{own}) {
		t.Error("its maker waits in it for somebody who never looked")
	}
	p.step(1, Observe{1, []Dir{home}})
	p.step(0, Write{2, 5, []Dir{home}})
	p.pass(100 * time.Millisecond)
	if p.isDone(2) {
		t.Fatal("done before it was applied")
	}
	p.step(1, Applied{Position{Log{1}, 5}})
	if !p.isDone(2) {
		t.Error("not done although it was applied")
	}
}

// TestSlowPeerIsRevoked has a peer that answers, but never applies.
func TestSlowPeerIsRevoked(t *testing.T) {
	p := newPair(t)
	p.step(1, Observe{1, []Dir{home}})
	began := p.now
	p.step(0, Write{2, 1, []Dir{home}})
	p.pass(600 * time.Millisecond)
	if at, ok := p.done[2]; !ok || at-began > 510*time.Millisecond {
		t.Errorf("a write waited for %v, done: %v", at-began, ok)
	}
	p.step(0, Write{3, 2, []Dir{home}})
	if !p.isDone(3) {
		t.Error("waits again for the peer that was revoked")
	}
}

// TestGivenBack has what is not used any more given back.
func TestGivenBack(t *testing.T) {
	p := newPair(t)
	own := Dir{ID: [16]byte{1}, Maker: Log{2}, At: 7}
	used := Dir{ID: [16]byte{2}, Maker: Log{2}, At: 6}
	p.step(1, Observe{1, []Dir{home, own, used}})
	for range 80 {
		p.pass(time.Second)
		if !p.m[1].Current(p.now, []Dir{used}) {
			t.Fatal("given back while it is used")
		}
	}
	for d, want := range map[Dir]bool{home: false, own: false, used: true} {
		if got := p.m[0].Watched(p.now, []Dir{d}); got != want {
			t.Errorf("directory %d watched: %v, want %v", d.ID[0], got, want)
		}
	}
}

// TestLeave has a mount that ends keep nobody waiting.
func TestLeave(t *testing.T) {
	p := newPair(t)
	p.step(1, Observe{1, []Dir{home}})
	p.step(1, Leave{})
	p.step(0, Write{2, 1, []Dir{home}})
	if !p.isDone(2) {
		t.Error("waits for who has left")
	}
	p.pass(time.Second)
	if p.m[0].Connected(p.name(1)) {
		t.Error("came back")
	}
}

// TestImpossibleMessages has messages that no honest peer sends refused.
func TestImpossibleMessages(t *testing.T) {
	join := Message{Log: Log{2}, Term: 1, Join: true}
	for name, list := range map[string][]Message{
		"no log":                     {{Term: 1, Join: true}},
		"answer to no question":      {join, {Granted: 1, Told: 5}},
		"echo of what was not said":  {join, {Granted: 1, Echo: time.Hour}},
		"questions out of order":     {join, {Term: 1, Number: 2}},
		"question without a number":  {join, {Term: 1, Ask: [][16]byte{home.ID}}},
		"a question taken back":      {join, {Term: 1, Number: 1}, {Term: 1}},
		"more than may be watched":   {join, {Term: 1, Number: 1, Ask: many(2*10 + 1)}},
		"more, a few in each of two": {join, {Term: 1, Number: 1, Ask: many(20)}, {Term: 1, Number: 2, Ask: [][16]byte{home.ID}}},
	} {
		m := New(Config{Self: Log{1}, MaxDirs: 10})
		_, err := m.Step(time.Second, LinkUp{Peer{2}})
		for _, msg := range list {
			if err != nil {
				t.Fatalf("%s: refused too early: %v", name, err)
			}
			_, err = m.Step(time.Second, Receive{Peer{2}, msg})
		}
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func many(n int) [][16]byte {
	list := make([][16]byte, n)
	for i := range list {
		list[i][3] = byte(i + 1)
	}
	return list
}

// TestWriterOutlastsWhoNeverApplies has a peer that begins another term whenever its own is revoked, watching the same
// in the same message, and never applies anything: a write waits for it no longer than for any other that is too slow, and
// soon most do not at all.
func TestWriterOutlastsWhoNeverApplies(t *testing.T) {
	m := New(Config{Self: Log{1}})
	peer := Peer{3}
	now, done := time.Duration(0), map[Op]time.Duration{}
	step := func(e Event) {
		effects, err := m.Step(now, e)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range effects {
			switch f := f.(type) {
			case Done:
				done[f.Op] = now
			case Publish:
				_, _ = m.Step(now, Published{Seq: 1})
			}
		}
	}
	term := uint64(1)
	say := func(join bool) {
		msg := Message{Log: Log{3}, Term: term, Join: join, Live: true, On: true, Stamp: now, Number: 1}
		if join {
			msg.Ask = [][16]byte{home.ID}
		}
		step(Receive{peer, msg})
	}
	step(LinkUp{peer})
	say(true)
	var held, free int
	for op := Op(1); now < 2*time.Minute; op++ {
		began := now
		step(Write{Op: op, Seq: uint64(op), Dirs: []Dir{home}})
		for pass := true; pass || done[op] == 0 && now-began < 5*time.Second; pass = false {
			now += 10 * time.Millisecond
			step(Tick{})
			msg, ok := m.Poll(now, peer)
			if revoked := ok && msg.Revoked == term; revoked {
				term++
			}
			say(m.peers[0].grant.term != term)
		}
		switch took := now - began; {
		case done[op] == 0, took > time.Second+20*time.Millisecond:
			t.Fatalf("write %d waited for %v, done %v", op, took, done[op])
		case took > 100*time.Millisecond:
			held++
		default:
			free++
		}
	}
	t.Logf("%d writes were held up, %d were not", held, free)
	if held > 40 || held < 5 {
		t.Errorf("%d writes were held up", held)
	}
}

// relink has the link between two mounts end, and another in its place after a while.
func (p *pair) relink(pause time.Duration) {
	p.t.Helper()
	p.cut = true
	for i := range p.m {
		p.step(i, LinkDown{p.name(1 - i)})
	}
	p.pass(pause)
	p.cut = false
	var first [2][]Effect
	for i := range p.m {
		first[i], _ = p.m[i].Step(p.now, LinkUp{p.name(1 - i)})
	}
	for i, effects := range first {
		for _, f := range effects {
			p.carryOut(i, f)
		}
	}
}

// TestReadAcrossLinks begins a read while the link of two connected mounts has gone: it waits until they have found
// together again, and has applied what the other did meanwhile; if that does not come, for Patience.
func TestReadAcrossLinks(t *testing.T) {
	for _, back := range []bool{true, false} {
		p := newPair(t)
		began := p.now
		p.step(1, LinkDown{p.name(0)})
		if p.m[1].Current(p.now, []Dir{home}) || p.m[1].Covered([]Dir{home}) || p.m[1].Idle() {
			t.Error("counts as not connected at once")
		}
		p.step(1, Observe{1, []Dir{home}})
		if back {
			p.relink(200 * time.Millisecond)
			p.pass(50 * time.Millisecond)
			if !p.isDone(1) || !p.m[1].Connected(p.name(0)) {
				t.Error("waits although they are connected again")
			}
			continue
		}
		p.cut = true
		p.pass(490 * time.Millisecond)
		if p.isDone(1) {
			t.Errorf("done after %v", p.done[1]-began)
		}
		p.pass(20 * time.Millisecond)
		if !p.isDone(1) || !p.m[1].Current(p.now, []Dir{home}) {
			t.Error("waits for who has gone")
		}
	}
}

// TestNoWaitForWhoHasLeft has the node of a connected mount end in order.
func TestNoWaitForWhoHasLeft(t *testing.T) {
	p := newPair(t)
	p.step(0, Leave{})
	p.step(1, LinkDown{p.name(0)})
	if !p.m[1].Current(p.now, []Dir{home}) {
		t.Error("waits for who has left")
	}
}
