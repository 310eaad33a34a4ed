package casstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/hashtree"
)

// Config says where a Store lies and how it behaves.
type Config struct {
	// Dir is the store's directory, created if missing. It must be the store's alone.
	Dir string
	// FS is the file system below; nil means the operating system's.
	FS vfs.FS
	// Logger receives warnings; nil means none.
	Logger hclog.Logger
	// PackSize is the size in bytes beyond which a pack is not continued; 0
	// means 256 MiB.
	PackSize int64
	// Reserve is the free space in bytes that Put leaves on the disk, for those
	// whose writes cannot wait; 0 means 64 MiB or a twentieth of the disk,
	// whichever is less, negative none.
	Reserve int64
	// IndexFlush is how many bytes of chunks may lie behind the index's last
	// flush, to be verified again after a crash; 0 means 128 MiB.
	IndexFlush int64
	// Damaged is told of a chunk that is found damaged before the store forgets where it lay; nil means nobody. It must not wait.
	Damaged func(chunk.ID)

	// Rebuilding is called before Open makes the index anew, the files of which are then other ones under the same names; may
	// be nil. Its error is Open's.
	Rebuilding func() error

	flushWithin time.Duration // 0 means 1 s: see crowd
}

func (c Config) withDefaults() Config {
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.PackSize <= 0 {
		c.PackSize = 256 << 20
	}
	if c.IndexFlush <= 0 {
		c.IndexFlush = 128 << 20
	}
	if c.flushWithin == 0 {
		c.flushWithin = time.Second
	}
	return c
}

// maxRecent bounds the chunks not yet in the index; beyond it Put flushes.
const maxRecent = 16 << 10

// Store keeps chunks in packs. All methods are safe for concurrent use.
type Store struct {
	cfg   Config
	fs    vfs.FS
	log   hclog.Logger
	lock  io.Closer
	packs *packs
	idx   *index
	space space

	writeback writeback // of the pack that is appended to

	markOnce sync.Once

	// commitMu serialises changes of the index.
	commitMu  sync.Mutex
	unflushed int64 // about how many bytes of chunks changed since the index was flushed

	// appendMu serialises writes to packs; what it guards is written under mu
	// as well. Writing under it is its purpose.
	appendMu sync.Mutex
	resume   uint32 // the pack that may be continued, or 0
	lastPack uint32 // greatest number ever used

	mu      sync.RWMutex
	recent  map[chunk.ID]loc      // stored, not yet in the index
	suspect map[chunk.ID]struct{} // could not be read; counted as absent
	again   map[chunk.ID]bool     // of recent, those that the index may have in another place
	commits uint64                // how often entries left recent
	active  *pack                 // appended to; nil until the first Put
	full    []*pack               // full packs not yet flushed
	end     Position              // end of what was appended
	synced  Position              // end of what is durable
	flush   *flush                // the one under way, or nil
	crowd   crowd
	failed  error
	closed  bool
}

// Open opens or creates the store in cfg.Dir. What a crash left behind the
// index is verified and entered; an index that is missing or damaged is made
// anew, which reads every chunk. A store that is open elsewhere gives ErrInUse.
func Open(cfg Config) (_ *Store, err error) {
	cfg = cfg.withDefaults()
	s := &Store{cfg: cfg, fs: cfg.FS, log: cfg.Logger,
		crowd: newCrowd(cfg.flushWithin), recent: map[chunk.ID]loc{}, suspect: map[chunk.ID]struct{}{}, again: map[chunk.ID]bool{}}
	if err := makeDir(s.fs, cfg.Dir); err != nil {
		return nil, fmt.Errorf("make chunk store: %w", err)
	}
	if s.lock, err = lockStore(s.fs, cfg.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()
	if s.packs, err = listPacks(s.fs, cfg.Dir); err != nil {
		return nil, err
	}
	s.writeback.packs = s.packs
	if err := s.openIndex(); err != nil {
		return nil, err
	}
	if err = s.recover(); errors.Is(err, ErrIndex) {
		s.log.Warn("chunk index is damaged, making it anew from the packs", "error", err)
		if err = s.idx.close(); err == nil {
			s.idx = nil
			err = s.newIndex()
		}
		if err == nil {
			err = s.recover()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("recover chunk store: %w", err)
	}
	s.space = newSpace(s.fs, cfg.Dir, cfg.Reserve)
	return s, nil
}

func lockStore(fs vfs.FS, dir string) (io.Closer, error) {
	l, err := fs.Lock(fs.PathJoin(dir, "lock"))
	var errno syscall.Errno
	if err != nil && (!errors.As(err, &errno) || errno == syscall.EAGAIN || errno == syscall.EACCES) {
		// Without an errno: this process itself holds the lock.
		return nil, fmt.Errorf("lock %s: %w", dir, ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("lock chunk store: %w", err)
	}
	return l, nil
}

// makeDir creates a directory if it is missing and makes its name durable. A
// directory that is there may come from a run that a crash cut short.
func makeDir(fs vfs.FS, dir string) error {
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(fs, fs.PathDir(dir))
}

// release closes what is open.
func (s *Store) release() error {
	var errs []error
	if s.idx != nil {
		errs = append(errs, s.idx.close())
	}
	if s.packs != nil {
		errs = append(errs, s.packs.close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// Close makes everything durable and closes the store. Other calls must have
// returned. It may be called twice.
func (s *Store) Close() error {
	if s.isClosed() {
		return nil
	}
	err := s.settle()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.writeback.wait()
	return errors.Join(err, s.release())
}

func (s *Store) isClosed() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.closed
}

// settle makes everything durable, and marks the index as complete.
func (s *Store) settle() error {
	if err := s.Sync(context.Background()); err != nil {
		return err
	}
	if err := s.commitRecent(s.durable()); err != nil {
		if s.idx.damaged.Load() { // the next Open finds all of it in the packs
			return nil
		}
		return err
	}
	s.appendMu.Lock()
	defer s.appendMu.Unlock()
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	// A pack that a crash cut short is never continued: positions behind its
	// end may have been given out.
	clean := s.resume != 0 || s.active != nil
	if s.idx.meta.clean == clean && s.unflushed == 0 {
		return nil
	}
	c := s.idx.begin()
	c.meta.clean = clean
	if err := c.commit(); err != nil {
		return err
	}
	return s.idx.flush()
}

// Broken is closed when the index cannot be written any more, and Err says why. What is put is kept all the same, and found by the next
// Open; until then nothing is freed, and what is put takes some memory.
func (s *Store) Broken() <-chan struct{} { return s.idx.broken.Done() }

// Err returns why the index cannot be written any more, or nil.
func (s *Store) Err() error { return s.idx.broken.Get() }

// Held reports whether files of the index stay open, and locked, until the process ends, also after Close: some goroutine of the database
// waits for a write that failed.
func (s *Store) Held() bool { return s.idx.stuck.Get() != nil }

// Add stores sealed and returns its ID. It reports whether the chunk was new. On
// return the chunk is readable, and Sync will make it durable, whether it was new
// or not. Add neither keeps nor changes sealed. A disk too full gives an error that
// is syscall.ENOSPC; the store stays usable.
func (s *Store) Add(ctx context.Context, sealed []byte) (id chunk.ID, added bool, err error) {
	if err := checkSize(sealed); err != nil {
		return chunk.ID{}, false, err
	}
	var buf [hashesSize]byte
	id, hashes := hashtree.Sum(buf[:0], sealed)
	added, err = s.put(ctx, id, hashes, sealed)
	return id, added, err
}

// Put is Add for a chunk that should have the ID id (else ErrMismatch).
func (s *Store) Put(ctx context.Context, id chunk.ID, sealed []byte) (added bool, err error) {
	if err := checkSize(sealed); err != nil {
		return false, err
	}
	var buf [hashesSize]byte
	root, hashes := hashtree.Sum(buf[:0], sealed)
	if root != id {
		return false, fmt.Errorf("put chunk %v: %w", id, ErrMismatch)
	}
	return s.put(ctx, id, hashes, sealed)
}

// hashesSize is how much memory serves the hashes of the groups of most chunks.
const hashesSize = 8 * hashtree.HashSize

// put stores a chunk and the hashes of its groups.
func (s *Store) put(ctx context.Context, id chunk.ID, hashes, sealed []byte) (added bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	has, commits, err := s.lookup(id)
	if has || err != nil {
		return false, err
	}
	added, crowded, err := s.append(id, hashes, sealed, commits)
	if err != nil {
		return false, fmt.Errorf("put chunk %v: %w", id, err)
	}
	if crowded {
		// Those who put faster than the disk flushes wait here together.
		if err := s.Sync(ctx); err != nil {
			return added, fmt.Errorf("flush chunks: %w", err)
		}
	}
	return added, nil
}

func checkSize(sealed []byte) error {
	if len(sealed) == 0 || len(sealed) > MaxChunk {
		return fmt.Errorf("put chunk of %d bytes: %w", len(sealed), ErrSize)
	}
	return nil
}

// lookup reports whether id is held, and the state of s.commits that the
// answer is good for.
func (s *Store) lookup(id chunk.ID) (has bool, commits uint64, err error) {
	s.mu.RLock()
	commits = s.commits
	s.mu.RUnlock()
	_, err = s.locate(id)
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrDamaged), errors.Is(err, ErrIndex):
		return false, commits, nil
	case err != nil:
		return false, commits, err
	}
	return true, commits, nil
}

// locate returns where id lies. A chunk that could not be read gives
// ErrDamaged along with its place.
func (s *Store) locate(id chunk.ID) (loc, error) {
	s.mu.RLock()
	l, ok := s.recent[id]
	_, bad := s.suspect[id]
	closed := s.closed
	s.mu.RUnlock()
	var err error
	switch {
	case closed:
		return loc{}, ErrClosed
	case !ok:
		if l, err = s.idx.get(id); errors.Is(err, ErrIndex) {
			err = errors.Join(err, s.markRebuild())
		}
	}
	if err == nil && bad {
		err = ErrDamaged
	}
	return l, err
}

// Has reports whether the store holds id. It does not read the chunk.
func (s *Store) Has(id chunk.ID) (bool, error) {
	has, _, err := s.lookup(id)
	return has, err
}

// Size returns the length of chunk id in bytes, or ErrNotFound.
func (s *Store) Size(id chunk.ID) (int, error) {
	l, err := s.locate(id)
	if err != nil && !errors.Is(err, ErrDamaged) {
		return 0, err
	}
	return l.size, nil
}

// Get appends the bytes of chunk id to dst, verified. ErrNotFound says that the
// store does not hold it; ErrDamaged that the disk no longer does: the chunk
// then counts as not held, so that it can be put again; ErrIndex that this cannot be known. On error dst is
// returned as it was given.
func (s *Store) Get(ctx context.Context, dst []byte, id chunk.ID) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return dst, err
	}
	l, err := s.locate(id)
	for err == nil || errors.Is(err, ErrDamaged) {
		var out []byte
		if out, err = s.read(dst, id, l); err == nil {
			s.trust(id)
			return out, nil
		}
		// The chunk may have moved to another pack meanwhile.
		again, lerr := s.locate(id)
		if lerr != nil && !errors.Is(lerr, ErrDamaged) {
			return dst, lerr
		}
		if again == l {
			return dst, s.distrust(id, l, err)
		}
		l = again
	}
	return dst, err
}

// read appends the chunk at l to dst if it is id.
func (s *Store) read(dst []byte, id chunk.ID, l loc) ([]byte, error) {
	p, err := s.packs.acquire(l.pack)
	if err != nil {
		return dst, err
	}
	start := len(dst)
	out := slices.Grow(dst, l.size)[:start+l.size]
	err = readFull(p, out[start:], l.chunk())
	if rerr := s.packs.release(p); err == nil {
		err = rerr
	}
	switch {
	case err != nil:
		return dst, err
	case !hasID(out[start:], id):
		return dst, fmt.Errorf("pack %d at %d: %w", l.pack, l.off, ErrDamaged)
	}
	return out, nil
}

// hasID reports whether a chunk's bytes are those of its ID.
func hasID(sealed []byte, id chunk.ID) bool {
	var buf [hashesSize]byte
	root, _ := hashtree.Sum(buf[:0], sealed)
	return root == id
}

// trust takes back that id could not be read.
func (s *Store) trust(id chunk.ID) {
	s.mu.RLock()
	_, bad := s.suspect[id]
	s.mu.RUnlock()
	if bad {
		s.mu.Lock()
		delete(s.suspect, id)
		s.mu.Unlock()
	}
}

// distrust handles the failure to read id at l and returns the error for the
// caller. Wrong bytes are forgotten. A disk that fails to read may yet recover,
// so the place is kept, but the chunk counts as not held.
func (s *Store) distrust(id chunk.ID, l loc, cause error) error {
	switch {
	case errors.Is(cause, ErrDamaged), errors.Is(cause, ErrNotFound), errors.Is(cause, os.ErrNotExist):
		s.log.Warn("chunk damaged on disk", "chunk", id, "pack", l.pack, "offset", l.off)
		if s.cfg.Damaged != nil {
			s.cfg.Damaged(id)
		}
		if err := s.forget(id, l); err != nil {
			return fmt.Errorf("get chunk %v: %w: %w", id, ErrDamaged, err)
		}
		return fmt.Errorf("get chunk %v: %w", id, ErrDamaged)
	case errors.Is(cause, syscall.EIO):
		s.mu.Lock()
		s.suspect[id] = struct{}{}
		s.mu.Unlock()
		return fmt.Errorf("get chunk %v: %w: %w", id, ErrDamaged, cause)
	}
	return fmt.Errorf("get chunk %v: %w", id, cause)
}
