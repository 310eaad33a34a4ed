package namespace

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"github.com/foreverfs/forever/internal/kv"
)

const (
	// maxRecordKey and maxRecord bound a record of an import, in bytes.
	maxRecordKey = 512
	maxRecord    = 16 << 20
	// importSize and importCount are where an update of an import ends, in bytes and records.
	importSize  = 1 << 20
	importCount = 8192
)

// Import fills an empty state with what Export wrote, to be opened as a tree.
// It trusts nothing: what is not whole, not in order or not what it should be gives
// ErrDamaged. Until it has come to its end the state is no tree (ErrUnfinished); another Import begins anew.
// It works in updates of some MiB and does not sync. A state that has a tree gives ErrExist.
func Import(db kv.DB, r io.Reader) error {
	if err := clearImport(db); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	m := &importer{db: db, r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	if err := m.run(); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	return nil
}

// IsEmpty reports whether a state has no tree yet. One that an import left unfinished has none.
func IsEmpty(r kv.Reader) (bool, error) {
	_, err := r.Get(key(keyMeta))
	if errors.Is(err, kv.ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for a tree: %w", err)
	}
	return false, nil
}

// checkImport refuses a state in which an import began and did not end.
func (t *Tree) checkImport() error {
	_, err := t.db.Get(key(keyImport))
	switch {
	case errors.Is(err, kv.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("look for an import: %w", err)
	}
	return ErrUnfinished
}

// clearImport takes away what an earlier import left, and says that one begins.
func clearImport(db kv.DB) error {
	_, err := db.Get(key(keyImport))
	if errors.Is(err, kv.ErrNotFound) {
		used, err := anyKey(db, []byte{'t'})
		if used {
			err = errors.Join(ErrExist, err)
		}
		if err != nil {
			return err
		}
		return db.Update(func(tx kv.Tx) error { return tx.Put(key(keyImport), nil) })
	}
	for left := true; left && err == nil; {
		err = db.Update(func(tx kv.Tx) (err error) {
			left, err = clearSome(tx)
			return err
		})
	}
	return err
}

// clearSome deletes some records of the tree, but not that an import began.
func clearSome(tx kv.Tx) (more bool, err error) {
	var keys [][]byte
	prefix := []byte{'t'}
	if err := tx.Scan(prefix, kv.PrefixEnd(prefix), func(k, _ []byte) bool {
		if !bytes.Equal(k, key(keyImport)) {
			keys = append(keys, bytes.Clone(k))
		}
		return len(keys) < importCount
	}); err != nil {
		return false, err
	}
	for _, k := range keys {
		if err := tx.Delete(k); err != nil {
			return false, err
		}
	}
	return len(keys) > 0, nil
}

// importer is an import on its way.
type importer struct {
	db    kv.DB
	r     *bufio.Reader
	sum   hash.Hash
	count uint64
	last  []byte // the key before
	value bytes.Buffer
	meta  meta
}

func (m *importer) run() error {
	magic := make([]byte, len(exportMagic))
	if err := m.read(magic); err != nil {
		return err
	}
	if string(magic) != exportMagic {
		return fmt.Errorf("no export of a known version: %w", ErrDamaged)
	}
	for more := true; more; {
		err := m.db.Update(func(tx kv.Tx) (err error) {
			more, err = m.some(tx)
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := m.end(); err != nil {
		return err
	}
	if err := m.checkDirs(); err != nil {
		return err
	}
	if err := m.checkEntries(); err != nil {
		return err
	}
	return m.db.Update(func(tx kv.Tx) error {
		return errors.Join(tx.Put(key(keyMeta), m.meta.append(nil)), tx.Delete(key(keyImport)))
	})
}

// read reads and sums up.
func (m *importer) read(b []byte) error {
	if _, err := io.ReadFull(m.r, b); err != nil {
		return cutShort(err)
	}
	m.sum.Write(b)
	return nil
}

func cutShort(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("cut short: %w", ErrDamaged)
	}
	return fmt.Errorf("read: %w", err)
}

// number reads a number that must be written as short as can be, at most max.
func (m *importer) number(max uint64) (uint64, error) {
	var b []byte
	for len(b) == 0 || b[len(b)-1] >= 0x80 {
		c, err := m.r.ReadByte()
		if err != nil {
			return 0, cutShort(err)
		}
		if b = append(b, c); len(b) > binary.MaxVarintLen64 {
			return 0, fmt.Errorf("number too long: %w", ErrDamaged)
		}
	}
	v, n := binary.Uvarint(b)
	if n != len(b) || n > 1 && b[n-1] == 0 || v > max {
		return 0, fmt.Errorf("impossible number: %w", ErrDamaged)
	}
	m.sum.Write(b)
	return v, nil
}

// some takes the records of one update.
func (m *importer) some(tx kv.Tx) (more bool, err error) {
	for n, size := 0, 0; n < importCount && size < importSize; n++ {
		length, err := m.number(maxRecordKey)
		if err != nil || length == 0 {
			return false, err
		}
		k := append(make([]byte, 0, length+1), 't')
		k = k[:length+1]
		if err := m.read(k[1:]); err != nil {
			return false, err
		}
		if length, err = m.number(maxRecord); err != nil {
			return false, err
		}
		m.value.Reset() // grows with what really comes
		if _, err := io.CopyN(io.MultiWriter(&m.value, m.sum), m.r, int64(length)); err != nil {
			return false, cutShort(err)
		}
		if err := m.record(k, m.value.Bytes()); err != nil {
			return false, err
		}
		if err := tx.Put(k, m.value.Bytes()); err != nil {
			return false, err
		}
		size += len(k) + m.value.Len()
	}
	return true, nil
}

// record checks one record and counts it.
func (m *importer) record(k, v []byte) error {
	if bytes.Compare(k, m.last) <= 0 {
		return fmt.Errorf("records out of order: %w", ErrDamaged)
	}
	m.last, m.count = k, m.count+1
	check, ok := recordChecks[k[1]]
	if !ok {
		return fmt.Errorf("record of kind %q: %w", k[1], ErrDamaged)
	}
	if err := check(m, k[2:], v); err != nil {
		return fmt.Errorf("record %x: %w: %w", k, ErrDamaged, err)
	}
	return nil
}

// end checks what comes after the records.
func (m *importer) end() error {
	count, err := m.number(1 << 62)
	if err != nil {
		return err
	}
	sum := m.sum.Sum(nil)
	got := make([]byte, len(sum))
	if err := m.read(got); err != nil {
		return err
	}
	if count != m.count || !bytes.Equal(sum, got) {
		return fmt.Errorf("wrong sum: %w", ErrDamaged)
	}
	if _, err := m.r.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.Join(err, fmt.Errorf("goes on after its end: %w", ErrDamaged))
	}
	return nil
}

// knownDirs is how many directories checkDirs remembers.
const knownDirs = 1 << 16

// checkDirs makes sure that every directory lies below the root: who climbs must arrive.
func (m *importer) checkDirs() error {
	good := map[NodeID]bool{Root: true}
	if err := m.checkRoot(); err != nil {
		return err
	}
	prefix := key(keyNode)
	var inner error
	err := m.db.Scan(prefix, kv.PrefixEnd(prefix), func(k, v []byte) bool {
		if len(v) > 1 && Kind(v[1]) == KindDir {
			inner = m.climb(NodeID(k[2:]), good)
			inner = errors.Join(inner, m.checkClass(NodeID(k[2:])))
		}
		if len(good) > knownDirs {
			good = map[NodeID]bool{Root: true}
		}
		return inner == nil
	})
	return errors.Join(inner, err)
}

func (m *importer) checkRoot() error {
	n, err := m.dir(Root)
	if err == nil && (n.place.parent != Root || n.removed || !n.created.IsZero()) {
		err = fmt.Errorf("no root: %w", ErrDamaged)
	}
	return err
}

func (m *importer) dir(id NodeID) (n node, err error) {
	v, err := m.db.Get(nodeKey(id))
	if errors.Is(err, kv.ErrNotFound) {
		return n, fmt.Errorf("directory %v is missing: %w", id, ErrDamaged)
	}
	if err != nil {
		return n, fmt.Errorf("read directory %v: %w", id, err)
	}
	if err = decodeNode(id, v, &n); err == nil && n.kind != KindDir {
		err = fmt.Errorf("node %v is no directory: %w", id, ErrDamaged)
	}
	return n, err
}

func (m *importer) climb(id NodeID, good map[NodeID]bool) error {
	on := map[NodeID]bool{}
	for !good[id] {
		if on[id] {
			return fmt.Errorf("directory %v lies below itself: %w", id, ErrDamaged)
		}
		on[id] = true
		n, err := m.dir(id)
		if err != nil {
			return err
		}
		id = n.place.parent
	}
	for id := range on {
		good[id] = true
	}
	return nil
}

// checkClass makes sure that all members of a directory's class say the same,
// and lie under one name in directories that are of one class.
func (m *importer) checkClass(id NodeID) error {
	n, err := m.dir(id)
	if err != nil || len(n.class) == 0 {
		return err
	}
	if len(n.class) == 1 || !slices.Contains(n.class, id) || id == Root {
		return fmt.Errorf("directory %v is of an impossible class: %w", id, ErrDamaged)
	}
	parent, err := m.dir(n.place.parent)
	if err != nil {
		return err
	}
	other, err := m.dir(n.class[0])
	if err != nil {
		return err
	}
	if !slices.Equal(other.class, n.class) || other.place.name != n.place.name || !slices.Contains(parent.members(), other.place.parent) {
		return fmt.Errorf("directory %v is of a class that others do not know: %w", id, ErrDamaged)
	}
	return nil
}

// checkEntries makes sure that entries lead to what is there, and to
// directories only where those lie: who descends must arrive as well.
func (m *importer) checkEntries() error {
	prefix := key(keySlot)
	var inner error
	err := m.db.Scan(prefix, kv.PrefixEnd(prefix), func(k, v []byte) bool {
		var s slot
		if inner = decodeSlot(v, &s); inner != nil {
			return false
		}
		dir, name := NodeID(k[2:18]), string(k[18:])
		for i := range s.own {
			e := &s.own[i]
			inner = errors.Join(inner, m.checkEntry(dir, name, e.node, e.kind, e.id, true))
		}
		for i := range s.aliases {
			a := &s.aliases[i]
			inner = errors.Join(inner, m.checkEntry(dir, a.slot, a.node, a.kind, a.id, false))
		}
		return inner == nil
	})
	return errors.Join(inner, err)
}

func (m *importer) checkEntry(dir NodeID, name string, id NodeID, kind Kind, e EntryID, own bool) error {
	if e.Index == headIndex && !own { // a content, no node
		return damaged(kind == KindFile)
	}
	v, err := m.db.Get(nodeKey(id))
	if errors.Is(err, kv.ErrNotFound) || err == nil && (len(v) < 2 || Kind(v[1]) != kind) {
		return fmt.Errorf("%q in %v leads to what is not there: %w", name, dir, ErrDamaged)
	}
	if err != nil {
		return fmt.Errorf("read node %v: %w", id, err)
	}
	if kind != KindDir {
		return nil
	}
	n, err := m.dir(id)
	if err != nil {
		return err
	}
	d, err := m.dir(dir)
	if err != nil {
		return err
	}
	if n.place.name != name || own && (n.place.parent != dir || n.place.id != e) || !slices.Contains(d.members(), n.place.parent) {
		return fmt.Errorf("%q in %v leads to a directory that lies elsewhere: %w", name, dir, ErrDamaged)
	}
	return nil
}

// recordChecks decode the rest of a key and its value.
var recordChecks = map[byte]func(m *importer, k, v []byte) error{
	keyFolded:   func(_ *importer, k, v []byte) error { return checkPoint(k, v) },
	keyPromise:  checkPromise,
	keyClaim:    numbered(24),
	keyAuthor:   checkAuthor,
	keyBatch:    numbered(24),
	keyVector:   numbered(32),
	keyHeir:     numbered(32),
	keyAdopted:  numbered(40),
	keyConflict: checkConflictKey,
	keyDead:     checkDead,
	keySlot:     checkSlot,
	keyHead:     checkHead,
	keyPast:     checkPastRecord,
	keyMove:     checkMove,
	keyNode:     checkNode,
	keyPlace:    checkPlace,
	keyTomb:     checkTomb,
	keyXattr:    checkXattrRecord,
	keyDemotion: checkDemotion,
}

func damaged(ok bool) error {
	if !ok {
		return ErrDamaged
	}
	return nil
}

// numbered checks records that have a number under IDs.
func numbered(size int) func(*importer, []byte, []byte) error {
	return func(_ *importer, k, v []byte) error {
		d := decoder{b: v}
		d.uvarint()
		return errors.Join(damaged(len(k) == size), d.err("number"))
	}
}

func checkPoint(k, v []byte) error {
	d := decoder{b: v}
	switch len(k) {
	case 0:
		if horizon, now := d.i64(), d.i64(); horizon < 0 || now < 0 {
			return ErrDamaged
		}
	case 16:
		d.uvarint()
	default:
		return ErrDamaged
	}
	return d.err("point")
}

func checkPromise(_ *importer, k, v []byte) error {
	if len(k) < 8 {
		return ErrDamaged
	}
	return checkPoint(k[8:], v)
}

func checkAuthor(m *importer, k, v []byte) error {
	info, err := decodeAuthor(v)
	if err != nil || len(k) != 16 {
		return errors.Join(err, ErrDamaged)
	}
	m.meta.clock = max(m.meta.clock, info.last, info.applied)
	if m.meta.clock > 1<<63 || info.pred != (AuthorID{}) {
		return ErrDamaged
	}
	// A blank at the end was kept once, where a name was cut.
	if info.device != "" && strings.TrimSpace(info.device) != deviceName(info.device, AuthorID(k)) {
		return ErrDamaged
	}
	return nil
}

// named splits a key of a directory, a name, 0 and an entry.
func named(k []byte) (name string, err error) {
	at := len(k) - entryIDSize - 1
	if at < 16 || k[at] != 0 {
		return "", ErrDamaged
	}
	name = string(k[16:at])
	return name, checkName(name)
}

func checkConflictKey(m *importer, k, v []byte) error {
	m.meta.conflicts++
	_, err := named(k)
	return errors.Join(err, damaged(len(v) == 0))
}

func checkDead(_ *importer, k, v []byte) error {
	_, err := named(k)
	return errors.Join(err, damaged(len(v) == 17 && Kind(v[16]).valid()))
}

func checkSlot(_ *importer, k, v []byte) error {
	if len(k) < 16 {
		return ErrDamaged
	}
	var s slot
	if err := errors.Join(checkName(string(k[16:])), decodeSlot(v, &s)); err != nil {
		return err
	}
	ok := len(s.own)+len(s.aliases) > 0 &&
		slices.IsSortedFunc(s.own, func(a, b slotEntry) int { return a.id.Compare(b.id) }) &&
		slices.IsSortedFunc(s.aliases, func(a, b alias) int { return a.id.Compare(b.id) })
	for i := range s.own {
		ok = ok && s.own[i].kind.valid()
	}
	for i := range s.aliases {
		ok = ok && s.aliases[i].kind.valid() && checkName(s.aliases[i].slot) == nil
	}
	return damaged(ok)
}

func checkHead(_ *importer, k, v []byte) error {
	c, err := decodeConflict(v)
	return errors.Join(err, damaged(len(k) == 16), checkName(c.under), checkName(c.slot))
}

func checkContent(d *decoder) error {
	c := d.content()
	return errors.Join(damaged(!d.bad), checkVersion(&c.Version))
}

func checkPastRecord(_ *importer, k, v []byte) error {
	d := decoder{b: v}
	return errors.Join(damaged(len(k) == 16+opIDSize), checkContent(&d), d.err("content"))
}

func checkMove(_ *importer, k, v []byte) error {
	id, ok := parseOpID(k)
	r, err := decodeMoveRecord(id, v)
	for i := 0; err == nil && i < len(r.moves); i++ {
		err = checkName(r.moves[i].to.name)
	}
	return errors.Join(err, damaged(ok))
}

func checkNode(m *importer, k, v []byte) error {
	if len(k) != 16 {
		return ErrDamaged
	}
	var n node
	if err := decodeNode(NodeID(k), v, &n); err != nil {
		return err
	}
	if n.kind == KindDir {
		if n.id != Root && checkName(n.place.name) != nil {
			return ErrDamaged
		}
		if n.attached() && !n.shadow() {
			m.meta.dirs++
		}
		m.meta.merged += uint64(b2i(len(n.class) > 0))
	} else if n.links > 0 {
		m.meta.files++
		m.meta.bytes += n.size()
	}
	for i := range n.heads {
		if err := checkVersion(&n.heads[i].Version); err != nil {
			return err
		}
	}
	for i := range n.homes {
		if err := checkName(n.homes[i].name); err != nil {
			return err
		}
	}
	return checkSpec(n.kind, n.mode.val, n.rdev, n.target)
}

func checkPlace(_ *importer, k, v []byte) error {
	d := decoder{b: v}
	p := d.place()
	return errors.Join(d.err("place"), damaged(len(k) == 16+entryIDSize), checkName(p.name))
}

func checkTomb(_ *importer, k, v []byte) error {
	t, err := decodeTomb(v)
	return errors.Join(err, damaged(len(k) == 16+entryIDSize && len(t.kills) > 0), checkName(t.name))
}

func checkXattrRecord(_ *importer, k, v []byte) error {
	if len(k) < 16 {
		return ErrDamaged
	}
	a, err := decodeXattr(v)
	return errors.Join(err, checkXattrName(string(k[16:])), damaged(len(a.value) <= MaxXattrValue))
}

func checkDemotion(_ *importer, k, v []byte) error {
	if len(k) < 16+entryIDSize {
		return ErrDamaged
	}
	return errors.Join(checkName(string(k[16+entryIDSize:])), damaged(len(v) == opIDSize))
}
