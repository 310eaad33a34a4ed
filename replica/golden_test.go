package replica

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/foreverfs/forever/internal/lease"
	"github.com/foreverfs/forever/replica/replicapb"
)

// golden compares b with what is recorded, which never changes.
func golden(t *testing.T, name string, b []byte) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name+".hex")
	want, err := os.ReadFile(path)
	if os.IsNotExist(err) && os.Getenv("GOLDEN_RECORD") != "" {
		if err := os.WriteFile(path, []byte(hex.EncodeToString(b)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(b); got != strings.TrimSpace(string(want)) {
		t.Errorf("%s is not what it was:\n%s", name, got)
	}
}

func goldenEntries(t testing.TB) []*entry {
	c := newChain(t)
	c.must(c.add("a", genesis("a")))
	c.must(c.add("a", opens(1, Wrap{Device: idOf("a"), Key: []byte("for a")}, Wrap{Key: []byte("for the phrase")})))
	c.must(c.add("a", admits("b", RoleMember)))
	c.must(c.add("b", renames("b", "new name")))
	c.must(c.add("b", sets("replicas", "2")))
	id, author := idOf("b"), AuthorOf(idOf("b"), [8]byte{1})
	last := []*replicapb.Position{{Author: author[:], Seq: 7}}
	c.must(c.add("a", &replicapb.ControlEntry{What: &replicapb.ControlEntry_Release{Release: &replicapb.Release{Chunks: id[:], Stable: last, NotBefore: 5}}}))
	p, sig := recoveryFor(idOf("a"))
	c.must(c.add("a", &replicapb.ControlEntry{What: &replicapb.ControlEntry_Recovery{Recovery: p.proto(sig)}}))
	first := c.must(c.add("a", checkpointOf(nil, []string{"a", "b"}, logEnd("a", 1, 4), logEnd("b", 1, 2))))
	c.must(c.add("b", endorses(first.hash)))
	c.must(c.add("a", checkpointOf(first.hash[:], []string{"a"}, logEnd("a", 1, 7))))
	c.must(c.add("b", &replicapb.ControlEntry{What: &replicapb.ControlEntry_Return{Return: &replicapb.Return{}}}))
	handed := opens(1, Wrap{Device: idOf("b"), Key: []byte("for b")})
	handed.GetEpoch().Handed = true
	c.must(c.add("a", handed))
	c.must(c.add("a", &replicapb.ControlEntry{What: &replicapb.ControlEntry_Revoke{Revoke: &replicapb.Revoke{Device: id[:], Last: last, Reason: "stolen"}}}))
	return c.log.order
}

func goldenEnvelope(t testing.TB, seq uint64) signed {
	e := Envelope{Author: AuthorOf(idOf("a"), [8]byte{1}), Device: idOf("a"), Seq: seq, Epoch: testEpoch, Heads: []Hash{{1}, {2}}, Sealed: []byte("sealed")}
	if seq > 1 {
		e.Prev = Hash{3}
	}
	body, err := e.marshal(testVolume)
	if err != nil {
		t.Fatal(err)
	}
	return sign(keyOf("a"), envelopeDomain, body)
}

func TestGoldenFormats(t *testing.T) {
	names := []string{"genesis", "epoch", "admit", "rename", "policy", "release", "recovery", "checkpoint", "endorse", "checkpoint-next", "return", "epoch-handed", "revoke"}
	for i, e := range goldenEntries(t) {
		b, err := e.marshal()
		if err != nil {
			t.Fatal(err)
		}
		golden(t, names[i], b)
	}
	for name, seq := range map[string]uint64{"envelope-first": 1, "envelope": 2} {
		s := goldenEnvelope(t, seq)
		b, err := s.marshal()
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, b)
	}
	p, err := proto.Marshal(&replicapb.PeerRecord{
		Addrs: []string{"10.0.0.1:4747"}, LastSeen: 6, Acked: []*replicapb.Position{{Author: testEpoch[:], Seq: 9}},
		Pushed: make([]byte, 12), Received: make([]byte, 12),
	})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "peer", p)
	for i, m := range leaseSamples() {
		b, err := proto.Marshal(leaseProto(&m))
		if err != nil {
			t.Fatal(err)
		}
		golden(t, fmt.Sprint("lease-", i+1), b)
	}
}

// What was ever written is read for ever.
func TestGoldenFormatsAreRead(t *testing.T) {
	log := newControlLog(testVolume)
	for _, name := range []string{"genesis", "epoch", "admit", "rename", "policy", "release", "recovery", "checkpoint", "endorse", "checkpoint-next", "return", "epoch-handed", "revoke"} {
		e, err := parseEntry(testVolume, readGolden(t, name))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := log.add(e); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if last, limited := log.limit(AuthorOf(idOf("b"), [8]byte{1}), idOf("b")); !limited || last != 7 {
		t.Errorf("of the revoked device %d count: %v", last, limited)
	}
	if d, ok := log.known(idOf("b")); !ok || d.Name != "new name" || d.Role != RoleMember {
		t.Errorf("%+v", d)
	}
	if list := log.checkpoints; len(list) != 2 || log.devices[idOf("b")].returns != 1 {
		t.Errorf("checkpoints %v", list)
	}
	if log.settings()["replicas"] != "2" {
		t.Error(log.settings())
	}
	s := readGolden(t, "envelope")
	e, err := parseEnvelope(testVolume, s.body)
	if err != nil {
		t.Fatal(err)
	}
	if e.Seq != 2 || e.Prev != (Hash{3}) || string(e.Sealed) != "sealed" || !s.verify(envelopeDomain, e.Device) {
		t.Errorf("%+v", e)
	}
}

func readGolden(t *testing.T, name string) signed {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "golden", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := parseSigned(b, maxEnvelope)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The sizes that docs/format tells.
func TestWorkedSizes(t *testing.T) {
	size := func(what string, m proto.Message, want int) {
		t.Helper()
		if got := proto.Size(m); got != want {
			t.Errorf("%s: %d bytes, told are %d", what, got, want)
		}
	}
	c := newChain(t)
	c.must(c.add("a", genesis("a")))
	size("admission", c.must(c.add("a", admits("b", RoleMember))).proto(), 237)
	size("rename", c.must(c.add("b", renames("b", "new name"))).proto(), 208)
	cp := c.must(c.add("a", checkpointOf(nil, []string{"a", "b"}, logEnd("a", 1, 4), logEnd("b", 1, 2))))
	size("checkpoint", cp.proto(), 422)
	size("endorsement", c.must(c.add("b", endorses(cp.hash))).proto(), 199)
	for seq, want := range map[uint64]int{1: 1196, 2: 1230} {
		e := Envelope{Author: AuthorOf(idOf("a"), [8]byte{1}), Device: idOf("a"), Seq: seq, Heads: []Hash{{1}}, Sealed: make([]byte, 1000)}
		body, err := e.marshal(testVolume)
		if err != nil {
			t.Fatal(err)
		}
		s := sign(keyOf("a"), envelopeDomain, body)
		size("envelope", s.proto(), want)
	}
	o := &replicapb.Offer{Number: 100, Ids: make([]byte, 512*32), End: make([]byte, 12)}
	for range 512 {
		o.Sizes = append(o.Sizes, 65000)
	}
	size("offer", &replicapb.PushMessage{Offer: o}, 17947)
	renewal := lease.Message{Term: 1, Live: true, On: true, Stamp: time.Hour, Beat: true, Number: 3, Applied: 1000,
		Granted: 1, Echo: time.Hour, Told: 3, Upto: 1000}
	size("lease", leaseProto(&renewal), 36)
	renewal.Ask = [][16]byte{{}}
	size("lease and question", leaseProto(&renewal), 54)
	size("request", &replicapb.FetchRequest{Ids: make([]byte, 32)}, 34)
}
