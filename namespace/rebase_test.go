package namespace

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/foreverfs/forever/internal/kv"
)

// join opens, for another device, a tree that is imported from the export of one.
func join(t interface{ Fatal(...any) }, from *Tree, author AuthorID) *Tree {
	var b bytes.Buffer
	if err := from.Export(&b); err != nil {
		t.Fatal(err)
	}
	db := kv.NewMem()
	if err := Import(db, &b); err != nil {
		t.Fatal(err)
	}
	tree, err := Open(db, author)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// contents returns the contents that a tree shows, by what op they are of.
func contents(t interface{ Fatal(...any) }, tree *Tree) map[OpID]string {
	out := map[OpID]string{}
	_, places, err := walk(tree)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range places {
		n, err := tree.Node(p.Node)
		if err != nil {
			t.Fatal(err)
		}
		if n.Kind == KindFile && !n.Content.ID.IsZero() {
			out[n.Content.ID] = string(n.Content.Inline)
		}
	}
	return out
}

func shows(all map[OpID]string, bytes string) bool {
	for _, s := range all {
		if s == bytes {
			return true
		}
	}
	return false
}

// rebaseStep is one event while one device is away.
func (w *world) rebaseStep() {
	d := rapid.SampledFrom(w.devices).Draw(w.t, "device")
	switch e := rapid.IntRange(0, 9).Draw(w.t, "event"); {
	case e == 0 && d != w.away:
		d.acknowledge(Retention{Horizon: w.clock - 20 + 1e17})
	case e == 1 && d != w.away:
		d.fold(10, 100)
	case e == 2 && d != w.away:
		if from := rapid.SampledFrom(w.devices).Draw(w.t, "from"); from != w.away {
			d.receive(from)
		}
	case e == 3:
		d.publish(false)
	default:
		d.act()
	}
}

// TestRebase: what a device did that was away for too long is there after it
// joined anew, nothing that was there goes, and a second time carries nothing.
func TestRebase(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newFoldingWorld(t, 3)
		for range rapid.IntRange(5, 40).Draw(t, "together") {
			w.foldStep()
		}
		w.exchange()
		w.away = w.devices[2]
		for range rapid.IntRange(10, 80).Draw(t, "apart") {
			w.rebaseStep()
		}
		group, away := w.devices[0], w.devices[2]
		for range 4 {
			for _, d := range w.devices[:2] {
				d.publish(false)
				d.receive(group)
				group.receive(d)
				d.acknowledge(Retention{Horizon: w.clock - 20 + 1e17})
			}
		}
		group.publish(false)
		group.fold(100, 100000)
		old := away.tree
		into := join(t, group.tree, AuthorID{0: 3, 15: 200})
		before := contents(t, into)
		if _, err := Rebase(old, into, w.clock); err != nil {
			t.Fatal(err)
		}
		after := contents(t, into)
		checkCarried(t, old, group.tree, before, after)
		checkAgain(t, old, into, w.clock+1)
		if err := check(into); err != nil {
			t.Fatal(err)
		}
		checkAccepted(t, into, group)
	})
}

// checkCarried fails if something is not shown any more that nobody gave up knowingly.
func checkCarried(t *rapid.T, old, group *Tree, before, after map[OpID]string) {
	for o, s := range contents(t, old) {
		if shows(before, s) && !shows(after, s) {
			t.Fatalf("content %q of %v, which both had, went", s, o)
		}
		if o.Lamport > group.authors[o.Author].applied && !shows(after, s) {
			t.Fatalf("content %q of %v was not carried over", s, o)
		}
	}
	for o, s := range before {
		if !shows(after, s) && !old.replacedSomewhere(t, o) {
			t.Fatalf("content %q of %v went", s, o)
		}
	}
}

func (t *Tree) replacedSomewhere(f interface{ Fatal(...any) }, o OpID) (found bool) {
	prefix := key(keyPast)
	err := t.db.Scan(prefix, kv.PrefixEnd(prefix), func(k, _ []byte) bool {
		id, _ := parseOpID(k[len(prefix)+16:])
		found = id == o
		return !found
	})
	if err != nil {
		f.Fatal(err)
	}
	return found
}

// checkAgain: nothing is carried over twice. (A directory may be: a file that came later can have taken
// the name under which it was found. A rebase that broke off begins with a fresh tree, so this does not pile up.)
func checkAgain(t *rapid.T, old, into *Tree, now int64) {
	was := contents(t, into)
	r, err := Rebase(old, into, now)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(was, contents(t, into)); diff != "" || r.Contents+r.Files+r.Names > 0 {
		t.Fatalf("the second time it does something: %+v, %s", r, diff)
	}
}

// checkAccepted gives the carried work to a device that was not away.
func checkAccepted(t *rapid.T, into *Tree, to *device) {
	for seq := uint64(1); into.Pending() > 0; seq++ {
		payload, err := into.Cut()
		if err != nil {
			t.Fatal(err)
		}
		if err := into.Committed(seq); err != nil {
			t.Fatal(err)
		}
		if _, err := to.tree.Merge(into.Author(), seq, payload); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(mustVisible(t, into), mustVisible(t, to.tree)); diff != "" {
		t.Fatalf("-rebased +other: %s", diff)
	}
}

// TestRebaseCases: what becomes of which work, by name.
func TestRebaseCases(t *testing.T) {
	here, away := newRig(t, 1), newRig(t, 2)
	here.must(here.mkdir("d"), here.mkfile("d/edited"), here.write("d/edited", "0"), here.mkfile("both"), here.write("both", "0"),
		here.mkfile("gone"), here.write("gone", "0"), here.mkdir("gonedir"), here.mkfile("gonedir/f"), here.write("gonedir/f", "0"),
		here.mkfile("moved"), here.write("moved", "0"), here.mkfile("kept"))
	meet(t, here, away)
	away.must(away.write("d/edited", "mine"), away.write("both", "mine"), away.write("gone", "mine"), away.write("gonedir/f", "mine"),
		away.mkdir("new"), away.mkdir("new/empty"), away.mkfile("new/f"), away.write("new/f", "fresh"), away.ln("new/f", "new/g"),
		away.make(KindSymlink, "new/l"), away.mv("moved", "elsewhere", 0), away.rm("kept"), away.ln("d/edited", "link"), away.mkfile("taken"), away.write("taken", "mine"))
	here.must(here.write("both", "yours"), here.rm("gone"), here.rm("gonedir/f"), here.rmdir("gonedir"), here.mkfile("taken"), here.write("taken", "yours"))
	here.cutOne()
	forgetAll(t, here)
	into := &rig{Tree: join(t, here.Tree, AuthorID{0: 2, 15: 9}), t: t, now: 100}
	report, err := Rebase(away.Tree, into.Tree, 1e9)
	into.must(err)
	mustCheck(t, into.Tree)
	want := []string{"both (dev1)=yours", "both=mine", "d/", "d/edited=mine", "gone=mine", "gonedir/", "gonedir/f=mine", "kept", "link=mine",
		"moved=0", "new/", "new/empty/", "new/f=fresh", "new/g=fresh", "new/l", "taken (dev2)=mine", "taken=yours"}
	got := plain(into.ls())
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if len(report.Conflicts) != 1 || report.Conflicts[0].Dir != Root {
		t.Errorf("conflicts: %v", report.Conflicts)
	}
	report.Conflicts = nil
	if diff := cmp.Diff(Report{Contents: 2, Files: 5, Dirs: 3, Names: 2}, report); diff != "" {
		t.Errorf("report: %s", diff)
	}
}

// TestRebaseKnowsWhatWasRemoved: of names whose removals are remembered, those come back that the device still had, of a file
// that has none left; never those that it knew to be removed.
func TestRebaseKnowsWhatWasRemoved(t *testing.T) {
	here, away := newRig(t, 1), newRig(t, 2)
	for _, f := range []string{"both", "last", "two"} {
		here.must(here.mkfile(f), here.write(f, "0"), here.ln(f, f+"2"), here.ln(f, f+"3"), here.rm(f+"3"))
	}
	here.must(here.rm("both2"), here.rm("last2"))
	meet(t, here, away)
	away.must(away.write("both", "mine"), away.write("last", "mine"), away.write("two", "mine"))
	here.must(here.write("both", "yours"), here.rm("last"), here.rm("two2"), here.rm("two"))
	here.cutOne()
	into := &rig{Tree: join(t, here.Tree, AuthorID{0: 2, 15: 9}), t: t, now: 100}
	_, err := Rebase(away.Tree, into.Tree, 1e9)
	into.must(err)
	mustCheck(t, into.Tree)
	got := plain(into.ls())
	slices.Sort(got)
	if diff := cmp.Diff([]string{"both (dev1)=yours", "both=mine", "last=mine", "two2=mine", "two=mine"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestManyXattrs: what is made anew, or of a content, has all extended attributes, however much they are.
func TestManyXattrs(t *testing.T) {
	here, away := newRig(t, 1), newRig(t, 2)
	value := func(i int) []byte { return bytes.Repeat([]byte{byte(i + 1)}, 60<<10) }
	dress := func(r *rig, path string) {
		for i := range 5 {
			r.must(r.SetXattr(r.tick(), r.node(path).ID, fmt.Sprintf("user.%d", i), value(i)))
		}
	}
	want := func(r *rig, path string) {
		t.Helper()
		for i := range 5 {
			if got, err := r.Xattr(r.node(path).ID, fmt.Sprintf("user.%d", i)); err != nil || !bytes.Equal(got, value(i)) {
				t.Errorf("%s: attribute %d has %d bytes: %v", path, i, len(got), err)
			}
		}
	}
	here.must(here.mkfile("f"), here.write("f", "0"))
	dress(here, "f")
	meet(t, here, away)
	here.must(here.write("f", "yours"))
	away.must(away.write("f", "mine"))
	meet(t, here, away)
	for _, path := range here.ls() {
		if path, content, _ := strings.Cut(path, "="); content == "yours" {
			here.must(here.mv(path, "yours", 0))
		}
	}
	want(here, "yours")
	meet(t, here, away)
	want(away, "yours")

	away.must(away.mkfile("new"), away.write("new", "1"), away.mkdir("d"))
	dress(away, "new")
	dress(away, "d")
	into := &rig{Tree: join(t, here.Tree, AuthorID{0: 2, 15: 9}), t: t, now: 100}
	_, err := Rebase(away.Tree, into.Tree, 1e9)
	into.must(err)
	mustCheck(t, into.Tree)
	want(into, "new")
	want(into, "d")
	meet(t, here, into)
	want(here, "new")
}

// forgetAll lets the only active device promise and fold all it has, and forget what was removed.
func forgetAll(t *testing.T, r *rig) {
	t.Helper()
	active := []Device{r.Author().Device()}
	for range 3 {
		if r.Pending() > 0 {
			r.cutOne()
		}
		_, err := r.Acknowledge(r.tick(), active, Retention{Horizon: 1 << 40})
		r.must(err)
	}
	if r.Pending() > 0 {
		r.cutOne()
	}
	to, err := r.Stable(active)
	r.must(err)
	for done := false; !done; {
		done, err = r.Fold(to, 5)
		r.must(err)
	}
	mustCheck(t, r.Tree)
}
