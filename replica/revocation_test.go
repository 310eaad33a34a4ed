package replica

import (
	"errors"
	"testing"
)

// team founds a volume of a, and the members b, c, d, with an epoch for all.
func team(t *testing.T) (*chain, []Hash) {
	c := newChain(t)
	c.must(c.add("a", genesis("a")))
	for _, name := range []string{"b", "c", "d"} {
		c.must(c.add("a", admits(name, RoleMember)))
	}
	c.must(c.add("a", opens(1, Wrap{Key: []byte("r")}, Wrap{Device: idOf("a"), Key: []byte("a")}, Wrap{Device: idOf("b"), Key: []byte("b")},
		Wrap{Device: idOf("c"), Key: []byte("c")}, Wrap{Device: idOf("d"), Key: []byte("d")})))
	return c, c.log.headList()
}

func (c *chain) isIn(names ...string) {
	c.t.Helper()
	for _, name := range names {
		if _, in := c.log.device(idOf(name)); !in {
			c.t.Errorf("%s is out", name)
		}
	}
}

func (c *chain) isOut(names ...string) {
	c.t.Helper()
	for _, name := range names {
		if _, in := c.log.device(idOf(name)); in {
			c.t.Errorf("%s is in", name)
		}
	}
}

func TestRevokedHasNoRight(t *testing.T) {
	c, before := team(t)
	c.must(c.add("a", revokes("d", 5)))
	c.isOut("d")
	if _, err := c.add("d", sets("k", "late")); !errors.Is(err, ErrInvalid) {
		t.Errorf("knowing: %v", err)
	}
	// What it signs into the past is kept, without effect, and so is what follows from it.
	x := c.must(c.on("d", before, admits("x", RoleMember)))
	c.must(c.on("d", before, sets("k", "backdated")))
	c.must(c.on("d", before, renames("a", "thief")))
	y := c.must(c.on("x", []Hash{x.hash}, admits("y", RoleMember)))
	c.must(c.on("x", []Hash{x.hash}, revokes("a", 0)))
	c.must(c.on("y", []Hash{y.hash}, revokes("b", 0)))
	c.isIn("a", "b", "c")
	c.isOut("x", "y")
	if c.log.settings()["k"] != "" {
		t.Error(c.log.settings())
	}
	if d, _ := c.log.device(idOf("a")); d.Name != "a" {
		t.Error(d.Name)
	}
	if last, limited := c.log.limit(AuthorOf(idOf("x"), [8]byte{1}), idOf("x")); !limited || last != 0 {
		t.Errorf("of x %d batches count", last)
	}
}

func TestWhatTheRevokerKnewStays(t *testing.T) {
	c, _ := team(t)
	c.must(c.add("d", admits("x", RoleMember)))
	c.must(c.add("d", sets("k", "v")))
	c.must(c.add("a", revokes("d", 5)))
	c.isIn("a", "x")
	if c.log.settings()["k"] != "v" {
		t.Error(c.log.settings())
	}
}

// Who throws each other out is out.
func TestMutualRevocation(t *testing.T) {
	c, before := team(t)
	c.must(c.on("a", before, revokes("d", 3)))
	c.must(c.on("d", before, revokes("a", 4)))
	c.isOut("a", "d")
	c.isIn("b", "c")
	// The others' word counts more than theirs.
	if last, _ := c.log.limit(AuthorOf(idOf("a"), [8]byte{1}), idOf("a")); last != 4 {
		t.Errorf("limit %d", last)
	}
	c.must(c.add("b", revokes("a", 9)))
	if last, _ := c.log.limit(AuthorOf(idOf("a"), [8]byte{1}), idOf("a")); last != 9 {
		t.Errorf("limit %d", last)
	}
	c.must(c.on("d", before, revokes("a", 1000)))
	if last, _ := c.log.limit(AuthorOf(idOf("a"), [8]byte{1}), idOf("a")); last != 9 {
		t.Errorf("limit %d by the word of who is out", last)
	}
}

// The recovery key's word breaks the tie, whether or not it knew of it.
func TestRecoveryKeyBreaksTies(t *testing.T) {
	for _, knowing := range []bool{true, false} {
		c, before := team(t)
		c.must(c.on("a", before, revokes("d", 3)))
		c.must(c.on("d", before, revokes("a", 4)))
		on := before
		if knowing {
			on = c.log.headList()
		}
		c.must(c.on("recovery", on, revokes("d", 3)))
		c.isOut("d")
		c.isIn("a", "b", "c")
	}
}

// A ring of revocations, none of which knows another: all are out.
func TestRingOfRevocations(t *testing.T) {
	c, before := team(t)
	c.must(c.on("a", before, revokes("b", 1)))
	c.must(c.on("b", before, revokes("c", 1)))
	c.must(c.on("c", before, revokes("a", 1)))
	c.isOut("a", "b", "c")
	c.isIn("d")
}

// A thief who has the retired phrase can sign what he likes into the past.
func TestRetiredPhraseIsWorthNothing(t *testing.T) {
	c, before := team(t)
	c.must(c.add("a", revokes("d", 3)))
	c.must(c.add("a", mints("a", "recovery2")))
	for _, name := range []string{"a", "b", "c"} {
		c.must(c.on("recovery", before, revokes(name, 0)))
	}
	x := c.must(c.on("recovery", before, admits("x", RoleMember)))
	c.must(c.on("x", []Hash{x.hash}, revokes("a", 0)))
	c.must(c.on("recovery", before, mints("recovery", "recovery3")))
	c.isIn("a", "b", "c")
	c.isOut("d", "x")
	if p := recoveryIn(c.log.recovery).GetSign(); DeviceID(p) != idOf("recovery2") {
		t.Error("another phrase is in force")
	}
	c.must(c.add("recovery2", admits("n", RoleMember)))
	c.isIn("n")
}

// A device that is out cannot have retired the phrase, unless somebody knew.
func TestThiefCannotRetireThePhrase(t *testing.T) {
	c, before := team(t)
	c.must(c.add("a", revokes("d", 3)))
	m := c.must(c.on("d", before, mints("d", "recovery2")))
	c.must(c.on("recovery2", []Hash{m.hash}, revokes("a", 0)))
	c.must(c.on("recovery2", []Hash{m.hash}, admits("x", RoleMember)))
	c.isIn("a", "b", "c")
	c.isOut("d", "x")
	if p := recoveryIn(c.log.recovery).GetSign(); DeviceID(p) != idOf("recovery") {
		t.Error("another phrase is in force")
	}
	c.must(c.add("recovery", admits("n", RoleMember)))
}

func TestEpochAfterRevocation(t *testing.T) {
	c, before := team(t)
	current := func() byte {
		id, found := c.log.currentEpoch()
		if !found {
			return 0
		}
		return id[0]
	}
	if got := current(); got != 1 {
		t.Fatalf("epoch %d", got)
	}
	c.must(c.add("a", revokes("d", 3)))
	if got := current(); got != 0 {
		t.Fatalf("epoch %d, which d can open", got)
	}
	// One that was opened by somebody who did not know yet.
	c.must(c.on("b", before, opens(2, Wrap{Device: idOf("d"), Key: []byte("d")})))
	// One that d opened, but not for itself; and a key of it handed on by b does not make it better.
	c.must(c.on("d", before, opens(3, Wrap{Device: idOf("b"), Key: []byte("b")})))
	handed := opens(3, Wrap{Device: idOf("c"), Key: []byte("c")})
	handed.GetEpoch().Handed = true
	c.must(c.add("b", handed))
	if got := current(); got != 0 {
		t.Fatalf("epoch %d, which d can open", got)
	}
	c.must(c.add("b", opens(4, Wrap{Device: idOf("b"), Key: []byte("b")}, Wrap{Key: []byte("r")})))
	if got := current(); got != 4 {
		t.Fatalf("epoch %d", got)
	}
	// What d says of it does not make it worse, nor does it replace a key.
	c.must(c.on("d", before, opens(4, Wrap{Device: idOf("d"), Key: []byte("x")}, Wrap{Device: idOf("b"), Key: []byte("x")})))
	if got := current(); got != 4 || string(c.log.epochs[EpochID{4}].wraps[idOf("b")].key) != "b" {
		t.Fatalf("epoch %d", got)
	}
	// The holder of the old phrase can open it.
	c.must(c.add("a", mints("a", "recovery2")))
	if got := current(); got != 0 {
		t.Fatalf("epoch %d, which the retired phrase can open", got)
	}
}

// The key of the genesis keeps its right when somebody without one mints it once more.
func TestRecoveryKeyMintedAgainInVain(t *testing.T) {
	c, before := team(t)
	c.must(c.add("a", revokes("d", 5)))
	again := c.must(c.on("d", before, mints("d", "recovery")))
	c.must(c.on("recovery", []Hash{again.hash}, sets("k", "v")))
	for range 2 {
		if !c.log.voided[again.hash] || c.log.settings()["k"] != "v" {
			t.Errorf("%v %v", c.log.voided[again.hash], c.log.settings())
		}
		c.must(c.add("a", revokes("c", 5))) // all is judged anew
	}
}
