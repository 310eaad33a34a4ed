package namespace

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
	pb "github.com/foreverfs/forever/namespace/namespacepb"
)

// newFoldingWorld makes a world whose devices fold, each beside a twin that does not.
func newFoldingWorld(t *rapid.T, devices int) *world {
	w := newWorld(t, devices, func() kv.DB { return kv.NewMem() })
	w.folds = true
	for _, d := range w.devices {
		d.openTwin(kv.NewMem())
		d.refused = map[logKey]bool{}
	}
	return w
}

func (d *device) openTwin(db kv.DB) {
	var err error
	if d.twin, err = Open(db, AuthorID{0: 0x80 + byte(d.index), 15: 1}, Repeating()); err != nil {
		d.w.t.Fatalf("open a twin: %v", err)
	}
}

// tell gives the twin a batch that the device merged or made.
func (d *device) tell(k logKey) {
	if d.twin == nil {
		return
	}
	if _, err := d.twin.Merge(k.author, k.seq, d.w.batches[k]); err != nil {
		d.w.t.Fatalf("the twin of device %d merges %v/%d: %v", d.index, k.author, k.seq, err)
	}
}

// visible writes down everything that a user sees of a tree.
func visible(t *Tree) (string, error) {
	var b strings.Builder
	type dir struct {
		id   NodeID
		path string
	}
	show := func(path string, id NodeID) error {
		n, err := t.Node(id)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %+v\n", path, n)
		names, err := t.Xattrs(id)
		for _, name := range names {
			v, err := t.Xattr(id, name)
			fmt.Fprintf(&b, "  %s=%x %v\n", name, v, err)
		}
		return err
	}
	if err := show("", Root); err != nil {
		return "", err
	}
	for todo := []dir{{Root, ""}}; len(todo) > 0; todo = todo[1:] {
		list, err := t.List(todo[0].id, "", 1000)
		if err != nil {
			return "", err
		}
		for _, e := range list {
			path := todo[0].path + "/" + e.Name
			if err := show(path, e.Node); err != nil {
				return "", err
			}
			if e.Kind == KindDir {
				todo = append(todo, dir{e.Node, path})
			}
		}
	}
	files, dirs, size := t.Count()
	_, conflicts, err := t.Conflicts(1)
	fmt.Fprintf(&b, "%d files, %d directories, %d bytes, %d conflicts\n", files, dirs, size, conflicts)
	return b.String(), err
}

func mustVisible(t interface{ Fatal(...any) }, tree *Tree) string {
	s, err := visible(tree)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// compareTwin fails if folding can be seen.
func (d *device) compareTwin() {
	if d.twin == nil || d.tree.Pending() > 0 {
		return
	}
	if diff := cmp.Diff(mustVisible(d.w.t, d.twin), mustVisible(d.w.t, d.tree)); diff != "" {
		d.w.t.Fatalf("device %d: -unfolded +folded:\n%s", d.index, diff)
	}
	if p, err := d.tree.Folded(); err != nil || !p.isZero() {
		return // the twin forgets nothing
	}
	if diff := cmp.Diff(history(d.w.t, d.twin, nil), history(d.w.t, d.tree, nil)); diff != "" {
		d.w.t.Fatalf("device %d: history: -unfolded +folded:\n%s", d.index, diff)
	}
}

// history writes down what is known of the past of a directory and what was below it.
func history(t interface{ Fatal(...any) }, tree *Tree, path []string) string {
	var b strings.Builder
	list, err := tree.ListPast(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range list {
		if i > 0 && list[i-1].Name == e.Name {
			continue
		}
		at := append(path[:len(path):len(path)], e.Name)
		fmt.Fprintf(&b, "%q %+v\n", at, e)
		if e.Kind == KindDir {
			if len(path) < 3 { // directories may have been in each other
				b.WriteString(history(t, tree, at))
			}
			continue
		}
		past, err := tree.History(at)
		fmt.Fprintf(&b, "%+v %v\n", past, err)
	}
	return b.String()
}

func (w *world) active() (out []Device) {
	for _, d := range w.devices {
		if d != w.away {
			out = append(out, d.author.Device())
		}
	}
	return out
}

// acknowledge lets a device say what it has seen.
func (d *device) acknowledge(keep Retention) bool {
	d.w.clock++
	made, err := d.tree.Acknowledge(d.w.clock, d.w.active(), keep.max(Retention{}))
	if err != nil {
		d.w.t.Fatalf("acknowledge: %v", err)
	}
	return made
}

// fold folds to what is stable, in steps of so many records, and stops after so many steps.
func (d *device) fold(step, steps int) {
	to, err := d.tree.Stable(d.w.active())
	if err != nil {
		d.w.t.Fatalf("stable: %v", err)
	}
	for done := false; !done && steps > 0; steps-- {
		if done, err = d.tree.Fold(to, step); err != nil {
			d.w.t.Fatalf("device %d folds to %v: %v", d.index, to, err)
		}
	}
	if err := check(d.tree); err != nil {
		d.w.t.Fatalf("device %d after a fold: %v", d.index, err)
	}
	d.compareTwin()
}

// move lets a device go on in a state that is imported from its own export.
func (d *device) move() {
	d.publish(false)
	var b bytes.Buffer
	if err := d.tree.Export(&b); err != nil {
		d.w.t.Fatalf("export: %v", err)
	}
	db := kv.NewMem()
	if err := Import(db, &b); err != nil {
		d.w.t.Fatalf("import: %v", err)
	}
	d.db = db
	d.start()
	d.compareTwin()
}

// foldStep is one random event of a world that folds.
func (w *world) foldStep() {
	d := rapid.SampledFrom(w.devices).Draw(w.t, "device")
	switch rapid.IntRange(0, 29).Draw(w.t, "event") {
	case 0:
		d.publish(false)
	case 1:
		d.publish(true)
	case 2:
		d.start()
	case 3:
		d.move()
	case 4:
		if d == w.loser {
			d.saved, d.savedTwin = clone(w.t, d.db), clone(w.t, d.twin.db)
		}
	case 5:
		if d == w.loser && d.savedTwin != nil {
			d.lose()
			d.openTwin(clone(w.t, d.savedTwin))
		}
	case 6, 7, 8, 9:
		var keep Retention
		if w.forgets {
			clock := rapid.Int64Range(0, int64(len(w.devices))-1).Draw(w.t, "clock") // they are off by years
			keep.Horizon = w.clock - rapid.Int64Range(0, 30).Draw(w.t, "ago") + clock*1e17
		}
		if w.thins {
			clock := rapid.Int64Range(0, int64(len(w.devices))-1).Draw(w.t, "clock")
			keep.Now = w.clock + clock*1e17 + rapid.Int64Range(0, 3000).Draw(w.t, "hours")*int64(time.Hour)
		}
		d.acknowledge(keep)
	case 10, 11:
		d.fold(rapid.IntRange(1, 20).Draw(w.t, "step"), rapid.IntRange(1, 30).Draw(w.t, "steps"))
	case 12, 13, 14, 15, 16, 17:
		d.receive(rapid.SampledFrom(w.devices).Draw(w.t, "from"))
	default:
		if w.moves {
			d.moveDirectory()
		} else {
			d.act()
		}
	}
}

// moveDirectory moves some directory into some other, or makes one.
func (d *device) moveDirectory() {
	dirs, places, err := walk(d.tree)
	if err != nil {
		d.w.t.Fatal(err)
	}
	d.w.clock++
	to := rapid.SampledFrom(dirs).Draw(d.w.t, "to")
	name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(d.w.t, "name")
	if len(dirs) < 4 {
		_, err = d.tree.Create(d.w.clock, to, name, CreateSpec{Kind: KindDir})
	} else {
		p := rapid.SampledFrom(places).Draw(d.w.t, "place")
		_, _, err = d.tree.Rename(d.w.clock, p.dir, p.Name, to, name, RenameFlags(d.w.clock%2*int64(Exchange)))
	}
	if err != nil && !slices.ContainsFunc(refusals, func(r error) bool { return errors.Is(err, r) }) {
		d.w.t.Fatal(err)
	}
}

// exchange lets every device get what the others have.
func (w *world) exchange() {
	for _, d := range w.devices {
		d.publish(false)
	}
	for range 2 {
		for _, d := range w.devices {
			for _, from := range w.devices {
				d.receive(from)
			}
		}
	}
}

// settleFolded brings everything everywhere, lets everybody promise and fold all
// there is, and compares what they export.
func (w *world) settleFolded() {
	w.exchange()
	want := mustVisible(w.t, w.devices[0].tree)
	for _, d := range w.devices[1:] {
		if diff := cmp.Diff(want, mustVisible(w.t, d.tree)); diff != "" {
			w.t.Fatalf("device %d sees another tree than device 0: %s\n%v, refused %v\n%v, refused %v", d.index, diff,
				w.devices[0].tree.Vector(), w.devices[0].refused, d.tree.Vector(), d.refused)
		}
	}
	var keep Retention
	if w.forgets {
		keep.Horizon = w.clock/2 + int64(len(w.devices)-1)*1e17
	}
	for round, quiet := 0, false; !quiet; round++ {
		if round > 20 {
			w.t.Fatal("acknowledging does not end")
		}
		quiet = true
		for _, d := range w.devices {
			quiet = !d.acknowledge(keep) && quiet
		}
		w.exchange()
	}
	w.compareExports()
}

func (w *world) compareExports() {
	var exports [][]byte
	for _, d := range w.devices {
		d.fold(7, 1000000)
		var b bytes.Buffer
		if err := d.tree.Export(&b); err != nil {
			w.t.Fatalf("export: %v", err)
		}
		exports = append(exports, b.Bytes())
		if n := countMoves(d.tree); n > 0 {
			w.t.Fatalf("device %d has %d moves left after everything was folded", d.index, n)
		}
	}
	for i, e := range exports[1:] {
		if !bytes.Equal(e, exports[0]) {
			w.t.Fatalf("device %d exports something else than device 0:\n%s\nand:\n%s", i+1, dumpExport(e), dumpExport(exports[0]))
		}
	}
	w.compareImport(exports[0])
}

func countMoves(t *Tree) (n int) {
	prefix := key(keyMove)
	_ = t.db.Scan(prefix, kv.PrefixEnd(prefix), func(_, _ []byte) bool { n++; return true })
	return n
}

func (w *world) compareImport(export []byte) {
	db := kv.NewMem()
	if err := Import(db, bytes.NewReader(export)); err != nil {
		w.t.Fatalf("import: %v", err)
	}
	tree, err := Open(db, AuthorID{0: 0x70, 15: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := check(tree); err != nil {
		w.t.Fatalf("imported: %v", err)
	}
	if diff := cmp.Diff(mustVisible(w.t, w.devices[0].tree), mustVisible(w.t, tree)); diff != "" {
		w.t.Fatalf("imported: %s", diff)
	}
	var b bytes.Buffer
	if err := tree.Export(&b); err != nil || !bytes.Equal(b.Bytes(), export) {
		w.t.Fatalf("what was imported is exported as something else (%v):\n%s\nand:\n%s", err, dumpExport(b.Bytes()), dumpExport(export))
	}
}

// dumpExport lists the records of an export.
func dumpExport(e []byte) string {
	var b strings.Builder
	db := kv.NewMem()
	err := Import(db, bytes.NewReader(e))
	_ = db.Scan(nil, nil, func(k, v []byte) bool {
		fmt.Fprintf(&b, "%c %x = %x\n", k[1], k[2:], v)
		return true
	})
	return fmt.Sprint(b.String(), err)
}

// TestFold: devices that fold whenever they may see the same trees, and the
// same past, as their twins that never do, and all come to the same bytes.
func TestFold(t *testing.T) {
	for name, set := range map[string]func(*world){
		"forgetting": func(w *world) { w.forgets = true },
		"keeping":    func(*world) {},
		"thinning":   func(w *world) { w.thins = true },
		"moves":      func(w *world) { w.moves = true },
	} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				w := newFoldingWorld(t, rapid.IntRange(1, 3).Draw(t, "devices"))
				set(w)
				for range rapid.IntRange(20, 150).Draw(t, "steps") {
					w.foldStep()
				}
				w.settleFolded()
			})
		})
	}
}

// TestFoldWithLoser: one device falls back to old states, and what it does then may
// come too late. Whatever becomes of that, the others agree on it.
func TestFoldWithLoser(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newFoldingWorld(t, 3)
		w.loser = w.devices[2]
		for range rapid.IntRange(20, 150).Draw(t, "steps") {
			w.foldStep()
		}
		for range 4 {
			w.exchange()
			for _, d := range w.devices {
				d.acknowledge(Retention{})
			}
		}
		a, b := w.devices[0], w.devices[1]
		if diff := cmp.Diff(a.tree.Vector(), b.tree.Vector()); diff != "" {
			t.Fatalf("merged: %s\n%v\n%v", diff, a.refused, b.refused)
		}
		if diff := cmp.Diff(mustVisible(t, a.tree), mustVisible(t, b.tree)); diff != "" {
			t.Fatalf("seen: %s", diff)
		}
	})
}

// TestGate: once a device promised what all have seen, it puts off what does not
// know that, until somebody turns up who had merged it before; once it folded, it refuses it.
func TestGate(t *testing.T) {
	a, b, c := newRig(t, 1), newRig(t, 2), newRig(t, 3)
	c.must(c.mkfile("old"))
	backup := copyOf(t, c.db)
	rigs := []*rig{a, b, c}
	meet(t, rigs...)
	c.must(c.mkfile("new"))
	active := []Device{a.Author().Device(), b.Author().Device(), c.Author().Device()}
	for _, r := range rigs { // all claim
		acknowledge(r, active, true)
	}
	meet(t, rigs...)
	restored := openRig(t, backup, AuthorID{0: 3, 15: 77})
	restored.must(restored.mkfile("late"))
	late := restored.cutOne()

	acknowledge(a, active, true) // promises what all claimed
	a1 := a.cutOne()
	if _, err := a.Merge(restored.Author(), 1, late); !errors.Is(err, ErrNotReady) {
		t.Fatalf("after the promise: %v", err)
	}
	// b had not promised yet, and takes it; who builds on b must take it too.
	b.merge(restored.Author(), 1, late)
	b.merge(a.Author(), a.Vector()[a.Author()], a1)
	acknowledge(b, active, true)
	b1 := b.cutOne()
	if _, err := a.Merge(b.Author(), b.Vector()[b.Author()], b1); !errors.Is(err, ErrNotReady) {
		t.Fatalf("b builds on the late batch: %v", err)
	}
	a.merge(restored.Author(), 1, late)
	a.merge(b.Author(), b.Vector()[b.Author()], b1)
	c.merge(a.Author(), a.Vector()[a.Author()], a1)
	acknowledge(c, active, true)
	c1 := c.cutOne()
	a.merge(c.Author(), c.Vector()[c.Author()], c1)
	to, err := a.Stable(active)
	a.must(err)
	if to.Seen[c.Author()] != 1 {
		t.Fatalf("stable: %v", to)
	}
	done, err := a.Fold(to, 1000)
	if a.must(err); !done {
		t.Fatal("not folded")
	}
	if _, err := a.Fold(Point{}, 10); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("fold to less: %v", err)
	}
	later := openRig(t, backup, AuthorID{0: 3, 15: 78})
	later.must(later.mkfile("later"))
	before := mustHash(t, a.Tree)
	if _, err := a.Merge(later.Author(), 1, later.cutOne()); !errors.Is(err, ErrFolded) {
		t.Errorf("after the fold: %v", err)
	}
	if mustHash(t, a.Tree) != before {
		t.Error("a refused batch has an effect")
	}
}

// acknowledge lets a device acknowledge and says whether it should have.
func acknowledge(r *rig, active []Device, want bool) {
	r.t.Helper()
	made, err := r.Acknowledge(r.tick(), active, Retention{})
	if r.must(err); made != want {
		r.t.Fatalf("device %v acknowledged: %v", r.Author(), made)
	}
}

// copyOf copies a state.
func copyOf(t *testing.T, db kv.DB) kv.DB {
	t.Helper()
	out := kv.NewMem()
	if err := out.Update(func(tx kv.Tx) error {
		return db.Scan(nil, nil, func(k, v []byte) bool { return tx.Put(k, v) == nil })
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func openRig(t *testing.T, db kv.DB, author AuthorID) *rig {
	t.Helper()
	tree, err := Open(copyOf(t, db), author)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{Tree: tree, t: t}
}

// TestAcknowledgeEnds: acknowledgements are answered until all promised all work, and no longer.
func TestAcknowledgeEnds(t *testing.T) {
	a, b, c := newRig(t, 1), newRig(t, 2), newRig(t, 3)
	rigs := []*rig{a, b, c}
	active := []Device{a.Author().Device(), b.Author().Device(), c.Author().Device()}
	acknowledge(a, active, false) // there is nothing
	a.must(a.mkfile("f"))
	var stable Point
	for round := 0; ; round++ {
		made := 0
		meet(t, rigs...)
		for _, r := range rigs {
			ok, err := r.Acknowledge(r.tick(), active, Retention{})
			r.must(err)
			made += b2i(ok)
		}
		if made == 0 {
			break
		}
		if round > 5 {
			t.Fatal("it does not end")
		}
	}
	stable, err := b.Stable(active)
	b.must(err)
	if stable.Seen[a.Author()] < 1 {
		t.Fatalf("stable: %v", stable)
	}
	silent := append(active, Device{9})
	if p, err := b.Stable(silent); err != nil || len(p.Seen) > 0 {
		t.Fatalf("stable with a device that never wrote: %v, %v", p, err)
	}
}

// TestHorizon: what was removed is in the history, and can come back, until the horizon passes it.
func TestHorizon(t *testing.T) {
	r := newRig(t, 1)
	r.must(r.mkdir("d"), r.mkfile("d/f"), r.write("d/f", "one"), r.write("d/f", "two"))
	f := r.node("d/f").ID
	r.must(r.mkfile("g"), r.write("g", "1"), r.write("g", "2"))
	g := r.node("g").ID
	r.must(r.rm("d/f"), r.rmdir("d"))
	r.must(r.mkfile("h"), r.write("h", "1"), r.rm("h"))
	removed := r.now
	r.now += 100
	r.must(r.mkdir("e"), r.mkfile("e/f"), r.write("e/f", "3"), r.rm("e/f"), r.rmdir("e"))
	active := []Device{r.Author().Device()}
	for _, horizon := range []int64{0, 1, removed + 50} {
		for range 3 {
			_, err := r.Acknowledge(r.tick(), active, Retention{Horizon: horizon})
			if r.must(err); r.Pending() > 0 {
				r.cutOne()
			}
		}
		to, err := r.Stable(active)
		r.must(err)
		done, err := r.Fold(to, 1000)
		if r.must(err); !done || to.Horizon != horizon {
			t.Fatalf("fold to %v: %v", to, done)
		}
		mustCheck(t, r.Tree)
		if horizon > removed {
			break
		}
		for _, path := range [][]string{{"d", "f"}, {"h"}, {"e", "f"}, {"g"}} {
			if _, err := r.History(path); err != nil {
				t.Fatalf("horizon %d: history of %v: %v", horizon, path, err)
			}
		}
	}
	for _, path := range [][]string{{"d", "f"}, {"h"}} {
		if past, err := r.History(path); !errors.Is(err, ErrNotExist) {
			t.Errorf("history of %v: %v, %v", path, past, err)
		}
	}
	if _, err := r.History([]string{"e", "f"}); err != nil {
		t.Errorf("history of what was removed later: %v", err)
	}
	if past, err := r.History([]string{"g"}); err != nil || len(past) != 1 {
		t.Errorf("history of a file with an old content: %v, %v", past, err)
	}
	if _, err := r.Node(f); !errors.Is(err, ErrNotExist) {
		t.Errorf("a node that was removed: %v", err)
	}
	if _, err := r.Node(g); err != nil {
		t.Errorf("a node that is there: %v", err)
	}
	if n := countKeys(&txn{tx: readTx{r.db}}, key(keyNode)); n != 4 { // the root, g, e and e/f
		t.Errorf("%d nodes", n)
	}
}

// TestPromisedHorizon: what a device promised to forget it names no more, even before it folds.
func TestPromisedHorizon(t *testing.T) {
	r := newRig(t, 1)
	r.must(r.mkfile("f"), r.mkdir("d"))
	f, d := r.node("f").ID, r.node("d").ID
	r.must(r.rm("f"), r.rmdir("d"))
	change := func(id NodeID) error {
		_, err := r.SetAttr(r.tick(), id, AttrChange{Mask: AttrMode, Mode: 0o600})
		return err
	}
	r.must(change(f), change(d))
	r.cutOne()
	horizon := r.now + 100
	for range 3 { // claim, promise, and once more for what the first two were
		_, err := r.Acknowledge(r.tick(), []Device{r.Author().Device()}, Retention{Horizon: horizon})
		r.must(err)
		r.must(r.mkfile("work" + strconv.Itoa(int(r.now))))
		r.cutOne()
	}
	for _, id := range []NodeID{f, d} {
		if err := change(id); !errors.Is(err, ErrNotExist) {
			t.Errorf("change of what was promised away: %v", err)
		}
	}
	// What is removed from now on, by a clock that is behind, was not promised away: nobody could have known of it.
	r.must(r.mkfile("g"), r.write("g", "0"), r.mkdir("e"))
	g, e := r.node("g"), r.node("e").ID
	_, err := r.Unlink(1, Root, "g")
	r.must(err, r.Rmdir(1, Root, "e"), change(g.ID), change(e))
	if _, err = r.Revive(r.tick(), g.ID, chunk.Version{Size: 1, Inline: []byte("1")}, 0, []OpID{g.Content.ID}, nil); err != nil {
		t.Errorf("what was written before the removal was known: %v", err)
	}
	if got := r.node("g").Content; string(got.Inline) != "1" {
		t.Errorf("it holds %q", got.Inline)
	}
}

// TestReviveAfterPromise: a content that brings a file back names what comes back, so it is the same on a device that had
// forgotten an older name of the file by then, and on one that had only promised to.
func TestReviveAfterPromise(t *testing.T) {
	a, b := newRig(t, 1), newRig(t, 2)
	a.must(a.mkfile("f"), a.write("f", "0"), a.ln("f", "g"), a.rm("g"))
	meet(t, a, b)
	active := []Device{a.Author().Device(), b.Author().Device()}
	horizon := a.now + 100
	for range 4 {
		for _, r := range []*rig{a, b} {
			r.must(r.mkfile("work" + r.Author().String() + strconv.Itoa(int(r.now))))
			_, err := r.Acknowledge(r.tick(), active, Retention{Horizon: horizon})
			r.must(err)
		}
		meet(t, a, b)
	}
	to, err := a.Stable(active)
	a.must(err)
	if to.Horizon != horizon || to.Seen[a.Author()] == 0 {
		t.Fatalf("promised: %v", to)
	}
	f := b.node("f")
	a.now, b.now = horizon, horizon
	a.must(a.rm("f"))
	fold := func(r *rig) {
		done, err := r.Fold(to, 1<<20)
		if r.must(err); !done {
			t.Fatal("not folded")
		}
	}
	fold(a)
	batches := map[logKey][]byte{}
	a.flush(batches)
	b.pull(batches)
	if _, err := b.Revive(b.tick(), f.ID, chunk.Version{Size: 1, Inline: []byte("1")}, 0, []OpID{f.Content.ID}, nil); err != nil {
		t.Fatal(err)
	}
	b.flush(batches)
	a.pull(batches)
	fold(b)
	for _, r := range []*rig{a, b} {
		if got := r.node("f"); string(got.Content.Inline) != "1" || got.Nlink != 1 {
			t.Errorf("f: %+v", got)
		}
	}
	if x, y := mustHash(t, a.Tree), mustHash(t, b.Tree); x != y {
		t.Errorf("the trees differ:\n%s\n%s", dump(a.Tree), dump(b.Tree))
	}
}

// readTx lets a state be read as a transaction.
type readTx struct{ kv.Reader }

func (readTx) Put(_, _ []byte) error { return errors.New("read only") }
func (readTx) Delete(_ []byte) error { return errors.New("read only") }

// TestThinning: of what was replaced within a while the last is kept: of a minute after an hour, of an hour after a
// day, of a day after a month. Looking more often changes nothing.
func TestThinning(t *testing.T) {
	const start = int64(1_700_000_000) * 1e9 / int64(24*time.Hour) * int64(24*time.Hour)
	kept := func(looks ...time.Duration) (out []string) {
		r := newRig(t, 1)
		r.now = start
		r.must(r.mkfile("f"))
		for _, at := range []time.Duration{10 * time.Second, 20 * time.Second, 70 * time.Second, time.Hour, 90 * time.Minute, 25 * time.Hour} {
			r.now = start + int64(at)
			r.must(r.write("f", at.String()))
		}
		active := []Device{r.Author().Device()}
		for _, at := range looks {
			r.must(r.mkfile(at.String()))
			for range 3 {
				_, err := r.Acknowledge(r.tick(), active, Retention{Now: start + int64(at)})
				if r.must(err); r.Pending() > 0 {
					r.cutOne()
				}
			}
			to, err := r.Stable(active)
			r.must(err)
			if done, err := r.Fold(to, 1000); err != nil || !done {
				t.Fatal(done, err)
			}
			mustCheck(t, r.Tree)
		}
		past, err := r.History([]string{"f"})
		r.must(err)
		for _, c := range past {
			out = append(out, string(c.Content.Version.Inline))
		}
		slices.Sort(out)
		return out
	}
	month := 40 * 24 * time.Hour
	for _, test := range []struct {
		looks []time.Duration
		want  []string
	}{
		{[]time.Duration{time.Minute}, []string{"10s", "1h0m0s", "1h30m0s", "1m10s", "20s", "25h0m0s"}},
		{[]time.Duration{90 * time.Minute}, []string{"1h0m0s", "1h30m0s", "1m10s", "20s", "25h0m0s"}},
		{[]time.Duration{49 * time.Hour}, []string{"1h30m0s", "1m10s", "25h0m0s"}},
		{[]time.Duration{month}, []string{"1h30m0s", "25h0m0s"}},
		{[]time.Duration{90 * time.Minute, 49 * time.Hour, month}, []string{"1h30m0s", "25h0m0s"}},
	} {
		if diff := cmp.Diff(test.want, kept(test.looks...)); diff != "" {
			t.Errorf("after %v: %s", test.looks, diff)
		}
	}
}

// TestReviveOfOlderPrograms: a content that says only that all names come back brings them back, here and elsewhere.
func TestReviveOfOlderPrograms(t *testing.T) {
	a, b := newRig(t, 1), newRig(t, 2)
	a.must(a.mkfile("f"), a.write("f", "0"), a.ln("f", "g"))
	f := a.node("f").ID
	a.must(a.rm("g"), a.rm("f"))
	meet(t, a, b)
	a.must(a.update(func(x *txn) error {
		v := chunk.Version{Size: 3, Inline: []byte("old")}
		c := contentOp(f, &v, 1)
		c.Revive = true
		_, err := x.emit(&pb.Op{Time: a.tick(), Body: &pb.Op_Content{Content: c}})
		return err
	}))
	meet(t, a, b)
	for _, r := range []*rig{a, b} {
		if r.node("f").Nlink != 2 || r.node("g").ID != f || string(r.node("f").Content.Inline) != "old" {
			t.Errorf("%+v is back", r.node("f"))
		}
	}
}
