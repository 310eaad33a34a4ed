package namespace

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The model is the rules of directories once more, as small as they can be: the
// tree of a set of ops is computed from nothing. Every history of some devices
// and actions is played on it, and short ones on real trees as well (explore_test.go).

// What a device of the model does. Before the first there are x and y in the root.
const (
	makeInRoot = iota // mkdir z
	makeInX           // mkdir x/z
	moveXtoY          // mv x y/x
	moveYtoX          // mv y x/y
	moveZtoX          // mv z x/z
	moveZout          // mv x/z z
	exchange          // exchange x and z
	removeX           // rmdir x
	removeZ           // rmdir z
	removeXZ          // rmdir x/z
	moveXtoZ          // mv x z/x
	actions
)

// The directories of the model: root, x, y, and one for each op that made one.
const (
	dirRoot = iota
	dirX
	dirY
	dirFirst
)

const (
	maxModelActions = 5
	maxDirs         = dirFirst + maxModelActions
)

// set is a set of ops, by their indices.
type set uint64

func (s set) has(i int) bool { return s>>i&1 != 0 }

// modelOp is an op. An action may take several.
type modelOp struct {
	device, lamport int
	knows           set
	makes           int // the directory it makes, or 0
	to              int // where it makes it
	name            byte
	moves           []modelMove
	keeps           int // the directory it keeps, or 0
	removes         int // the directory it removes, or 0
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

// keepsAlive reports whether an op says that a directory is to stay: it made
// something in it, moved it or something to it, or does nothing but say so.
func (o *modelOp) keepsAlive(d int) bool {
	return o.makes != 0 && o.to == d || o.keeps == d && d != 0 ||
		slices.ContainsFunc(o.moves, func(v modelMove) bool { return v.dir == d || v.to == d })
}

// modelTree is where every directory lies.
type modelTree struct {
	made    [maxDirs]bool // by some op
	removed [maxDirs]bool // though it may be there for what it holds
	there   [maxDirs]bool
	parent  [maxDirs]int
	name    [maxDirs]byte
	// entry is the op that put a directory there: 1 + its index, 0 for x and y; first says that it also made it.
	entry [maxDirs]int
	first [maxDirs]bool
	// demoted is the first op, 1 + its index, by which it keeps its conflict name there.
	demoted [maxDirs]int
}

// model is one history so far: the ops, and which of them each device knows.
type model struct {
	ops   []modelOp
	dirs  int // made by ops
	done  int // actions
	knows [3]set
}

func (m *model) all() set { return 1<<len(m.ops) - 1 }

// order returns a set of ops in the order of their IDs.
func (m *model) order(s set) (out []int) {
	for i := range m.ops {
		if s.has(i) {
			out = append(out, i)
		}
	}
	slices.SortFunc(out, func(a, b int) int {
		if m.ops[a].before(&m.ops[b]) {
			return -1
		}
		return 1
	})
	return out
}

// tree computes the tree of a set of ops.
func (m *model) tree(s set) (t modelTree) {
	for d, name := range map[int]byte{dirRoot: '/', dirX: 'x', dirY: 'y'} {
		t.made[d], t.name[d], t.first[d] = true, name, true
	}
	order := m.order(s)
	for _, i := range order {
		t.place(i, &m.ops[i])
	}
	for _, i := range order {
		for _, e := range m.ops[i].demotes {
			if t.entry[e.dir] == e.entry && t.demoted[e.dir] == 0 {
				t.demoted[e.dir] = i + 1
			}
		}
		if d := m.ops[i].removes; d != 0 && m.removes(i, s) {
			t.removed[d] = true
		}
	}
	for d := range t.there {
		t.there[d] = t.made[d] && t.holds(d)
	}
	return t
}

// removes reports whether a removal has effect: it knew all that keeps its directory alive.
func (m *model) removes(i int, s set) bool {
	for k := range m.ops {
		if s.has(k) && !m.ops[i].knows.has(k) && m.ops[k].keepsAlive(m.ops[i].removes) {
			return false
		}
	}
	return true
}

// holds reports whether a directory was not removed, or something in it was not.
func (t *modelTree) holds(d int) bool {
	if !t.removed[d] {
		return true
	}
	for c := 1; c < maxDirs; c++ {
		if t.made[c] && t.parent[c] == d && t.holds(c) {
			return true
		}
	}
	return false
}

// place makes or moves directories, unless that would make a cycle.
func (t *modelTree) place(i int, o *modelOp) {
	if d := o.makes; d != 0 {
		t.made[d], t.parent[d], t.name[d], t.entry[d], t.first[d] = true, o.to, o.name, i+1, true
		return
	}
	was := *t
	for _, v := range o.moves {
		if t.below(v.to, v.dir) {
			*t = was // all of them or none
			return
		}
		t.parent[v.dir], t.name[v.dir], t.entry[v.dir], t.first[v.dir] = v.to, v.name, i+1, false
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

// modelGroup is what shows under one name: directories shown as one.
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
			return t.first[o] && t.first[d] || !t.first[o] && !t.first[d] && t.entry[o] == t.entry[d]
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

// find returns the groups that a class shows at a name, the first of which has it; none if none has.
func (m *model) find(t *modelTree, class []int, name byte) []modelGroup {
	if groups := m.names(t, class)[name]; len(groups) > 0 && groups[0].demoted == 0 {
		return groups
	}
	return nil
}

// emit lets a device do an op.
func (m *model) emit(device int, op modelOp) {
	op.device, op.lamport, op.knows = device, 1, m.knows[device]
	for i := range m.ops {
		if op.knows.has(i) {
			op.lamport = max(op.lamport, m.ops[i].lamport+1)
		}
	}
	m.knows[device] |= 1 << len(m.ops)
	m.ops = append(m.ops, op)
}

// do lets a device act after it heard of all that some others know, and reports whether it could.
func (m *model) do(s modelStep) bool {
	for other := range m.knows {
		if s.hears>>other&1 != 0 {
			m.knows[s.device] |= m.knows[other]
		}
	}
	t := m.tree(m.knows[s.device])
	at := func(path string) []modelGroup {
		groups := []modelGroup{{dirs: []int{dirRoot}}}
		for _, name := range []byte(path) {
			if groups = m.find(&t, groups[0].dirs, name); groups == nil {
				return nil
			}
		}
		return groups
	}
	return m.act(s.device, &t, actionPaths[s.action], at)
}

// actionPath is an action: what it takes and where it puts it, as names in the order of descent. What has no
// source makes a directory, what has no target removes one.
type actionPath struct {
	from, to string
	swap     bool
}

var actionPaths = [actions]actionPath{
	makeInRoot: {to: "z"},
	makeInX:    {to: "xz"},
	moveXtoY:   {from: "x", to: "yx"},
	moveYtoX:   {from: "y", to: "xy"},
	moveZtoX:   {from: "z", to: "xz"},
	moveZout:   {from: "xz", to: "z"},
	exchange:   {from: "x", to: "z", swap: true},
	removeX:    {from: "x"},
	removeZ:    {from: "z"},
	removeXZ:   {from: "xz"},
	moveXtoZ:   {from: "x", to: "zx"},
}

func (m *model) act(device int, t *modelTree, p actionPath, at func(string) []modelGroup) bool {
	var source, into, taken []modelGroup
	if p.from != "" {
		if source = at(p.from); source == nil {
			return false
		}
	}
	if p.to != "" {
		if into, taken = at(p.to[:len(p.to)-1]), at(p.to); into == nil || (taken != nil) != p.swap {
			return false
		}
	}
	switch {
	case p.swap:
		m.swap(device, t, source, taken)
	case p.from == "":
		m.dirs++
		m.emit(device, modelOp{makes: dirFirst + m.dirs - 1, to: m.oldest(into[0].dirs), name: p.to[len(p.to)-1]})
	case p.to == "":
		if len(m.names(t, source[0].dirs)) > 0 {
			return false
		}
		m.keep(device, t, source[0].dirs)
		m.removeGroup(device, t, source)
	default:
		m.keep(device, t, source[0].dirs)
		op := modelOp{}
		op.add(source[0].dirs, m.oldest(into[0].dirs), p.to[len(p.to)-1])
		rest := op.demote(source, t)
		m.emit(device, op)
		m.demoteRest(device, rest)
	}
	m.done++
	return true
}

// swap exchanges two groups of the root. An op has the first of each, then the other members.
func (m *model) swap(device int, t *modelTree, a, b []modelGroup) {
	m.keep(device, t, b[0].dirs)
	m.keep(device, t, a[0].dirs)
	op := modelOp{}
	nameA, nameB := t.name[a[0].dirs[0]], t.name[b[0].dirs[0]]
	op.add(a[0].dirs[:1], dirRoot, nameB)
	op.add(b[0].dirs[:1], dirRoot, nameA)
	op.add(a[0].dirs[1:], dirRoot, nameB)
	op.add(b[0].dirs[1:], dirRoot, nameA)
	rest := append(op.demote(a, t), op.demote(b, t)...)
	m.emit(device, op)
	m.demoteRest(device, rest)
}

// keep lets removed directories stay that something is taken out of.
func (m *model) keep(device int, t *modelTree, dirs []int) {
	for _, d := range dirs {
		if p := t.parent[d]; t.removed[p] {
			t.removed[p] = false
			m.emit(device, modelOp{keeps: p})
		}
	}
}

// removeGroup removes the first of a name's groups: an op for each directory, of which one may
// demote what is left.
func (m *model) removeGroup(device int, t *modelTree, groups []modelGroup) {
	rest := losers(groups, t)
	for _, d := range groups[0].dirs {
		op := modelOp{removes: d}
		if parent, one := oneParent(rest, t); one && parent == t.parent[d] {
			op.demotes, rest = rest, nil
		}
		m.emit(device, op)
	}
	m.demoteRest(device, rest)
}

func (m *model) demoteRest(device int, rest []modelEntry) {
	if len(rest) > 0 {
		m.emit(device, modelOp{demotes: rest})
	}
}

// losers returns the directories of all but the first of a name's groups that have no conflict name for good yet.
func losers(groups []modelGroup, t *modelTree) (out []modelEntry) {
	for _, g := range groups[1:] {
		for _, d := range g.dirs {
			if g.demoted == 0 {
				out = append(out, modelEntry{d, t.entry[d]})
			}
		}
	}
	return out
}

// oneParent returns the directory in which all of some directories lie, if there is one.
func oneParent(list []modelEntry, t *modelTree) (int, bool) {
	for _, e := range list {
		if t.parent[e.dir] != t.parent[list[0].dir] {
			return 0, false
		}
	}
	if len(list) == 0 {
		return 0, false
	}
	return t.parent[list[0].dir], true
}

// demote lets the losers of a name keep their conflict names, by the op that takes the first away if
// they lie where that does, else it returns them.
func (o *modelOp) demote(groups []modelGroup, t *modelTree) []modelEntry {
	list := losers(groups, t)
	parent, one := oneParent(list, t)
	if one && slices.ContainsFunc(groups[0].dirs, func(d int) bool { return t.parent[d] == parent }) {
		o.demotes = append(o.demotes, list...)
		return nil
	}
	return list
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
		if best >= dirFirst && (d < dirFirst || m.maker(d).before(m.maker(best))) {
			best = d
		}
	}
	return best
}

// maker returns the op that made a directory.
func (m *model) maker(d int) *modelOp {
	return &m.ops[slices.IndexFunc(m.ops, func(o modelOp) bool { return o.makes == d })]
}

// check fails unless every directory that is there is below the root once, and classes have one parent and no cycle.
func (m *model) check() error {
	t := m.tree(m.all())
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
		if want := b2i(there); seen[d] != want {
			return fmt.Errorf("directory %d is there %d times, not %d", d, seen[d], want)
		}
	}
	return nil
}
