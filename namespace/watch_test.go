package namespace

import (
	"fmt"
	"slices"
	"testing"
)

// watches returns the directories that what is seen of a node depends on.
func (r *rig) watches(id NodeID, places int) []NodeID {
	r.t.Helper()
	list, _, err := r.Watch(id, places)
	if err != nil {
		r.t.Fatal(err)
	}
	var out []NodeID
	for _, w := range list {
		n := &node{}
		if err := r.read(w.Dir, n); err != nil || n.created != w.Made {
			r.t.Errorf("directory %v was made by %v, not %v; %v", w.Dir, n.created, w.Made, err)
		}
		out = append(out, w.Dir)
	}
	return out
}

func TestWatch(t *testing.T) {
	r := newRig(t, 1)
	r.must(r.mkdir("d"), r.mkdir("e"), r.mkdir("d/sub"), r.mkfile("d/f"), r.ln("d/f", "e/f"), r.mkfile("d/g"))
	d, e, sub := r.node("d").ID, r.node("e").ID, r.node("d/sub").ID
	want := map[NodeID][]NodeID{
		Root: {Root}, d: {d}, sub: {sub},
		r.node("d/f").ID: {d, e}, r.node("d/g").ID: {d},
	}
	for id, dirs := range want {
		if got := r.watches(id, 0); !slices.Equal(got, dirs) {
			t.Errorf("node %v depends on %v, want %v", id, got, dirs)
		}
	}
	gone := r.node("d/g").ID
	r.must(r.rm("d/g"))
	if got := r.watches(gone, 0); len(got) > 0 {
		t.Errorf("a file that is nowhere depends on %v", got)
	}
	if got := r.watches(NodeID{99}, 0); len(got) > 0 {
		t.Errorf("a node that never was depends on %v", got)
	}
}

func TestWatchManyNames(t *testing.T) {
	r := newRig(t, 1)
	r.must(r.mkfile("f"))
	for i := range 2 * maxHomes {
		r.must(r.mkdir(fmt.Sprint("d", i)), r.ln("f", fmt.Sprint("d", i, "/f")))
	}
	id := r.node("f").ID
	if got := r.watches(id, 0); len(got) != 2*maxHomes+1 {
		t.Errorf("a file with %d names depends on %d directories", 2*maxHomes+1, len(got))
	}
	if got := r.watches(id, 1); !slices.Equal(got, []NodeID{Root}) {
		t.Errorf("its oldest name is in %v", got)
	}
}

// TestWatchMerged has two devices make a directory under one name, and then look which directories count.
func TestWatchMerged(t *testing.T) {
	a, b := newRig(t, 1), newRig(t, 2)
	a.must(a.mkdir("d"), a.mkfile("d/x"))
	b.must(b.mkdir("d"), b.mkfile("d/y"))
	members := []NodeID{a.node("d").ID, b.node("d").ID}
	all := map[logKey][]byte{}
	a.flush(all)
	b.flush(all)
	a.pull(all)
	b.pull(all)
	for _, r := range []*rig{a, b} {
		for _, id := range []NodeID{members[0], members[1], r.node("d/x").ID, r.node("d/y").ID} {
			got := r.watches(id, 0)
			for _, m := range members {
				if !slices.Contains(got, m) {
					t.Errorf("node %v depends on %v, not on %v", id, got, m)
				}
			}
		}
	}
}

// TestWatchConflict has a content that lost its name depend on the directory in which it is shown.
func TestWatchConflict(t *testing.T) {
	a, b := newRig(t, 1), newRig(t, 2)
	all := map[logKey][]byte{}
	a.must(a.mkdir("d"), a.mkfile("d/f"), a.write("d/f", "base"))
	a.flush(all)
	b.pull(all)
	a.must(a.write("d/f", "a"))
	b.must(b.write("d/f", "b"))
	a.flush(all)
	b.flush(all)
	a.pull(all)
	d := a.node("d").ID
	list, err := a.List(d, "", 10)
	if err != nil || len(list) != 2 {
		t.Fatalf("listed %v, %v", list, err)
	}
	for _, e := range list {
		if got := a.watches(e.Node, 0); !slices.Equal(got, []NodeID{d}) {
			t.Errorf("%s depends on %v", e.Name, got)
		}
	}
}
