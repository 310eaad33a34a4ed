package volume

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/foreverfs/forever/namespace"
)

// Peers keeps this mount in step with connected ones. Directories are watched by
// mounts: what they show depends on them.
type Peers interface {
	// Alone reports that no mount is connected; then the other methods need not be called.
	Alone() bool
	// Observe returns when all that connected mounts reported as done in
	// directories is applied here, and has them watched. It waits a bounded time, and calls
	// before first if it has to wait.
	Observe(ctx context.Context, dirs []namespace.Watched, before func())
	// Covered reports whether the notifier will be called before a change in
	// directories, or of files in them, is reported as done.
	Covered(dirs []namespace.Watched) bool
	// Watched reports whether a connected mount watches one of some directories.
	Watched(dirs []namespace.Watched) bool
	// Await returns when the mounts that watch one of some directories have applied
	// the log up to batch seq. It waits a bounded time, and calls before first if it has to wait.
	Await(ctx context.Context, seq uint64, dirs []namespace.Watched, before func())
}

// alone is the Peers of a mount that waits for nobody.
type alone struct{}

var _ Peers = alone{}

func (alone) Alone() bool                                                { return true }
func (alone) Observe(context.Context, []namespace.Watched, func())       {}
func (alone) Covered([]namespace.Watched) bool                           { return true }
func (alone) Watched([]namespace.Watched) bool                           { return false }
func (alone) Await(context.Context, uint64, []namespace.Watched, func()) {}

// beforeWait is the key of what WithBeforeWait adds to a context.
type beforeWait struct{}

// WithBeforeWait has operations call fn before they wait for other mounts.
func WithBeforeWait(ctx context.Context, fn func()) context.Context {
	return context.WithValue(ctx, beforeWait{}, fn)
}

func before(ctx context.Context) func() {
	if fn, ok := ctx.Value(beforeWait{}).(func()); ok {
		return fn
	}
	return func() {}
}

// lock locks mu. If somebody else holds it, that may be for as long as the network takes.
func lock(ctx context.Context, mu *sync.Mutex) {
	if !mu.TryLock() {
		before(ctx)()
		mu.Lock()
	}
}

// watchedPlaces is how many names of a file are watched. One would do: who
// changes the file asks in all of its directories who watches.
const watchedPlaces = 4

// Alone reports that no other mount is connected: nothing waits, and kernel caches need not
// follow within bounded time.
func (v *Volume) Alone() bool { return v.cfg.Peers.Alone() }

// Shared reports whether other mounts may be connected one day.
func (v *Volume) Shared() bool {
	_, alone := v.cfg.Peers.(alone)
	return !alone
}

// observe sees to it that what is read of an inode next is what connected mounts made of it.
func (v *Volume) observe(ctx context.Context, in *inode) {
	if v.cfg.Peers.Alone() {
		return
	}
	dirs := v.watchOf(in)
	if len(dirs) == 0 {
		return
	}
	if !v.cfg.Peers.Covered(dirs) {
		dirs = v.withNext(in, dirs)
	}
	v.cfg.Peers.Observe(ctx, dirs, before(ctx))
}

// observeOnly is observe that never asks for other directories along with it.
func (v *Volume) observeOnly(ctx context.Context, in *inode) {
	if !v.cfg.Peers.Alone() {
		v.cfg.Peers.Observe(ctx, v.watchOf(in), before(ctx))
	}
}

// ObserveEntries sees to it that what is read next of the files that entries name is what connected mounts made
// of it: with one question for all of them. Directories are watched when somebody looks at one of them: a
// list of names must not make everybody who works below wait.
func (v *Volume) ObserveEntries(ctx context.Context, list []DirEntry) {
	if v.cfg.Peers.Alone() {
		return
	}
	ids := make([]namespace.NodeID, 0, len(list))
	for i := range list {
		if list[i].Kind != namespace.KindDir && list[i].id != (namespace.NodeID{}) {
			ids = append(ids, list[i].id)
		}
	}
	if dirs := v.watch(watchedPlaces, ids...); len(dirs) > 0 {
		v.cfg.Peers.Observe(ctx, dirs, before(ctx))
	}
}

// walk is the directory that was observed last without being watched.
type walk struct {
	mu     sync.Mutex
	parent namespace.NodeID
	name   string
}

// follow notes the next directory, and reports whether it is in the same directory as the last, behind it.
func (w *walk) follow(parent namespace.NodeID, name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	follows := w.parent == parent && w.name < name
	w.parent, w.name = parent, name
	return follows
}

// withNext adds to what a directory depends on the directories after it, if the one observed before was in
// the same directory: somebody goes through it, as ls -l and find do, and one question does for many.
func (v *Volume) withNext(in *inode, dirs []namespace.Watched) []namespace.Watched {
	n, err := v.node(in)
	if err != nil || n.Kind != namespace.KindDir {
		return dirs
	}
	list, err := v.dirsAfter(n)
	if err != nil { // gone meanwhile
		return dirs
	}
	ids := []namespace.NodeID{in.id}
	for i := range list {
		if list[i].Kind == namespace.KindDir {
			ids = append(ids, list[i].Node)
		}
	}
	return v.watch(watchedPlaces, ids...)
}

// dirsAfter lists what stands after a directory in its parent, or nothing if it does not follow the one before.
func (v *Volume) dirsAfter(n namespace.Node) ([]namespace.Entry, error) {
	v.treeMu.RLock()
	defer v.treeMu.RUnlock()
	path, err := v.cfg.Tree.Path(n.ID)
	if err != nil || len(path) == 0 {
		return nil, err
	}
	name := path[len(path)-1]
	if !v.walk.follow(n.Parent, name) {
		return nil, nil
	}
	return v.cfg.Tree.List(n.Parent, name, dirPageSize)
}

// treeLock is a lock that counts how often anything in the tree may have moved.
type treeLock struct {
	sync.RWMutex
	gen uint64 // guarded by the lock itself
}

// Lock takes the lock for a change of the tree after which nodes may depend on other directories.
func (l *treeLock) Lock() {
	l.RWMutex.Lock()
	l.moved()
}

// moved notes, with the lock held, a change after which nodes may depend on other directories.
func (l *treeLock) moved() { l.gen++ }

// LockInPlace takes the lock for a change of what nodes are, not of where they are. Nodes may be new.
func (l *treeLock) LockInPlace() { l.RWMutex.Lock() }

// watchList is what an inode depended on when the tree was at gen. It never changes.
type watchList struct {
	gen  uint64
	dirs []namespace.Watched
	all  bool // not only those of the oldest names
}

// watchOf is watch for one inode, which remembers it until something in the tree moves.
func (v *Volume) watchOf(in *inode) []namespace.Watched { return v.watchListOf(in).dirs }

// watchAllOf is watchOf whatever the number of the inode's names.
func (v *Volume) watchAllOf(in *inode) []namespace.Watched {
	if w := v.watchListOf(in); w.all {
		return w.dirs
	}
	v.treeMu.RLock()
	defer v.treeMu.RUnlock()
	w := in.watchAll.Load()
	if w == nil || w.gen != v.treeMu.gen {
		w = &watchList{gen: v.treeMu.gen, all: true}
		w.dirs, _ = v.watchLocked(in.id, 0)
		in.watchAll.Store(w)
	}
	return w.dirs
}

// renamed keeps what all names of an inode depend on, if that was known until a change that gives it a name in a directory or takes
// one: to look at each name again with each link would take a time that grows with the square of their number. It is
// called within that change. That a directory stays in the list which the last name has left does no harm.
func (v *Volume) renamed(in *inode, dir namespace.NodeID) {
	w := in.watchAll.Load()
	if w == nil || w.gen+1 != v.treeMu.gen {
		return
	}
	more, _ := v.watchLocked(dir, 0)
	in.watchAll.Store(&watchList{gen: v.treeMu.gen, dirs: joinWatched(w.dirs, more), all: true})
}

func (v *Volume) watchListOf(in *inode) *watchList {
	v.treeMu.RLock()
	gen := v.treeMu.gen
	w := in.watch.Load()
	if w != nil && w.gen == gen {
		v.treeMu.RUnlock()
		return w
	}
	w = &watchList{gen: gen}
	w.dirs, w.all = v.watchLocked(in.id, watchedPlaces)
	v.treeMu.RUnlock()
	if len(w.dirs) > 0 { // what is nowhere yet may come to be without anything moving
		in.watch.Store(w)
	}
	return w
}

// watchLocked returns the directories that a node depends on, and whether that is all of them; treeMu is held.
func (v *Volume) watchLocked(id namespace.NodeID, places int) ([]namespace.Watched, bool) {
	dirs, all, err := v.cfg.Tree.Watch(id, places)
	if err != nil && !errors.Is(err, namespace.ErrNotExist) {
		v.log.Error("cannot tell which directories a node depends on", "node", id, "error", err)
	}
	return dirs, all
}

// watch returns the directories that nodes depend on.
func (v *Volume) watch(places int, ids ...namespace.NodeID) []namespace.Watched {
	v.treeMu.RLock()
	defer v.treeMu.RUnlock()
	var out []namespace.Watched
	for _, id := range ids {
		dirs, _ := v.watchLocked(id, places)
		out = joinWatched(out, dirs)
	}
	return out
}

// joinWatched returns what is in one of two lists, neither of which it changes.
func joinWatched(a, b []namespace.Watched) []namespace.Watched {
	if len(a) == 0 {
		return b
	}
	a = slices.Clip(a)
	for _, d := range b {
		if !slices.Contains(a, d) {
			a = append(a, d)
		}
	}
	return a
}

// Covered reports whether a kernel may keep what it is told of an inode now: of a
// directory its names and attributes, of anything else its attributes.
func (v *Volume) Covered(ino uint64) bool {
	if v.cfg.Peers.Alone() {
		return true
	}
	in, err := v.acquire(ino)
	if err != nil {
		return false
	}
	defer v.release(in)
	return v.cfg.Peers.Covered(v.watchOf(in))
}

// announce waits until the connected mounts that watch what a change of nodes is seen in
// have applied it. The change is in the tree, and no lock is held.
func (v *Volume) announce(ctx context.Context, ids ...namespace.NodeID) {
	if v.cfg.Peers.Alone() {
		return
	}
	var dirs []namespace.Watched
	for _, id := range ids {
		if in := v.used(id); in != nil {
			dirs = joinWatched(dirs, v.watchAllOf(in))
			v.release(in)
		} else {
			dirs = joinWatched(dirs, v.watch(0, id))
		}
	}
	v.announceIn(ctx, dirs)
}

// announceOf is announce for one inode.
func (v *Volume) announceOf(ctx context.Context, in *inode) {
	if !v.cfg.Peers.Alone() {
		v.announceIn(ctx, v.watchAllOf(in))
	}
}

func (v *Volume) announceIn(ctx context.Context, dirs []namespace.Watched) {
	if !v.cfg.Peers.Watched(dirs) {
		return
	}
	seq, err := v.cutBatch()
	if err != nil { // the batcher tries again
		v.log.Error("cannot publish a change that others wait for", "error", err)
		return
	}
	v.cfg.Peers.Await(ctx, seq, dirs, before(ctx))
}

// announceContent is announce for a file that was closed: its content enters the tree
// first if somebody watches it.
func (v *Volume) announceContent(ctx context.Context, in *inode) error {
	if v.cfg.Peers.Alone() || !v.cfg.Peers.Watched(v.watchAllOf(in)) {
		return nil
	}
	// Whoever begins to watch from here on has the queue committed first; see Publish.
	before(ctx)()
	if err := v.settle(ctx, in); err != nil {
		return err
	}
	v.announceOf(context.WithoutCancel(ctx), in) // that ends soon, and who has a signal ended it has closed the file nevertheless
	return nil
}

// publishPatience is how long publishing all that is closed waits for the network: less than another mount waits for that.
const publishPatience = 300 * time.Millisecond

// Publish puts everything that was reported as done into the log, closed files
// included, and returns how many batches that has. With vector it also returns
// how many batches of every author are applied. What lies over blocks that cannot be had, or not soon, comes later: for its
// sake nobody shall be out of step in everything else.
func (v *Volume) Publish(ctx context.Context, vector bool) (seq uint64, applied map[namespace.AuthorID]uint64, err error) {
	far, cancel := context.WithTimeout(v.ctx, publishPatience)
	defer cancel()
	if err := v.commitWithin(ctx, far, true); err != nil {
		return 0, nil, err
	}
	if seq, err = v.cutBatch(); err == nil && vector {
		applied = v.Vector()
	}
	return seq, applied, err
}

// Settled calls fn when the kernel has been told of all that was delivered so far.
// It does not wait.
func (v *Volume) Settled(fn func()) {
	if n := v.toNotify(); n != nil {
		n.Settle(false, fn)
		return
	}
	fn()
}

// Dropped calls fn when the kernel has no page of a file from before what was delivered so far. It
// does not wait.
func (v *Volume) Dropped(file namespace.NodeID, fn func()) {
	if n := v.toNotify(); n != nil {
		if in := v.known(file); in != nil {
			defer v.release(in)
			n.Dropped(in.ino, fn)
			return
		}
	}
	fn()
}

func (v *Volume) toNotify() Notifier {
	v.notifyMu.Lock()
	defer v.notifyMu.Unlock()
	return v.notifier
}

// ForgetAll has the kernel forget all names and attributes, and then calls done. It does not wait.
func (v *Volume) ForgetAll(done func()) {
	n := v.toNotify()
	if n == nil {
		done()
		return
	}
	for _, ino := range v.inKernel() {
		n.InvalidateAttr(ino)
	}
	n.Settle(true, done)
}

// ForgetDirs has the kernel forget what it knows of directories and of what is in
// them, and then calls done with those that it may go on knowing: unless force is
// set, those that it uses. It does not wait.
func (v *Volume) ForgetDirs(list []namespace.NodeID, force bool, done func(kept []namespace.NodeID)) {
	if force {
		v.ForgetAll(func() { done(nil) })
		return
	}
	var kept []namespace.NodeID
	open := v.dirsOfOpen()
	for _, id := range list {
		if open[id] || v.usedDir(id) {
			kept = append(kept, id)
		}
	}
	v.Settled(func() { done(kept) })
}

// dirsOfOpen returns the directories of open files: one that another mount has moved is in a directory that the kernel need not know, and
// the kernel goes on showing what it knows of the file.
func (v *Volume) dirsOfOpen() map[namespace.NodeID]bool {
	v.mu.Lock()
	var list []*inode
	for _, in := range v.inodes {
		if in.opens > 0 {
			in.pins++
			list = append(list, in)
		}
	}
	v.mu.Unlock()
	dirs := map[namespace.NodeID]bool{}
	for _, in := range list {
		for _, w := range v.watchOf(in) {
			dirs[w.Dir] = true
		}
		v.release(in)
	}
	return dirs
}

// usedDir reports whether the kernel knows a directory, or one that is shown as one with it. If it
// does not, it knows nothing in it either, but for open files.
func (v *Volume) usedDir(id namespace.NodeID) bool {
	return slices.ContainsFunc(v.watch(1, id), func(w namespace.Watched) bool { return v.kernelKnows(w.Dir) })
}
