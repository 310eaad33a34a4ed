package kv

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/foreverfs/forever/internal/writefs"
)

// PebbleConfig says where and how a Pebble keeps its state.
type PebbleConfig struct {
	// Dir is the directory of the database, created if missing.
	Dir string
	// FS is the file system below; nil means the operating system's.
	FS vfs.FS
	// CacheSize bounds the block cache, in bytes; 0 means 28 MiB.
	CacheSize int64
	// MemTableSize bounds one memtable, in bytes, of which there are mostly one and at times two; 0 means 16 MiB.
	MemTableSize uint64
	// DisableWAL leaves out the write-ahead log: for state that its owner
	// can rebuild, and flushes itself.
	DisableWAL bool
	// Scratch says that the state is thrown away when it is closed: it can be also after a write that failed. Who has read from it
	// asks Err before he believes it.
	Scratch bool
	// ReadAgain reports of a key whether what was written under it is likely to be read soon: that stays in memory for a while. Nil: none.
	ReadAgain func(key string) bool
	// Logger is told what is wrong with the state, and, where it debugs, what pebble does. Nil: nobody is.
	Logger hclog.Logger
}

// Pebble is a DB on disk. Updates gather in memory for a moment and then go into its write-ahead log
// together, which is the journal: Sync is one flush of it, and what it holds is replayed at the next open.
type Pebble struct {
	db    *pebble.DB
	noLog bool // nothing can be flushed by itself
	// scratch: thrown away when it is closed.
	scratch bool

	// Locks are taken in this order: updates, pouring, mu.

	updates sync.Mutex // serialises updates, so that what one has read holds when it commits
	tx      pebbleTx   // the update under way, kept for its map; guarded by updates

	pouring sync.Mutex   // held while gathered updates go into the database
	synced  uint64       // updates that are durable; guarded by pouring
	before  func() error // called before that, or nil; guarded by pouring

	mu        sync.RWMutex
	recent    *layer // what updates wrote and the database does not have
	leaving   *layer // below recent: what is going into the database; not changed any more
	lately    lately // what the database has, for all that is in no layer
	pours     uint64 // how often a layer went into the database
	made      uint64 // updates so far
	gathering bool   // the pourer knows that there is something

	broken writefs.Breakage // no more updates
	stuck  writefs.Breakage // because a write failed, which some goroutine of pebble waits for
	opened atomic.Bool      // until then failures are those of OpenPebble

	waker chan struct{} // capacity 1
	quit  chan struct{}
	ended chan struct{}
}

var _ DB = (*Pebble)(nil)

// OpenPebble opens or creates the database in cfg.Dir.
func OpenPebble(cfg PebbleConfig) (*Pebble, error) {
	if cfg.FS == nil {
		cfg.FS = vfs.Default
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	p := &Pebble{
		noLog: cfg.DisableWAL, scratch: cfg.Scratch, recent: &layer{}, lately: lately{max: latelyBytes, again: cfg.ReadAgain}, broken: writefs.NewBreakage(), stuck: writefs.NewBreakage(),
		waker: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{}),
	}
	log := watchedLogger{cfg.Logger, p}
	opts := &pebble.Options{
		FS:                    writefs.FS{FS: cfg.FS, Result: p.failed},
		CacheSize:             28 << 20,
		MemTableSize:          16 << 20,
		DisableWAL:            cfg.DisableWAL,
		FormatMajorVersion:    pebble.FormatNewest,
		Logger:                log,
		L0CompactionThreshold: 4,
	}
	for i := range opts.Levels { // without filters, to find that a key is not there reads a block of each level
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	if cfg.Scratch {
		opts.FS = scratchFS{opts.FS, p}
	}
	if cfg.CacheSize > 0 {
		opts.CacheSize = cfg.CacheSize
	}
	if cfg.MemTableSize > 0 {
		opts.MemTableSize = cfg.MemTableSize
	}
	opts.CacheSize += 2 * int64(opts.MemTableSize) // pebble takes memtables out of it
	opts.EventListener = &pebble.EventListener{
		// Without this pebble ends the process; readers get the error anyway.
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			if !p.dropped() {
				log.log.Error("state is damaged", "file", info.Path, "error", info.Details)
			}
		},
		CompactionEnd:   func(info pebble.CompactionInfo) { p.compacted(info.Err) },
		BackgroundError: func(error) { time.Sleep(tryPause) },
	}
	var err error
	if p.db, err = writefs.Open(cfg.Dir, opts); err != nil {
		return nil, fmt.Errorf("open state in %s: %w", cfg.Dir, err)
	}
	p.opened.Store(true)
	p.tx = pebbleTx{p: p, writes: map[string][]byte{}}
	go p.pourer()
	return p, nil
}

// Get implements Reader. The value may be kept.
func (p *Pebble) Get(key []byte) ([]byte, error) {
	p.mu.RLock()
	v, ok := p.known(unsafe.String(unsafe.SliceData(key), len(key))) // which nobody keeps
	pours := p.pours
	p.mu.RUnlock()
	if ok {
		return found(v)
	}
	v, err := pebbleGet(p.db, key)
	if err == nil || errors.Is(err, ErrNotFound) {
		p.remember(string(key), v, pours)
	}
	return v, err
}

// known returns what is in memory of a key; nil: it is not there. p.mu is held, at least for reading.
func (p *Pebble) known(k string) (v []byte, ok bool) {
	if v, ok = p.recent.get(k); !ok {
		v, ok = p.leaving.get(k)
	}
	if !ok {
		v, ok = p.lately.get(k)
	}
	return v, ok
}

// remember notes what was read from the database, unless that may have changed since.
func (p *Pebble) remember(key string, val []byte, pours uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pours == pours {
		p.lately.add(key, val)
	}
}

// found returns what a layer holds for a key, which nobody changes.
func found(v []byte) ([]byte, error) {
	if v == nil {
		return nil, ErrNotFound
	}
	return v[:len(v):len(v)], nil
}

// Scan implements Reader.
func (p *Pebble) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	return scanView(p.view, nil, lo, hi, fn)
}

// Update implements DB. Updates run one after the other.
func (p *Pebble) Update(fn func(Tx) error) error {
	p.updates.Lock()
	defer p.updates.Unlock()
	defer p.tx.reset()
	if err := fn(&p.tx); err != nil {
		return err
	}
	return p.commit(p.tx.writes)
}

// Snapshot implements DB.
func (p *Pebble) Snapshot() Snapshot {
	p.pouring.Lock()
	defer p.pouring.Unlock()
	if err := p.pourLocked(false); err != nil {
		return pebbleSnapshot{err: err}
	}
	return pebbleSnapshot{s: p.db.NewSnapshot()}
}

// pebbleSnapshot is a snapshot, or why there is none.
type pebbleSnapshot struct {
	s   *pebble.Snapshot
	err error
}

func (s pebbleSnapshot) Get(key []byte) ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	return pebbleGet(s.s, key)
}

func (s pebbleSnapshot) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	if s.err != nil {
		return s.err
	}
	open := func(lo, hi []byte) (view, error) { return openView(s.s, lo, hi) }
	return scanView(open, nil, lo, hi, fn)
}

func (s pebbleSnapshot) Close() error {
	if s.err != nil {
		return nil
	}
	return s.s.Close()
}

// Before implements DB.
func (p *Pebble) Before(fn func() error) {
	p.pouring.Lock()
	p.before = fn
	p.pouring.Unlock()
}

// Sync implements DB.
func (p *Pebble) Sync() error { return p.pour(true) }

// Flush writes everything out as a table and waits for it.
func (p *Pebble) Flush() error {
	if err := p.pour(false); err != nil {
		return err
	}
	return p.stuck.Await(p.db.Flush)
}

// DiskUsage returns the bytes of all its files; 0 if no write can succeed any more.
func (p *Pebble) DiskUsage() uint64 {
	if p.stuck.Get() != nil {
		return 0
	}
	var bytes uint64
	err := p.stuck.Await(func() error { // which waits for a manifest that is being written
		bytes = p.db.Metrics().DiskSpaceUsage()
		return nil
	})
	if err != nil {
		return 0
	}
	return bytes
}

// Close flushes nothing but the log, and closes the database. It is called once. After a write that failed
// the files stay open, and locked, while the process lives, unless the state is scratch.
func (p *Pebble) Close() error {
	close(p.quit)
	<-p.ended
	err := p.pour(!p.noLog)
	if p.stuck.Get() != nil {
		return err
	}
	return errors.Join(err, p.stuck.Await(p.db.Close))
}

// Raw returns the database itself, for metrics.
func (p *Pebble) Raw() *pebble.DB { return p.db }

// pebbleTx is an update under way. A nil value marks a deletion.
type pebbleTx struct {
	p      *Pebble
	writes map[string][]byte
}

// reset makes it ready for the next update.
func (t *pebbleTx) reset() {
	if len(t.writes) > 64 { // clearing costs what a map once held
		t.writes = map[string][]byte{}
		return
	}
	clear(t.writes)
}

func (t *pebbleTx) Get(key []byte) ([]byte, error) {
	if v, ok := t.writes[string(key)]; ok {
		return found(v)
	}
	return t.p.Get(key)
}

func (t *pebbleTx) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	var top layer
	for k, v := range t.writes {
		if k >= string(lo) && (hi == nil || k < string(hi)) {
			top.set(k, v)
		}
	}
	return scanView(t.p.view, &top, lo, hi, fn)
}

func (t *pebbleTx) Put(key, value []byte) error {
	t.writes[string(key)] = append(make([]byte, 0, len(value)), value...)
	return nil
}

func (t *pebbleTx) Delete(key []byte) error {
	t.writes[string(key)] = nil
	return nil
}

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
