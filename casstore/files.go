package casstore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"github.com/zeebo/blake3"

	"github.com/foreverfs/forever/chunk"
)

// Files keeps each chunk in a file of its own, for disks where one wants to
// look at chunks with other tools. It has the contract of Store and is slower.
// All methods are safe for concurrent use.
//
// A chunk lies in new/ until Sync has flushed it, then in objects/XX/YY/ID.
// The order of arrival is in order/, one file per run: the record headers of a
// pack with a zero salt, without the chunks.
type Files struct {
	fs   vfs.FS
	log  hclog.Logger
	dir  string
	lock io.Closer

	// syncMu lets one Sync, Delete or Scrub run at a time. It is taken before mu.
	syncMu sync.Mutex
	shards map[string]bool // directories known to exist

	mu sync.Mutex
	// pending are chunks in new/ or being written there.
	pending map[chunk.ID]*pendingFile
	order   vfs.File // nil until the first Put
	end     Position
	runs    []uint32 // numbers of order files, ascending
	stats   Stats
	failed  error
	closed  bool
}

type pendingFile struct {
	size int
	done chan struct{} // closed when written
	err  error
}

const (
	newDir     = "new"
	objectsDir = "objects"
	orderDir   = "order"
)

// OpenFiles opens or creates a store in cfg.Dir; PackSize, Reserve and
// IndexFlush mean nothing to it.
func OpenFiles(cfg Config) (_ *Files, err error) {
	cfg = cfg.withDefaults()
	f := &Files{fs: cfg.FS, log: cfg.Logger, dir: cfg.Dir,
		pending: map[chunk.ID]*pendingFile{}, shards: map[string]bool{}}
	if err := makeDir(f.fs, cfg.Dir); err != nil {
		return nil, fmt.Errorf("make chunk store: %w", err)
	}
	if f.lock, err = lockStore(f.fs, cfg.Dir); err != nil {
		return nil, err
	}
	if err := f.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("open chunk store: %w", err), f.lock.Close())
	}
	return f, nil
}

func (f *Files) path(elem ...string) string {
	return f.fs.PathJoin(append([]string{f.dir}, elem...)...)
}

// prepare makes the directories, drops what was never flushed, and counts.
func (f *Files) prepare() error {
	if err := f.fs.RemoveAll(f.path(newDir)); err != nil {
		return err
	}
	for _, d := range []string{newDir, objectsDir, orderDir} {
		if err := makeDir(f.fs, f.path(d)); err != nil {
			return err
		}
	}
	names, err := f.fs.List(f.path(orderDir))
	if err != nil {
		return err
	}
	for _, name := range names {
		if n, err := strconv.ParseUint(name, 10, 32); err == nil && n > 0 {
			f.runs = append(f.runs, uint32(n))
		}
	}
	slices.Sort(f.runs)
	if err := f.each(func(_ chunk.ID, size int64) error {
		f.stats.Chunks++
		f.stats.Bytes += uint64(size)
		return nil
	}); err != nil {
		return err
	}
	return f.findEnd()
}

func (f *Files) findEnd() error {
	if len(f.runs) == 0 {
		return nil
	}
	last := f.runs[len(f.runs)-1]
	fi, err := f.fs.Stat(f.orderPath(last))
	if err != nil {
		return err
	}
	f.end = Position{last, uint64(fi.Size())}
	return nil
}

func (f *Files) orderPath(run uint32) string {
	return f.path(orderDir, strconv.FormatUint(uint64(run), 10))
}

// shard returns the directory of id below objects/, in two steps.
func shard(id chunk.ID) (outer, inner string) {
	name := id.String()
	return name[:2], name[2:4]
}

func (f *Files) objectPath(id chunk.ID) string {
	outer, inner := shard(id)
	return f.path(objectsDir, outer, inner, id.String())
}

func (f *Files) newPath(id chunk.ID) string { return f.path(newDir, id.String()) }

// each calls fn for every chunk in objects/.
func (f *Files) each(fn func(id chunk.ID, size int64) error) error {
	outers, err := f.fs.List(f.path(objectsDir))
	if err != nil {
		return err
	}
	for _, outer := range outers {
		inners, err := f.fs.List(f.path(objectsDir, outer))
		if err != nil {
			return err
		}
		for _, inner := range inners {
			if err := f.eachIn(f.path(objectsDir, outer, inner), fn); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *Files) eachIn(dir string, fn func(id chunk.ID, size int64) error) error {
	names, err := f.fs.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		b, err := hex.DecodeString(name)
		if err != nil || len(b) != chunk.IDSize || strings.ToLower(name) != name {
			continue
		}
		fi, err := f.fs.Stat(f.fs.PathJoin(dir, name))
		if err != nil {
			continue // deleted meanwhile
		}
		if err := fn(chunk.ID(b), fi.Size()); err != nil {
			return err
		}
	}
	return nil
}

// Add is Store.Add.
func (f *Files) Add(ctx context.Context, sealed []byte) (id chunk.ID, added bool, err error) {
	if err := checkSize(sealed); err != nil {
		return chunk.ID{}, false, err
	}
	id = blake3.Sum256(sealed)
	added, err = f.put(ctx, id, sealed)
	return id, added, err
}

// Put is Store.Put.
func (f *Files) Put(ctx context.Context, id chunk.ID, sealed []byte) (added bool, err error) {
	if err := checkSize(sealed); err != nil {
		return false, err
	}
	if !hasID(sealed, id) {
		return false, fmt.Errorf("put chunk %v: %w", id, ErrMismatch)
	}
	return f.put(ctx, id, sealed)
}

func (f *Files) put(ctx context.Context, id chunk.ID, sealed []byte) (added bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	p, mine, err := f.claim(id, len(sealed))
	if err != nil || p == nil {
		return false, err
	}
	if !mine {
		<-p.done // another is writing the same
		return false, p.err
	}
	err = f.writeNew(id, sealed)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		err = f.note(id, len(sealed))
	}
	if err != nil {
		p.err = fmt.Errorf("put chunk %v: %w", id, err)
		delete(f.pending, id)
	}
	close(p.done)
	return err == nil, p.err
}

// claim reserves id for writing. It returns nil if the chunk is held, and
// whether the caller has to write it.
func (f *Files) claim(id chunk.ID, size int) (p *pendingFile, mine bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.usable(); err != nil {
		return nil, false, err
	}
	if p := f.pending[id]; p != nil {
		return p, false, nil
	}
	// Under the lock, so that it cannot move between new/ and objects/ meanwhile.
	if _, err := f.fs.Stat(f.objectPath(id)); err == nil {
		return nil, false, nil
	}
	p = &pendingFile{size: size, done: make(chan struct{})}
	f.pending[id] = p
	return p, true, nil
}

func (f *Files) usable() error {
	if f.closed {
		return ErrClosed
	}
	return f.failed
}

func (f *Files) writeNew(id chunk.ID, sealed []byte) error {
	w, err := f.fs.Create(f.newPath(id), writeKind)
	if err != nil {
		return err
	}
	_, err = w.Write(slices.Clone(sealed)) // a vfs.File may change what it is given
	if err = errors.Join(err, w.Close()); err != nil {
		return errors.Join(err, f.fs.Remove(f.newPath(id)))
	}
	return nil
}
