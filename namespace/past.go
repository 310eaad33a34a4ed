package namespace

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/foreverfs/forever/internal/kv"
)

// PastState says what became of a content.
type PastState uint8

// The states of a content.
const (
	PastCurrent  PastState = 1 + iota // the name shows it
	PastConflict                      // it lost the name to another, and nobody gave it up
	PastReplaced                      // a later one was written knowing it
	PastRemoved                       // the name was taken from its file
)

// String returns the state's name.
func (s PastState) String() string {
	if s < PastCurrent || s > PastRemoved {
		return "unknown"
	}
	return [...]string{"current", "conflict", "replaced", "removed"}[s-1]
}

// Past is one content that a path has or had; of a symlink or device, what it was.
type Past struct {
	Node    NodeID
	Kind    Kind
	Content Content // ID and version; of a file never written only the op that made it
	Device  string  // whose it is
	Ref     string  // 8 hexadecimal digits that name it
	State   PastState
	// Removed is when the name was taken from its file, Unix ns, and RemovedBy whose doing that was.
	Removed   int64
	RemovedBy string
	Target    string // of a symlink
}

// PastEntry is a name that a directory has or had.
type PastEntry struct {
	Name     string
	Node     NodeID
	Kind     Kind
	From, To int64 // Unix ns; To is 0 while it is there
}

// refOf returns the digits that name a content, those of its conflict name.
func refOf(o OpID) string { return hex.EncodeToString(conflictHash(EntryID{o, headIndex}, 0)) }

func (t *Tree) deviceOf(a AuthorID) string { return deviceName(t.authors[a].device, a) }

// History returns every content that a path has or had and that was not
// forgotten, newest first, also below directories that were removed. It returns ErrNotExist if
// there never was anything there.
func (t *Tree) History(path []string) ([]Past, error) {
	if len(path) == 0 {
		return nil, ErrIsDir
	}
	dirs, err := t.pastDirs(path[:len(path)-1])
	if err != nil {
		return nil, err
	}
	entries, err := t.pastNamed(dirs, path[len(path)-1])
	if err != nil {
		return nil, err
	}
	var out []Past
	for _, e := range entries {
		if e.Kind != KindDir {
			if out, err = t.pastOf(out, e); err != nil {
				return nil, err
			}
		}
	}
	if len(out) == 0 {
		if len(entries) > 0 {
			return nil, ErrIsDir
		}
		return nil, ErrNotExist
	}
	slices.SortStableFunc(out, func(a, b Past) int {
		if a.State == PastCurrent || b.State == PastCurrent {
			return b2i(b.State == PastCurrent) - b2i(a.State == PastCurrent)
		}
		return b.Content.ID.Compare(a.Content.ID)
	})
	return out, nil
}

// ListPast returns the names that a directory has or had, in byte order, those
// of directories removed too; a name may come several times, for several nodes.
func (t *Tree) ListPast(path []string) ([]PastEntry, error) {
	dirs, err := t.pastDirs(path)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, d := range dirs {
		if err := t.pastNames(d, names); err != nil {
			return nil, err
		}
	}
	var out []PastEntry
	for name := range names {
		list, err := t.pastNamed(dirs, name)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			out = append(out, e.PastEntry)
		}
	}
	slices.SortFunc(out, func(a, b PastEntry) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return bytes.Compare(a.Node[:], b.Node[:])
	})
	return out, nil
}

// pastNames adds the names that a directory has or had.
func (t *Tree) pastNames(dir NodeID, names map[string]bool) error {
	for _, kind := range []byte{keySlot, keyDead} {
		prefix := key(kind, dir[:])
		err := t.db.Scan(prefix, kv.PrefixEnd(prefix), func(k, _ []byte) bool {
			name := k[len(prefix):]
			if kind == keyDead {
				name = name[:max(0, len(name)-entryIDSize-1)]
			}
			names[string(name)] = true
			return true
		})
		if err != nil {
			return fmt.Errorf("list %v: %w", dir, err)
		}
	}
	return nil
}

// pastEntry is what a name leads or led to.
type pastEntry struct {
	PastEntry
	shown     bool
	head      OpID // the only content that counts, if it is a content shown as a file
	removedBy string
}

// pastDirs returns every directory that a path leads or led to.
func (t *Tree) pastDirs(path []string) ([]NodeID, error) {
	dirs := []NodeID{Root}
	for _, name := range path {
		list, err := t.pastNamed(dirs, name)
		if err != nil {
			return nil, err
		}
		dirs = nil
		for _, e := range list {
			if e.Kind == KindDir && !slices.Contains(dirs, e.Node) {
				dirs = append(dirs, e.Node)
			}
		}
		if len(dirs) == 0 {
			if len(list) > 0 {
				return nil, ErrNotDir
			}
			return nil, ErrNotExist
		}
	}
	return dirs, nil
}

// pastNamed returns what a name of some directories leads or led to.
func (t *Tree) pastNamed(dirs []NodeID, name string) (out []pastEntry, err error) {
	if checkName(name) != nil {
		return nil, ErrNotExist
	}
	add := func(e pastEntry) {
		i := slices.IndexFunc(out, func(o pastEntry) bool { return o.Node == e.Node && o.head == e.head })
		if i < 0 {
			out = append(out, e)
		} else if e.To == 0 && out[i].To != 0 { // it is there again
			out[i] = e
		}
	}
	for _, dir := range dirs {
		if err := t.liveNamed(dir, name, add); err != nil {
			return nil, err
		}
	}
	for _, dir := range dirs {
		if err := t.deadNamed(dir, name, add); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (t *Tree) liveNamed(dir NodeID, name string, add func(pastEntry)) error {
	u, err := t.union(dir, name)
	if err != nil {
		return err
	}
	show, ok := u.resolve()
	for _, e := range u.entries() {
		add(pastEntry{PastEntry: PastEntry{Name: name, Node: e.node, Kind: e.kind, From: e.time}, shown: ok && show.node == e.node})
	}
	if ok && show.slot != name {
		e := pastEntry{PastEntry: PastEntry{Name: name, Node: show.node, Kind: show.kind}, shown: true}
		if show.id.Index == headIndex {
			owner, c, err := t.headOwner(show.node)
			if err != nil {
				return err
			}
			e.Node, e.head = owner.id, c.id.Op
		}
		add(e)
	}
	return nil
}

// deadNamed adds what removals took a name from.
func (t *Tree) deadNamed(dir NodeID, name string, add func(pastEntry)) error {
	prefix := append(append(key(keyDead, dir[:]), name...), 0)
	type dead struct {
		node  NodeID
		kind  Kind
		entry EntryID
	}
	var list []dead
	err := t.db.Scan(prefix, kv.PrefixEnd(prefix), func(k, v []byte) bool {
		if id, ok := parseEntryID(k[len(prefix):]); ok && len(v) == 17 {
			list = append(list, dead{NodeID(v[:16]), Kind(v[16]), id})
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("look up what was in %v: %w", dir, err)
	}
	for _, d := range list {
		e := pastEntry{PastEntry: PastEntry{Name: name, Node: d.node, Kind: d.kind}}
		if d.kind == KindDir {
			n, err := t.load(d.node)
			if err != nil {
				return err
			}
			e.From, e.To, e.removedBy = n.place.time, n.removal.val, t.deviceOf(n.removal.op.Author)
			if n.attached() {
				e.To = 0
			}
		} else {
			v, err := t.db.Get(tombKey(d.node, d.entry))
			if err != nil {
				return fmt.Errorf("read a tomb of %v: %w", d.node, err)
			}
			tb, err := decodeTomb(v)
			if err != nil || len(tb.kills) == 0 {
				return fmt.Errorf("read a tomb of %v: %w", d.node, errors.Join(err, ErrDamaged))
			}
			e.From, e.To, e.removedBy = tb.time, tb.kills[0].time, t.deviceOf(tb.kills[0].op.Author)
		}
		add(e)
	}
	return nil
}

// pastOf adds the contents of what a name leads or led to.
func (t *Tree) pastOf(out []Past, e pastEntry) ([]Past, error) {
	n, err := t.load(e.Node)
	if err != nil {
		return nil, err
	}
	p := Past{Node: n.id, Kind: n.kind, State: PastReplaced, Target: n.target}
	add := func(c Content, s PastState) {
		if e.head != (OpID{}) && c.ID != e.head {
			return
		}
		p := p
		p.Content, p.State, p.Device, p.Ref = c, s, t.deviceOf(c.ID.Author), refOf(c.ID)
		if e.To != 0 {
			p.Removed, p.RemovedBy = e.To, e.removedBy
			if s != PastReplaced {
				p.State = PastRemoved
			}
		}
		out = append(out, p)
	}
	for i, h := range n.heads {
		s := PastConflict
		if e.shown && (i == len(n.heads)-1 || h.ID == e.head) {
			s = PastCurrent
		}
		add(h, s)
	}
	if len(n.heads) == 0 {
		s := PastConflict
		if e.shown {
			s = PastCurrent
		}
		add(Content{ID: n.created, Time: n.btime, Mtime: n.mtime.val}, s)
	}
	prefix := key(keyPast, n.id[:])
	var inner error
	err = t.db.Scan(prefix, kv.PrefixEnd(prefix), func(_, v []byte) bool {
		d := decoder{b: v}
		c := d.content()
		if inner = d.err("content"); inner == nil {
			add(c, PastReplaced)
		}
		return inner == nil
	})
	if err := errors.Join(inner, err); err != nil {
		return nil, fmt.Errorf("read the contents of %v: %w", n.id, err)
	}
	return out, nil
}

// Conflicts returns up to max of the names that only are there because something
// lost its own name, and how many of those names there are.
func (t *Tree) Conflicts(max int) (list []Name, total uint64, err error) {
	prefix := key(keyConflict)
	err = t.db.Scan(prefix, kv.PrefixEnd(prefix), func(k, _ []byte) bool {
		if len(list) < max && len(k) > len(prefix)+16+1+entryIDSize {
			list = append(list, Name{NodeID(k[len(prefix):][:16]), string(k[len(prefix)+16 : len(k)-entryIDSize-1])})
		}
		return len(list) < max
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list conflicts: %w", err)
	}
	return list, t.meta.conflicts, nil
}

// Path returns the names that lead from the root to a directory that is there.
func (t *Tree) Path(dir NodeID) (path []string, err error) {
	for dir != Root {
		n, err := t.load(dir)
		if err != nil {
			return nil, err
		}
		if n.kind != KindDir {
			return nil, ErrNotDir
		}
		if !n.attached() || len(path) > 10000 {
			return nil, ErrNotExist
		}
		name, err := t.shownName(n)
		if err != nil {
			return nil, err
		}
		path = append(path, name)
		dir = n.place.parent
	}
	slices.Reverse(path)
	return path, nil
}

// shownName returns the name under which a directory is shown.
func (t *Tree) shownName(n *node) (string, error) {
	u, err := t.union(n.place.parent, n.place.name)
	if err != nil {
		return "", err
	}
	if s, ok := u.resolve(); ok && slices.Contains(n.members(), s.node) {
		return u.name, nil
	}
	for _, e := range u.entries() {
		if slices.Contains(n.members(), e.node) {
			return t.freeConflictName(u.dirs[0], u.name, &e.slotEntry)
		}
	}
	return "", ErrNotExist
}

// freeConflictName returns the conflict name of an entry that no entry of its own has.
func (t *Tree) freeConflictName(dir NodeID, name string, e *slotEntry) (string, error) {
	for level := 0; ; level++ {
		under := conflictName(name, t.deviceOf(e.id.Op.Author), e.id, e.time, level)
		u, err := t.union(dir, under)
		if err != nil || !u.taken() {
			return under, err
		}
	}
}

// RemovedHere reports whether this device took part in removing each of the names that a file had which has none. If others alone
// removed one, it cannot be told whether this device knew: the last to go here may have been another.
func (t *Tree) RemovedHere(id NodeID) (bool, error) {
	graves, err := readGraves(t.db, id)
	return len(graves) > 0 && !slices.ContainsFunc(graves, func(g grave) bool { return !g.by(t.author.Device()) }), err
}

// by reports whether a device took part in the removals of an entry.
func (t *tomb) by(d Device) bool {
	return slices.ContainsFunc(t.kills, func(k kill) bool { return k.op.Author.Device() == d })
}
