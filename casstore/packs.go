package casstore

import (
	"container/list"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	packSuffix = ".pack"
	// maxOpenPacks bounds the file descriptors held for reading.
	maxOpenPacks = 64
	writeKind    = vfs.DiskWriteCategory("forever-pack")
)

// packs is the set of pack files in a directory and those that are open. Safe
// for concurrent use.
type packs struct {
	fs  vfs.FS
	dir string

	mu    sync.Mutex
	known map[uint32]*pack
	idle  *list.List // of *pack: open but unused, least recently used first
	open  int
}

// pack is one pack file. Its fields belong to packs.mu, but file, direct and salt may be
// used between acquire and release.
type pack struct {
	number uint32
	file   vfs.File // nil: not open
	direct *direct  // the same file; nil: not asked for yet
	salt   salt     // of the pack being written
	refs   int
	idle   *list.Element
	gone   bool
}

func packName(number uint32) string { return fmt.Sprintf("%08x%s", number, packSuffix) }

// parsePackName returns the number in a pack's file name.
func parsePackName(name string) (uint32, bool) {
	hex, ok := strings.CutSuffix(name, packSuffix)
	if !ok || len(hex) != 8 {
		return 0, false
	}
	n, err := strconv.ParseUint(hex, 16, 32)
	return uint32(n), err == nil && n > 0 && packName(uint32(n)) == name
}

// listPacks finds the packs in dir.
func listPacks(fs vfs.FS, dir string) (*packs, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list packs: %w", err)
	}
	p := &packs{fs: fs, dir: dir, known: map[uint32]*pack{}, idle: list.New()}
	for _, name := range names {
		if n, ok := parsePackName(name); ok {
			p.known[n] = &pack{number: n}
		}
	}
	return p, nil
}

func (p *packs) path(number uint32) string { return p.fs.PathJoin(p.dir, packName(number)) }

// numbers returns the numbers of all packs, ascending.
func (p *packs) numbers() []uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]uint32, 0, len(p.known))
	for n := range p.known {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// acquire returns pack number, open for reading, until release. A pack that
// does not exist gives ErrNotFound.
func (p *packs) acquire(number uint32) (*pack, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.known[number]
	if k == nil {
		return nil, fmt.Errorf("pack %d: %w", number, ErrNotFound)
	}
	if k.file == nil {
		// Opening under the lock: it is rare, and two must not open one pack.
		f, err := p.fs.Open(p.path(number))
		if err != nil {
			return nil, fmt.Errorf("open pack %d: %w", number, err)
		}
		k.file = f
		p.open++
	}
	p.use(k)
	return k, errors.Join(p.trim()...)
}

func (p *packs) use(k *pack) {
	k.refs++
	if k.idle != nil {
		p.idle.Remove(k.idle)
		k.idle = nil
	}
}

// trim closes packs that nobody uses until few enough are open.
func (p *packs) trim() (errs []error) {
	for p.open > maxOpenPacks && p.idle.Len() > 0 {
		errs = append(errs, p.closeFile(p.idle.Front().Value.(*pack)))
	}
	return errs
}

// closeFile closes the file of a pack that nobody uses.
func (p *packs) closeFile(k *pack) error {
	if k.idle != nil {
		p.idle.Remove(k.idle)
		k.idle = nil
	}
	err := errors.Join(k.file.Close(), k.direct.close())
	k.file, k.direct = nil, nil
	p.open--
	if err != nil {
		return fmt.Errorf("close pack %d: %w", k.number, err)
	}
	return nil
}

// release ends the use of a pack.
func (p *packs) release(k *pack) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k.refs--; k.refs > 0 {
		return nil
	}
	if k.gone {
		return p.closeFile(k)
	}
	k.idle = p.idle.PushBack(k)
	return errors.Join(p.trim()...)
}

// create makes pack number, its header and its name durable, and returns it
// open for writing, acquired.
func (p *packs) create(number uint32) (*pack, error) {
	k := &pack{number: number}
	_, _ = rand.Read(k.salt[:])
	f, err := p.fs.OpenReadWrite(p.path(number), writeKind)
	if err != nil {
		return nil, fmt.Errorf("create pack %d: %w", number, err)
	}
	if err := p.initialise(f, number, k.salt); err != nil {
		// Left behind, an empty pack would only be in the way of this number.
		return nil, errors.Join(fmt.Errorf("create pack %d: %w", number, err), f.Close(), p.fs.Remove(p.path(number)))
	}
	k.file, k.refs = f, 1
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known[number] = k
	p.open++
	return k, nil
}

func (p *packs) initialise(f vfs.File, number uint32, s salt) error {
	if _, err := f.WriteAt(encodePackHeader(number, s), 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return syncDir(p.fs, p.dir)
}

// errOldPack says that a pack's version does not have all kinds of records.
var errOldPack = errors.New("casstore: pack of an older version")

// reopen opens an existing pack for writing, acquired. One of an older version gives errOldPack.
func (p *packs) reopen(number uint32) (*pack, error) {
	f, err := p.fs.OpenReadWrite(p.path(number), writeKind)
	if err != nil {
		return nil, fmt.Errorf("open pack %d: %w", number, err)
	}
	head := make([]byte, packHeaderSize)
	n, _ := f.ReadAt(head, 0)
	version, s, err := parsePackHeader(head[:n], number)
	if err == nil && version != packVersion {
		err = errOldPack
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open pack %d: %w", number, err), f.Close())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.known[number]
	if k.file != nil {
		// Somebody reads through the file opened for reading; a new pack object
		// takes over the number, the old one closes with its last reader.
		p.retire(k)
		k = &pack{number: number}
		p.known[number] = k
	}
	k.file, k.salt = f, s
	p.open++
	p.use(k)
	return k, nil
}

// retire lets the file of k be closed as soon as nobody uses it.
func (p *packs) retire(k *pack) {
	k.gone = true
	if k.file != nil && k.refs == 0 {
		_ = p.closeFile(k) // only read from: nothing is lost
	}
}

// remove deletes a pack's file. Those who still read it may finish.
func (p *packs) remove(number uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.known[number]
	if k == nil {
		return nil
	}
	if err := p.fs.Remove(p.path(number)); err != nil {
		return fmt.Errorf("remove pack %d: %w", number, err)
	}
	delete(p.known, number)
	p.retire(k)
	return nil
}

// size returns the length of a pack's file in bytes.
func (p *packs) size(number uint32) (int64, error) {
	fi, err := p.fs.Stat(p.path(number))
	if err != nil {
		return 0, fmt.Errorf("stat pack %d: %w", number, err)
	}
	return fi.Size(), nil
}

// close closes every open pack. Nobody may use one any more.
func (p *packs) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, k := range p.known {
		if k.file != nil {
			errs = append(errs, p.closeFile(k))
		}
	}
	return errors.Join(errs...)
}

// syncDir makes the names in a directory durable.
func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
