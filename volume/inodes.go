package volume

import (
	"errors"
	"fmt"

	"github.com/foreverfs/forever/namespace"
)

// maxIdle is how many inodes that nobody uses are kept for the next use. Of the others that the
// kernel knows there is only a knownInode: it may know millions.
const maxIdle = 2048

// knownInode is what is kept of an inode as long as the kernel knows it.
type knownInode struct {
	id   namespace.NodeID
	refs uint64 // lookups that the kernel holds, and cachedBit
}

// cachedBit says that the kernel's pages are those of the content in the tree, or of what was written here. It
// is where it takes no memory.
const cachedBit = 1 << 63

// forget takes n references away, and reports whether that leaves none.
func (k *knownInode) forget(n uint64) bool {
	if k.refs&^cachedBit <= n {
		return true
	}
	k.refs -= n
	return false
}

// setCached changes cachedBit, and reports what it was.
func (k *knownInode) setCached(to bool) (before bool) {
	before = k.refs&cachedBit != 0
	k.refs &^= cachedBit
	if to {
		k.refs |= cachedBit
	}
	return before
}

// acquire returns the inode of ino with one pin, which release gives back.
func (v *Volume) acquire(ino uint64) (*inode, error) {
	v.mu.Lock()
	in, ok := v.inodes[ino]
	if k, known := v.kernel[ino]; known && !ok {
		in, ok = v.addInode(ino, k.id), true
	}
	if ok {
		in.pins++
		v.mu.Unlock()
		return in, nil
	}
	v.mu.Unlock()
	v.treeMu.RLock()
	n, err := v.cfg.Tree.NodeByIno(ino)
	v.treeMu.RUnlock()
	if errors.Is(err, namespace.ErrNotExist) {
		return nil, ErrStale
	}
	if err != nil {
		return nil, fmt.Errorf("find inode %d: %w", ino, err)
	}
	return v.acquireNode(n.ID), nil
}

// acquireNode returns the inode of a node that exists, with one pin.
func (v *Volume) acquireNode(id namespace.NodeID) *inode {
	v.mu.Lock()
	defer v.mu.Unlock()
	in := v.inodeOf(id)
	in.pins++
	return in
}

// refer is acquireNode that also takes a reference for the kernel, which Forget gives back.
func (v *Volume) refer(id namespace.NodeID) *inode {
	v.mu.Lock()
	defer v.mu.Unlock()
	in := v.inodeOf(id)
	in.pins++
	k := v.kernel[in.ino]
	k.id = id
	k.refs++
	v.kernel[in.ino] = k
	return in
}

// number returns the inode number of a node, or the one that it would get, and whether it has one
// already; v.mu is held. Two nodes whose numbers collide are told apart by taking the next free number.
func (v *Volume) number(id namespace.NodeID) (ino uint64, known bool) {
	for ino = id.Ino(); ; ino++ {
		if in, ok := v.inodes[ino]; ok {
			if in.id == id {
				return ino, true
			}
		} else if k, ok := v.kernel[ino]; !ok || k.id == id {
			return ino, ok
		}
	}
}

// inodeOf finds or makes the inode of id; v.mu is held.
func (v *Volume) inodeOf(id namespace.NodeID) *inode {
	ino, _ := v.number(id)
	if in, ok := v.inodes[ino]; ok {
		return in
	}
	return v.addInode(ino, id)
}

func (v *Volume) addInode(ino uint64, id namespace.NodeID) *inode {
	in := &inode{ino: ino, id: id, ahead: newFoldLock(), fold: newFoldLock()}
	v.inodes[ino] = in
	return in
}

// known returns the inode of a node, pinned, if this mount holds one or the kernel knows it.
func (v *Volume) known(id namespace.NodeID) *inode {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.number(id); !ok {
		return nil
	}
	in := v.inodeOf(id)
	in.pins++
	return in
}

// used returns the inode of a node, pinned, if it is in use or was a moment ago.
func (v *Volume) used(id namespace.NodeID) *inode {
	v.mu.Lock()
	defer v.mu.Unlock()
	ino, _ := v.number(id)
	in := v.inodes[ino]
	if in != nil {
		in.pins++
	}
	return in
}

// release gives back one pin.
func (v *Volume) release(in *inode) {
	v.mu.Lock()
	defer v.mu.Unlock()
	in.pins--
	v.drop(in)
}

// drop forgets an inode that nobody uses, some time after its last use if the kernel knows it; v.mu is held.
func (v *Volume) drop(in *inode) {
	if in.pins > 0 {
		return
	}
	if _, ok := v.kernel[in.ino]; !ok {
		delete(v.inodes, in.ino)
		return
	}
	if in.idle || in.unnamed.Load() { // that it may be given a name is known here only
		return
	}
	in.idle = true
	v.idle = append(v.idle, in)
	if len(v.idle) <= maxIdle {
		return
	}
	oldest := v.idle[0]
	v.idle[0] = nil
	v.idle = v.idle[1:]
	oldest.idle = false
	if oldest.pins == 0 && v.inodes[oldest.ino] == oldest {
		delete(v.inodes, oldest.ino)
	}
}

// Forget gives back n references that Lookup and its like have taken.
func (v *Volume) Forget(ino, n uint64) {
	if in := v.forget(ino, n); in != nil {
		v.letGo(in)
	}
}

// forget is Forget without letting go: it returns the inode, pinned, if its content is lost with that.
func (v *Volume) forget(ino, n uint64) *inode {
	v.mu.Lock()
	defer v.mu.Unlock()
	k, ok := v.kernel[ino]
	if !ok {
		return nil
	}
	if !k.forget(n) {
		v.kernel[ino] = k
		return nil
	}
	return v.forgotten(ino)
}

// forgotten notes that the kernel knows an inode no more. It returns that, pinned, if its content is lost now; v.mu is held.
func (v *Volume) forgotten(ino uint64) *inode {
	delete(v.kernel, ino)
	in := v.inodes[ino]
	switch {
	case in == nil:
	case v.lost(in):
		in.pins++
		return in
	default:
		v.drop(in)
	}
	return nil
}

// KernelGone gives back all references, for a kernel that is gone without having done so. Who holds some beside it, for a
// command, finds the inodes by their numbers, and may still call Forget.
func (v *Volume) KernelGone() {
	v.mu.Lock()
	var lost []*inode
	for ino := range v.kernel {
		if in := v.forgotten(ino); in != nil {
			lost = append(lost, in)
		}
	}
	v.mu.Unlock()
	for _, in := range lost {
		v.letGo(in)
	}
}

// held reports whether a program may come to a file that has no name: through a handle, or by way of what the kernel knows, as with a
// descriptor of O_PATH; v.mu is held.
func (v *Volume) held(in *inode) bool {
	_, known := v.kernel[in.ino]
	return known || in.opens > 0
}

// lost reports whether nobody can come to what was written to a file; v.mu is held.
func (v *Volume) lost(in *inode) bool {
	if !in.nameless.Load() || v.held(in) {
		return false
	}
	_, changed := v.changed[in]
	return changed
}

// cachedNow notes that the kernel has pages of a file or is about to, and reports whether those that it had are
// still right; v.mu is held.
func (v *Volume) cachedNow(in *inode) (before bool) {
	if k, ok := v.kernel[in.ino]; ok {
		before = k.setCached(true)
		v.kernel[in.ino] = k
	}
	return before
}

// uncache notes that the kernel's pages of a file are wrong, and reports whether it may have had right ones.
func (v *Volume) uncache(in *inode) (before bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if k, ok := v.kernel[in.ino]; ok {
		before = k.setCached(false)
		v.kernel[in.ino] = k
	}
	return before
}

// inKernel returns the numbers of the inodes that the kernel knows.
func (v *Volume) inKernel() []uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	list := []uint64{RootIno}
	for ino := range v.kernel {
		list = append(list, ino)
	}
	return list
}

// InKernel reports whether the kernel knows an inode, or is about to.
func (v *Volume) InKernel(ino uint64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, ok := v.kernel[ino]
	return ok || ino == RootIno
}

// kernelKnows is InKernel for a node.
func (v *Volume) kernelKnows(id namespace.NodeID) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	ino, _ := v.number(id)
	_, ok := v.kernel[ino]
	return ok || id == namespace.Root
}
