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
	demoted bool  // it keeps its conflict name for good
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
		if !s.own[i].demoted {
			return &s.own[i]
		}
	}
	return nil
}

// losers returns the entries shown under conflict names: one for each node other than the winner.
func (s *slot) losers() []slotEntry {
	if len(s.own) == 0 || len(s.own) == 1 && !s.own[0].demoted {
		return nil
	}
	var out []slotEntry
	w := s.winner()
	for i := len(s.own) - 1; i >= 0; i-- {
		e := s.own[i]
		if w != nil && e.node == w.node || slices.ContainsFunc(out, func(o slotEntry) bool { return o.node == e.node }) {
			continue
		}
		out = append(out, e)
	}
	return out
}

func (s *slot) holds(n NodeID) bool {
	return slices.ContainsFunc(s.own, func(e slotEntry) bool { return e.node == n })
}

// entriesOf returns the IDs of all own entries of a node.
func (s *slot) entriesOf(n NodeID) (ids []EntryID) {
	for _, e := range s.own {
		if e.node == n {
			ids = append(ids, e.id)
		}
	}
	return ids
}

func (s *slot) add(e slotEntry) {
	i, found := slices.BinarySearchFunc(s.own, e.id, func(o slotEntry, id EntryID) int { return o.id.Compare(id) })
	if !found {
		s.own = slices.Insert(s.own, i, e)
	}
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
	slot string // that holds the entry; not the name itself for a conflict name
	id   EntryID
	node NodeID
	kind Kind
}

// resolve returns what the name of the slot shows, if anything: its winner, or
// else a conflict name that is spelled the same.
func (s *slot) resolve(name string) (shown, bool) {
	if w := s.winner(); w != nil {
		return shown{name, w.id, w.node, w.kind}, true
	}
	if k := len(s.aliases); k > 0 {
		a := s.aliases[k-1]
		return shown(a), true
	}
	return shown{}, false
}

const (
	slotEntrySize = entryIDSize + 16 + 1 + 8
	aliasSize     = 1 + entryIDSize + 16 + 1
	demotedBit    = 0x80
)

func (s *slot) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(s.own)))
	for i := range s.own {
		e := &s.own[i]
		b = append(e.id.Append(b), e.node[:]...)
		k := byte(e.kind)
		if e.demoted {
			k |= demotedBit
		}
		b = appendI64(append(b, k), e.time)
	}
	b = binary.AppendUvarint(b, uint64(len(s.aliases)))
	for i := range s.aliases {
		a := &s.aliases[i]
		b = a.id.Append(appendBytes(b, a.slot))
		b = append(append(b, a.node[:]...), byte(a.kind))
	}
	return b
}

func decodeSlot(b []byte, s *slot) error {
	d := decoder{b: b}
	if k := d.count(slotEntrySize); k > 0 {
		s.own = make([]slotEntry, k)
		for i := range s.own {
			e := &s.own[i]
			e.id, e.node = d.entry(), d.id()
			k := d.u8()
			e.kind, e.demoted, e.time = Kind(k&^demotedBit), k&demotedBit != 0, d.i64()
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
