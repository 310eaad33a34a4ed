package volume

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/namespace"
)

// Volume is one mounted view of a replicated tree. All methods may be called
// from several goroutines at once.
type Volume struct {
	cfg    Config
	log    hclog.Logger
	cache  *blockCache
	asked  asked
	dirty  *budget
	looked atomic.Pointer[look]

	treeMu treeLock // writers of the tree, and readers that need it to stand still
	logged uint64   // batches in the log; guarded by treeMu

	// How many ops that name chunks were made, and up to which of them the chunks are durable.
	named, flushed atomic.Uint64

	queueMu sync.Mutex // held while the queue is entered, so that commitAll does not pass the committer

	mu      sync.Mutex
	inodes  map[uint64]*inode
	idle    []*inode              // those of inodes that were used last, oldest first
	kernel  map[uint64]knownInode // what the kernel knows
	changed map[*inode]struct{}   // content not yet in the tree
	ready   []waiting             // candidates waiting to enter the tree
	failed  map[*inode]waiting    // those that could not
	// replaying has the files of journal records that are being brought back.
	replaying map[namespace.NodeID][]uint64

	notifyMu sync.Mutex
	notifier Notifier

	handles atomic.Uint64 // numbers given to handles
	leaving leaving
	walk    walk

	listings *listings

	seals    chan sealJob
	sealing  atomic.Int64   // blocks queued for sealing or being sealed
	asides   errgroup.Group // files published aside
	unsynced atomic.Bool    // the state has updates that no Sync followed

	commit    chan struct{} // wakes the committer; capacity 1
	batch     chan struct{} // wakes the batcher; capacity 1
	ahead     chan struct{} // limits read-ahead under way
	aheadNext chan func()   // what a goroutine that has read ahead does next

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once
	closed error
}

// Open starts a volume on its parts: it brings back what the journal holds of
// an earlier run and then serves until Close.
func Open(cfg Config) (*Volume, error) {
	cfg.setDefaults()
	v := &Volume{
		cfg:       cfg,
		log:       cfg.Logger,
		dirty:     newBudget(cfg.DirtyMax),
		inodes:    map[uint64]*inode{},
		kernel:    map[uint64]knownInode{},
		changed:   map[*inode]struct{}{},
		failed:    map[*inode]waiting{},
		seals:     make(chan sealJob, 4*runtime.GOMAXPROCS(0)),
		commit:    make(chan struct{}, 1),
		batch:     make(chan struct{}, 1),
		ahead:     make(chan struct{}, maxReadAhead),
		aheadNext: make(chan func()),
		listings:  newListings(),
		leaving:   leaving{patience: leavingPatience, by: map[uint64]leaver{}},
	}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	v.asides.SetLimit(maxAside)
	cfg.State.Before(v.flushNamed)
	v.cache = newBlockCache(cfg.CacheSize, v.loadChunk)
	for range runtime.GOMAXPROCS(0) {
		v.spawn(v.sealWorker)
	}
	cfg.Tree.KeepWritten(v.written)
	if err := v.replay(); err != nil {
		v.stop()
		return nil, fmt.Errorf("replay the journal: %w", err)
	}
	v.spawn(v.committer)
	v.spawn(v.batcher)
	v.spawn(v.publisher)
	v.spawn(v.flusher)
	v.wakeBatcher()
	return v, nil
}

// spawn runs fn in a goroutine that Close waits for; false after Close.
func (v *Volume) spawn(fn func()) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ctx.Err() != nil {
		return false
	}
	v.wg.Add(1)
	go func() {
		defer v.wg.Done()
		fn()
	}()
	return true
}

// stop ends the goroutines and waits for them.
func (v *Volume) stop() {
	v.mu.Lock()
	v.cancel()
	v.mu.Unlock()
	v.wg.Wait()
	_ = v.asides.Wait()
}

// Close brings everything into the tree and the log, or what cannot be sealed into the journal, makes it durable and
// stops. It may be called twice; both calls return the same.
func (v *Volume) Close() error {
	v.once.Do(func() {
		err := v.SaveAll(context.Background())
		v.stop()
		_, cutErr := v.cutBatch()
		v.closed = errors.Join(err, cutErr, v.cfg.State.Sync())
	})
	return v.closed
}

// SetNotifier says who is told of changes from other mounts; nil: nobody.
func (v *Volume) SetNotifier(n Notifier) {
	v.notifyMu.Lock()
	v.notifier = n
	v.notifyMu.Unlock()
}

func (v *Volume) now() int64 { return v.cfg.Now().UnixNano() }

// uptime is what intervals are measured by: the wall clock may be set.
func (v *Volume) uptime() int64 { return int64(v.cfg.Uptime()) }

// writable returns ErrReadOnly where nothing may be changed.
func (v *Volume) writable() error {
	if v.cfg.ReadOnly {
		return ErrReadOnly
	}
	if v.ctx.Err() != nil {
		return ErrClosed
	}
	return nil
}

// growable is writable, and returns ENOSPC if the disk has no room for what is written.
func (v *Volume) growable() error {
	if err := v.writable(); err != nil {
		return err
	}
	return v.leftForUse(false)
}

// shrinkable is growable for removals, which may still take half of what is kept free.
func (v *Volume) shrinkable() error {
	if err := v.writable(); err != nil {
		return err
	}
	return v.leftForUse(true)
}

// loadChunk fetches and opens one chunk, and appends what is in it to dst.
func (v *Volume) loadChunk(ctx context.Context, dst []byte, id chunk.ID) ([]byte, error) {
	buf := sealedPool.Get().(*[]byte)
	defer sealedPool.Put(buf)
	sealed, err := v.cfg.Chunks.Get(ctx, (*buf)[:0], id)
	if err != nil {
		return nil, fmt.Errorf("get chunk %v: %w", id, err)
	}
	*buf = sealed
	plain, err := v.cfg.Sealer.Open(dst, sealed)
	if err != nil {
		return nil, fmt.Errorf("open chunk %v: %w", id, err)
	}
	return plain, nil
}

// sealedPool holds buffers for sealed bytes and assembled blocks.
var sealedPool = sync.Pool{New: func() any { b := make([]byte, 0, chunk.MaxSealed); return &b }}

// store seals plain and stores the chunk; nodes of block trees and blocks alike.
func (v *Volume) store(ctx context.Context, plain []byte) (chunk.ID, error) {
	buf := sealedPool.Get().(*[]byte)
	defer sealedPool.Put(buf)
	sealed, err := v.cfg.Sealer.Seal((*buf)[:0], plain)
	if err != nil {
		return chunk.ID{}, fmt.Errorf("seal a block: %w", err)
	}
	*buf = sealed
	id, err := v.cfg.Chunks.Put(ctx, sealed)
	if err != nil {
		return chunk.ID{}, fmt.Errorf("store a block: %w", err)
	}
	return id, nil
}

// nodeIO lets block trees read and write their nodes.
type nodeIO struct{ v *Volume }

var _ chunk.NodeIO = nodeIO{}

func (n nodeIO) LoadNode(ctx context.Context, id chunk.ID) ([]byte, error) {
	return n.v.cache.get(ctx, id)
}

func (n nodeIO) SaveNode(ctx context.Context, plain []byte) (chunk.ID, error) {
	id, err := n.v.store(ctx, plain)
	if err == nil {
		n.v.cache.put(id, append([]byte(nil), plain...), true)
	}
	return id, err
}

func isContextErr(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// stat returns the attributes of an inode: the tree's record, and over it what is not yet in the
// tree. Both are read under the lock under which content enters the tree, else
// a file could for a moment show neither.
func (v *Volume) stat(in *inode) (Attr, error) {
	in.mu.RLock()
	defer in.mu.RUnlock()
	n, err := v.node(in)
	if err != nil {
		return Attr{}, err
	}
	a := Attr{
		Ino: in.ino, Kind: n.Kind, Mode: n.Mode, Nlink: n.Nlink, UID: n.UID, GID: n.GID, Rdev: n.Rdev,
		Size: n.Content.Size, Atime: n.Atime, Mtime: n.Mtime, Ctime: n.Ctime, Btime: n.Btime,
	}
	switch n.Kind {
	case namespace.KindSymlink:
		a.Size = int64(len(n.Target))
	case namespace.KindDir:
		a.Size = 4096
	}
	if in.changed {
		a.Size, a.Mtime, a.Ctime = in.size, in.mtime, max(a.Ctime, in.wrote)
	}
	a.Blocks = (a.Size + sectorSize - 1) / sectorSize
	switch {
	case n.Kind != namespace.KindFile:
	case in.changed:
		a.Blocks = min(a.Blocks, in.stored(v.blockSize(in))/sectorSize)
		a.BlocksVary = in.base.Holes > 0 || a.Blocks*sectorSize < a.Size
	case len(n.Content.Inline) == 0:
		a.Blocks = min(a.Blocks, n.Content.Data()*n.Content.BlockSize()/sectorSize)
	}
	return a, nil
}

// sectorSize is the unit of Attr.Blocks in bytes.
const sectorSize = 512

// stored returns how many bytes of blocks of bs bytes a changed file takes, at most: what was written over a block is counted beside it, as
// that may have been a hole. in.mu is held.
func (in *inode) stored(bs int64) int64 {
	below := min(in.base.Data(), (in.cut+bs-1)/bs)
	if len(in.base.Inline) > 0 && in.cut > 0 {
		below = 1
	}
	return (below + int64(len(in.dirty)) + int64(len(in.sealed))) * bs
}
