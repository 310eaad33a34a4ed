package namespace

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"testing"
)

// The model is the rules of directories once more, as small as they can be: the
// tree of a set of ops is computed from nothing. Every history of some devices
// and ops is played on it, and short ones on real trees as well.

// What an op of the model does. Before the first there are x and y in the root.
const (
	makeInRoot = iota // mkdir z
	makeInX           // mkdir x/z
	moveXtoY          // mv x y/x
	moveYtoX          // mv y x/y
	moveZtoX          // mv z x/z
	moveZout          // mv x/z z
	exchange          // exchange x and z
	opKinds
)

// The directories of the model: root, x, y, and one for each op that made one.
const (
	dirRoot = iota
	dirX
	dirY
	dirFirst
)

const (
	maxModelOps = 5
	maxDirs     = dirFirst + maxModelOps
)

// modelOp is an op with what it moves where.
type modelOp struct {
	device, lamport int
	makes           int // the directory it makes, or 0
	moves           []modelMove
	to              int
	name            byte
	demotes         []modelEntry
}

// modelEntry is a directory where an op, 1 + its index, put it.
type modelEntry struct{ dir, entry int }

// modelMove is one directory's part of a move.
type modelMove struct {
	dir, to int
	name    byte
}

// before orders ops as their IDs do.
func (o *modelOp) before(p *modelOp) bool {
	return o.lamport < p.lamport || o.lamport == p.lamport && o.device < p.device
}

// modelTree is where every directory lies.
type modelTree struct {
	there  [maxDirs]bool
	parent [maxDirs]int
	name   [maxDirs]byte
	// entry is the op that put a directory there: 1 + its index, 0 for x and y; made says that it also made it.
	entry [maxDirs]int
	made  [maxDirs]bool
	// demoted is the first op, 1 + its index, by which it keeps its conflict name there.
	demoted [maxDirs]int
}

// model is one history so far: the ops, and which of them each device knows.
type model struct {
	ops   []modelOp
	knows [3]uint
}

// tree computes the tree of a set of ops: all in their order, those left out that would make a cycle.
func (m *model) tree(set uint) (t modelTree) {
	t.there[dirRoot], t.there[dirX], t.there[dirY] = true, true, true
	t.name[dirX], t.name[dirY], t.made[dirX], t.made[dirY] = 'x', 'y', true, true
	var order []int
	for i := range m.ops {
		if set&(1<<i) != 0 {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		if m.ops[a].before(&m.ops[b]) {
			return -1
		}
		return 1
	})
	for _, i := range order {
		t.apply(i, &m.ops[i])
	}
	for _, i := range order {
		for _, e := range m.ops[i].demotes {
			if t.entry[e.dir] == e.entry && t.demoted[e.dir] == 0 {
				t.demoted[e.dir] = i + 1
			}
		}
	}
	return t
}

func (t *modelTree) apply(i int, o *modelOp) {
	if o.makes != 0 {
		t.there[o.makes], t.parent[o.makes], t.name[o.makes], t.entry[o.makes], t.made[o.makes] = true, o.to, o.name, i+1, true
		return
	}
	was := *t
	for _, v := range o.moves {
		if t.below(v.to, v.dir) {
			*t = was // all of them or none
			return
		}
		t.parent[v.dir], t.name[v.dir], t.entry[v.dir], t.made[v.dir] = v.to, v.name, i+1, false
	}
}

// below reports whether d is top or lies below it. It does not end in a cycle.
func (t *modelTree) below(d, top int) bool {
	for ; d != dirRoot; d = t.parent[d] {
		if d == top {
			return true
		}
	}
	return false
}

// group is what shows under one name: directories shown as one.
type modelGroup struct {
	dirs    []int
	top     int // the greatest entry: 1 + op
	demoted int
}

// names computes what a class of directories shows: for each name its groups, the one that has it first.
func (m *model) names(t *modelTree, class []int) map[byte][]modelGroup {
	out := map[byte][]modelGroup{}
	for d := 1; d < maxDirs; d++ {
		if !t.there[d] || !slices.Contains(class, t.parent[d]) {
			continue
		}
		list := out[t.name[d]]
		i := slices.IndexFunc(list, func(g modelGroup) bool {
			o := g.dirs[0]
			if g.demoted != t.demoted[d] {
				return false
			}
			return t.made[o] && t.made[d] || !t.made[o] && !t.made[d] && t.entry[o] == t.entry[d]
		})
		if i < 0 {
			list = append(list, modelGroup{[]int{d}, t.entry[d], t.demoted[d]})
		} else {
			list[i].dirs = append(list[i].dirs, d)
			if m.after(t.entry[d], list[i].top) {
				list[i].top = t.entry[d]
			}
		}
		out[t.name[d]] = list
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b modelGroup) int {
			if (a.demoted == 0) == (b.demoted == 0) && m.after(a.top, b.top) || a.demoted == 0 && b.demoted != 0 {
				return -1
			}
			return 1
		})
	}
	return out
}

// after reports whether an entry is greater than another.
func (m *model) after(a, b int) bool {
	return a != 0 && (b == 0 || m.ops[b-1].before(&m.ops[a-1]))
}

// show writes the tree below a class as text: names sorted, one that lost its own with an exclamation mark.
func (m *model) show(t *modelTree, class []int) string {
	var lines []string
	for name, groups := range m.names(t, class) {
		for i, g := range groups {
			label := string(name)
			if i > 0 || g.demoted != 0 {
				label += "!"
			}
			lines = append(lines, label+"("+m.show(t, g.dirs)+")")
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

// find returns the directories shown at a name of a class, none if there are none.
func (m *model) find(t *modelTree, class []int, name byte) []int {
	if groups := m.names(t, class)[name]; len(groups) > 0 && groups[0].demoted == 0 {
		return groups[0].dirs
	}
	return nil
}

// do lets a device do something that it can, and reports whether it could. If all is
// set it has heard of everything before.
func (m *model) do(device, kind int, all bool) bool {
	if all {
		m.knows[device] = 1<<len(m.ops) - 1
	}
	t := m.tree(m.knows[device])
	root := []int{dirRoot}
	op := modelOp{device: device, lamport: 1}
	for i := range m.ops {
		if m.knows[device]&(1<<i) != 0 {
			op.lamport = max(op.lamport, m.ops[i].lamport+1)
		}
	}
	from, into, what := root, root, byte('z')
	switch kind {
	case makeInX, moveZtoX, moveYtoX:
		into = m.find(&t, root, 'x')
	case moveXtoY:
		into = m.find(&t, root, 'y')
	case moveZout:
		from = m.find(&t, root, 'x')
	}
	switch kind {
	case moveXtoY, exchange:
		what = 'x'
	case moveYtoX:
		what = 'y'
	}
	taken := into != nil && m.find(&t, into, what) != nil
	switch {
	case into == nil || from == nil:
		return false
	case kind == exchange:
		x, z := m.find(&t, root, 'x'), m.find(&t, root, 'z')
		if x == nil || z == nil {
			return false
		}
		// As an op has them: the first of each, then the other members.
		op.moves = append(op.moves, modelMove{x[0], dirRoot, 'z'}, modelMove{z[0], dirRoot, 'x'})
		op.add(x[1:], dirRoot, 'z')
		op.add(z[1:], dirRoot, 'x')
		op.demote(m.names(&t, root)['x'], &t)
		op.demote(m.names(&t, root)['z'], &t)
	case taken:
		return false
	case kind == makeInRoot || kind == makeInX:
		op.makes, op.to, op.name = dirFirst+len(m.ops), m.oldest(into), what
	default:
		what := m.find(&t, from, what)
		if what == nil {
			return false
		}
		op.add(what, m.oldest(into), t.name[what[0]])
		op.demote(m.names(&t, from)[t.name[what[0]]], &t)
	}
	m.knows[device] |= 1 << len(m.ops)
	m.ops = append(m.ops, op)
	return true
}

// demote lets all but the first of a name's groups keep their conflict names.
func (o *modelOp) demote(groups []modelGroup, t *modelTree) {
	for _, g := range groups[1:] {
		if g.demoted == 0 {
			for _, d := range g.dirs {
				o.demotes = append(o.demotes, modelEntry{d, t.entry[d]})
			}
		}
	}
}

func (o *modelOp) add(dirs []int, to int, name byte) {
	for _, d := range dirs {
		o.moves = append(o.moves, modelMove{d, to, name})
	}
}

// oldest returns the member of a class that was made first.
func (m *model) oldest(class []int) int {
	best := class[0]
	for _, d := range class[1:] {
		if best >= dirFirst && (d < dirFirst || m.ops[d-dirFirst].before(&m.ops[best-dirFirst])) {
			best = d
		}
	}
	return best
}

// check fails unless every directory is below the root once, and classes have one parent and no cycle.
func (m *model) check() error {
	t := m.tree(1<<len(m.ops) - 1)
	seen := [maxDirs]int{}
	var walk func(class []int, depth int) error
	walk = func(class []int, depth int) error {
		if depth > maxDirs {
			return errors.New("a cycle of classes")
		}
		for _, d := range class {
			seen[d]++
		}
		for _, groups := range m.names(&t, class) {
			for _, g := range groups {
				if err := walk(g.dirs, depth+1); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := walk([]int{dirRoot}, 0); err != nil {
		return err
	}
	for d, there := range t.there {
		if there != (seen[d] == 1) {
			return fmt.Errorf("directory %d is there %d times", d, seen[d])
		}
	}
	return nil
}

// step is one event of a history.
type modelStep struct {
	device, kind int
	all          bool
}

// histories calls fn with every history of n ops, by three devices that before
// each op hear of everything or of nothing.
func histories(n int, fn func(*model, []modelStep)) {
	var steps []modelStep
	var next func(m model)
	next = func(m model) {
		if len(m.ops) == n {
			fn(&m, steps)
			return
		}
		for device := range m.knows {
			for _, all := range []bool{false, true} {
				if all && bits.OnesCount(m.knows[device]) == len(m.ops) {
					continue // it knows all already
				}
				for kind := range opKinds {
					c := model{ops: m.ops[:len(m.ops):len(m.ops)], knows: m.knows}
					if c.do(device, kind, all) {
						steps = append(steps, modelStep{device, kind, all})
						next(c)
						steps = steps[:len(steps)-1]
					}
				}
			}
		}
	}
	next(model{})
}

// TestModel checks the rules of directories on every history of 3 devices and a few ops.
func TestModel(t *testing.T) {
	count := 0
	histories(scaled(4, maxModelOps), func(m *model, steps []modelStep) {
		if count++; t.Failed() {
			return
		}
		if err := m.check(); err != nil {
			t.Errorf("%v: %v", steps, err)
		}
	})
	t.Logf("%d histories", count)
}

// TestModelIsTheTree plays every history of 3 devices and a few ops on real trees, and
// compares them with the model.
func TestModelIsTheTree(t *testing.T) {
	count := 0
	histories(scaled(3, maxModelOps), func(m *model, steps []modelStep) {
		if count++; t.Failed() {
			return
		}
		whole := m.tree(1<<len(m.ops) - 1)
		want := m.show(&whole, []int{dirRoot})
		for i, got := range play(t, steps) {
			if got != want {
				t.Errorf("%v: tree %d is %s, the model says %s", steps, i, got, want)
			}
		}
	})
	t.Logf("%d histories", count)
}

// play plays a history on three trees, lets them meet, and shows each.
func play(t *testing.T, steps []modelStep) (out []string) {
	rigs := []*rig{newRig(t, 1), newRig(t, 2), newRig(t, 3)}
	all := map[logKey][]byte{}
	rigs[0].must(rigs[0].mkdir("x"), rigs[0].mkdir("y"))
	rigs[0].flush(all)
	for _, r := range rigs {
		r.pull(all)
	}
	for _, s := range steps {
		r := rigs[s.device]
		if s.all {
			r.pull(all)
		}
		r.must([]func() error{
			makeInRoot: func() error { return r.mkdir("z") },
			makeInX:    func() error { return r.mkdir("x/z") },
			moveXtoY:   func() error { return r.mv("x", "y/x", 0) },
			moveYtoX:   func() error { return r.mv("y", "x/y", 0) },
			moveZtoX:   func() error { return r.mv("z", "x/z", 0) },
			moveZout:   func() error { return r.mv("x/z", "z", 0) },
			exchange:   func() error { return r.mv("x", "z", Exchange) },
		}[s.kind]())
		r.flush(all)
	}
	for _, r := range rigs {
		r.pull(all)
		mustCheck(t, r.Tree)
		out = append(out, r.shape(Root))
	}
	return out
}

// shape writes a tree as the model does.
func (r *rig) shape(dir NodeID) string {
	list, err := r.List(dir, "", 100)
	r.must(err)
	var lines []string
	for _, e := range list {
		label := e.Name[:1]
		if len(e.Name) > 1 {
			label += "!"
		}
		lines = append(lines, label+"("+r.shape(e.Node)+")")
	}
	slices.Sort(lines)
	return strings.Join(lines, " ")
}
