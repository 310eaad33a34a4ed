package volume

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/namespace"
)

// RootIno is the inode number of the root directory.
const RootIno = 1

// Errors of this package; those of the namespace pass through.
var (
	// ErrStale says that an inode number names nothing that is still known.
	ErrStale = errors.New("volume: stale inode")
	// ErrReadOnly says that the volume was opened for reading only.
	ErrReadOnly = errors.New("volume: read-only")
	// ErrBadHandle says that the handle was not opened for this.
	ErrBadHandle = errors.New("volume: handle not open for this")
	// ErrInvalid says that an argument is impossible (negative offset, unknown flag).
	ErrInvalid = errors.New("volume: invalid argument")
	// ErrTooLarge says that a file would pass MaxFileSize.
	ErrTooLarge = errors.New("volume: file too large")
	// ErrNotSupported says that the operation is not offered.
	ErrNotSupported = errors.New("volume: operation not supported")
	// ErrClosed says that the volume is shutting down.
	ErrClosed = errors.New("volume: closed")
)

// MaxFileSize is the greatest size of a file, in bytes: 16 TiB less one block.
const MaxFileSize = 1<<44 - 1<<20

// Chunks holds sealed chunks. Get may fetch from other devices and waits a bounded time.
type Chunks interface {
	// Get appends the verified sealed bytes of id to dst.
	Get(ctx context.Context, dst []byte, id chunk.ID) ([]byte, error)
	// Put stores sealed bytes and returns their ID. They are readable at once and durable after Sync.
	Put(ctx context.Context, sealed []byte) (chunk.ID, error)
	// Sync makes everything put before durable.
	Sync(ctx context.Context) error
	// Ahead brings id here for a Get that may follow, as far as this delays no Get.
	Ahead(ctx context.Context, id chunk.ID) error
	// Local reports whether id can be read without the network.
	Local(id chunk.ID) bool
	// Passed says that the blocks of a file from first to last were read one after the other, so that memory
	// need not hold their sealed form too. It is a hint.
	Passed(first, last chunk.ID)
}

// Sealer turns plaintext into chunks and back; cipher.Keyring is one.
type Sealer interface {
	// Seal appends the sealed form of plain to dst and returns it.
	Seal(dst, plain []byte) ([]byte, error)
	// Open appends the plaintext of sealed to dst.
	Open(dst, sealed []byte) ([]byte, error)
}

// Parts opens parts of chunks that are on this disk.
type Parts interface {
	// Part fills dst with the plaintext of id from off on. It may fail where Sealer.Open of the whole chunk does not.
	Part(ctx context.Context, dst []byte, id chunk.ID, off int) error
}

// Log takes this mount's op batches: it seals, signs, stores and publishes them.
type Log interface {
	// Append stores one batch payload and returns its sequence number.
	Append(payload []byte) (seq uint64, err error)
}

// Notifier is told of changes that came from other mounts, so that kernel
// caches can follow. Calls come from one goroutine and must not wait for requests.
type Notifier interface {
	InvalidateAttr(ino uint64)
	// InvalidateContent says that the content of a file is another, and maybe its attributes.
	InvalidateContent(ino uint64)
	InvalidateEntry(parent uint64, name string)
	// InvalidateDir says that any name of a directory may have changed.
	InvalidateDir(ino uint64)
	// Settle calls done, from any goroutine, when the kernel has been told all that
	// was asked for before; if forget is set, also that it must look up every name
	// again. Pages of a file that it cannot drop yet are left out after a moment. It does not wait.
	Settle(forget bool, done func())
	// Dropped calls done, from any goroutine, when the kernel has no page of a file of the time before
	// the last InvalidateContent, which may take as long as a read that is under way. It does not wait.
	Dropped(ino uint64, done func())
}

// Config says what a Volume is made of.
type Config struct {
	Tree   *namespace.Tree
	State  kv.DB // the tree's own state; the journal lives in it, under 'j'
	Chunks Chunks
	Sealer Sealer
	// Parts serves small reads at random; nil: whole chunks do.
	Parts  Parts
	Log    Log
	Logger hclog.Logger // nil: none
	// Peers are the other mounts to keep in step with; nil: none.
	Peers Peers
	// Locks are the locks of this mount and of others; nil: a kernel keeps its own.
	Locks Locks

	// Elsewhere, if given, returns once all that was published and stored before is held by as many
	// other devices as an fsync shall wait for. Its error is what the fsync ends with.
	Elsewhere func(ctx context.Context) error

	ReadOnly bool
	// DiskUsage reports total and free bytes for statfs; nil means unknown.
	DiskUsage func() (total, free uint64, err error)

	// BlockLog is the log2 of the block size of new files; 0 means chunk.DefaultBlockLog.
	BlockLog uint8
	// InlineMax is the greatest content kept inside its op, in bytes; 0 means 256, negative none.
	InlineMax int
	// JournalMax is the most dirty data that one fsync journals instead of sealing, unless it is scattered; 0 means 256 KiB.
	JournalMax int
	// DirtyMax bounds data not yet sealed, in bytes; 0 means 64 MiB.
	DirtyMax int64
	// CacheSize bounds the plaintext block cache, in bytes; 0 means 48 MiB.
	CacheSize int64
	// PublishInterval is how often a file kept open for writing is published; 0 means 1 s.
	PublishInterval time.Duration
	// FlushInterval bounds what a power cut may take of work without fsync; 0 means 2 s.
	FlushInterval time.Duration
	// BatchDelay is how long ops gather before they are published, in a stream of them five times as long;
	// 0 means 5 ms.
	BatchDelay time.Duration
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
	// Uptime is a clock that is never set; nil means the time since Open.
	Uptime func() time.Duration
}

func (c *Config) setDefaults() {
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Peers == nil {
		c.Peers = alone{}
	}
	c.BlockLog = cmp.Or(c.BlockLog, chunk.DefaultBlockLog)
	c.InlineMax = cmp.Or(c.InlineMax, 256)
	c.JournalMax = cmp.Or(c.JournalMax, 256<<10)
	c.DirtyMax = cmp.Or(c.DirtyMax, 64<<20)
	c.CacheSize = cmp.Or(c.CacheSize, 48<<20)
	c.PublishInterval = cmp.Or(c.PublishInterval, time.Second)
	c.FlushInterval = cmp.Or(c.FlushInterval, 2*time.Second)
	c.BatchDelay = cmp.Or(c.BatchDelay, 5*time.Millisecond)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Uptime == nil {
		began := time.Now()
		c.Uptime = func() time.Duration { return time.Since(began) }
	}
}
