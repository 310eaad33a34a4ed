package namespace

import (
	"errors"
	"slices"
)

// Watched is a directory as those name it who watch it, with the op that made it.
type Watched struct {
	Dir  NodeID
	Made OpID
}

// Watch returns the directories that what is seen of a node depends on: of a
// directory that one itself, of anything else those that have it; and with each
// those that are shown as one with it. Of a file with very many names only the oldest places
// count, unless places is 0; all says that none was left out. A node that is nowhere depends on none.
func (t *Tree) Watch(id NodeID, places int) (list []Watched, all bool, err error) {
	n := &node{}
	err = t.read(id, n)
	if errors.Is(err, ErrNotExist) {
		return t.watchHead(id, places)
	}
	if err != nil {
		return nil, false, err
	}
	if n.kind == KindDir {
		list, err = t.watchClass(nil, n)
		return list, true, err
	}
	return t.watchPlaces(nil, n, places)
}

// watchHead is Watch for a content that is shown as a file.
func (t *Tree) watchHead(id NodeID, places int) ([]Watched, bool, error) {
	owner, c, err := t.headOwner(id)
	if errors.Is(err, ErrNotExist) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	list, err := t.watchDir(nil, c.dir)
	if err != nil {
		return nil, false, err
	}
	return t.watchPlaces(list, owner, places)
}

// watchPlaces adds the directories that a file is in.
func (t *Tree) watchPlaces(list []Watched, n *node, places int) (_ []Watched, all bool, err error) {
	homes, all := n.homes, n.entries <= maxHomes || places == 0
	if n.entries > maxHomes {
		if homes, err = scanPlaces(t.db, n.id, places); err != nil {
			return nil, false, err
		}
	}
	for i := range homes {
		if list, err = t.watchDir(list, homes[i].dir); err != nil {
			return nil, false, err
		}
	}
	return list, all, nil
}

// watchDir adds a directory and those that are shown as one with it.
func (t *Tree) watchDir(list []Watched, id NodeID) ([]Watched, error) {
	if slices.ContainsFunc(list, func(w Watched) bool { return w.Dir == id }) {
		return list, nil
	}
	d, err := t.load(id)
	if err != nil {
		return nil, err
	}
	return t.watchClass(list, d)
}

func (t *Tree) watchClass(list []Watched, d *node) ([]Watched, error) {
	list = append(list, Watched{d.id, d.created})
	for _, id := range d.members() {
		if id == d.id {
			continue
		}
		m, err := t.load(id)
		if err != nil {
			return nil, err
		}
		list = append(list, Watched{id, m.created})
	}
	return list, nil
}
