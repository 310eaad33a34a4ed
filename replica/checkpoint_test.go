package replica

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/replica/replicapb"
)

func logEnd(of string, start byte, seq uint64) *replicapb.LogEnd {
	a := AuthorOf(idOf(of), [8]byte{start})
	return &replicapb.LogEnd{Author: a[:], Seq: seq, Hash: bytes.Repeat([]byte{byte(seq)}, 32)}
}

func sortedEnds(list ...*replicapb.LogEnd) []*replicapb.LogEnd {
	slices.SortFunc(list, func(a, b *replicapb.LogEnd) int { return bytes.Compare(a.GetAuthor(), b.GetAuthor()) })
	return list
}

// checkpointOf is a well-formed checkpoint of some logs by some members.
func checkpointOf(base []byte, active []string, seen ...*replicapb.LogEnd) *replicapb.ControlEntry {
	p := &replicapb.Checkpoint{
		Format: 1, Base: base, Seen: sortedEnds(seen...), Clock: 5, Size: 10, BlockLog: chunk.MinBlockLog,
		Root: bytes.Repeat([]byte{1}, 32), Digest: bytes.Repeat([]byte{2}, 32),
	}
	for _, name := range active {
		id := idOf(name)
		p.Active = append(p.Active, id[:])
	}
	slices.SortFunc(p.Active, bytes.Compare)
	return &replicapb.ControlEntry{What: &replicapb.ControlEntry_Checkpoint{Checkpoint: p}}
}

func endorses(id Hash) *replicapb.ControlEntry {
	return &replicapb.ControlEntry{What: &replicapb.ControlEntry_Endorse{Endorse: &replicapb.Endorse{Checkpoint: id[:]}}}
}

func TestCheckpointAuthority(t *testing.T) {
	c := newChain(t)
	c.must(c.add("a", genesis("a")))
	c.must(c.add("a", admits("b", RoleMember)))
	r := c.must(c.add("a", admits("r", RoleReplica)))
	first := c.must(c.add("a", checkpointOf(nil, []string{"a", "b"}, logEnd("a", 1, 4), logEnd("b", 1, 2))))
	second := c.must(c.add("b", checkpointOf(first.hash[:], []string{"a", "b"}, logEnd("a", 1, 7), logEnd("b", 2, 1))))
	check := func(what string) func(*entry, error) {
		return func(_ *entry, err error) {
			t.Helper()
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	check("a keyless replica makes one")(c.add("r", checkpointOf(nil, []string{"r"}, logEnd("a", 1, 1))))
	check("a stranger makes one")(c.add("x", checkpointOf(nil, []string{"x"}, logEnd("a", 1, 1))))
	check("the recovery key makes one")(c.add("recovery", checkpointOf(nil, []string{"recovery"}, logEnd("a", 1, 1))))
	check("a keyless replica endorses")(c.add("r", endorses(first.hash)))
	check("a keyless replica is back")(c.add("r", &replicapb.ControlEntry{What: &replicapb.ControlEntry_Return{Return: &replicapb.Return{}}}))
	check("endorsement of what is none")(c.add("a", endorses(r.hash)))
	check("endorsement of an unknown one")(c.add("a", endorses(Hash{1})))
	check("endorsement before it")(c.on("b", []Hash{r.hash}, endorses(first.hash)))
	check("it continues an unknown one")(c.add("a", checkpointOf(bytes.Repeat([]byte{3}, 32), []string{"a"}, logEnd("a", 1, 9))))
	check("it continues what it does not know")(c.on("a", []Hash{r.hash}, checkpointOf(first.hash[:], []string{"a"}, logEnd("a", 1, 9))))
	check("a step back")(c.add("a", checkpointOf(first.hash[:], []string{"a"}, logEnd("a", 1, 4))))
	check("a log of nobody")(c.add("a", checkpointOf(nil, []string{"a"}, logEnd("x", 1, 4))))

	want := map[AuthorID]LogEnd{}
	for _, e := range []*replicapb.LogEnd{logEnd("a", 1, 7), logEnd("b", 1, 2), logEnd("b", 2, 1)} {
		want[AuthorID(e.GetAuthor())] = LogEnd{e.GetSeq(), Hash(e.GetHash())}
	}
	if diff := cmp.Diff(want, c.log.seen(c.log.checkpoints[second.hash])); diff != "" {
		t.Error(diff)
	}
	complete := func(e *entry) bool {
		p := c.log.checkpoints[e.hash].public()
		return p.Complete()
	}
	if complete(first) || complete(second) {
		t.Error("complete by one word of two")
	}
	c.must(c.add("b", endorses(first.hash)))
	c.must(c.add("b", endorses(second.hash)))
	if !complete(first) || complete(second) {
		t.Error("who endorsed which?")
	}
	gaveUp := func(e *entry) []DeviceID {
		p := c.log.checkpoints[e.hash].public()
		return p.GaveUp
	}
	c.must(c.add("b", &replicapb.ControlEntry{What: &replicapb.ControlEntry_Return{Return: &replicapb.Return{}}}))
	c.must(c.add("b", endorses(second.hash)))
	if diff := cmp.Diff([]DeviceID{idOf("b")}, gaveUp(first)); diff != "" || gaveUp(second) != nil || !complete(first) {
		t.Errorf("who began anew since? %s", diff)
	}
	// Those of a later format are kept, without effect.
	later := checkpointOf(nil, []string{"a"})
	later.GetCheckpoint().Format = 2
	e := c.must(c.add("a", later))
	c.must(c.add("b", endorses(e.hash)))
	if c.log.checkpoints[e.hash] != nil {
		t.Error("a checkpoint of an unknown format counts")
	}
}

func TestMalformedCheckpoints(t *testing.T) {
	maker := idOf("a")
	for name, spoil := range map[string]func(*replicapb.Checkpoint){
		"base":          func(c *replicapb.Checkpoint) { c.Base = []byte{1} },
		"digest":        func(c *replicapb.Checkpoint) { c.Digest = nil },
		"root":          func(c *replicapb.Checkpoint) { c.Root = c.Root[1:] },
		"nothing in it": func(c *replicapb.Checkpoint) { c.Size = 0 },
		"negative size": func(c *replicapb.Checkpoint) { c.Size = -1 },
		"block size":    func(c *replicapb.Checkpoint) { c.BlockLog = 300 },
		"height":        func(c *replicapb.Checkpoint) { c.Height = 300 },
		"nobody":        func(c *replicapb.Checkpoint) { c.Active = nil },
		"not its maker": func(c *replicapb.Checkpoint) {
			c.Active = c.Active[:0:0]
			b := idOf("b")
			c.Active = append(c.Active, b[:])
		},
		"half a device":     func(c *replicapb.Checkpoint) { c.Active = append([][]byte{{0}}, c.Active...) },
		"one twice":         func(c *replicapb.Checkpoint) { c.Active = append(c.Active, c.Active[len(c.Active)-1]) },
		"author":            func(c *replicapb.Checkpoint) { c.Seen[0].Author = nil },
		"place":             func(c *replicapb.Checkpoint) { c.Seen[0].Seq = 0 },
		"hash":              func(c *replicapb.Checkpoint) { c.Seen[0].Hash = nil },
		"logs out of order": func(c *replicapb.Checkpoint) { c.Seen[0], c.Seen[1] = c.Seen[1], c.Seen[0] },
	} {
		p := checkpointOf(nil, []string{"a", "b"}, logEnd("a", 1, 4), logEnd("b", 1, 2)).GetCheckpoint()
		if err := checkCheckpoint(maker[:], p); err != nil {
			t.Fatal(err)
		}
		spoil(p)
		if err := checkCheckpoint(maker[:], p); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// agreeOn has a make a checkpoint of all that is there, and the others endorse it.
func agreeOn(t *testing.T, a *testNode, others ...*testNode) Hash {
	t.Helper()
	active := []DeviceID{a.id()}
	for _, o := range others {
		active = append(active, o.id())
	}
	c := Checkpoint{Active: active, Clock: uint64(len(a.Checkpoints()) + 1), Version: chunk.Version{Size: 5, BlockLog: chunk.MinBlockLog, Root: chunk.ID{1}}}
	var base Hash
	if list := a.Checkpoints(); len(list) > 0 {
		base = list[0].ID
	}
	id, err := a.ProposeCheckpoint(c, base, a.Vector())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range others {
		eventually(t, "the checkpoint", func() bool { return o.CheckpointSeen(id) != nil })
		if err := o.Endorse(id); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "that all endorsed it", func() bool { l := a.Checkpoints(); return l[0].ID == id && l[0].Complete() })
	return id
}

func dropAll(t *testing.T, n *testNode, id Hash) {
	t.Helper()
	for done := false; !done; {
		var err error
		if done, err = n.DropLogs(id); err != nil {
			t.Fatal(err)
		}
	}
}

func (n *testNode) envelopes() (count int) {
	_ = n.kv.Scan([]byte{'l', 1}, kv.PrefixEnd([]byte{'l', 1}), func(_, _ []byte) bool { count++; return true })
	return count
}

// TestLogsBeginAtCheckpoint: logs before a checkpoint go, also if that is broken off; a newcomer begins
// behind it, and everybody goes on.
func TestLogsBeginAtCheckpoint(t *testing.T) {
	a, b := pair(t)
	for i := range 3 * dropCount {
		a.write(numbered("a", 3*dropCount)[i])
	}
	b.write("by b")
	eventually(t, "all at both", func() bool { return len(b.texts()) == 3*dropCount && a.sees("by b") })
	id := agreeOn(t, a, b)
	if _, err := a.DropLogs(id); err != nil {
		t.Fatal(err)
	}
	if n := a.envelopes(); n == 0 || n > 3*dropCount {
		t.Fatalf("%d envelopes after one step", n)
	}
	a.stop()
	a.start()
	if a.Base() != id {
		t.Fatal("forgot where its logs begin")
	}
	dropAll(t, a, id)
	dropAll(t, b, id)
	if n, m := a.envelopes(), b.envelopes(); n+m > 0 {
		t.Fatalf("%d and %d envelopes are left", n, m)
	}
	eventually(t, "connection", func() bool { return a.connectedTo(b) })
	b.write("after")
	eventually(t, "what comes after", func() bool { return slices.Contains(a.texts(), "after") })

	c := newTestNode(t, "c", a.make).joinBy(a, RoleMember)
	r, err := Open(c.config())
	if err != nil {
		t.Fatal(err)
	}
	if l := r.Checkpoints(); len(l) != 1 || !l[0].Complete() || l[0].ID != id {
		t.Fatalf("a newcomer knows %+v", l)
	}
	if err := r.BeginAt(id); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	c.start()
	eventually(t, "what came after the checkpoint", func() bool { return c.sees("after") })
	c.write("by c")
	eventually(t, "the newcomer's", func() bool { return slices.Contains(a.texts(), "by c") && slices.Contains(b.texts(), "by c") })
	if done, _ := c.CaughtUp(c.Admission()); !done {
		t.Error("not caught up")
	}
	for _, n := range []*testNode{a, b, c} {
		eventually(t, "one vector", func() bool { return cmp.Equal(a.Vector(), n.Vector()) })
	}
	next := agreeOn(t, a, b, c)
	dropAll(t, c, next)
	if _, err := a.DropLogs(Hash{9}); err == nil {
		t.Error("logs dropped before an unknown checkpoint")
	}
	dropAll(t, a, next)
	if _, err := a.DropLogs(id); err == nil {
		t.Error("logs begin at an earlier checkpoint than before")
	}
}

// TestOutrun: who needs what is gone is told; a member by its callback, a keyless replica
// goes on behind what is gone.
func TestOutrun(t *testing.T) {
	mk := memNet()
	a := newTestNode(t, "a", mk).found().start()
	b := newTestNode(t, "b", mk).joinBy(a, RoleMember).start()
	var mu sync.Mutex
	var told []AuthorID
	c := newTestNode(t, "c", mk)
	c.edit = func(cfg *Config) {
		cfg.Outrun = func(author AuthorID, _ uint64) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, author)
		}
	}
	c.joinBy(a, RoleMember).start()
	r := newTestNode(t, "r", mk)
	r.edit = func(cfg *Config) { cfg.Deliver, cfg.Admit = nil, nil }
	r.joinBy(a, RoleReplica).start()
	eventually(t, "connections", func() bool { return a.connectedTo(b) && a.connectedTo(c) && a.connectedTo(r) })
	c.write("by c")
	eventually(t, "all at c and r", func() bool { return len(r.Vector()) == 1 && len(a.Vector()) == 1 })
	c.stop()
	r.stop()
	for _, text := range numbered("a", 20) {
		a.write(text)
	}
	eventually(t, "all at b", func() bool { return cmp.Equal(a.Vector(), b.Vector()) })
	id := agreeOn(t, a, b)
	dropAll(t, a, id)
	dropAll(t, b, id)
	a.write("after")
	c.start()
	eventually(t, "the word that it was outrun", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Contains(told, AuthorID{})
	})
	if out, err := c.Outrun(); out || err != nil {
		t.Fatalf("marked by itself: %v", err)
	}
	if err := c.MarkOutrun(); err != nil {
		t.Fatal(err)
	}
	if out, err := c.Outrun(); !out || err != nil {
		t.Fatalf("not marked: %v", err)
	}
	r.start()
	eventually(t, "the replica with what came after", func() bool { return cmp.Equal(a.Vector(), r.Vector()) })
	if r.Base() != id {
		t.Error("the replica does not know where its logs begin")
	}
	// A batch that the tree refuses: its device is told, whether connected or not.
	mine := c.author
	a.Refuse(mine, 1)
	said := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Contains(told, mine)
	}
	eventually(t, "the word that its batch is refused", said)
	mu.Lock()
	told = nil
	mu.Unlock()
	c.stop()
	c.start()
	eventually(t, "the word again", said)
	if _, err := c.Return(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "that it is back", func() bool { return b.Returns()[c.id()] == 1 })
}
