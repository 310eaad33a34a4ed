package replica

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zeebo/blake3"
	"google.golang.org/protobuf/proto"

	"github.com/foreverfs/forever/replica/replicapb"
)

// chain builds control entries by hand: a little language for tests.
type chain struct {
	t    testing.TB
	log  *controlLog
	tick int64
}

func newChain(t testing.TB) *chain { return &chain{t: t, log: newControlLog(testVolume)} }

func keyOf(name string) ed25519.PrivateKey {
	seed := blake3.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func idOf(name string) DeviceID { return DeviceID(keyOf(name).Public().(ed25519.PublicKey)) }

// make signs an entry of a device on top of the given parents.
func (c *chain) make(by string, parents []Hash, what *replicapb.ControlEntry) *entry {
	c.t.Helper()
	c.tick++
	id := idOf(by)
	what.Volume, what.Signer, what.Parents, what.Time = testVolume[:], id[:], hashList(parents), 1_700_000_000_000+c.tick
	body, err := proto.Marshal(what)
	if err != nil {
		c.t.Fatal(err)
	}
	e, err := parseEntry(testVolume, sign(keyOf(by), controlDomain, body))
	if err != nil {
		c.t.Fatal(err)
	}
	return e
}

// add makes an entry on top of everything and adds it.
func (c *chain) add(by string, what *replicapb.ControlEntry) (*entry, error) {
	c.t.Helper()
	return c.on(by, c.log.headList(), what)
}

func (c *chain) on(by string, parents []Hash, what *replicapb.ControlEntry) (*entry, error) {
	c.t.Helper()
	e := c.make(by, parents, what)
	_, err := c.log.add(e)
	return e, err
}

func (c *chain) must(e *entry, err error) *entry {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
	return e
}

func genesis(by string) *replicapb.ControlEntry {
	p, sig := recoveryFor(idOf(by))
	return &replicapb.ControlEntry{What: &replicapb.ControlEntry_Genesis{Genesis: &replicapb.Genesis{
		Format: 1, Name: by, Box: make([]byte, 32), Recovery: p.proto(sig),
	}}}
}

func admits(name string, role Role) *replicapb.ControlEntry {
	id := idOf(name)
	return &replicapb.ControlEntry{What: &replicapb.ControlEntry_Admit{Admit: &replicapb.Admit{
		Device: id[:], Box: make([]byte, 32), Name: name, Role: replicapb.Role(role),
	}}}
}

func renames(name, to string) *replicapb.ControlEntry {
	id := idOf(name)
	return &replicapb.ControlEntry{What: &replicapb.ControlEntry_Rename{Rename: &replicapb.Rename{Device: id[:], Name: to}}}
}

func sets(key, value string) *replicapb.ControlEntry {
	return &replicapb.ControlEntry{What: &replicapb.ControlEntry_Policy{Policy: &replicapb.Policy{
		Settings: []*replicapb.Setting{{Key: key, Value: value}},
	}}}
}

func opens(id byte, wraps ...Wrap) *replicapb.ControlEntry {
	e := EpochID{id}
	for i := range wraps {
		wraps[i].Epoch = e
	}
	return &replicapb.ControlEntry{What: &replicapb.ControlEntry_Epoch{Epoch: &replicapb.Epoch{Id: e[:], Wraps: wrapList(wraps)}}}
}

func revokes(name string, last uint64) *replicapb.ControlEntry {
	id, author := idOf(name), AuthorOf(idOf(name), [8]byte{1})
	return &replicapb.ControlEntry{What: &replicapb.ControlEntry_Revoke{Revoke: &replicapb.Revoke{
		Device: id[:], Last: []*replicapb.Position{{Author: author[:], Seq: last}},
	}}}
}

// mints puts the recovery key of a name into force.
func mints(by, name string) *replicapb.ControlEntry {
	box := [32]byte{byte(len(name))}
	p := RecoveryPublic{Sign: idOf(name), Box: box}
	sig := ed25519.Sign(keyOf(name), RecoveryMessage(testVolume, idOf(by), box))
	return &replicapb.ControlEntry{What: &replicapb.ControlEntry_Recovery{Recovery: p.proto(sig)}}
}

func TestControlAuthority(t *testing.T) {
	c := newChain(t)
	g := c.must(c.add("a", genesis("a")))
	b := c.must(c.add("a", admits("b", RoleMember)))
	c.must(c.add("b", admits("r", RoleReplica)))
	c.must(c.add("r", renames("r", "box")))
	c.must(c.add("a", opens(1)))
	refused := func(what string, _ *entry, err error) {
		t.Helper()
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	check := func(what string) func(*entry, error) {
		return func(e *entry, err error) { t.Helper(); refused(what, e, err) }
	}
	check("second genesis")(c.add2("a", genesis("a")))
	check("stranger admits")(c.add("x", admits("y", RoleMember)))
	check("replica admits")(c.add("r", admits("y", RoleMember)))
	check("replica sets policy")(c.add("r", sets("k", "v")))
	check("replica renames another")(c.add("r", renames("a", "z")))
	check("rename of a stranger")(c.add("a", renames("y", "z")))
	check("before its admission")(c.on("b", []Hash{g.hash}, sets("k", "v")))
	check("unknown parent")(c.on("a", []Hash{{1}}, sets("k", "v")))
	c.must(c.on("b", []Hash{b.hash}, sets("k", "v"))) // right at it
	c.must(c.add("recovery", admits("n", RoleMember)))
	if got := len(c.log.deviceList()); got != 4 {
		t.Fatalf("%d devices", got)
	}
	if d, _ := c.log.device(idOf("r")); d.Name != "box" || d.Role != RoleReplica || d.By != idOf("b") {
		t.Fatalf("%+v", d)
	}
}

// add2 is add without parents, as only a genesis may be.
func (c *chain) add2(by string, what *replicapb.ControlEntry) (*entry, error) {
	return c.on(by, nil, what)
}

func TestRetiredRecoveryKeyHasNoRight(t *testing.T) {
	c := newChain(t)
	c.must(c.add("a", genesis("a")))
	newKey := keyOf("new recovery")
	box := [32]byte{8}
	p := RecoveryPublic{Sign: idOf("new recovery"), Box: box}
	set := func(signer ed25519.PrivateKey) *replicapb.ControlEntry {
		sig := ed25519.Sign(signer, RecoveryMessage(testVolume, idOf("a"), box))
		return &replicapb.ControlEntry{What: &replicapb.ControlEntry_Recovery{Recovery: p.proto(sig)}}
	}
	c.must(c.add("a", set(newKey)))
	if _, err := c.add("recovery", admits("x", RoleMember)); !errors.Is(err, ErrInvalid) {
		t.Fatalf("retired key admits: %v", err)
	}
	c.must(c.add("new recovery", admits("x", RoleMember)))
	what := set(keyOf("somebody"))
	id := idOf("a")
	what.Volume, what.Signer, what.Parents = testVolume[:], id[:], hashList(c.log.headList())
	body, err := proto.Marshal(what)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseEntry(testVolume, sign(keyOf("a"), controlDomain, body)); !errors.Is(err, ErrInvalid) {
		t.Fatalf("key that never agreed: %v", err)
	}
}

// says is all that a control log says.
func (c *controlLog) says() map[string]any {
	current, _ := c.currentEpoch()
	out := map[string]any{"devices": c.deviceList(), "policy": c.settings(), "current": current, "heads": c.headList(), "recovery": c.recovery.hash}
	for id, s := range c.epochs {
		for d, w := range s.wraps {
			out[fmt.Sprintf("%x %v", id, d)] = w.key
		}
	}
	out["out"] = c.outList()
	for _, id := range c.outList() {
		out[fmt.Sprint("limit ", id)], _ = c.limit(AuthorOf(id, [8]byte{1}), id)
	}
	var void []Hash
	for h := range c.voided {
		void = append(void, h)
	}
	slices.SortFunc(void, func(a, b Hash) int { return bytes.Compare(a[:], b[:]) })
	out["void"] = void
	return out
}

// Any order of arrival that keeps parents before children says the same.
func TestControlOrderDoesNotMatter(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	out, void := 0, 0
	for range 200 {
		c := newChain(t)
		c.must(c.add("a", genesis("a")))
		for range 30 {
			c.randomEntry(rng)
		}
		want := c.log.says()
		out, void = out+len(c.log.outList()), void+len(c.log.voided)
		for range 3 {
			again := newControlLog(testVolume)
			for len(again.order) < len(c.log.order) {
				e := c.log.order[rng.IntN(len(c.log.order))]
				if !again.knows(e.parents) {
					continue
				}
				fresh, err := parseEntry(testVolume, e.signed)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := again.add(fresh); err != nil {
					t.Fatalf("in another order: %v", err)
				}
			}
			if diff := cmp.Diff(want, again.says()); diff != "" {
				t.Fatal(diff)
			}
		}
	}
	if out == 0 || void == 0 {
		t.Fatalf("%d devices out, %d entries void: the histories try nothing", out, void)
	}
	t.Logf("%d devices out, %d entries void", out, void)
}

// randomEntry adds an entry on top of some earlier ones; one that is refused is dropped.
func (c *chain) randomEntry(rng *rand.Rand) {
	names := []string{"a", "b", "c", "d"}
	by, of := names[rng.IntN(4)], names[rng.IntN(4)]
	parents := map[Hash]bool{}
	for range 1 + rng.IntN(2) {
		parents[c.log.order[max(0, len(c.log.order)-1-rng.IntN(4))].hash] = true
	}
	var list []Hash
	for h := range parents {
		list = append(list, h)
	}
	what := []*replicapb.ControlEntry{
		admits(of, Role(1+rng.IntN(2))), renames(of, fmt.Sprintf("n%d", rng.IntN(100))),
		sets(fmt.Sprintf("k%d", rng.IntN(3)), fmt.Sprint(rng.IntN(100))),
		opens(byte(rng.IntN(3)), Wrap{Device: idOf(of), Key: []byte{byte(rng.IntN(100))}}),
		revokes(of, uint64(rng.IntN(10))), mints(by, fmt.Sprint("recovery", []string{"", "2", "3"}[rng.IntN(3)])),
	}[rng.IntN(6)]
	if rng.IntN(5) == 0 && what.GetRecovery() == nil {
		by = fmt.Sprint("recovery", []string{"", "2", "3"}[rng.IntN(3)])
	}
	_, _ = c.on(by, list, what)
}

func TestLackingIsWhatTheOtherNeeds(t *testing.T) {
	c := newChain(t)
	c.must(c.add("a", genesis("a")))
	b := c.must(c.add("a", admits("b", RoleMember)))
	x := c.must(c.on("a", []Hash{b.hash}, sets("x", "1")))
	y := c.must(c.on("b", []Hash{b.hash}, sets("y", "1")))
	if got := c.log.lacking([]Hash{x.hash, {9}}); len(got) != 1 || got[0] != y {
		t.Fatalf("%d entries", len(got))
	}
	if got := c.log.lacking(nil); !slices.Equal(got, c.log.order) {
		t.Fatalf("%d entries", len(got))
	}
}

func TestDeviceNames(t *testing.T) {
	for _, name := range []string{"a", "Große Kiste", "host.example", "a b"} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", " a", "a/b", "a\nb", "\xff", ".", "..", string(make([]byte, 65)), "a\u202eb"} {
		if CheckName(name) == nil {
			t.Errorf("%q passed", name)
		}
	}
}
