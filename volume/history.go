package volume

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/foreverfs/forever/namespace"
)

// ErrBusy says that a file is being written, so that it cannot be given another content now.
var ErrBusy = errors.New("volume: file is being written")

// History returns every content that a path has or had and that is still
// known, newest first; see namespace.Tree.History. What was written here and is not in the tree yet is brought there first.
func (v *Volume) History(ctx context.Context, names []string) ([]namespace.Past, error) {
	if err := v.SyncAll(ctx); err != nil {
		return nil, err
	}
	v.treeMu.RLock()
	defer v.treeMu.RUnlock()
	return v.cfg.Tree.History(names)
}

// ListPast returns the names that a directory has or had, but for those of files without a name.
func (v *Volume) ListPast(names []string) ([]namespace.PastEntry, error) {
	v.treeMu.RLock()
	defer v.treeMu.RUnlock()
	list, err := v.cfg.Tree.ListPast(names)
	return slices.DeleteFunc(list, passed), err
}

// NodeOf returns what is known of a node, also of one that has no name any more.
func (v *Volume) NodeOf(id namespace.NodeID) (namespace.Node, error) {
	v.treeMu.RLock()
	defer v.treeMu.RUnlock()
	return v.cfg.Tree.Node(id)
}

// Conflicts returns the paths of up to max things that are shown under conflict
// names, sorted, and how many there are.
func (v *Volume) Conflicts(max int) (paths []string, total uint64, err error) {
	v.treeMu.RLock()
	defer v.treeMu.RUnlock()
	list, total, err := v.cfg.Tree.Conflicts(max)
	if err != nil {
		return nil, 0, err
	}
	for _, c := range list {
		dir, err := v.cfg.Tree.Path(c.Dir)
		if errors.Is(err, namespace.ErrNotExist) { // below a directory that is not shown
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		paths = append(paths, path.Join("/", strings.Join(dir, "/"), c.Name))
	}
	slices.Sort(paths)
	return paths, total, nil
}

// SetVersion gives a file a content that it or another had; the chunks are
// shared, nothing is copied or fetched. What the file shows now goes into its history.
func (v *Volume) SetVersion(ctx context.Context, ino uint64, c namespace.Content) error {
	return v.with(ino, func(in *inode) error {
		if err := v.flush(ctx, in); err != nil {
			return err
		}
		if err := v.settle(ctx, in); err != nil {
			return err
		}
		if err := v.setVersion(in, c); err != nil {
			return err
		}
		in.strayed.Store(true)
		v.announceOf(ctx, in)
		v.notifyMu.Lock()
		defer v.notifyMu.Unlock()
		if v.notifier != nil {
			v.notifier.InvalidateContent(in.ino)
		}
		return nil
	})
}

func (v *Volume) setVersion(in *inode, c namespace.Content) error {
	in.fold.Lock()
	defer in.fold.Unlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.changed {
		return ErrBusy
	}
	return v.mutate(func(t *namespace.Tree, now int64) error {
		n, err := t.Node(in.id)
		if err != nil {
			return err
		}
		if _, err := t.SetContent(now, in.id, c.Version, c.Mtime, []namespace.OpID{n.Content.ID}, nil); err != nil {
			return err
		}
		if n, err = t.Node(in.id); err != nil {
			return err
		}
		in.nameless.Store(n.Nlink == 0)
		in.adopt(n)
		v.uncache(in)
		return nil
	})
}
