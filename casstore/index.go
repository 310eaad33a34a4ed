package casstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/hashtree"
	"github.com/foreverfs/forever/internal/readaround"
	"github.com/foreverfs/forever/internal/writefs"
)

// loc is where a chunk's record lies.
type loc struct {
	pack    uint32
	off     int64 // of the record's header
	size    int   // of the chunk
	grouped bool  // the hashes of the chunk's groups lie between header and chunk
}

// hashes returns the offset and the length of the hashes of the chunk's groups.
func (l loc) hashes() (off int64, length int) {
	if l.grouped {
		length = hashtree.HashSize * hashtree.Groups(l.size)
	}
	return l.off + recordHeaderSize, length
}

// chunk returns the offset of the chunk.
func (l loc) chunk() int64 {
	off, length := l.hashes()
	return off + int64(length)
}

// end returns the offset right after the record.
func (l loc) end() int64 { return l.chunk() + int64(l.size) }

// length returns the length of the record.
func (l loc) length() int64 { return l.end() - l.off }

// pos returns the position right after the record.
func (l loc) pos() Position { return Position{l.pack, uint64(l.end())} }

const (
	locSize = 16
	// groupedBit is set beside the length of a chunk whose record is a grouped one.
	groupedBit = 1 << 31
)

func (l loc) encode() []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, locSize), l.pack)
	b = binary.BigEndian.AppendUint64(b, uint64(l.off))
	size := uint32(l.size)
	if l.grouped {
		size |= groupedBit
	}
	return binary.BigEndian.AppendUint32(b, size)
}

func parseLoc(b []byte) (loc, error) {
	if len(b) != locSize {
		return loc{}, fmt.Errorf("index entry of %d bytes: %w", len(b), ErrIndex)
	}
	size := binary.BigEndian.Uint32(b[12:])
	l := loc{binary.BigEndian.Uint32(b), int64(binary.BigEndian.Uint64(b[4:])), int(size &^ groupedBit), size&groupedBit != 0}
	if l.off < packHeaderSize || l.size <= 0 || l.size > MaxChunk {
		return loc{}, fmt.Errorf("impossible index entry: %w", ErrIndex)
	}
	return l, nil
}

// meta is what the index says about itself.
type meta struct {
	// cursor: every record before it is in the index, or was deleted.
	cursor Position
	// clean: nothing was ever appended behind the cursor.
	clean  bool
	chunks uint64 // entries
	bytes  uint64 // of the chunks named by the entries
}

const (
	metaVersion = 2
	// oldMetaVersion is that of an index without grouped records.
	oldMetaVersion = 1
	metaSize       = 2 + PositionSize + 16
)

func (m meta) encode() []byte {
	b := []byte{metaVersion, 0}
	if m.clean {
		b[1] = 1
	}
	b = append(b, m.cursor.Bytes()...)
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, m.chunks), m.bytes)
}

func parseMeta(b []byte) (meta, error) {
	if len(b) != metaSize || b[0] != metaVersion && b[0] != oldMetaVersion || b[1] > 1 {
		return meta{}, fmt.Errorf("index header: %w", ErrIndex)
	}
	cursor, err := ParsePosition(b[2 : 2+PositionSize])
	if err != nil {
		return meta{}, err
	}
	rest := b[2+PositionSize:]
	return meta{cursor, b[1] == 1, binary.BigEndian.Uint64(rest), binary.BigEndian.Uint64(rest[8:])}, nil
}

var metaKey = []byte{'m'}

func entryKey(dst []byte, id chunk.ID) []byte { return append(append(dst, 'c'), id[:]...) }

func frontKey(dst []byte, id chunk.ID) []byte { return append(append(dst, 'h'), id[:]...) }

// index maps chunk IDs to places in packs, and to the fronts of chunks that have groups. It has no log: what was not flushed
// when the process ends is found again in the packs. Reads are safe for
// concurrent use; writers take turns (Store.commitMu).
type index struct {
	db   *pebble.DB
	meta meta
	// damaged is set when pebble finds damage, be it on its own behalf.
	damaged atomic.Bool
	// failing has why pebble could not write its memtables, or nil once it could. It tries again for ever, by itself.
	failing atomic.Pointer[error]
	// merging has why pebble could not merge tables, or nil once it could.
	merging atomic.Pointer[error]
	// tried says that it has tried. Capacity 1.
	tried chan struct{}
	// broken: nothing can be written any more.
	broken writefs.Breakage
	// stuck: because of what has some goroutine of pebble wait for ever.
	stuck  writefs.Breakage
	opened atomic.Bool // until then failures are those of openIndex
}

// failPause is how long a write waits that failed, on a full disk or else, since pebble tries again at once.
const failPause = time.Second

// paused is what becomes of a write of the index. What finds no room waits in vfs.OnDiskFull, and is tried once more.
func paused(err error) error {
	err = writefs.NoSpace(err)
	if writefs.Failed(err) && !errors.Is(err, syscall.ENOSPC) {
		time.Sleep(failPause)
	}
	return err
}

const (
	memTableSize = 2 << 20
	// maxMemTables is how many bytes of memtables there may be, with those that are being written, before a writer waits.
	maxMemTables = 2 * memTableSize
	// maxSublevels is how many sublevels of tables there may be while they cannot be merged.
	maxSublevels = 12
)

// openIndex opens or creates the index in dir.
func openIndex(fs vfs.FS, dir string, log hclog.Logger) (*index, error) {
	x := &index{tried: make(chan struct{}, 1), broken: writefs.NewBreakage(), stuck: writefs.NewBreakage()}
	opts := &pebble.Options{
		FS:                 readaround.FS{FS: vfs.OnDiskFull(writefs.FS{FS: fs, Result: paused}, func() { time.Sleep(failPause) })},
		DisableWAL:         true,
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             indexLogger{log, x},
		// Memtables count in it. Small: the kernel's page cache serves the rest.
		CacheSize:         16 << 20,
		MemTableSize:      memTableSize,
		MaxOpenFiles:      64,
		DisableTableStats: true,
		// Pebble would wait for ever, were the disk full or a table damaged: room waits instead.
		MemTableStopWritesThreshold: 4,
		L0StopWritesThreshold:       1 << 20,
	}
	for i := range opts.Levels {
		// Most questions are about chunks that are not here.
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	// IDs do not compress.
	opts.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	var flushed error // of the last flush; guarded by pebble
	opts.EventListener = &pebble.EventListener{
		// Without this pebble ends the process; a damaged index is no reason to.
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			log.Error("chunk index is damaged", "file", info.Path)
			x.damaged.Store(true)
		},
		FlushEnd: func(info pebble.FlushInfo) {
			if info.Err == nil {
				x.failing.Store(nil)
			}
			flushed = info.Err
			x.wake()
		},
		CompactionEnd: func(info pebble.CompactionInfo) { x.merged(info.Err) },
		// Called right after FlushEnd, with its error, or for a compaction. FlushEnd alone
		// gives an error for memtables that were empty, too.
		BackgroundError: func(err error) {
			if x.broken.Get() == nil {
				log.Error("cannot write the chunk index yet", "error", err)
			}
			if err == flushed {
				x.failing.Store(&err)
				x.wake()
				return
			}
			if !errors.Is(err, syscall.ENOSPC) { // which has waited in vfs.OnDiskFull, and room waits for this
				time.Sleep(failPause)
			}
		},
	}
	var err error
	if x.db, err = writefs.Open(dir, opts); err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	x.opened.Store(true)
	if err := x.load(); err != nil {
		return nil, errors.Join(err, x.db.Close())
	}
	return x, nil
}

// merged notes how a compaction ended. One that fails for good is tried for ever, and tables that cannot be merged pile up.
func (x *index) merged(err error) {
	switch {
	case errors.Is(err, pebble.ErrCancelledCompaction):
		return
	case err == nil:
		x.merging.Store(nil)
	default:
		x.merging.Store(&err)
		if writefs.Lasting(err) {
			x.fail(err)
		}
	}
	x.wake()
}

// fail has nothing be written any more.
func (x *index) fail(err error) {
	if err = fmt.Errorf("write index: %w", err); writefs.Lasting(err) {
		x.damaged.Store(true)
		err = fmt.Errorf("%w: %w", ErrIndex, err)
	}
	_ = x.broken.Set(err)
	x.wake()
}

func (x *index) load() error {
	v, closer, err := x.db.Get(metaKey)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read index: %w", err)
	}
	x.meta, err = parseMeta(v)
	return errors.Join(err, closer.Close())
}

// get returns where id lies, or ErrNotFound.
func (x *index) get(id chunk.ID) (loc, error) {
	var key [1 + chunk.IDSize]byte
	v, closer, err := x.db.Get(entryKey(key[:0], id))
	if err != nil {
		return loc{}, x.readFailed(err)
	}
	l, err := parseLoc(v)
	return l, errors.Join(err, closer.Close())
}

// front appends the front of a chunk to dst, or gives ErrNotFound.
func (x *index) front(dst front, id chunk.ID) (front, error) {
	var key [1 + chunk.IDSize]byte
	v, closer, err := x.db.Get(frontKey(key[:0], id))
	if err != nil {
		return dst, x.readFailed(err)
	}
	return append(dst, v...), closer.Close()
}

// readFailed says what an error of pebble's means.
func (x *index) readFailed(err error) error {
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return ErrNotFound
	case pebble.IsCorruptionError(err), errors.Is(err, syscall.EIO):
		x.damaged.Store(true)
		return fmt.Errorf("%w: %w", ErrIndex, err)
	}
	return fmt.Errorf("read index: %w", err)
}

// change is one atomic set of changes of the index.
type change struct {
	x    *index
	b    *pebble.Batch
	meta meta
}

func (x *index) begin() *change { return &change{x, x.db.NewBatch(), x.meta} }

// set enters id at l, with its front if that is given. An ID may be set only once in a change.
func (c *change) set(id chunk.ID, l loc, f front) error {
	if err := c.uncount(id); err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrIndex) {
		return err
	}
	return c.add(id, l, f)
}

// add is set for an ID that is not in the index.
func (c *change) add(id chunk.ID, l loc, f front) error {
	c.meta.chunks++
	c.meta.bytes += uint64(l.size)
	if len(f) > 0 {
		if err := c.setFront(id, f); err != nil {
			return err
		}
	}
	return c.b.Set(entryKey(nil, id), l.encode(), nil)
}

func (c *change) setFront(id chunk.ID, f front) error { return c.b.Set(frontKey(nil, id), f, nil) }

// remove takes id out; ErrNotFound if it is not in.
func (c *change) remove(id chunk.ID) error {
	if err := c.uncount(id); err != nil {
		return err
	}
	if err := c.b.Delete(frontKey(nil, id), nil); err != nil {
		return err
	}
	return c.b.Delete(entryKey(nil, id), nil)
}

func (c *change) uncount(id chunk.ID) error {
	old, err := c.x.get(id)
	if err != nil {
		return err
	}
	c.meta.chunks--
	c.meta.bytes -= uint64(old.size)
	return nil
}

// commit applies the change. It fails while the disk is full.
func (c *change) commit() error {
	if err := c.x.room(); err != nil {
		return errors.Join(err, c.abort())
	}
	if err := c.b.Set(metaKey, c.meta.encode(), nil); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	if err := c.x.stuck.Await(func() error { return c.b.Commit(pebble.NoSync) }); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	c.x.meta = c.meta
	return nil
}

// abort drops the change.
func (c *change) abort() error { return c.b.Close() }

// wake has those look who wait for pebble's next try to write its memtables.
func (x *index) wake() {
	select {
	case x.tried <- struct{}{}:
	default:
	}
}

// failure returns why nothing can be written for the moment, or any more, or nil.
func (x *index) failure() error {
	if err := x.broken.Get(); err != nil {
		return err
	}
	if err := x.failing.Load(); err != nil {
		return fmt.Errorf("write index: %w", *err)
	}
	return nil
}

// room waits until there is room in the memtables and below, or fails if there will be none.
func (x *index) room() error {
	for {
		if err := x.failure(); err != nil {
			return err
		}
		var inMemory uint64
		var sublevels int32
		err := x.stuck.Await(func() error {
			m := x.db.Metrics()
			inMemory, sublevels = m.MemTable.Size, m.Levels[0].Sublevels
			return nil
		})
		if err != nil {
			return err
		}
		if sublevels >= maxSublevels {
			if err := x.merging.Load(); err != nil {
				return fmt.Errorf("write index: %w", *err)
			}
		}
		if inMemory < maxMemTables {
			return nil
		}
		select {
		case <-x.tried:
		case <-x.broken.Done():
		}
	}
}

// beginFlush has everything written that was committed. The channel is closed when it is durable, which
// after a failure happens by itself once it can.
func (x *index) beginFlush() (<-chan struct{}, error) {
	if err := x.room(); err != nil {
		return nil, err
	}
	var flushed <-chan struct{}
	err := x.stuck.Await(func() (err error) {
		flushed, err = x.db.AsyncFlush()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("flush index: %w", err)
	}
	return flushed, nil
}

// flush makes every committed change durable.
func (x *index) flush() error {
	flushed, err := x.beginFlush()
	if err != nil {
		return err
	}
	for {
		select {
		case <-flushed:
			return nil
		case <-x.tried:
		case <-x.broken.Done():
		}
		if err := x.failure(); err != nil {
			return err
		}
	}
}

// scan calls fn for every entry in order of ID, from after on, until it
// returns false.
func (x *index) scan(after chunk.ID, fn func(chunk.ID, loc) bool) error {
	return x.iterate(append(entryKey(nil, after), 0), []byte{'c' + 1}, fn)
}

// rangeOf is scan for from ≤ ID < to; a zero to means no end.
func (x *index) rangeOf(from, to chunk.ID, fn func(chunk.ID, loc) bool) error {
	end := []byte{'c' + 1}
	if !to.IsZero() {
		end = entryKey(nil, to)
	}
	return x.iterate(entryKey(nil, from), end, fn)
}

func (x *index) iterate(from, to []byte, fn func(chunk.ID, loc) bool) (err error) {
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return x.readFailed(err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return x.readFailed(err)
		}
		l, err := parseLoc(v)
		if err != nil {
			return err
		}
		if len(it.Key()) != 1+chunk.IDSize {
			return fmt.Errorf("index key of %d bytes: %w", len(it.Key()), ErrIndex)
		}
		if !fn(chunk.ID(it.Key()[1:]), l) {
			return nil
		}
	}
	if err := it.Error(); err != nil {
		return x.readFailed(err)
	}
	return nil
}

// close closes it; one that is stuck stays open, and locked, while the process lives.
func (x *index) close() error {
	if x.stuck.Get() != nil {
		return nil
	}
	if err := x.stuck.Await(x.db.Close); err != nil {
		return fmt.Errorf("close index: %w", err)
	}
	return nil
}

// indexLogger passes on pebble's errors, drops its chatter, and has it break the index instead of ending the process.
type indexLogger struct {
	log hclog.Logger
	x   *index
}

func (l indexLogger) Infof(string, ...any) {}
func (l indexLogger) Errorf(f string, args ...any) {
	if l.x.broken.Get() == nil {
		l.log.Error("chunk index: " + fmt.Sprintf(f, args...))
	}
}

// Fatalf is called when the index cannot go on, as after a write of its manifest that failed; pebble requires that it does
// not return.
func (l indexLogger) Fatalf(f string, args ...any) {
	err := writefs.Fatal(f, args...)
	if !l.x.opened.Load() {
		panic(err) // which writefs.Open recovers
	}
	l.log.Error("chunk index cannot go on", "error", err)
	l.x.fail(err)
	_ = l.x.stuck.Set(l.x.broken.Get())
	select {}
}
