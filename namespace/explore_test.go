package namespace

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/foreverfs/forever/internal/kv"
)

// modelStep is an action of a history, and whose ops its device has heard of before: a bit each.
type modelStep struct{ device, action, hears int }

// space is a set of histories: three devices, so many actions out of these.
type space struct {
	actions, of int
	// pairs says that devices hear of any others before they act; else of all or of nobody.
	pairs bool
}

// spaces returns what is explored: few actions of every kind and every way to hear of
// others, and one more of those that make and move.
func spaces(actions int) []space {
	return []space{{actions, len(actionPaths), true}, {actions + 1, removeX, false}}
}

// hears lists of whom a device may hear to any effect.
func (s space) hears(m *model, device int) []int {
	list, known := []int{0}, []set{m.knows[device]}
	for _, others := range []int{7, 1, 2, 4} {
		knows := m.knows[device]
		for o := range m.knows {
			if others>>o&1 != 0 {
				knows |= m.knows[o]
			}
		}
		if !slices.Contains(known, knows) && (s.pairs || others == 7) {
			list, known = append(list, others), append(known, knows)
		}
	}
	return list
}

// explorer goes through every history of a space, depth first, those that begin alike together.
type explorer struct {
	t     *testing.T
	space space
	count *atomic.Int64
	// share and shares split the histories by how they begin.
	share, shares, begun int
	// real, if set, is what the histories are also played on.
	real bool
}

// explore goes through a space on every processor, and returns the number of histories.
func explore(t *testing.T, s space, real bool) int64 {
	var count atomic.Int64
	var workers sync.WaitGroup
	shares := runtime.GOMAXPROCS(0)
	start := newReality(t)
	for i := range shares {
		workers.Go(func() {
			e := &explorer{t: t, space: s, count: &count, share: i, shares: shares, real: real}
			e.next(model{}, start, nil)
		})
	}
	workers.Wait()
	return count.Load()
}

func (e *explorer) next(m model, r *reality, steps []modelStep) {
	if len(steps) == 2 {
		if e.begun++; e.begun%e.shares != e.share {
			return
		}
	}
	if len(steps) == e.space.actions {
		e.end(&m, r, steps)
		return
	}
	for device := range m.knows {
		for _, hears := range e.space.hears(&m, device) {
			for action := range e.space.of {
				if e.t.Failed() {
					return
				}
				e.step(m, r, append(steps[:len(steps):len(steps)], modelStep{device, action, hears}))
			}
		}
	}
}

func (e *explorer) step(m model, r *reality, steps []modelStep) {
	s := steps[len(steps)-1]
	m.ops = slices.Clip(m.ops)
	possible := m.do(s)
	if e.real {
		var refused error
		if r, refused = r.step(e.t, s); possible == (refused != nil) {
			e.t.Errorf("%v: the tree says %v, the model that it is possible: %v", steps, refused, possible)
			return
		}
	}
	if !possible {
		return
	}
	if e.real {
		e.compare(&m, r, steps, s.device, m.knows[s.device])
	}
	e.next(m, r, steps)
}

// compare fails unless a device's tree is that of a set of ops.
func (e *explorer) compare(m *model, r *reality, steps []modelStep, device int, s set) {
	t := m.tree(s)
	want := m.show(&t, []int{dirRoot})
	if got := r.devices[device].shape(e.t, Root); got != want {
		e.t.Errorf("%v: device %d shows %s, the model %s", steps, device, got, want)
	}
}

// end checks a whole history: all devices meet.
func (e *explorer) end(m *model, r *reality, steps []modelStep) {
	e.count.Add(1)
	if err := m.check(); err != nil {
		e.t.Errorf("%v: %v", steps, err)
	}
	if !e.real {
		return
	}
	var first [32]byte
	for i := range r.devices {
		r := r.hear(e.t, modelStep{device: i, hears: 7})
		d := &r.devices[i]
		sum, err := d.tree.Hash()
		if err == nil {
			err = check(d.tree)
		}
		if err != nil {
			e.t.Errorf("%v: device %d: %v", steps, i, err)
		}
		if i == 0 {
			first = sum
			e.compare(m, r, steps, i, m.all())
		}
		if sum != first {
			e.t.Errorf("%v: device %d differs:\n%s", steps, i, dump(d.tree))
		}
	}
}

// reality is three real devices at one point of a history. Another point never changes it.
type reality struct {
	batches []realBatch // of all, each after those it builds on
	devices [3]realDevice
}

type realBatch struct {
	logKey
	payload []byte
}

type realDevice struct {
	db    *kv.Mem
	tree  *Tree
	knows set // batches
}

// newReality makes three devices that know x and y.
func newReality(t *testing.T) *reality {
	r := &reality{}
	for i := range r.devices {
		r.devices[i].open(t, kv.NewMem(), i)
	}
	for _, name := range []string{"x", "y"} {
		if _, err := r.devices[0].tree.Create(0, Root, name, CreateSpec{Kind: KindDir}); err != nil {
			t.Fatal(err)
		}
	}
	r.publish(t, 0)
	for i := 1; i < len(r.devices); i++ {
		r = r.hear(t, modelStep{device: i, hears: 1})
	}
	return r
}

func (d *realDevice) open(t *testing.T, db *kv.Mem, index int) {
	tree, err := Open(db, AuthorID{0: byte(index + 1), 15: 1}, WithDevice("dev"))
	if err != nil {
		t.Errorf("open: %v", err)
	}
	d.db, d.tree = db, tree
}

// hear returns the point after a device heard of all that others know.
func (r *reality) hear(t *testing.T, s modelStep) *reality {
	next := *r
	d := &next.devices[s.device]
	d.open(t, d.db.Snapshot().(*kv.Mem), s.device)
	knows := d.knows
	for o := range r.devices {
		if s.hears>>o&1 != 0 {
			knows |= r.devices[o].knows
		}
	}
	for i, b := range r.batches {
		if !knows.has(i) || d.knows.has(i) {
			continue
		}
		if _, err := d.tree.Merge(b.author, b.seq, b.payload); err != nil {
			t.Errorf("merge: %v", err)
		}
	}
	d.knows = knows
	return &next
}

// step returns the point after a step, or why it was refused.
func (r *reality) step(t *testing.T, s modelStep) (*reality, error) {
	next := r.hear(t, s)
	if err := next.devices[s.device].act(actionPaths[s.action]); err != nil {
		return nil, err
	}
	next.batches = slices.Clip(next.batches)
	next.publish(t, s.device)
	return next, nil
}

func (r *reality) publish(t *testing.T, device int) {
	d := &r.devices[device]
	payload, err := d.tree.Cut()
	seq := d.tree.Vector()[d.tree.Author()] + 1
	if err := errors.Join(err, d.tree.Committed(seq)); err != nil {
		t.Errorf("publish: %v", err)
	}
	d.knows |= 1 << len(r.batches)
	r.batches = append(r.batches, realBatch{logKey{d.tree.Author(), seq}, payload})
}

// act does what the model does, or returns why it can't.
func (d *realDevice) act(p actionPath) error {
	from, fromName, err1 := d.at(p.from)
	to, toName, err2 := d.at(p.to)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	var err error
	switch {
	case p.from == "":
		_, err = d.tree.Create(0, to, toName, CreateSpec{Kind: KindDir})
	case p.to == "":
		err = d.tree.Rmdir(0, from, fromName)
	case p.swap:
		_, _, err = d.tree.Rename(0, from, fromName, to, toName, Exchange)
	default:
		_, _, err = d.tree.Rename(0, from, fromName, to, toName, NoReplace)
	}
	return err
}

// at returns the directory and the last name of a path.
func (d *realDevice) at(path string) (dir NodeID, name string, err error) {
	dir = Root
	for i := range len(path) - 1 {
		e, err := d.tree.Lookup(dir, path[i:i+1])
		if err != nil {
			return dir, "", err
		}
		dir = e.Node
	}
	return dir, path[max(len(path)-1, 0):], nil
}

// shape writes a tree as the model does.
func (d *realDevice) shape(t *testing.T, dir NodeID) string {
	list, err := d.tree.List(dir, "", 100)
	if err != nil {
		t.Errorf("list: %v", err)
	}
	var lines []string
	for _, e := range list {
		label := e.Name[:1]
		if len(e.Name) > 1 {
			label += "!"
		}
		lines = append(lines, label+"("+d.shape(t, e.Node)+")")
	}
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

// TestModel checks the rules of directories on every history of 3 devices and a few actions.
func TestModel(t *testing.T) {
	for _, s := range spaces(scaled(3, 4)) {
		t.Logf("%+v: %d histories", s, explore(t, s, false))
	}
}

// TestModelIsTheTree plays every history of 3 devices and a few actions on real trees, and
// compares each device's with the model after every step and once all have met.
func TestModelIsTheTree(t *testing.T) {
	for _, s := range spaces(scaled(2, 4)) {
		t.Logf("%+v: %d histories", s, explore(t, s, true))
	}
}
