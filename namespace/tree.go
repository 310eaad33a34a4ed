package namespace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/foreverfs/forever/internal/kv"
)

// Tree is the replicated tree of one volume, on the state of one device.
type Tree struct {
	db      kv.DB
	author  AuthorID
	repeats bool // merges what another one merged
	meta    meta
	authors map[AuthorID]authorInfo
	sent    map[AuthorID]uint64 // the vector that this author's last batch carried

	pendLo, pendHi uint64 // counters of the pending ops: [pendLo, pendHi)
	cut            cutState
	w              txn // the writer's, kept for its buffers
	fresh          *fresh

	written func(NodeID) bool // see KeepWritten; nil if none is

	gates    gates
	folding  *folding            // under way; nil if none
	worked   map[AuthorID]uint64 // the last batch that was more than acknowledgements, as far as is known
	lastWork uint64              // counter of the last local op that was none
}

// meta is what the state knows of itself.
type meta struct {
	clock     uint64 // the greatest counter applied
	files     uint64 // visible nodes but directories
	dirs      uint64 // visible directories, Root included
	bytes     uint64 // size of all visible contents
	merged    uint64 // directories that are shown as one with others
	conflicts uint64 // things shown under conflict names
	last      AuthorID
}

// authorInfo is what is known of an incarnation.
type authorInfo struct {
	seq     uint64   // batches merged
	last    uint64   // counter of the last op in them
	applied uint64   // greatest counter of its own ops applied, adopted ones included
	pred    AuthorID // only of this device: the incarnation before that published
	device  string   // the device's name, for conflict names
}

// Option adjusts Open.
type Option func(*options)

type options struct {
	device  string
	repeats bool
}

// WithDevice gives the device's name, which conflict names will carry; else
// they carry a part of the author's ID. At most MaxDevice bytes are kept.
func WithDevice(name string) Option { return func(o *options) { o.device = name } }

// Repeating opens a tree that merges only what another one merged before, in whatever
// order: it does not ask whether that may still be taken.
func Repeating() Option { return func(o *options) { o.repeats = true } }

// Open opens the tree in db, which may be empty, for the ops of author: a new
// incarnation at every start. Pending ops found there of earlier incarnations
// stay pending and go out with author's first batch. The caller keeps db and closes it.
func Open(db kv.DB, author AuthorID, opts ...Option) (*Tree, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	t := &Tree{db: db, author: author, repeats: o.repeats, authors: map[AuthorID]authorInfo{}, sent: map[AuthorID]uint64{}, worked: map[AuthorID]uint64{}, fresh: newFresh()}
	if author == (AuthorID{}) {
		return nil, fmt.Errorf("open the tree: no author: %w", ErrInvalidArgument)
	}
	for _, load := range []func() error{t.checkImport, t.loadMeta, t.loadAuthors, t.loadSent, t.loadPending, t.loadGates} {
		if err := load(); err != nil {
			return nil, fmt.Errorf("open the tree: %w", err)
		}
	}
	if err := t.enter(deviceName(o.device, author)); err != nil {
		return nil, fmt.Errorf("enter author %v: %w", author, err)
	}
	return t, nil
}

// enter notes a new incarnation, and makes Root in a new tree.
func (t *Tree) enter(device string) error {
	return t.update(func(x *txn) error {
		if x.meta.dirs == 0 {
			x.meta.dirs = 1
			x.nodes[Root] = &node{id: Root, kind: KindDir, mode: register[uint32]{val: 0o755},
				place: placement{parent: Root}, dirty: true}
		}
		if x.meta.last == t.author {
			return nil
		}
		info := t.authors[t.author]
		info.device = device
		if prev := x.meta.last; prev.sameDevice(t.author) {
			if info.pred = prev; t.authors[prev].seq == 0 {
				info.pred = t.authors[prev].pred
			}
		}
		x.meta.last = t.author
		return x.setAuthor(t.author, info)
	})
}

// KeepWritten sets what says of a file whether something was written to it that did not enter the tree yet. It then is not what it
// seems to be: if it is hidden behind another of the same content, no operation takes it along with that. fn is called
// within operations.
func (t *Tree) KeepWritten(fn func(NodeID) bool) { t.written = fn }

// MaxLamport returns the greatest counter of all ops applied.
func (t *Tree) MaxLamport() uint64 { return t.meta.clock }

// Vector returns how many batches of each author were merged or committed.
func (t *Tree) Vector() map[AuthorID]uint64 {
	v := make(map[AuthorID]uint64, len(t.authors))
	for a, info := range t.authors {
		if info.seq > 0 {
			v[a] = info.seq
		}
	}
	return v
}

// Count returns the number of visible files (everything but directories), of
// visible directories (Root included) and of bytes in the files.
func (t *Tree) Count() (files, dirs, size uint64) {
	return t.meta.files, t.meta.dirs, t.meta.bytes
}

func (t *Tree) loadMeta() error {
	v, err := t.db.Get(key(keyMeta))
	if errors.Is(err, kv.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the tree's counters: %w", err)
	}
	d := decoder{b: v}
	t.meta = meta{clock: d.uvarint(), files: d.uvarint(), dirs: d.uvarint(), bytes: d.uvarint(), merged: d.uvarint(), conflicts: d.uvarint(), last: d.id()}
	return d.err("meta")
}

func (m *meta) append(b []byte) []byte {
	for _, v := range []uint64{m.clock, m.files, m.dirs, m.bytes, m.merged, m.conflicts} {
		b = binary.AppendUvarint(b, v)
	}
	return append(b, m.last[:]...)
}

func (a *authorInfo) append(b []byte) []byte {
	for _, v := range []uint64{a.seq, a.last, a.applied} {
		b = binary.AppendUvarint(b, v)
	}
	return append(append(b, a.pred[:]...), a.device...)
}

func (t *Tree) loadAuthors() error {
	return t.scan(key(keyAuthor), func(k, v []byte) error {
		info, err := decodeAuthor(v)
		t.authors[AuthorID(k)] = info
		if info.seq > 0 {
			t.worked[AuthorID(k)] = info.seq
		}
		return err
	}, 16)
}

func decodeAuthor(v []byte) (authorInfo, error) {
	d := decoder{b: v}
	info := authorInfo{seq: d.uvarint(), last: d.uvarint(), applied: d.uvarint(), pred: d.id()}
	info.device, d.b = string(d.b), nil
	return info, d.err("author")
}

func (t *Tree) loadSent() error {
	return t.scan(vectorKey(t.author, AuthorID{})[:18], func(k, v []byte) error {
		d := decoder{b: v}
		t.sent[AuthorID(k)] = d.uvarint()
		return d.err("vector")
	}, 16)
}

// loadPending finds the pending ops, and how far they bring their authors.
func (t *Tree) loadPending() error {
	return t.scan(key(keyPending), func(k, v []byte) error {
		lamport := binary.BigEndian.Uint64(k)
		if len(v) < 16 || t.pendHi != 0 && lamport != t.pendHi {
			return fmt.Errorf("read pending op %d: %w", lamport, ErrDamaged)
		}
		if t.pendHi == 0 {
			t.pendLo = lamport
		}
		t.pendHi = lamport + 1
		a := AuthorID(v[:16])
		info := t.authors[a]
		info.applied = max(info.applied, lamport)
		t.authors[a] = info
		t.lastWork = lamport
		return nil
	}, 8)
}

// scan calls fn with the rest of every key below prefix, which must be restLen bytes, and its value.
func (t *Tree) scan(prefix []byte, fn func(rest, v []byte) error, restLen int) error {
	var inner error
	err := t.db.Scan(prefix, kv.PrefixEnd(prefix), func(k, v []byte) bool {
		if len(k) != len(prefix)+restLen {
			inner = fmt.Errorf("read key %x: %w", k, ErrDamaged)
			return false
		}
		inner = fn(bytes.Clone(k[len(prefix):]), bytes.Clone(v))
		return inner == nil
	})
	return errors.Join(inner, err)
}
