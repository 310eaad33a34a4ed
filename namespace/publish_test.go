package namespace

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/foreverfs/forever/namespace/namespacepb"
)

// cutOne returns the payload of everything pending, committed.
func (r *rig) cutOne() []byte {
	r.t.Helper()
	payload, err := r.Cut()
	r.must(err)
	r.must(r.Committed(r.Vector()[r.Author()] + 1))
	return payload
}

func (r *rig) merge(a AuthorID, seq uint64, payload []byte) {
	r.t.Helper()
	_, err := r.Merge(a, seq, payload)
	r.must(err)
}

func TestMergeOrder(t *testing.T) {
	a, b, c := newRig(t, 1), newRig(t, 2), newRig(t, 3)
	a.must(a.mkdir("d"))
	a1 := a.cutOne()
	a.must(a.mkfile("d/f"))
	a2 := a.cutOne()
	if _, err := b.Merge(a.Author(), 2, a2); !errors.Is(err, ErrNotReady) {
		t.Fatalf("second batch first: %v", err)
	}
	b.merge(a.Author(), 1, a1)
	b.merge(a.Author(), 2, a2)
	b.merge(a.Author(), 2, a2)
	b.must(b.rm("d/f"))
	b1 := b.cutOne()
	if _, err := c.Merge(b.Author(), 1, b1); !errors.Is(err, ErrNotReady) {
		t.Fatalf("batch before what it builds on: %v", err)
	}
	c.must(c.mkfile("x"))
	if _, err := c.Merge(a.Author(), 1, a1); !errors.Is(err, ErrPending) {
		t.Fatalf("merge with pending ops: %v", err)
	}
	c.cutOne()
	c.merge(a.Author(), 1, a1)
	c.merge(a.Author(), 2, a2)
	c.merge(b.Author(), 1, b1)
	c.wantTree("d/", "x")
	if _, err := c.Merge(c.Author(), 2, a1); !errors.Is(err, ErrInvalid) {
		t.Fatalf("batch in the name of this incarnation: %v", err)
	}
}

// TestTailLost: the disk forgot the last batch that another device holds. The
// next incarnation works on, and gets the rest back.
func TestTailLost(t *testing.T) {
	a, b := newRig(t, 1), newRig(t, 2)
	old := a.Author()
	a.must(a.mkdir("d"))
	b.merge(old, 1, a.cutOne())
	a.must(a.mkfile("d/1"), a.mkfile("d/2"))
	full, err := a.Cut() // the log has it, and so has b; the tree was not told
	a.must(err)
	b.merge(old, 2, full)

	a.reopen(AuthorID{0: 1, 15: 2})
	if a.Pending() != 2 {
		t.Fatalf("%d ops pending after the restart", a.Pending())
	}
	a.must(a.mkfile("d/3"))
	adopted := a.cutOne()
	b.merge(a.Author(), 1, adopted)
	a.merge(old, 2, full)
	b.wantTree("d/", "d/1", "d/2", "d/3")
	a.wantTree("d/", "d/1", "d/2", "d/3")

	// A third device learns of it the other way round, and builds on an adopted op.
	c := newRig(t, 3)
	var h pb.Batch
	if err := proto.Unmarshal(adopted, &h); err != nil {
		t.Fatal(err)
	}
	if len(h.Adopted) != 1 || h.Adopted[0].Count != 2 || h.Predecessor == nil || h.Predecessor.Seq != 1 {
		t.Fatalf("adopting batch: %v", &h)
	}
	b.must(b.rm("d/1"))
	bPayload := b.cutOne()
	if _, err := c.Merge(b.Author(), 1, bPayload); !errors.Is(err, ErrNotReady) {
		t.Fatal(err)
	}
}

func TestUseOfAdoptedOps(t *testing.T) {
	a, b, c := newRig(t, 1), newRig(t, 2), newRig(t, 3)
	old := a.Author()
	a.must(a.mkdir("d"), a.mkfile("d/1"))
	a.reopen(AuthorID{0: 1, 15: 2})
	a1 := a.cutOne()
	b.merge(a.Author(), 1, a1)
	b.must(b.write("d/1", "x"), b.mv("d/1", "f", 0))
	b1 := b.cutOne()
	c.merge(a.Author(), 1, a1)
	c.merge(b.Author(), 1, b1)
	c.wantTree("d/", "f=x")
	if v := c.Vector(); v[old] != 0 || v[a.Author()] != 1 || v[b.Author()] != 1 || len(v) != 2 {
		t.Errorf("vector: %v", v)
	}
}

func TestCommitted(t *testing.T) {
	r := newRig(t, 1)
	if p, err := r.Cut(); p != nil || err != nil {
		t.Fatalf("nothing pending: %x, %v", p, err)
	}
	if err := r.Committed(1); !errors.Is(err, ErrInvalidArgument) {
		t.Fatalf("committed without a cut: %v", err)
	}
	r.must(r.mkfile("a"))
	_, err := r.Cut()
	r.must(err, r.mkfile("b"))
	if err := r.Committed(2); !errors.Is(err, ErrInvalidArgument) {
		t.Fatalf("committed out of turn: %v", err)
	}
	r.must(r.Committed(1))
	if r.Pending() != 1 {
		t.Fatalf("%d pending", r.Pending())
	}
	r.reopen(r.Author())
	if r.Pending() != 1 || r.Vector()[r.Author()] != 1 {
		t.Fatalf("after reopening: %d pending, %v", r.Pending(), r.Vector())
	}
}

func TestLargeBacklogIsSplit(t *testing.T) {
	a, b := newRig(t, 1), newRig(t, 2)
	a.must(a.mkfile("f"))
	for range 100 {
		a.must(a.write("f", strings.Repeat("x", MaxInline)))
	}
	cuts := map[logKey][]byte{}
	a.flush(cuts)
	if len(cuts) != 7 { // of 1 MiB
		t.Fatalf("%d batches", len(cuts))
	}
	for seq := uint64(1); seq <= uint64(len(cuts)); seq++ {
		b.merge(a.Author(), seq, cuts[logKey{a.Author(), seq}])
	}
	if x, _ := a.Hash(); x != mustHash(t, b.Tree) {
		t.Error("trees differ")
	}
}

func mustHash(t testing.TB, tree *Tree) [32]byte {
	t.Helper()
	sum, err := tree.Hash()
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// TestInvalidBatches: what a hostile member could send. None leaves a trace.
func TestInvalidBatches(t *testing.T) {
	file := nodeIDOf(OpID{1, AuthorID{0: 1, 15: 1}})
	other := AuthorID{0: 2, 15: 1}
	create := func(c *pb.Create) *pb.Op { return &pb.Op{Body: &pb.Op_Create{Create: c}} }
	good := func() *pb.Create {
		return &pb.Create{Parent: Root[:], Name: []byte("x"), Kind: uint32(KindFile), Mode: 0o644}
	}
	entry := EntryID{Op: OpID{1, AuthorID{0: 1, 15: 1}}}.Append(nil)
	future := EntryID{Op: OpID{99, AuthorID{0: 1, 15: 1}}}.Append(nil)
	for name, change := range map[string]func(b *pb.Batch){
		"version":           func(b *pb.Batch) { b.Version = 2 },
		"no ops":            func(b *pb.Batch) { b.Ops = nil },
		"counter too high":  func(b *pb.Batch) { b.First = 4 },
		"counter too low":   func(b *pb.Batch) { b.First = 2 },
		"counter zero":      func(b *pb.Batch) { b.First = 0 },
		"vector of itself":  func(b *pb.Batch) { b.Vector = append(b.Vector, &pb.Seen{Author: other[:], Seq: 1}) },
		"vector twice":      func(b *pb.Batch) { b.Vector = append(b.Vector, b.Vector[0]) },
		"vector short":      func(b *pb.Batch) { b.Vector[0].Author = []byte{1} },
		"op without body":   func(b *pb.Batch) { b.Ops = []*pb.Op{{}} },
		"second op invalid": func(b *pb.Batch) { b.Ops = append(b.Ops, &pb.Op{}) },
		"name with slash":   func(b *pb.Batch) { c := good(); c.Name = []byte("a/b"); b.Ops[0] = create(c) },
		"name too long":     func(b *pb.Batch) { c := good(); c.Name = make([]byte, 256); b.Ops[0] = create(c) },
		"kind 0":            func(b *pb.Batch) { c := good(); c.Kind = 0; b.Ops[0] = create(c) },
		"kind 257":          func(b *pb.Batch) { c := good(); c.Kind = 257; b.Ops[0] = create(c) },
		"mode":              func(b *pb.Batch) { c := good(); c.Mode = 0o100644; b.Ops[0] = create(c) },
		"target":            func(b *pb.Batch) { c := good(); c.Target = []byte("t"); b.Ops[0] = create(c) },
		"parent short":      func(b *pb.Batch) { c := good(); c.Parent = []byte{1}; b.Ops[0] = create(c) },
		"parent unknown":    func(b *pb.Batch) { c := good(); c.Parent = make([]byte, 16); b.Ops[0] = create(c) },
		"parent is a file":  func(b *pb.Batch) { c := good(); c.Parent = file[:]; b.Ops[0] = create(c) },
		"xattr too large": func(b *pb.Batch) {
			c := good()
			c.Xattrs = []*pb.XattrValue{{Name: []byte("user.x"), Value: make([]byte, MaxXattrValue+1)}}
			b.Ops[0] = create(c)
		},
		"op too large": func(b *pb.Batch) {
			c := good()
			for range 5 {
				c.Xattrs = append(c.Xattrs, &pb.XattrValue{Name: []byte("user.x"), Value: make([]byte, MaxXattrValue)})
			}
			b.Ops[0] = create(c)
		},
		"content of a directory": func(b *pb.Batch) {
			b.Ops[0] = &pb.Op{Body: &pb.Op_Content{Content: &pb.Content{Node: Root[:], Size: 1, Inline: []byte("x")}}}
		},
		"inline of another size": func(b *pb.Batch) {
			b.Ops[0] = &pb.Op{Body: &pb.Op_Content{Content: &pb.Content{Node: file[:], Size: 2, Inline: []byte("x")}}}
		},
		"replaces the future": func(b *pb.Batch) {
			b.Ops[0] = &pb.Op{Body: &pb.Op_Content{Content: &pb.Content{Node: file[:], Replaces: [][]byte{future[:24]}}}}
		},
		"removes the root": func(b *pb.Batch) {
			b.Ops[0] = &pb.Op{Body: &pb.Op_Remove{Remove: &pb.Remove{Parent: Root[:], Removal: &pb.Removal{Node: Root[:], Name: []byte("x")}}}}
		},
		"removes having seen the future": func(b *pb.Batch) {
			b.Ops[0] = &pb.Op{Body: &pb.Op_Remove{Remove: &pb.Remove{Parent: Root[:], Removal: &pb.Removal{Node: file[:], Name: []byte("f"), Seen: 5}}}}
		},
		"removes an unknown entry": func(b *pb.Batch) {
			b.Ops[0] = &pb.Op{Body: &pb.Op_Remove{Remove: &pb.Remove{Parent: Root[:], Removal: &pb.Removal{Node: file[:], Name: []byte("f"), Entries: [][]byte{entry, future}}}}}
		},
		"rename without a step": func(b *pb.Batch) { b.Ops[0] = &pb.Op{Body: &pb.Op_Rename{Rename: &pb.Rename{}}} },
		"links a directory": func(b *pb.Batch) {
			b.Ops[0] = &pb.Op{Body: &pb.Op_Link{Link: &pb.Link{Node: Root[:], Parent: Root[:], Name: []byte("x")}}}
		},
		"forks the future": func(b *pb.Batch) {
			b.Ops[0] = &pb.Op{Body: &pb.Op_Fork{Fork: &pb.Fork{Parent: Root[:], Name: []byte("x"), Of: future[:24], Content: &pb.Content{Node: file[:]}}}}
		},
		"forks a directory": func(b *pb.Batch) {
			b.Ops[0] = &pb.Op{Body: &pb.Op_Fork{Fork: &pb.Fork{Parent: Root[:], Name: []byte("x"), Of: entry[:24], Content: &pb.Content{Node: Root[:]}}}}
		},
		"acknowledges the future": func(b *pb.Batch) {
			b.Ops[0] = &pb.Op{Body: &pb.Op_Acknowledge{Acknowledge: &pb.Acknowledge{Floor: []*pb.Seen{{Author: entry[8:24], Seq: 9}}}}}
		},
		"acknowledges itself": func(b *pb.Batch) {
			b.Ops[0] = &pb.Op{Body: &pb.Op_Acknowledge{Acknowledge: &pb.Acknowledge{Own: 1}}}
		},
		"acknowledges twice": func(b *pb.Batch) {
			one := &pb.Seen{Author: entry[8:24], Seq: 1}
			b.Ops[0] = &pb.Op{Body: &pb.Op_Acknowledge{Acknowledge: &pb.Acknowledge{Floor: []*pb.Seen{one, one}}}}
		},
		"negative horizon": func(b *pb.Batch) {
			b.Ops[0] = &pb.Op{Body: &pb.Op_Acknowledge{Acknowledge: &pb.Acknowledge{Horizon: -1}}}
		},
		"forks nothing": func(b *pb.Batch) {
			b.Ops[0] = &pb.Op{Body: &pb.Op_Fork{Fork: &pb.Fork{Parent: Root[:], Name: []byte("x"), Of: entry[:24]}}}
		},
		"drops the future": func(b *pb.Batch) {
			b.Ops[0] = &pb.Op{Body: &pb.Op_Drop{Drop: &pb.Drop{Node: file[:], Contents: [][]byte{future[:24]}}}}
		},
		"demotes the future": func(b *pb.Batch) {
			b.Ops[0] = &pb.Op{Body: &pb.Op_Demote{Demote: &pb.Demote{Parent: Root[:], Name: []byte("f"), Entries: [][]byte{future}}}}
		},
		"moves a node twice": func(b *pb.Batch) {
			step := &pb.Step{Node: file[:], From: Root[:], FromName: []byte("f"), To: Root[:], ToName: []byte("g")}
			b.Ops[0] = &pb.Op{Body: &pb.Op_Rename{Rename: &pb.Rename{Step: step, More: []*pb.Step{step}}}}
		},
		"moves too much at once": func(b *pb.Batch) {
			step := &pb.Step{Node: file[:], From: Root[:], FromName: []byte("f"), To: Root[:], ToName: []byte("g")}
			b.Ops[0] = &pb.Op{Body: &pb.Op_Rename{Rename: &pb.Rename{Step: step, More: slices.Repeat([]*pb.Step{step}, maxSteps)}}}
		},
		"adopts from another device": func(b *pb.Batch) { b.Adopted = []*pb.Adopted{{Author: AuthorID{0: 1, 15: 9}.bytes(), Count: 1}} },
		"adopts more than there is":  func(b *pb.Batch) { b.Adopted = []*pb.Adopted{{Author: AuthorID{0: 2, 15: 9}.bytes(), Count: 2}} },
		"predecessor of another device": func(b *pb.Batch) {
			b.Predecessor = &pb.Seen{Author: AuthorID{0: 1, 15: 1}.bytes(), Seq: 1}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1)
			r.must(r.mkfile("f"), r.write("f", "x"))
			r.cutOne()
			mine := r.Author()
			b := &pb.Batch{Version: 1, First: 3, Vector: []*pb.Seen{{Author: mine[:], Seq: 1}}, Ops: []*pb.Op{create(good())}}
			before := dumpAll(r)
			change(b)
			payload, err := proto.Marshal(b)
			r.must(err)
			if _, err := r.Merge(other, 1, payload); !errors.Is(err, ErrInvalid) {
				t.Fatalf("got %v", err)
			}
			if after := dumpAll(r); after != before {
				t.Errorf("a refused batch changed the state:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
	r := newRig(t, 1)
	if _, err := r.Merge(other, 1, make([]byte, MaxPayload+1)); !errors.Is(err, ErrInvalid) {
		t.Errorf("too large: %v", err)
	}
	if _, err := r.Merge(other, 1, []byte{0x3a, 0xff}); !errors.Is(err, ErrInvalid) {
		t.Errorf("cut short: %v", err)
	}
}

func (a AuthorID) bytes() []byte { return a[:] }

// dumpAll lists every key of the state.
func dumpAll(r *rig) string {
	var b strings.Builder
	err := r.db.Scan(nil, nil, func(k, v []byte) bool {
		b.Write(k)
		b.WriteString(" = ")
		b.Write(v)
		b.WriteByte('\n')
		return true
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return b.String()
}
