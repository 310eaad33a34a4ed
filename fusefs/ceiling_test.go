package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"testing"
	"time"

	"bazil.org/fuse"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/volume"
)

// The ceiling is a file system in plain memory behind the dispatch of this
// package: no volume, no store, no crypto, no journal, and fsync does nothing. What
// it reaches is what a volume could reach at most. internal/bench builds this test
// binary and runs it with the job "ceiling".

// ceilingHelper serves the ceiling on a mount point until it is told to end. Its
// arguments are the mount point and how many bytes of memory to have ready for contents.
func ceilingHelper(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: ceiling MOUNTPOINT BYTES")
	}
	size, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	// A node's memory is not collected every 4 MiB either.
	debug.SetGCPercent(400)
	ballast := make([]byte, 32<<20)
	defer func() { ballast[0]++ }()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2) // as the command has it
	return serveCeiling(ctx, args[0], size)
}

func serveCeiling(ctx context.Context, mountpoint string, size int64) error {
	// The volume only tells the server how to mount: as the product does, with locks.
	vol, err := openMemory(&memChunks{chunks: map[chunk.ID][]byte{}}, &memLog{}, namespace.AuthorID{1},
		func(cfg *volume.Config) { cfg.Locks = noLocks{} })
	if err != nil {
		return err
	}
	pool, err := newPiecePool(size)
	if err != nil {
		return fmt.Errorf("reserve %d bytes: %w", size, err)
	}
	srv, err := Mount(Config{Mountpoint: mountpoint, Volume: vol})
	if err != nil {
		return errors.Join(err, vol.Close())
	}
	srv.handle = newCeiling(pool).handle
	return errors.Join(srv.Serve(ctx), vol.Close())
}

// noLocks are the locks of a volume that nobody asks for any.
type noLocks struct{}

var _ volume.Locks = noLocks{}

func (noLocks) Alone() bool { return true }
func (noLocks) Acquire(_ context.Context, _ namespace.NodeID, _ uint64, l volume.Lock, _ volume.LockMode, _ uint64) (volume.Lock, error) {
	return l, nil
}
func (noLocks) Release(namespace.NodeID, volume.Lock, uint64) error   { return nil }
func (noLocks) ReleaseHandle(namespace.NodeID, uint64, uint64)        {}
func (noLocks) Holds(_ namespace.NodeID, _ uint64, _ bool) (any bool) { return false }

// ceilingValidity is how long the kernel may believe everything.
const ceilingValidity = time.Hour

// handle carries out a request, or returns why not. It takes the place of call.dispatch.
func (fs *ceiling) handle(c *call, req fuse.Request) error {
	switch r := req.(type) {
	case *fuse.LookupRequest:
		return fs.lookup(c, r)
	case *fuse.GetattrRequest:
		return fs.getattr(c, r.Node)
	case *fuse.ReadRequest:
		if r.Dir {
			return fs.readdir(c, r)
		}
		return fs.read(c, r)
	case *fuse.WriteRequest:
		return fs.write(c, r)
	case *fuse.OpenRequest:
		return fs.open(c, r)
	case *fuse.CreateRequest:
		return fs.create(c, r)
	case *fuse.FlushRequest:
		return c.ok(r.Respond)
	case *fuse.FsyncRequest:
		return c.ok(r.Respond)
	case *fuse.ReleaseRequest:
		return fs.release(c, r)
	case *fuse.ForgetRequest:
		fs.forget(uint64(r.Node), r.N)
		return c.ok(r.Respond)
	case *fuse.BatchForgetRequest:
		for _, f := range r.Forget {
			fs.forget(uint64(f.NodeID), f.N)
		}
		return c.ok(r.Respond)
	}
	return fs.handleTree(c, req)
}

// handleTree goes on with what changes the tree.
func (fs *ceiling) handleTree(c *call, req fuse.Request) error {
	switch r := req.(type) {
	case *fuse.SetattrRequest:
		return fs.setattr(c, r)
	case *fuse.MkdirRequest:
		return fs.make(c, r.Node, r.Name, volume.Attr{Kind: namespace.KindDir, Mode: permBits(r.Mode)}, "")
	case *fuse.MknodRequest:
		if nodeBits(r.Mode)&syscall.S_IFMT != syscall.S_IFREG {
			return syscall.EOPNOTSUPP
		}
		return fs.make(c, r.Node, r.Name, volume.Attr{Mode: permBits(r.Mode)}, "")
	case *fuse.SymlinkRequest:
		return fs.make(c, r.Node, r.NewName, volume.Attr{Kind: namespace.KindSymlink, Mode: 0o777}, r.Target)
	case *fuse.ReadlinkRequest:
		return fs.readlink(c, r)
	case *fuse.LinkRequest:
		return fs.link(c, r)
	case *fuse.RemoveRequest:
		if err := fs.remove(uint64(r.Node), r.Name, r.Dir); err != nil {
			return err
		}
		return c.ok(r.Respond)
	case *fuse.RenameRequest:
		if err := fs.rename(uint64(r.Node), r.OldName, uint64(r.NewDir), r.NewName, 0); err != nil {
			return err
		}
		return c.ok(r.Respond)
	case *fuse.UnrecognizedRequest:
		return fs.unrecognized(c, r)
	}
	return handleRest(c, req)
}

// handleRest answers what needs no node.
func handleRest(c *call, req fuse.Request) error {
	switch r := req.(type) {
	case *fuse.GetxattrRequest:
		return syscall.ENODATA
	case *fuse.ListxattrRequest:
		return c.ok(func() { r.Respond(&fuse.ListxattrResponse{}) })
	case *fuse.SetxattrRequest, *fuse.RemovexattrRequest:
		return syscall.EOPNOTSUPP
	case *fuse.StatfsRequest:
		return c.ok(func() {
			r.Respond(&fuse.StatfsResponse{Blocks: 1 << 28, Bfree: 1 << 27, Bavail: 1 << 27, Files: 1 << 30, Ffree: 1 << 29,
				Bsize: 4096, Frsize: 4096, Namelen: namespace.MaxName})
		})
	// One process at a time locks anything in what is measured.
	case *fuse.LockRequest:
		return c.ok(r.Respond)
	case *fuse.LockWaitRequest:
		return c.ok((*fuse.LockRequest)(r).Respond)
	case *fuse.UnlockRequest:
		return c.ok(r.Respond)
	case *fuse.QueryLockRequest:
		return c.ok(func() { r.Respond(&fuse.QueryLockResponse{Lock: fuse.FileLock{Type: fuse.LockUnlock}}) })
	case *fuse.InterruptRequest:
		return c.interrupt(r)
	case *fuse.DestroyRequest:
		return c.ok(r.Respond)
	}
	return syscall.ENOSYS
}

func (fs *ceiling) unrecognized(c *call, r *fuse.UnrecognizedRequest) error {
	switch r.Opcode {
	case opRename2:
		newDir, flags, oldName, newName, ok := parseRename2(c.s.hatch.body(c.hdr))
		if !ok {
			return syscall.EIO
		}
		if err := fs.rename(uint64(r.Node), oldName, newDir, newName, flags); err != nil {
			return err
		}
		return c.send(c.scratch[:outHeaderSize])
	case opReaddirplus:
		return fs.readdirplus(c)
	}
	return syscall.ENOSYS
}

// replyEntry answers with a node on which a reference was taken.
func replyEntry(c *call, a *volume.Attr) error {
	msg := c.scratch[:outHeaderSize+entryOutSize]
	putEntryOut(msg[outHeaderSize:], a, ceilingValidity, ceilingValidity)
	return c.send(msg)
}

func replyAttr(c *call, a *volume.Attr) error {
	msg := c.scratch[:outHeaderSize+attrOutSize]
	putAttrOut(msg[outHeaderSize:], a, ceilingValidity)
	return c.send(msg)
}

// TestCeiling has the ceiling do what the programs measured on it ask of a file system.
func TestCeiling(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting in tests needs root")
	}
	dir := t.TempDir()
	cmd := helper(t, "ceiling", dir, "4194304")
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	t.Cleanup(func() {
		must(t, cmd.Process.Signal(syscall.SIGTERM))
		must(t, cmd.Wait())
	})
	until(t, "the mount", func() bool { return mountMinor(dir) != 0 })
	at := func(name string) string { return filepath.Join(dir, name) }
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	modelFile(t, at("file"), rand.New(rand.NewPCG(seed, 0)))

	must(t, os.Mkdir(at("d"), 0o755))
	for i := range 300 {
		must(t, os.WriteFile(at(fmt.Sprintf("d/%d", i)), []byte("x"), 0o644))
	}
	must(t, os.Rename(at("d/1"), at("d/2")))
	must(t, os.Link(at("d/3"), at("d/link")))
	must(t, os.Symlink("3", at("d/symlink")))
	list, err := os.ReadDir(at("d"))
	must(t, err)
	if len(list) != 301 {
		t.Errorf("%d entries, not 301", len(list))
	}
	wantErr(t, os.Remove(at("d")), syscall.ENOTEMPTY)
	must(t, os.RemoveAll(at("d")))
	list, err = os.ReadDir(dir)
	must(t, err)
	if len(list) != 1 {
		t.Errorf("left: %v", list)
	}
}

// modelFile does random things to a file and compares with the same done in memory.
func modelFile(t *testing.T, path string, rng *rand.Rand) {
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	const most = 3 << 20
	model := make([]byte, 0, most)
	for step := range 300 {
		off, n := rng.IntN(most/2), rng.IntN(1<<rng.IntN(20))
		if step%10 == 0 {
			n = rng.IntN(most)
			must(t, f.Truncate(int64(n)))
			clear(model[min(n, len(model)):cap(model)])
			model = model[:n]
			continue
		}
		b := bytes.Repeat([]byte{byte(step)}, n)
		_, err := f.WriteAt(b, int64(off))
		must(t, err)
		if n > 0 {
			model = model[:max(len(model), off+n)]
			copy(model[off:], b)
		}
	}
	direct, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECT, 0)
	must(t, err)
	defer direct.Close()
	got, err := io.ReadAll(direct)
	must(t, err)
	if !bytes.Equal(got, model) {
		t.Errorf("the file is not what was written: %d bytes, not %d", len(got), len(model))
	}
}
