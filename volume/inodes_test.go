package volume

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// crowd makes more files known to the kernel than inodes are kept idle, and returns their numbers.
func crowd(r *rig) (inos []uint64) {
	r.t.Helper()
	for i := range maxIdle + 100 {
		a, err := r.Mknod(ctx, Caller{}, RootIno, fmt.Sprint("crowd", i), 0o644, 0)
		must(r.t, err)
		inos = append(inos, a.Ino)
	}
	return inos
}

// TestKernelMayKnowMillions: what the kernel knows costs no inode.
func TestKernelMayKnowMillions(t *testing.T) {
	r := newRig(t, 1, nil)
	inos := crowd(r)
	if n := len(r.inodes); n > maxIdle {
		t.Errorf("%d inodes for %d that nobody uses", n, len(inos))
	}
	must(t, r.Unlink(ctx, RootIno, "crowd0"))
	for _, ino := range inos {
		if !r.InKernel(ino) {
			t.Fatal("an inode that the kernel knows is not known")
		}
		if _, err := r.Getattr(ctx, ino); err != nil { // also of the one that has no name any more
			t.Fatal(err)
		}
	}
	_, err := r.Lookup(ctx, RootIno, "crowd1") // a second reference
	must(t, err)
	for _, ino := range inos {
		r.Forget(ino, 1)
	}
	if !r.InKernel(inos[1]) || len(r.kernel) != 1 {
		t.Errorf("of %d inodes the kernel knows %d after it forgot all but one", len(inos), len(r.kernel))
	}
	r.Forget(inos[1], 1)
	if len(r.kernel) != 0 || len(r.inodes) != 0 {
		t.Errorf("%d and %d inodes are left when nobody knows any", len(r.kernel), len(r.inodes))
	}
}

// TestCachedPagesOutliveTheInode: the kernel may keep the pages of a file that was not used for long, until
// somebody else changes it.
func TestCachedPagesOutliveTheInode(t *testing.T) {
	a, b := newRig(t, 1, nil), newRig(t, 2, nil)
	n := &notes{}
	b.SetNotifier(n)
	h := a.create("f")
	a.write(h, strings.Repeat("before", 1000), 0)
	exchange(a, b)
	b.content("f")
	ino := h.Ino()
	crowd(b)
	if b.inodes[ino] != nil {
		t.Fatal("the inode is still there")
	}
	again := b.open("f", syscall.O_RDONLY)
	if !again.KeepCache() {
		t.Error("pages are dropped when the file was not used for long")
	}
	again.Release()
	for i := range maxIdle + 100 {
		_, err := b.Lookup(ctx, RootIno, fmt.Sprint("crowd", i))
		must(t, err)
	}
	if b.inodes[ino] != nil {
		t.Fatal("the inode is still there")
	}
	n.got = nil
	a.write(h, "after", 0)
	exchange(a, b)
	if !slices.Contains(n.got, "content") {
		t.Errorf("the kernel is told %v of new content", n.got)
	}
	if b.open("f", syscall.O_RDONLY).KeepCache() {
		t.Error("old pages are kept")
	}
	if got := b.content("f"); !strings.HasPrefix(got, "after") {
		t.Errorf("read %.20q", got)
	}
}
