package namespace

import (
	"encoding/binary"
	"slices"
)

// register is a value that the greatest op decides.
type register[T any] struct {
	val T
	op  OpID
}

// set takes val unless a greater op has set the register.
func (r *register[T]) set(op OpID, val T) bool {
	if op.Compare(r.op) < 0 {
		return false
	}
	r.val, r.op = val, op
	return true
}

// placement is where a directory lies.
type placement struct {
	parent NodeID
	name   string
	id     EntryID
	time   int64
}

// node is the record of a node.
type node struct {
	id      NodeID
	kind    Kind
	created OpID
	mode    register[uint32]
	uid     register[uint32]
	gid     register[uint32]
	atime   register[int64]
	mtime   register[int64]
	ctime   register[int64]
	btime   int64
	rdev    uint32
	// rev counts the ops that keep the node alive: content for a file; for a
	// directory its moves, what was placed in it, and Keep.
	rev uint64

	target string    // of a symlink
	heads  []Content // of a file, ascending by op
	links  uint64    // of all but directories: slots that hold it
	tombs  uint64    // of all but directories: removed entries that an unknown edit would bring back
	// entries counts the live entries of all but directories; homes is where
	// they are, oldest first, if they are few.
	entries uint64
	homes   []place

	place    placement       // of a directory
	removed  bool            // of a directory: a removal knew all that keeps it alive
	removal  register[int64] // of a removed directory: the greatest removal and its time
	children uint64          // of a directory: nodes in its slots
	subdirs  uint64          // of a directory: directories among them, but for those shown as a part of another
	// class has all directories that this one is shown as one with, oldest first; nil if it stands alone.
	class []NodeID

	dirty bool
}

// attached reports whether a directory is in its parent's slot: it was not
// removed, or it was and something in it lives on.
func (n *node) attached() bool { return !n.removed || n.children > 0 }

// size returns the size of the visible content, in bytes.
func (n *node) size() uint64 {
	if len(n.heads) == 0 {
		return 0
	}
	return uint64(n.heads[len(n.heads)-1].Size)
}

// public returns what the outside sees of n.
func (n *node) public() Node {
	p := Node{ID: n.id, Kind: n.kind, Mode: n.mode.val, UID: n.uid.val, GID: n.gid.val, Rdev: n.rdev,
		Atime: n.atime.val, Mtime: n.mtime.val, Ctime: n.ctime.val, Btime: n.btime, Target: n.target, Nlink: uint32(n.links)}
	if n.kind == KindDir {
		p.Parent = n.place.parent
		if n.attached() {
			p.Nlink = uint32(2 + n.subdirs)
		}
	}
	if k := len(n.heads); k > 0 {
		p.Content = n.heads[k-1]
		if k > 1 {
			p.Heads = slices.Clone(n.heads)
			slices.Reverse(p.Heads)
		}
	}
	return p
}

// stamps collects the ops of a record's registers, each once.
type stamps struct {
	ops []OpID
	buf [7]OpID
}

func (s *stamps) index(o OpID) byte {
	if i := slices.Index(s.ops, o); i >= 0 {
		return byte(i)
	}
	s.ops = append(s.ops, o)
	return byte(len(s.ops) - 1)
}

const nodeRecordVersion = 2

// append appends the record of n.
func (n *node) append(b []byte) []byte {
	var s stamps
	s.ops = s.buf[:0]
	idx := [7]byte{s.index(n.created), s.index(n.mode.op), s.index(n.uid.op), s.index(n.gid.op),
		s.index(n.atime.op), s.index(n.mtime.op), s.index(n.ctime.op)}
	b = append(b, nodeRecordVersion, byte(n.kind), byte(len(s.ops)))
	for _, o := range s.ops {
		b = o.Append(b)
	}
	b = append(b, idx[:]...)
	for _, v := range []uint32{n.mode.val, n.uid.val, n.gid.val, n.rdev} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	for _, v := range []int64{n.atime.val, n.mtime.val, n.ctime.val, n.btime} {
		b = appendI64(b, v)
	}
	b = binary.AppendUvarint(b, n.rev)
	if n.kind == KindDir {
		return n.appendDir(b)
	}
	b = binary.AppendUvarint(b, n.links)
	b = binary.AppendUvarint(b, n.tombs)
	b = binary.AppendUvarint(b, n.entries)
	for i := range n.homes {
		b = n.homes[i].append(b)
	}
	b = appendBytes(b, n.target)
	b = binary.AppendUvarint(b, uint64(len(n.heads)))
	for i := range n.heads {
		b = appendContent(b, &n.heads[i])
	}
	return b
}

func (n *node) appendDir(b []byte) []byte {
	b = append(b, n.place.parent[:]...)
	b = appendBytes(b, n.place.name)
	b = n.place.id.Append(b)
	b = appendI64(b, n.place.time)
	removed := byte(0)
	if n.removed {
		removed = 1
	}
	b = append(b, removed)
	if n.removed {
		b = appendI64(n.removal.op.Append(b), n.removal.val)
	}
	b = binary.AppendUvarint(b, n.children)
	b = binary.AppendUvarint(b, n.subdirs)
	b = binary.AppendUvarint(b, uint64(len(n.class)))
	for i := range n.class {
		b = append(b, n.class[i][:]...)
	}
	return b
}

// decodeNode reads the record of id. The node keeps nothing of b.
func decodeNode(id NodeID, b []byte, n *node) error {
	d := decoder{b: b}
	if d.u8() != nodeRecordVersion {
		d.bad = true
	}
	n.id, n.kind = id, Kind(d.u8())
	var ops [7]OpID
	count := int(d.u8())
	if count == 0 || count > len(ops) {
		d.bad = true
	}
	for i := 0; i < count && !d.bad; i++ {
		ops[i] = d.op()
	}
	for _, p := range []*OpID{&n.created, &n.mode.op, &n.uid.op, &n.gid.op, &n.atime.op, &n.mtime.op, &n.ctime.op} {
		*p = ops[d.u8()%7]
	}
	for _, p := range []*uint32{&n.mode.val, &n.uid.val, &n.gid.val, &n.rdev} {
		*p = uint32(d.uvarint())
	}
	for _, p := range []*int64{&n.atime.val, &n.mtime.val, &n.ctime.val, &n.btime} {
		*p = d.i64()
	}
	n.rev = d.uvarint()
	if n.kind == KindDir {
		n.place = placement{parent: d.id(), name: string(d.bytes()), id: d.entry(), time: d.i64()}
		if n.removed = d.u8() != 0; n.removed {
			n.removal.op, n.removal.val = d.op(), d.i64()
		}
		n.children, n.subdirs = d.uvarint(), d.uvarint()
		if k := d.count(16); k > 0 {
			n.class = make([]NodeID, k)
			for i := range n.class {
				n.class[i] = d.id()
			}
		}
		return d.err("node")
	}
	if n.links, n.tombs, n.entries = d.uvarint(), d.uvarint(), d.uvarint(); n.entries > 0 && n.entries <= maxHomes {
		n.homes = make([]place, n.entries)
		for i := range n.homes {
			n.homes[i] = d.place()
		}
	}
	n.target = string(d.bytes())
	if k := d.count(opIDSize); k > 0 {
		n.heads = make([]Content, k)
		for i := range n.heads {
			n.heads[i] = d.content()
		}
	}
	return d.err("node")
}
