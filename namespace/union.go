package namespace

import (
	"cmp"
	"slices"

	"github.com/foreverfs/forever/chunk"
)

// union is one name in a directory as it shows: the slots of all members of the directory's class.
type union struct {
	name  string
	dirs  []NodeID
	slots []*slot // beside dirs
}

// located is an entry and the directory whose slot holds it.
type located struct {
	slotEntry
	dir NodeID
}

// claimant is one thing that may have a name: a file, or directories that are shown as one.
type claimant struct {
	kind    Kind
	entries []located // greatest first
	members []NodeID  // the directories, oldest first; of others the node alone
	free    EntryID   // the greatest entry that was not demoted; zero if there is none
	// cover is the claimant that is shown for this one because their contents are equal; else itself.
	cover int
}

// unionOf loads a name of a directory's class.
func (x *txn) unionOf(dirs []NodeID, name string) (union, error) {
	u := union{name: name, dirs: dirs, slots: make([]*slot, len(dirs))}
	for i, d := range dirs {
		var err error
		if u.slots[i], err = x.slot(d, name); err != nil {
			return u, err
		}
	}
	return u, nil
}

func (x *txn) union(dir NodeID, name string) (union, error) {
	if x.meta.merged == 0 {
		return x.unionOf([]NodeID{dir}, name)
	}
	d, err := x.node(dir)
	if err != nil {
		return union{}, err
	}
	return x.unionOf(d.members(), name)
}

// entries returns the own entries of all slots, greatest first.
func (u *union) entries() (out []located) {
	for i, s := range u.slots {
		for _, e := range s.own {
			out = append(out, located{e, u.dirs[i]})
		}
	}
	slices.SortFunc(out, func(a, b located) int { return b.id.Compare(a.id) })
	return out
}

// resolve returns what the name shows, if anything: its winner, or else a
// conflict name that is spelled the same. A directory may be any member of its class.
func (u *union) resolve() (shown, bool) {
	var best *slotEntry
	for _, s := range u.slots {
		if w := s.winner(); w != nil && (best == nil || w.id.Compare(best.id) > 0) {
			best = w
		}
	}
	if best != nil {
		return shown{u.name, best.id, best.node, best.kind, best.merged}, true
	}
	for _, s := range slices.Backward(u.slots) {
		if k := len(s.aliases); k > 0 {
			a := s.aliases[k-1]
			return shown{a.slot, a.id, a.node, a.kind, false}, true
		}
	}
	return shown{}, false
}

// merge key of a directory: what was made under one name is one, and what one op moved to one name.
func mergeKey(e *slotEntry) OpID {
	if e.id.Index == 0 && nodeIDOf(e.id.Op) == e.node {
		return OpID{}
	}
	return e.id.Op
}

// claims sorts the entries of a name by whom they are for, the one with the greatest entry first.
func (x *txn) claims(u *union) ([]claimant, error) {
	type group struct {
		key     OpID
		node    NodeID
		demoted OpID
	}
	var out []claimant
	index := map[group]int{}
	for _, e := range u.entries() {
		g := group{node: e.node}
		if e.kind == KindDir {
			g = group{key: mergeKey(&e.slotEntry), demoted: e.demoted}
		}
		i, ok := index[g]
		if !ok {
			i = len(out)
			index[g] = i
			out = append(out, claimant{kind: e.kind, cover: i})
		}
		c := &out[i]
		c.entries = append(c.entries, e)
		if !slices.Contains(c.members, e.node) {
			c.members = append(c.members, e.node)
		}
		if e.demoted.IsZero() && c.free == (EntryID{}) {
			c.free = e.id
		}
	}
	for i := range out {
		if err := x.sortMembers(out[i].members); err != nil {
			return nil, err
		}
	}
	return out, x.coverEqual(out)
}

// sortMembers sorts directories by the ops that made them.
func (x *txn) sortMembers(ids []NodeID) error {
	if len(ids) < 2 {
		return nil
	}
	created := map[NodeID]OpID{}
	for _, id := range ids {
		n, err := x.node(id)
		if err != nil {
			return err
		}
		created[id] = n.created
	}
	slices.SortFunc(ids, func(a, b NodeID) int { return created[a].Compare(created[b]) })
	return nil
}

// winnerOf returns the claimant that has the name itself, or -1.
func winnerOf(claims []claimant) int {
	w := -1
	for i := range claims {
		if claims[i].free != (EntryID{}) && (w < 0 || claims[i].free.Compare(claims[w].free) > 0) {
			w = i
		}
	}
	return w
}

// coverEqual finds the claimants that are not shown, as another with the same content is.
func (x *txn) coverEqual(claims []claimant) error {
	if len(claims) < 2 {
		return nil
	}
	order := make([]int, len(claims))
	for i := range order {
		order[i] = i
	}
	w := winnerOf(claims)
	slices.SortStableFunc(order, func(a, b int) int {
		return -cmp.Compare(b2i(a == w), b2i(b == w))
	})
	first := map[likeness]int{}
	for _, i := range order {
		if claims[i].kind == KindDir {
			continue
		}
		n, err := x.node(claims[i].members[0])
		if err != nil {
			return err
		}
		like := n.likeness()
		if j, ok := first[like]; ok {
			claims[i].cover = j
		} else {
			first[like] = i
		}
	}
	return nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// likeness is equal for nodes, no directories, of which one need not be shown beside the other.
type likeness struct {
	kind   Kind
	target string
	rdev   uint32
	held   held
}

func (n *node) likeness() likeness {
	c := n.content()
	return likeness{n.kind, n.target, n.rdev, heldBy(&c.Version)}
}

// held is equal for versions that hold the same. As a map's key it finds them among many.
type held struct {
	size             int64
	root             chunk.ID
	blockLog, height uint8
	inline           string
}

func heldBy(v *chunk.Version) held {
	if v.Size == 0 {
		return held{}
	}
	return held{v.Size, v.Root, v.BlockLog, v.Height, string(v.Inline)}
}

func sameVersion(v, w *chunk.Version) bool { return heldBy(v) == heldBy(w) }

// conflict is an alias and the slot it is in.
type conflict struct {
	dir   NodeID
	under string
	alias
	hidden bool // an entry has that name; the alias is in another slot too
}

// view is what a name shows besides its winner.
type view struct {
	conflicts []conflict
	groups    [][]NodeID // directories shown as one, oldest first
}

// plain reports whether a name has one entry and nothing to show besides it.
func (x *txn) plain(u *union) (bool, error) {
	var only *slotEntry
	for _, s := range u.slots {
		for i := range s.own {
			if only != nil {
				return false, nil
			}
			only = &s.own[i]
		}
	}
	if only == nil || only.kind == KindDir && only.demoted.IsZero() {
		return true, nil
	}
	if !only.demoted.IsZero() {
		return false, nil
	}
	if only.kind != KindFile {
		return true, nil
	}
	n, err := x.node(only.node)
	return err == nil && len(n.heads) < 2, err
}

// view computes what a name shows besides its winner.
func (x *txn) view(v *view, u *union) error {
	if plain, err := x.plain(u); plain || err != nil {
		return err
	}
	claims, err := x.claims(u)
	if err != nil {
		return err
	}
	w := winnerOf(claims)
	for i := range claims {
		c := &claims[i]
		if i != w && c.cover == i {
			top := &c.entries[0]
			if err := x.viewConflict(v, u, top.dir, alias{u.name, top.id, c.members[0], c.kind}, top.time); err != nil {
				return err
			}
		}
		if len(c.members) > 1 {
			v.groups = append(v.groups, c.members)
		}
		if c.kind == KindFile {
			if err := x.viewHeads(v, u, c.members[0]); err != nil {
				return err
			}
		}
	}
	return nil
}

// viewHeads adds the contents of a file that do not show, beside its oldest name.
func (x *txn) viewHeads(v *view, u *union, id NodeID) error {
	n, err := x.node(id)
	if err != nil || len(n.heads) < 2 {
		return err
	}
	p, ok, err := x.firstPlace(n)
	if err != nil || !ok || p.name != u.name || !slices.Contains(u.dirs, p.dir) {
		return err
	}
	for _, i := range n.losing() {
		h := &n.heads[i]
		a := alias{u.name, EntryID{h.ID, headIndex}, forkIDOf(h.ID), KindFile}
		if err := x.viewConflict(v, u, p.dir, a, h.Time); err != nil {
			return err
		}
	}
	return nil
}

// viewConflict adds something that is shown under a conflict name: the first that no entry has, and hidden behind those.
func (x *txn) viewConflict(v *view, u *union, dir NodeID, a alias, time int64) error {
	for level := 0; ; level++ {
		under := conflictName(u.name, x.device(a.id.Op.Author), a.id, time, level)
		other, err := x.unionOf(u.dirs, under)
		if err != nil {
			return err
		}
		hidden := other.taken()
		v.conflicts = append(v.conflicts, conflict{dir, under, a, hidden})
		if !hidden {
			return nil
		}
	}
}

// taken reports whether an entry has the name.
func (u *union) taken() bool {
	return slices.ContainsFunc(u.slots, func(s *slot) bool { return s.winner() != nil })
}

// around runs fn, which changes what names show, and lets conflict names and
// the classes of directories follow.
func (x *txn) around(us []union, fn func() error) error {
	var before, after view
	for i := range us {
		if err := x.view(&before, &us[i]); err != nil {
			return err
		}
	}
	if err := fn(); err != nil {
		return err
	}
	for i := range us {
		if err := x.view(&after, &us[i]); err != nil {
			return err
		}
	}
	return x.show(&before, &after)
}

// show brings the state from one view to another.
func (x *txn) show(before, after *view) error {
	if err := x.showMissing(before, after, false); err != nil {
		return err
	}
	if err := x.showMissing(after, before, true); err != nil {
		return err
	}
	return x.regroup(before.groups, after.groups)
}

// showMissing shows or hides what one view has under conflict names and another has not.
func (x *txn) showMissing(of, from *view, show bool) error {
	if len(of.conflicts) == 0 {
		return nil
	}
	has := make(map[conflict]bool, len(from.conflicts))
	for _, c := range from.conflicts {
		has[c] = true
	}
	for _, c := range of.conflicts {
		if !has[c] {
			if err := x.showConflict(c, show); err != nil {
				return err
			}
		}
	}
	return nil
}

// namesOf returns every name that a file has, each once: of one it may have several entries. There may be
// tens of thousands.
func (x *txn) namesOf(n *node) ([]union, error) {
	ps, err := x.places(n)
	if err != nil {
		return nil, err
	}
	us := make([]union, 0, len(ps))
	have := make(map[Name]bool, len(ps)) // by the oldest member of the directory's class
	for _, p := range ps {
		u, err := x.union(p.dir, p.name)
		if err != nil {
			return nil, err
		}
		if k := (Name{u.dirs[0], u.name}); !have[k] {
			have[k] = true
			us = append(us, u)
		}
	}
	return us, nil
}

// addUnion adds a name unless it is there.
func (x *txn) addUnion(us []union, dir NodeID, name string) ([]union, error) {
	for i := range us {
		if us[i].name == name && slices.Contains(us[i].dirs, dir) {
			return us, nil
		}
	}
	u, err := x.union(dir, name)
	if err != nil {
		return nil, err
	}
	return append(us, u), nil
}

// editSlot changes the own entries of a slot that are for node n.
func (x *txn) editSlot(dir NodeID, name string, n *node, fn func(*slot) error) error {
	var us []union
	var err error
	if len(n.heads) > 1 { // its contents may have to be shown elsewhere
		if us, err = x.namesOf(n); err != nil {
			return err
		}
	}
	if us, err = x.addName(us, dir, name); err != nil {
		return err
	}
	s, err := x.slot(dir, name)
	if err != nil {
		return err
	}
	s.dirty = true
	x.touchName(dir, name)
	return x.around(us, func() error { return fn(s) })
}

// addName adds a name, and those whose conflict names it may be.
func (x *txn) addName(us []union, dir NodeID, name string) ([]union, error) {
	us, err := x.addUnion(us, dir, name)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(us, func(u union) bool { return u.name == name && slices.Contains(u.dirs, dir) })
	for _, s := range us[i].slots {
		for _, a := range s.aliases {
			if us, err = x.addUnion(us, dir, a.slot); err != nil {
				return nil, err
			}
		}
	}
	return us, nil
}

// editHeads changes the contents of a file.
func (x *txn) editHeads(n *node, fn func() error) error {
	us, err := x.namesOf(n)
	if err != nil {
		return err
	}
	before := n.size()
	if err := x.around(us, fn); err != nil {
		return err
	}
	if n.links > 0 {
		x.meta.bytes += n.size() - before
	}
	return nil
}

// showConflict shows or hides something under a conflict name.
func (x *txn) showConflict(c conflict, show bool) error {
	s, err := x.slot(c.dir, c.under)
	if err != nil {
		return err
	}
	i, found := slices.BinarySearchFunc(s.aliases, c.id, func(a alias, id EntryID) int { return a.id.Compare(id) })
	switch {
	case show && !found:
		s.aliases = slices.Insert(s.aliases, i, c.alias)
	case !show && found:
		s.aliases = slices.Delete(s.aliases, i, i+1)
	}
	s.dirty = true
	x.touchName(c.dir, c.under)
	if c.hidden {
		return nil
	}
	x.meta.conflicts += uint64(2*b2i(show) - 1)
	if err := x.setKey(conflictKey(c.dir, c.under, c.id), nil, show); err != nil {
		return err
	}
	if c.id.Index == headIndex {
		return x.setKey(headKey(c.node), c.append(nil), show)
	}
	return nil
}

// setKey puts or deletes a key.
func (x *txn) setKey(k, v []byte, there bool) error {
	if there {
		return x.put(k, v)
	}
	return x.delete(k)
}
