package kv

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// PebbleConfig says where and how a Pebble keeps its state.
type PebbleConfig struct {
	// Dir is the directory of the database, created if missing.
	Dir string
	// FS is the file system below; nil means the operating system's.
	FS vfs.FS
	// CacheSize bounds the block cache, in bytes; 0 means 16 MiB.
	CacheSize int64
	// MemTableSize bounds one memtable, in bytes; 0 means 32 MiB.
	MemTableSize uint64
	// DisableWAL leaves out the write-ahead log: for state that its owner
	// can rebuild, and flushes itself.
	DisableWAL bool
	// Logger receives pebble's own messages; nil drops them.
	Logger pebble.Logger
}

// Pebble is a DB on disk. Its write-ahead log is the journal: Sync is one
// flush of it, and what it holds is replayed at the next open.
type Pebble struct {
	db *pebble.DB

	// mu serialises updates, so that what one has read holds when it commits.
	mu sync.Mutex
}

var _ DB = (*Pebble)(nil)

// OpenPebble opens or creates the database in cfg.Dir.
func OpenPebble(cfg PebbleConfig) (*Pebble, error) {
	opts := &pebble.Options{
		FS:                    cfg.FS,
		CacheSize:             16 << 20,
		MemTableSize:          32 << 20,
		DisableWAL:            cfg.DisableWAL,
		FormatMajorVersion:    pebble.FormatNewest,
		Logger:                quietLogger{},
		L0CompactionThreshold: 4,
	}
	if cfg.CacheSize > 0 {
		opts.CacheSize = cfg.CacheSize
	}
	if cfg.MemTableSize > 0 {
		opts.MemTableSize = cfg.MemTableSize
	}
	if cfg.Logger != nil {
		opts.Logger = cfg.Logger
	}
	log := opts.Logger
	opts.EventListener = &pebble.EventListener{
		// Without this pebble ends the process; readers get the error anyway.
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			log.Errorf("state is damaged: %s: %v", info.Path, info.Details)
		},
	}
	db, err := pebble.Open(cfg.Dir, opts)
	if err != nil {
		return nil, fmt.Errorf("open state in %s: %w", cfg.Dir, err)
	}
	return &Pebble{db: db}, nil
}

// Get implements Reader. The value is the caller's own.
func (p *Pebble) Get(key []byte) ([]byte, error) { return pebbleGet(p.db, key) }

// Scan implements Reader.
func (p *Pebble) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	return pebbleScan(p.db, lo, hi, fn)
}

// Update implements DB. Updates run one after the other.
func (p *Pebble) Update(fn func(Tx) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.db.NewIndexedBatch()
	if err := fn(pebbleTx{b}); err != nil {
		return errors.Join(err, b.Close())
	}
	if b.Empty() {
		return b.Close()
	}
	return b.Commit(pebble.NoSync)
}

// Snapshot implements DB.
func (p *Pebble) Snapshot() Snapshot { return pebbleSnapshot{p.db.NewSnapshot()} }

type pebbleSnapshot struct{ s *pebble.Snapshot }

func (s pebbleSnapshot) Get(key []byte) ([]byte, error) { return pebbleGet(s.s, key) }

func (s pebbleSnapshot) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	return pebbleScan(s.s, lo, hi, fn)
}

func (s pebbleSnapshot) Close() error { return s.s.Close() }

// Sync implements DB.
func (p *Pebble) Sync() error { return p.db.LogData(nil, pebble.Sync) }

// Flush writes the memtable out as a table and waits for it.
func (p *Pebble) Flush() error { return p.db.Flush() }

// DiskUsage returns the bytes of all its files.
func (p *Pebble) DiskUsage() uint64 { return p.db.Metrics().DiskSpaceUsage() }

// Close flushes nothing but the log, and closes the database.
func (p *Pebble) Close() error { return p.db.Close() }

// Raw returns the database itself, for metrics.
func (p *Pebble) Raw() *pebble.DB { return p.db }

type pebbleTx struct{ b *pebble.Batch }

func (t pebbleTx) Get(key []byte) ([]byte, error) { return pebbleGet(t.b, key) }

func (t pebbleTx) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	return pebbleScan(t.b, lo, hi, fn)
}

func (t pebbleTx) Put(key, value []byte) error { return t.b.Set(key, value, nil) }

func (t pebbleTx) Delete(key []byte) error { return t.b.Delete(key, nil) }

func pebbleGet(r pebble.Reader, key []byte) ([]byte, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	out := append(make([]byte, 0, len(v)), v...)
	return out, closer.Close()
}

func pebbleScan(r pebble.Reader, lo, hi []byte, fn func(key, value []byte) bool) (err error) {
	if hi != nil && bytes.Compare(lo, hi) >= 0 {
		return nil
	}
	if len(lo) == 0 {
		lo = nil // pebble takes an empty bound for a key
	}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if !fn(it.Key(), v) {
			return nil
		}
	}
	return it.Error()
}

type quietLogger struct{}

func (quietLogger) Infof(string, ...any)  {}
func (quietLogger) Errorf(string, ...any) {}
func (quietLogger) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}
