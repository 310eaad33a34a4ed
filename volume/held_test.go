package volume

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/foreverfs/forever/internal/kv"
)

// TestHeldByTheKernel: what was written to a file without a name stays as long as the kernel knows the file, as for a descriptor of
// O_PATH, and is gone, from memory and journal, as soon as it does not.
func TestHeldByTheKernel(t *testing.T) {
	const small, large = 200, 300000
	makes := map[string]func(r *rig, data string) *Handle{
		"made without a name": func(r *rig, data string) *Handle {
			_, h, err := r.CreateUnnamed(ctx, Caller{}, RootIno, 0o600, syscall.O_RDWR)
			must(t, err)
			r.write(h, data, 0)
			must(t, h.Flush(ctx))
			h.Release()
			return h
		},
		"unlinked while open": func(r *rig, data string) *Handle {
			h := r.create("f")
			r.write(h, data, 0)
			must(t, h.Fsync(ctx))
			r.write(h, data[:100], 0)
			must(t, r.Unlink(ctx, RootIno, "f"))
			must(t, h.Flush(ctx))
			h.Release()
			return h
		},
		"unlinked while it waits for its op": func(r *rig, data string) *Handle {
			h := r.create("f")
			r.write(h, data, 0)
			r.queueMu.Lock()
			must(t, h.Flush(ctx))
			h.Release()
			must(t, r.Unlink(ctx, RootIno, "f"))
			r.queueMu.Unlock()
			must(t, r.commitAll(ctx))
			if n, err := r.node(h.in); err != nil || n.Content.Size != 0 {
				t.Errorf("what was removed at once is in the tree all the same: %d bytes, %v", n.Content.Size, err)
			}
			return h
		},
		"replaced": func(r *rig, data string) *Handle {
			h := r.create("f")
			r.create("g").Release()
			r.write(h, data, 0)
			must(t, r.Rename(ctx, RootIno, "g", RootIno, "f", 0))
			must(t, r.Unlink(ctx, RootIno, "f"))
			h.Release()
			return h
		},
	}
	for name, file := range makes {
		for _, size := range []int{small, large} {
			t.Run(fmt.Sprint(name, ", ", size), func(t *testing.T) {
				r := newRig(t, 1, smallBlocks)
				data := strings.Repeat("x", size)
				h := file(r, data)
				ino := h.Ino()
				r.sync()
				must(t, r.Volume.sealOthers(ctx))
				if a, err := r.Getattr(ctx, ino); err != nil || a.Size != int64(size) || a.Nlink != 0 {
					t.Errorf("%+v, %v", a, err)
				}
				again, err := r.Open(ctx, ino, syscall.O_RDWR)
				must(t, err)
				if r.read(again) != data {
					t.Error("read another content than was written")
				}
				r.write(again, "more", int64(size))
				again.Release()
				_, err = r.Setattr(ctx, ino, SetAttr{Valid: SetSize, Size: int64(size) + 2})
				must(t, err)
				if again, err = r.Open(ctx, ino, syscall.O_RDONLY); err != nil || r.read(again) != data+"mo" {
					t.Errorf("another content than was written and cut, or %v", err)
				}
				again.Release()
				if n := r.journalled(); n != 0 {
					t.Errorf("%d journal records", n)
				}
				r.Forget(ino, 1)
				r.wantNothingHeld(ino)
				wantNames(t, map[string]string{}, r)
				wantNames(t, map[string]string{}, r.crash())
			})
		}
	}
}

// TestHeldInAnyOrder: whoever is the last to let go, a handle or the kernel, takes the content with it; so does the end of a mount.
func TestHeldInAnyOrder(t *testing.T) {
	for name, end := range map[string]func(r *rig, h *Handle){
		"handle first": func(r *rig, h *Handle) { h.Release(); r.Forget(h.Ino(), 1) },
		"kernel first": func(r *rig, h *Handle) { r.Forget(h.Ino(), 1); h.Release() },
		"unmounted":    func(r *rig, h *Handle) { h.Release(); r.KernelGone() },
		"taken away":   func(r *rig, h *Handle) { r.KernelGone(); h.Release() },
		"busy": func(r *rig, h *Handle) {
			h.Release()
			h.in.fold.Lock()
			r.Forget(h.Ino(), 1)
			h.in.fold.Unlock()
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1, smallBlocks)
			_, h, err := r.CreateUnnamed(ctx, Caller{}, RootIno, 0o600, syscall.O_RDWR)
			must(t, err)
			r.write(h, strings.Repeat("x", 300000), 0)
			end(r, h)
			r.wantNothingHeld(h.Ino())
		})
	}
}

// TestLinkWhatTheKernelHolds: a file that was made without a name gets one with all that is in it after its last close, though many
// others were used since.
func TestLinkWhatTheKernelHolds(t *testing.T) {
	for _, data := range []string{"", "small", strings.Repeat("x", 300000)} {
		r := newRig(t, 1, nil)
		_, h, err := r.CreateUnnamed(ctx, Caller{}, RootIno, 0o600, syscall.O_RDWR)
		must(t, err)
		r.write(h, data, 0)
		must(t, h.Flush(ctx))
		h.Release()
		for i, ino := range crowd(r) {
			r.Forget(ino, 1)
			must(t, r.Unlink(ctx, RootIno, fmt.Sprint("crowd", i)))
		}
		_, err = r.Link(ctx, h.Ino(), RootIno, "named")
		must(t, err)
		wantNames(t, map[string]string{"named": data}, r, r.crash())
	}
}

// journalled returns how many journal records there are.
func (r *rig) journalled() (n int) {
	r.t.Helper()
	lo := []byte{journalPrefix}
	must(r.t, r.state.Scan(lo, kv.PrefixEnd(lo), func(_, _ []byte) bool { n++; return true }))
	return n
}

// wantNothingHeld fails unless nothing is left in memory of a file.
func (r *rig) wantNothingHeld(ino uint64) {
	r.t.Helper()
	held := func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.inodes[ino] != nil || len(r.changed) > 0
	}
	for deadline := time.Now().Add(30 * time.Second); held(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatal("the file is still in memory")
		}
	}
	r.dirty.mu.Lock()
	defer r.dirty.mu.Unlock()
	if r.dirty.used != 0 {
		r.t.Errorf("%d bytes are dirty", r.dirty.used)
	}
}
