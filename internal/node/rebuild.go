package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/blake3"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/internal/sealedfs"
	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/replica"
)

const (
	// scratchName is the directory below the data directory in which trees are built anew.
	scratchName = "scratch"
	// scratchCache and scratchTable bound the memory of that, in bytes.
	scratchCache = 8 << 20
	scratchTable = 8 << 20
	// rebuildStep is how many records one step of folding looks at there, where nobody waits.
	rebuildStep = 4096
)

// scratchAuthor opens trees that nobody writes to.
var scratchAuthor = namespace.AuthorID{0: 0xff, 15: 1}

// rebuilt is what a tree made anew came to.
type rebuilt struct {
	clock  uint64
	folded namespace.Point
	digest [32]byte
}

// rebuild makes the tree of the batches up to a vector, folded by what the active
// devices promised in them, and writes its export to w. It begins with an earlier checkpoint, or with nothing if that is nil,
// and takes the rest from the logs. The mount goes on meanwhile: all of this is in a
// state of its own, which is gone afterwards. It is not begun unless the disk has room for about as much as the state takes, and
// ends if there is none left.
func (n *Node) rebuild(ctx context.Context, base *replica.Checkpoint, seen map[replica.AuthorID]uint64, active []replica.DeviceID, w io.Writer) (out rebuilt, err error) {
	dir := n.dir.join(scratchName)
	if err := os.RemoveAll(dir); err != nil {
		return out, err
	}
	if err := n.roomBeside(n.state.DiskUsage()); err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	db, err := kv.OpenPebble(kv.PebbleConfig{
		Dir: dir, FS: sealedfs.New(sparing{vfs.Default, n.roomBeside}, n.keys.disk), CacheSize: scratchCache, MemTableSize: scratchTable,
		DisableWAL: true, Scratch: true, Logger: n.log.Named("scratch"),
	})
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	have := map[replica.AuthorID]uint64{}
	if base != nil {
		if err := n.importTree(ctx, db, base); err != nil {
			return out, err
		}
		for a, end := range n.repl.CheckpointSeen(base.ID) {
			have[a] = end.Seq
		}
	}
	tree, err := namespace.Open(db, scratchAuthor, namespace.Repeating())
	if err != nil {
		return out, err
	}
	if err := n.mergeUpTo(ctx, tree, have, seen); err != nil {
		return out, err
	}
	if out.folded, err = foldWhole(ctx, tree, devicesOf(active)); err != nil {
		return out, err
	}
	sum := blake3.New()
	if err := errors.Join(tree.Export(io.MultiWriter(sum, w)), db.Err()); err != nil {
		return out, err
	}
	out.clock = tree.MaxLamport()
	sum.Sum(out.digest[:0])
	return out, nil
}

// mergeUpTo merges stored batches into a tree until it has those up to a vector.
func (n *Node) mergeUpTo(ctx context.Context, tree *namespace.Tree, have, seen map[replica.AuthorID]uint64) error {
	if err := n.mergeSome(ctx, tree, have, seen); err != nil {
		return err
	}
	for a, to := range seen {
		if have[a] < to {
			return fmt.Errorf("batch %d of %x builds on what is not here", have[a]+1, a)
		}
	}
	return nil
}

// mergeSome merges what of the stored batches up to a vector is ready and not refused, and notes it in have.
func (n *Node) mergeSome(ctx context.Context, tree *namespace.Tree, have, seen map[replica.AuthorID]uint64) error {
	for progress := true; progress; {
		progress = false
		for a, to := range seen {
			err := n.repl.Envelopes(a, have[a], to, func(env replica.Envelope) error {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := n.mergeInto(tree, env); err != nil {
					return err
				}
				have[a], progress = env.Seq, true
				return nil
			})
			if err != nil && !errors.Is(err, namespace.ErrNotReady) && !errors.Is(err, namespace.ErrFolded) {
				return err
			}
		}
	}
	return nil
}

func (n *Node) mergeInto(tree *namespace.Tree, env replica.Envelope) error {
	payload, err := n.openBatch(env)
	if err != nil {
		return err
	}
	_, err = tree.Merge(namespace.AuthorID(env.Author), env.Seq, payload)
	return err
}

// foldWhole folds a tree by what devices promised, in one fold, and returns to where.
func foldWhole(ctx context.Context, tree *namespace.Tree, active []namespace.Device) (to namespace.Point, err error) {
	if to, err = tree.Stable(active); err != nil {
		return to, err
	}
	was, err := tree.Folded()
	if err != nil {
		return to, err
	}
	if !to.Covers(was) { // a device is active again that was not
		to = was
	}
	for done := false; !done; {
		if err := ctx.Err(); err != nil {
			return to, err
		}
		if done, err = tree.Fold(to, rebuildStep); err != nil {
			return to, err
		}
	}
	return to, nil
}

// errDigest says that an export is not what was signed.
var errDigest = errors.New("the export is not what was signed")

// importTree fills an empty state with a checkpoint's tree.
func (n *Node) importTree(ctx context.Context, db kv.DB, c *replica.Checkpoint) error {
	r := newStreamReader(ctx, n.streams(), c.Version)
	defer r.Close()
	sum := blake3.New()
	if err := namespace.Import(db, io.TeeReader(r, sum)); err != nil {
		return err
	}
	if [32]byte(sum.Sum(nil)) != c.Digest {
		return errors.Join(errDigest, kv.Clear(db, 't'))
	}
	return nil
}

// streams returns what stores streams as sealed chunks.
func (n *Node) streams() *sealedNodes {
	return &sealedNodes{chunks: &chunks{store: n.store, peers: n.repl, recent: &n.recent, log: n.log}, sealer: n.epochs.ring}
}

// devicesOf names devices as the tree does.
func devicesOf(ids []replica.DeviceID) []namespace.Device {
	out := make([]namespace.Device, len(ids))
	for i, id := range ids {
		out[i] = namespace.AuthorID(replica.AuthorOf(id, [8]byte{})).Device()
	}
	return out
}

// isHere reports whether all chunks of a version are in the store.
func (n *Node) isHere(ctx context.Context, v chunk.Version) (bool, error) {
	missing := errors.New("missing")
	nodes := n.streams()
	err := chunk.All(ctx, localOnly{nodes}, v, func(id chunk.ID, _ bool) error {
		if !nodes.chunks.Local(id) {
			return missing
		}
		return nil
	})
	if errors.Is(err, missing) || errors.Is(err, errNotHere) {
		return false, nil
	}
	return err == nil, err
}

// bring sees to it that all chunks of a version are in the store, durably: it fetches what is missing.
func (n *Node) bring(ctx context.Context, v chunk.Version) error {
	chunks := n.streams().chunks
	err := chunk.All(ctx, n.streams(), v, func(id chunk.ID, _ bool) error { return chunks.Ahead(ctx, id) })
	if err != nil {
		return err
	}
	if here, err := n.isHere(ctx, v); err != nil || !here { // fetched, but not kept
		return errors.Join(err, errNotHere)
	}
	return chunks.Sync(ctx)
}

var errNotHere = errors.New("not in the store")

// localOnly reads nodes of block trees from the store alone.
type localOnly struct{ *sealedNodes }

// LoadNode implements chunk.NodeIO.
func (l localOnly) LoadNode(ctx context.Context, id chunk.ID) ([]byte, error) {
	if !l.chunks.Local(id) {
		return nil, errNotHere
	}
	return l.sealedNodes.LoadNode(ctx, id)
}
