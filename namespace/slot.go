package namespace

import (
	"encoding/binary"
	"slices"
)

// slotEntry is one live entry of a slot.
type slotEntry struct {
	id      EntryID
	node    NodeID
	kind    Kind
	time    int64 // of the op that made it, for its conflict name
	demoted OpID  // the first op by which it keeps its conflict name for good; zero if none
	merged  bool  // of a directory: it is shown as one with others
}

// alias shows, under a conflict name, an entry that belongs to another slot of the directory.
type alias struct {
	slot string
	id   EntryID
	node NodeID
	kind Kind
}

// slot is the record of a name in a directory. own is ascending by entry,
// aliases by entry.
type slot struct {
	own     []slotEntry
	aliases []alias
	dirty   bool
}

// winner returns the entry that the slot's own name shows: the greatest that was not demoted.
func (s *slot) winner() *slotEntry {
	for i := len(s.own) - 1; i >= 0; i-- {
		if s.own[i].demoted.IsZero() {
			return &s.own[i]
		}
	}
	return nil
}

func (s *slot) holds(n NodeID) bool {
	return slices.ContainsFunc(s.own, func(e slotEntry) bool { return e.node == n })
}

// add reports whether the entry was not there.
func (s *slot) add(e slotEntry) bool {
	i, found := slices.BinarySearchFunc(s.own, e.id, func(o slotEntry, id EntryID) int { return o.id.Compare(id) })
	if !found {
		s.own = slices.Insert(s.own, i, e)
	}
	return !found
}

func (s *slot) remove(id EntryID) (slotEntry, bool) {
	i, found := slices.BinarySearchFunc(s.own, id, func(o slotEntry, id EntryID) int { return o.id.Compare(id) })
	if !found {
		return slotEntry{}, false
	}
	e := s.own[i]
	s.own = slices.Delete(s.own, i, i+1)
	return e, true
}

// shown is what a name in a directory leads to.
type shown struct {
	slot   string // that holds the entry; not the name itself for a conflict name
	id     EntryID
	node   NodeID
	kind   Kind
	merged bool // a directory that is shown as one with others
}

const (
	slotEntrySize = entryIDSize + 16 + 1 + 8
	aliasSize     = 1 + entryIDSize + 16 + 1
	demotedBit    = 0x80
	mergedBit     = 0x40
)

func (s *slot) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(s.own)))
	for i := range s.own {
		e := &s.own[i]
		b = append(e.id.Append(b), e.node[:]...)
		k := byte(e.kind)
		if !e.demoted.IsZero() {
			k |= demotedBit
		}
		if e.merged {
			k |= mergedBit
		}
		b = appendI64(append(b, k), e.time)
		if k&demotedBit != 0 {
			b = e.demoted.Append(b)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(s.aliases)))
	for i := range s.aliases {
		a := &s.aliases[i]
		b = a.id.Append(appendBytes(b, a.slot))
		b = append(append(b, a.node[:]...), byte(a.kind))
	}
	return b
}

// decodeSlot reads what append wrote, into the memory of s.own as far as that is enough.
func decodeSlot(b []byte, s *slot) error {
	d := decoder{b: b}
	if k := d.count(slotEntrySize); k > 0 {
		s.own = slices.Grow(s.own[:0], k)[:k]
		for i := range s.own {
			e := &s.own[i]
			*e = slotEntry{}
			e.id, e.node = d.entry(), d.id()
			k := d.u8()
			e.kind, e.merged, e.time = Kind(k&^(demotedBit|mergedBit)), k&mergedBit != 0, d.i64()
			if k&demotedBit != 0 {
				e.demoted = d.op()
			}
		}
	}
	if k := d.count(aliasSize); k > 0 {
		s.aliases = make([]alias, k)
		for i := range s.aliases {
			s.aliases[i] = alias{slot: string(d.bytes()), id: d.entry(), node: d.id(), kind: Kind(d.u8())}
		}
	}
	return d.err("slot")
}
