package volume

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/namespace"
)

// inode is what this mount keeps in memory of a node that is in use, that is open, or whose content is not
// yet in the tree.
type inode struct {
	ino uint64
	id  namespace.NodeID

	// Guarded by Volume.mu.
	pins    int  // handles, operations under way, unfinished content
	opens   int  // handles
	writers int  // those of them that may write
	idle    bool // in Volume.idle

	unnamed atomic.Bool // it was made without a name, and may be given its first
	// nameless says that whoever changes the file now knows that no name leads to it: an operation here took the last one, or
	// those of others took it while nothing had been changed here. If a file without a name is changed and this is not set, its
	// names come back. It is set and cleared with treeMu held, at least for reading.
	nameless atomic.Bool
	// strayed is set once the file was changed by other ways than the kernel's: that may take it to be longer or shorter than it is.
	strayed atomic.Bool
	// xattrRoom is how much the names of extended attributes may grow for all that is known, in bytes.
	xattrRoom atomic.Int64
	recorded  atomic.Int64 // bytes of journal records since the last commit, or since records of the whole file replaced those before

	unsavedBytes atomic.Int64 // about how much is in unsaved

	aside    atomic.Bool // it is being published aside
	roomless atomic.Bool // something was written to it while the disk had no room: see roomFor

	watch    atomic.Pointer[watchList] // see watchOf
	watchAll atomic.Pointer[watchList] // see watchAllOf
	names    lookAhead                 // of a directory

	ahead foldLock // held by who seals many blocks of this file; taken before fold
	fold  foldLock // serialises sealing the rest, journalling and committing of this file

	mu sync.RWMutex // guards what follows
	content
}

// content is a file's data as this mount sees it: a version of the tree, and
// over it what has been written here since.
type content struct {
	loaded bool
	base   chunk.Version // what the rest lies on: the version in the tree
	baseID namespace.OpID
	// rebased says that base is one made from the tree's version, stored but maybe not durable,
	// or that not all since then is in unsaved: nothing may be journalled.
	rebased bool
	cut     int64 // only this many bytes of base still count
	size    int64
	mtime   int64 // of the last change here; counts while changed
	wrote   int64 // when that was, whatever time the file was given since

	dirty  map[int64]*overlay // written, not sealed
	sealed map[int64]chunk.ID // sealed and stored, not in base; zero: a hole
	beside int                // how many seal blocks without holding fold

	gen       uint64 // grows with every change
	closedGen uint64 // the generation that was closed and waits to be sealed, or 0
	changed   bool   // something here is not in the tree
	pinned    bool   // changed and therefore pinned
	ready     *candidate

	minSize  int64         // the smallest size since the candidate was made
	unsaved  []span        // written since the last journal record
	saveMin  int64         // the smallest size since the last journal record
	saves    uint64        // journal records so far; guarded by fold
	savedGen uint64        // the generation that the records hold
	saving   chan struct{} // closes when the journalling that goes on aside is done; nil: none does
	journals bool          // records exist that the next commit must remove
	kept     bool          // they are there because it cannot be sealed

	published   int64  // when it was last, by Volume.uptime
	lookedGen   uint64 // the generation when the publisher last looked
	firstChange int64  // when the first change was made that is not in the tree, likewise
}

// candidate is a version whose chunks are stored and which waits to enter the tree.
type candidate struct {
	version chunk.Version
	sealed  map[int64]chunk.ID // what of content.sealed it holds
	gen     uint64
	mtime   int64
	wrote   int64
	chunks  bool // it names chunks, which may not be durable
}

// load fills the content from the tree if nothing here differs from it; in.mu is held.
func (v *Volume) load(in *inode) error {
	if in.loaded {
		return nil
	}
	v.treeMu.RLock()
	defer v.treeMu.RUnlock()
	n, err := v.cfg.Tree.Node(in.id)
	if err != nil {
		return fmt.Errorf("load inode %d: %w", in.ino, err)
	}
	in.nameless.Store(n.Nlink == 0)
	in.adopt(n)
	return nil
}

// adopt makes the node's content the base; in.mu is held and nothing has changed here.
func (in *inode) adopt(n namespace.Node) {
	in.loaded = true
	in.base, in.baseID = n.Content.Version, n.Content.ID
	in.size, in.cut = n.Content.Size, n.Content.Size
	in.rebased = false
	in.minSize, in.saveMin = in.size, in.size // nothing of this base was cut off yet
	in.mtime = n.Mtime
}

// blockSize returns the block size of the file in bytes; in.mu is held.
func (v *Volume) blockSize(in *inode) int64 {
	if in.base.BlockLog == 0 {
		return 1 << v.cfg.BlockLog
	}
	return 1 << in.base.BlockLog
}

// touched notes a change of content now, and pins the inode until the change is
// in the tree; in.mu is held.
func (v *Volume) touched(in *inode) {
	now := v.now()
	if !in.changed {
		in.firstChange = v.uptime()
	}
	in.gen++
	in.changed = true
	in.mtime, in.wrote = now, now
	if in.pinned {
		return
	}
	in.pinned = true
	v.mu.Lock()
	in.pins++
	v.changed[in] = struct{}{}
	v.mu.Unlock()
}

// written reports whether something was written to a file that is not in the tree; treeMu may be held.
func (v *Volume) written(id namespace.NodeID) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	ino, _ := v.number(id)
	_, changed := v.changed[v.inodes[ino]]
	_, journalled := v.replaying[id]
	return changed || journalled
}

// settled unpins an inode whose changes are all in the tree; in.mu is held.
func (v *Volume) settled(in *inode) {
	in.changed = false
	if !in.pinned {
		return
	}
	in.pinned = false
	v.mu.Lock()
	in.pins--
	delete(v.changed, in)
	delete(v.failed, in)
	v.drop(in)
	v.mu.Unlock()
}
