package namespace

import (
	"fmt"
	"slices"

	pb "github.com/foreverfs/forever/namespace/namespacepb"
)

// found is what a name in a directory led a local operation to.
type found struct {
	shown
	n     *node     // of directories that are shown as one, the oldest; nil if head is set
	head  *conflict // a content that is shown as a file but is none yet
	parts []part    // all entries, by node and slot
	// copies are the files that are not shown because they are like this one; they share its fate.
	copies  []part
	demoted []demotion // what must keep its conflict name once this is gone
}

// part is a node's entries in one slot.
type part struct {
	n       *node
	dir     NodeID
	slot    string
	entries [][]byte
}

// demotion names entries of one slot.
type demotion struct {
	dir     NodeID
	name    string
	entries [][]byte
}

// find looks a name up. It returns ErrNotExist if there is nothing.
func (x *txn) find(d *node, name string) (f found, err error) {
	if err := checkName(name); err != nil {
		return f, err
	}
	u, err := x.unionOf(d.members(), name)
	if err != nil {
		return f, err
	}
	var ok bool
	if f.shown, ok = u.resolve(); !ok {
		return f, ErrNotExist
	}
	if f.id.Index == headIndex {
		c, err := head(x.tx, f.node)
		f.head = &c
		return f, err
	}
	wins := f.slot == name
	if !wins {
		if u, err = x.unionOf(d.members(), f.slot); err != nil {
			return f, err
		}
	}
	claims, err := x.claims(&u)
	if err != nil {
		return f, err
	}
	return f, x.gather(&f, claims, wins)
}

// gather collects the entries of what was found, and of what goes or stays with it.
func (x *txn) gather(f *found, claims []claimant, wins bool) (err error) {
	me := slices.IndexFunc(claims, func(c claimant) bool { return slices.Contains(c.members, f.node) })
	if me < 0 {
		return ErrDamaged
	}
	f.node = claims[me].members[0]
	if f.n, err = x.node(f.node); err != nil {
		return err
	}
	for i := range claims {
		c := &claims[i]
		switch {
		case i == me:
			f.parts, err = x.addParts(f.parts, f.slot, c)
		case c.cover == me && (x.t.written == nil || !x.t.written(c.members[0])):
			f.copies, err = x.addParts(f.copies, f.slot, c)
		case wins:
			f.demote(c)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *txn) addParts(list []part, slot string, c *claimant) ([]part, error) {
	for _, e := range c.entries {
		i := slices.IndexFunc(list, func(p part) bool { return p.n.id == e.node && p.dir == e.dir })
		if i < 0 {
			n, err := x.node(e.node)
			if err != nil {
				return nil, err
			}
			i = len(list)
			list = append(list, part{n: n, dir: e.dir, slot: slot})
		}
		list[i].entries = append(list[i].entries, e.id.Append(nil))
	}
	return list, nil
}

func (f *found) demote(c *claimant) {
	for _, e := range c.entries {
		if !e.demoted.IsZero() {
			continue
		}
		i := slices.IndexFunc(f.demoted, func(d demotion) bool { return d.dir == e.dir })
		if i < 0 {
			i = len(f.demoted)
			f.demoted = append(f.demoted, demotion{dir: e.dir, name: f.slot})
		}
		f.demoted[i].entries = append(f.demoted[i].entries, e.id.Append(nil))
	}
}

// demotedIn returns what must be demoted in the slot of a part, and forgets it. What is in several
// slots is left to one op: directories that are shown as one stay so if one op demotes them.
func (f *found) demotedIn(dir NodeID) [][]byte {
	if len(f.demoted) != 1 || f.demoted[0].dir != dir {
		return nil
	}
	entries := f.demoted[0].entries
	f.demoted = nil
	return entries
}

// removal builds the removal of a part.
func (p *part) removal(demoted [][]byte) *pb.Removal {
	return &pb.Removal{Node: p.n.id[:], Name: []byte(p.slot), Entries: p.entries, Seen: p.n.rev, Demoted: demoted}
}

// keep makes a directory stay that was removed elsewhere and is only there for
// what it holds, before an operation takes something out of it.
func (x *txn) keep(now int64, dir NodeID) error {
	d, err := x.node(dir)
	if err != nil || !d.removed {
		return err
	}
	_, err = x.emit(&pb.Op{Time: now, Body: &pb.Op_Keep{Keep: &pb.Keep{Node: d.id[:]}}})
	return err
}

// part from: before what was found goes, the directories it leaves are kept, and
// what only showed beside it becomes independent.
func (x *txn) leaving(now int64, f *found) error {
	for _, p := range append(slices.Clone(f.parts), f.copies...) {
		if err := x.keep(now, p.dir); err != nil {
			return err
		}
		if err := x.forkAll(now, p.n, p.dir, p.slot); err != nil {
			return err
		}
	}
	return nil
}

// settleBehind lets what has made room for a name that is about to be free keep the conflict names it is shown under.
func (x *txn) settleBehind(now int64, d *node, f *found) error {
	u, err := x.unionOf(d.members(), f.slot)
	if err != nil {
		return err
	}
	var behind []alias
	for _, s := range u.slots {
		behind = append(behind, s.aliases...)
	}
	for _, a := range behind {
		if a.id.Index == headIndex {
			c, err := head(x.tx, a.node)
			if err != nil {
				return err
			}
			if _, err := x.fork(now, &c); err != nil {
				return err
			}
		} else if err := x.settleAlias(now, d, a); err != nil {
			return err
		}
	}
	return nil
}

// settleAlias moves an entry to the conflict name under which it is shown. The contents that show beside it keep their names.
func (x *txn) settleAlias(now int64, d *node, a alias) error {
	u, e, err := x.behind(d, a)
	if err != nil {
		return err
	}
	if e.kind == KindFile {
		n, err := x.node(e.node)
		if err != nil {
			return err
		}
		if err := x.forkAll(now, n, e.dir, a.slot); err != nil {
			return err
		}
		if u, e, err = x.behind(d, a); err != nil {
			return err
		}
	}
	under, err := x.freeConflictName(u.dirs, a.slot, &e.slotEntry)
	if err != nil {
		return err
	}
	f, err := x.find(d, under)
	if err != nil {
		return err
	}
	to, err := x.host(d)
	if err != nil {
		return err
	}
	one, rest := f.steps(to, under)
	if len(one) > maxSteps {
		return ErrTooLarge
	}
	for _, body := range append([]*pb.Rename{{Step: one[0], More: one[1:]}}, asRenames(rest)...) {
		if _, err := x.emit(&pb.Op{Time: now, Body: &pb.Op_Rename{Rename: body}}); err != nil {
			return err
		}
	}
	return x.removeCopies(now, &f)
}

// behind returns the entry that is shown under a conflict name, and the slots it is in.
func (x *txn) behind(d *node, a alias) (u union, e located, err error) {
	if u, err = x.unionOf(d.members(), a.slot); err != nil {
		return u, e, err
	}
	i := slices.IndexFunc(u.entries(), func(e located) bool { return e.id == a.id })
	if i < 0 {
		return u, e, fmt.Errorf("find the entry shown behind a name: %w", ErrDamaged)
	}
	return u, u.entries()[i], nil
}

// freeConflictName returns the conflict name of an entry that no entry of its own has.
func (x *txn) freeConflictName(dirs []NodeID, name string, e *slotEntry) (string, error) {
	for level := 0; ; level++ {
		under := conflictName(name, x.device(e.id.Op.Author), e.id, e.time, level)
		u, err := x.unionOf(dirs, under)
		if err != nil || !u.taken() {
			return under, err
		}
	}
}

func asRenames(steps []*pb.Step) (out []*pb.Rename) {
	for _, s := range steps {
		out = append(out, &pb.Rename{Step: s})
	}
	return out
}

// takeOut removes what was found in d.
func (x *txn) takeOut(now int64, d *node, f *found) error {
	if err := x.settleBehind(now, d, f); err != nil {
		return err
	}
	if err := x.leaving(now, f); err != nil {
		return err
	}
	return x.removeParts(now, f, append(slices.Clone(f.parts), f.copies...))
}

// removeParts removes parts of what was found, and demotes what is left to demote.
func (x *txn) removeParts(now int64, f *found, parts []part) error {
	for _, p := range parts {
		body := &pb.Remove{Parent: p.dir[:], Removal: p.removal(f.demotedIn(p.dir))}
		if _, err := x.emit(&pb.Op{Time: now, Body: &pb.Op_Remove{Remove: body}}); err != nil {
			return err
		}
	}
	return x.demoteRest(now, f)
}

// demoteRest demotes what no part of an op could.
func (x *txn) demoteRest(now int64, f *found) error {
	var body *pb.Demote
	for _, d := range f.demoted {
		one := &pb.Demote{Parent: d.dir[:], Name: []byte(d.name), Entries: d.entries}
		if body == nil {
			body = one
		} else {
			body.More = append(body.More, one)
		}
	}
	f.demoted = nil
	if body == nil {
		return nil
	}
	_, err := x.emit(&pb.Op{Time: now, Body: &pb.Op_Demote{Demote: body}})
	return err
}

// dropCopies removes the files that are not shown because they are like n, before n changes.
func (x *txn) dropCopies(now int64, n *node) error {
	us, err := x.namesOf(n)
	if err != nil {
		return err
	}
	for i := range us {
		if plain, err := x.plain(&us[i]); plain || err != nil {
			continue
		}
		claims, err := x.claims(&us[i])
		if err != nil {
			return err
		}
		f := found{shown: shown{slot: us[i].name, node: n.id}}
		if err := x.gather(&f, claims, false); err != nil {
			return err
		}
		if err := x.removeCopies(now, &f); err != nil {
			return err
		}
	}
	return nil
}

// removeCopies removes the files that are not shown because they are like what was found, but not that itself.
func (x *txn) removeCopies(now int64, f *found) error {
	only := found{shown: f.shown, copies: f.copies}
	if err := x.leaving(now, &only); err != nil {
		return err
	}
	return x.removeParts(now, f, f.copies)
}
