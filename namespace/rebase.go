package namespace

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/foreverfs/forever/internal/kv"
	pb "github.com/foreverfs/forever/namespace/namespacepb"
)

// Report counts what Rebase carried over.
type Report struct {
	Contents int // new contents of files that are still there
	Files    int // files, symlinks and devices made anew
	Dirs     int // directories made anew
	Names    int // further names of files
	// Conflicts has the names that were given because another thing had the right one.
	Conflicts []Name
}

// rebasePage is how many nodes of the old tree are looked at between two updates of the new one.
const rebasePage = 256

// Rebase carries the work in old that into does not have, and that nobody will
// merge any more, over into it as fresh local operations: of each op that into has not merged, whoever made it.
//
//   - A content of a file that into has, visible or removed, becomes a head beside those that old did not know; it replaces
//     what had been replaced in old. A file without names gets back those that old has.
//   - A file that into has not is made anew at its path, directories above it too if they are missing. A
//     name that is taken by something else makes it a conflict name. Directories are made anew alike, or are those of that name.
//   - A further name of a file is made again.
//
// Removals, moves and changed attributes are not repeated; the contents that were replaced in old are not carried as history.
// What of this device's batches comes in spite of that, because others hold it, into does not merge, unless somebody else did.
// It only reads old. Done twice, the second has nothing to do: after a crash it is simply done again. The caller
// sees that nobody else uses either tree.
func Rebase(old, into *Tree, now int64) (Report, error) {
	r := &rebase{old: old, into: into, now: now, dirs: map[NodeID]NodeID{Root: Root}}
	for after := []byte(nil); ; {
		ids, last, err := r.page(after)
		if err != nil {
			return r.report, fmt.Errorf("rebase: %w", err)
		}
		for _, id := range ids {
			if err := r.carry(id); err != nil {
				return r.report, fmt.Errorf("rebase node %v: %w", id, err)
			}
		}
		if last == nil {
			return r.report, r.giveUp()
		}
		after = last
	}
}

// giveUp notes the earlier incarnations of this device whose work was carried over.
func (r *rebase) giveUp() error {
	err := r.into.update(func(x *txn) error {
		for a, info := range r.old.authors {
			if !a.sameDevice(r.into.author) || info.applied <= r.into.authors[a].applied {
				continue
			}
			if err := x.put(key(keyGivenUp, a[:]), nil); err != nil {
				return err
			}
		}
		return nil
	})
	r.into.gates.stale = true
	return err
}

// rebase is a rebase on its way.
type rebase struct {
	old, into *Tree
	now       int64
	dirs      map[NodeID]NodeID // of the old tree -> of the new one
	report    Report
}

// page returns some nodes of the old tree and where to go on, or nil at the end.
func (r *rebase) page(after []byte) (ids []NodeID, last []byte, err error) {
	prefix := key(keyNode)
	lo := prefix
	if after != nil {
		lo = after
	}
	err = r.old.db.Scan(lo, kv.PrefixEnd(prefix), func(k, _ []byte) bool {
		if len(k) == len(prefix)+16 {
			ids = append(ids, NodeID(k[len(prefix):]))
		}
		if len(ids) == rebasePage {
			last = append(bytes.Clone(k), 0)
		}
		return last == nil
	})
	return ids, last, err
}

// unshared reports whether the new tree has not merged an op.
func (r *rebase) unshared(o OpID) bool {
	return !o.IsZero() && o.Lamport > r.into.authors[o.Author].applied
}

// carry carries one node of the old tree over, if there is something to carry.
func (r *rebase) carry(id NodeID) error {
	n, err := r.old.load(id)
	if err != nil {
		return err
	}
	if n.kind == KindDir {
		if !n.attached() || !r.unshared(n.created) {
			return nil
		}
		_, err := r.dir(id)
		return err
	}
	if n.links == 0 {
		return nil
	}
	places, err := r.placesOf(n)
	if err != nil {
		return err
	}
	work := r.unshared(n.created) || slices.ContainsFunc(n.heads, func(h Content) bool { return r.unshared(h.ID) })
	names := slices.ContainsFunc(places, func(p place) bool { return r.unshared(p.id.Op) })
	if !work && !names {
		return nil
	}
	there, err := r.into.load(id)
	switch {
	case errors.Is(err, ErrNotExist):
		return r.remake(n, places)
	case err != nil:
		return err
	}
	return r.join(n, there, places)
}

func (r *rebase) placesOf(n *node) ([]place, error) {
	if n.entries <= maxHomes {
		return n.homes, nil
	}
	return scanPlaces(r.old.db, n.id, 0)
}

// join brings what is new in a file of the old tree to the same file of the new one.
func (r *rebase) join(n, there *node, places []place) error {
	replaces, err := r.replaced(n, there)
	if err != nil {
		return err
	}
	wrote := false
	for i := range n.heads {
		h := &n.heads[i]
		if !r.unshared(h.ID) || there.links > 0 && there.shows(h) { // one that was removed does not stand for this one
			continue
		}
		err := r.write(there.id, h, replaces, places)
		if errors.Is(err, ErrNotExist) { // it is about to be forgotten
			return r.remake(n, places)
		}
		if err != nil {
			return err
		}
		wrote, replaces = true, nil
		r.report.Contents++
	}
	if there.links == 0 && !wrote { // only its names are new: it was moved here and removed there
		return r.remake(n, slices.DeleteFunc(slices.Clone(places), func(p place) bool { return !r.unshared(p.id.Op) }))
	}
	shared := slices.ContainsFunc(places, func(p place) bool { return !r.unshared(p.id.Op) })
	for _, p := range places {
		if !shared || !r.unshared(p.id.Op) {
			continue // a name that is new beside none that is old was moved
		}
		if err := r.link(there.id, n, p); err != nil {
			return err
		}
	}
	return nil
}

// shows reports whether a file has a head with the same content.
func (n *node) shows(c *Content) bool {
	return slices.ContainsFunc(n.heads, func(h Content) bool { return sameVersion(&h.Version, &c.Version) })
}

// replaced returns the heads of the new tree's file that had been replaced in the old one.
func (r *rebase) replaced(n, there *node) (ops [][]byte, err error) {
	for _, h := range there.heads {
		if n.shows(&h) {
			continue // it stands for a content that need not be written again
		}
		_, err := r.old.db.Get(pastKey(n.id, h.ID))
		if errors.Is(err, kv.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look for a content: %w", err)
		}
		// One that became a file of its own was not replaced.
		if _, err := r.old.load(forkIDOf(h.ID)); err == nil {
			continue
		} else if !errors.Is(err, ErrNotExist) {
			return nil, err
		}
		ops = append(ops, h.ID.Append(nil))
	}
	return ops, nil
}

// write makes a content a head of a file, which gets back the names that it had in the old tree if
// it has none. Files that are hidden because they equal it stay: who wrote did not know them.
func (r *rebase) write(id NodeID, h *Content, replaces [][]byte, had []place) error {
	return r.into.update(func(x *txn) error {
		n, err := x.target(r.now, id)
		if err != nil {
			return err
		}
		revives, err := x.comingBack(n, had)
		if err != nil {
			return err
		}
		return x.writeHead(r.now, id, h, replaces, revives)
	})
}

func (x *txn) writeHead(now int64, id NodeID, h *Content, replaces, revives [][]byte) error {
	c := contentOp(id, &h.Version, h.Mtime)
	c.Replaces, c.Revives = replaces, revives
	_, err := x.emit(&pb.Op{Time: now, Body: &pb.Op_Content{Content: c}})
	return err
}

// remake makes a node of the old tree, which the new one has not, at its places.
func (r *rebase) remake(n *node, places []place) error {
	var id NodeID
	for i, p := range places {
		var err error
		if i == 0 {
			id, err = r.make(n, p)
		} else {
			err = r.link(id, n, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// make makes a node at a place with all it shows, in one update; if something like it is there already, that is it.
func (r *rebase) make(n *node, p place) (id NodeID, err error) {
	dir, err := r.dir(p.dir)
	if err != nil {
		return id, err
	}
	name, there, err := r.freeName(dir, p.name, p.id, n.btime, n.like)
	if err != nil || there != nil {
		return thereID(there), err
	}
	spec, err := r.spec(n)
	if err != nil {
		return id, err
	}
	c, err := createOp(name, spec)
	if err != nil {
		return id, err
	}
	err = r.into.update(func(x *txn) error {
		made, err := x.create(r.now, dir, c)
		if err != nil {
			return err
		}
		id = made.id
		for i := range n.heads {
			if err := x.writeHead(r.now, id, &n.heads[i], nil, nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		r.report.Files++
	}
	return id, err
}

func thereID(n *node) (id NodeID) {
	if n != nil {
		id = n.id
	}
	return id
}

// like reports whether a node of the new tree shows all that n does.
func (n *node) like(o *node) bool {
	if n.kind != o.kind || n.target != o.target || n.rdev != o.rdev {
		return false
	}
	return !slices.ContainsFunc(n.heads, func(h Content) bool { return !o.shows(&h) })
}

// spec returns what a node is made anew with.
func (r *rebase) spec(n *node) (CreateSpec, error) {
	s := CreateSpec{Kind: n.kind, Mode: n.mode.val, UID: n.uid.val, GID: n.gid.val, Rdev: n.rdev, Target: n.target}
	names, err := r.old.Xattrs(n.id)
	if err != nil {
		return s, err
	}
	for _, name := range names {
		v, err := r.old.Xattr(n.id, name)
		if err != nil {
			return s, err
		}
		if s.Xattrs == nil {
			s.Xattrs = map[string][]byte{}
		}
		s.Xattrs[name] = v
	}
	return s, nil
}

// dir returns the directory of the new tree for one of the old tree: the same
// if it is there, else the one at its path, made if there is none.
func (r *rebase) dir(id NodeID) (NodeID, error) {
	if to, ok := r.dirs[id]; ok {
		return to, nil
	}
	there, err := r.into.load(id)
	if err != nil && !errors.Is(err, ErrNotExist) {
		return id, err
	}
	if err == nil && there.kind == KindDir && there.attached() {
		r.dirs[id] = id
		return id, nil
	}
	n, err := r.old.load(id)
	if err != nil {
		return id, err
	}
	parent, err := r.dir(n.place.parent)
	if err != nil {
		return id, err
	}
	to, err := r.makeDir(n, parent)
	if err == nil {
		r.dirs[id] = to
	}
	return to, err
}

func (r *rebase) makeDir(n *node, parent NodeID) (NodeID, error) {
	name, there, err := r.freeName(parent, n.place.name, n.place.id, n.place.time, func(o *node) bool { return o.kind == KindDir })
	if err != nil || there != nil {
		return thereID(there), err
	}
	spec, err := r.spec(n)
	if err != nil {
		return n.id, err
	}
	out, err := r.into.Create(r.now, parent, name, spec)
	if err == nil {
		r.report.Dirs++
	}
	return out.ID, err
}

// link gives a file of the new tree a name it had in the old one.
func (r *rebase) link(id NodeID, n *node, p place) error {
	dir, err := r.dir(p.dir)
	if err != nil {
		return err
	}
	name, there, err := r.freeName(dir, p.name, p.id, n.btime, func(o *node) bool { return o.id == id })
	if err != nil || there != nil {
		return err
	}
	_, err = r.into.Link(r.now, id, dir, name)
	if errors.Is(err, ErrTooManyLinks) {
		return nil // it has names enough
	}
	if err == nil {
		r.report.Names++
	}
	return err
}

// freeName returns a name for an entry of the old tree: its own, or a conflict
// name if that is taken. If what has the name is what was to be there, it returns that.
func (r *rebase) freeName(dir NodeID, name string, e EntryID, made int64, same func(*node) bool) (string, *node, error) {
	under := name
	for level := 0; ; level++ {
		there, err := r.named(dir, under)
		if err != nil {
			return "", nil, err
		}
		if there == nil {
			if under != name {
				r.report.Conflicts = append(r.report.Conflicts, Name{dir, under})
			}
			return under, nil, nil
		}
		if same(there) {
			return "", there, nil
		}
		under = conflictName(name, r.old.deviceOf(e.Op.Author), e, made, level)
	}
}

// named returns what a name in the new tree leads to, or nil.
func (r *rebase) named(dir NodeID, name string) (*node, error) {
	e, err := r.into.Lookup(dir, name)
	if errors.Is(err, ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n, err := r.into.load(e.Node)
	if errors.Is(err, ErrNotExist) { // a content that shows as a file
		p, err := r.into.Node(e.Node)
		return &node{id: p.ID, kind: p.Kind, heads: []Content{p.Content}}, err
	}
	return n, err
}
