package namespace

import "encoding/binary"

// The kinds of key; each begins with 't' and one of these bytes.
const (
	keyMeta     = 'M' // -> meta
	keyAuthor   = 'a' // author -> authorInfo
	keyBatch    = 'b' // author, seq -> counter of the batch's last op
	keyVector   = 'v' // author, other author -> seq the author had seen of the other
	keyAdopted  = 'o' // author, adopting author, seq -> greatest counter adopted
	keyPending  = 'p' // counter -> author, op
	keyNode     = 'n' // node -> node record
	keySlot     = 'e' // directory, name -> slot record
	keyXattr    = 'x' // node, name -> xattr record
	keyTomb     = 't' // node, entry -> tomb record
	keyMove     = 'm' // op -> move record
	keyDemotion = 'y' // directory, entry, name -> nothing
	keyPlace    = 'r' // node, entry -> place, for files with many entries
	keyPast     = 'h' // node, content op -> content that was replaced
	keyDead     = 'd' // directory, name, 0, entry -> what a removal ended
	keyHead     = 'f' // node a content would be -> where it is shown
	keyConflict = 'c' // directory, name, 0, entry -> nothing: shown under a conflict name
	keyPromise  = 'g' // device -> horizon; device, author -> seq: what the device promised
	keyClaim    = 'u' // device, author -> seq: what the device had seen for good
	keyHeir     = 's' // author, incarnation that knew it -> seq of the batch that first did; 0, 0 once that is folded
	keyFolded   = 'F' // nothing -> horizon; author -> seq: what the state is folded to
	keyGivenUp  = 'z' // author of this device -> nothing: its work was carried over (Rebase)
	keyImport   = 'I' // nothing: an import began and did not end
)

// ReadAgain reports of a key of the state whether looking up or opening a file reads it: a program that has just made files often goes on to.
func ReadAgain(key string) bool {
	return len(key) > 1 && key[0] == 't' && (key[1] == keyNode || key[1] == keySlot)
}

func key(kind byte, parts ...[]byte) []byte {
	k := append(make([]byte, 0, 64), 't', kind)
	for _, p := range parts {
		k = append(k, p...)
	}
	return k
}

func nodeKey(id NodeID) []byte { return append(append(make([]byte, 0, 18), 't', keyNode), id[:]...) }

func slotKey(dir NodeID, name string) []byte {
	k := append(make([]byte, 0, 19+len(name)), 't', keySlot)
	return append(append(k, dir[:]...), name...)
}

func xattrKey(id NodeID, name string) []byte {
	return append(key(keyXattr, id[:]), name...)
}

func tombKey(id NodeID, e EntryID) []byte { return e.Append(key(keyTomb, id[:])) }

func moveKey(o OpID) []byte { return o.Append(key(keyMove)) }

func demotionKey(dir NodeID, name string, e EntryID) []byte {
	return append(e.Append(key(keyDemotion, dir[:])), name...)
}

func placeKey(id NodeID, e EntryID) []byte { return e.Append(key(keyPlace, id[:])) }

func pastKey(id NodeID, o OpID) []byte { return o.Append(key(keyPast, id[:])) }

func headKey(id NodeID) []byte { return key(keyHead, id[:]) }

func deadKey(dir NodeID, name string, e EntryID) []byte {
	return e.Append(append(append(key(keyDead, dir[:]), name...), 0))
}

func conflictKey(dir NodeID, name string, e EntryID) []byte {
	return e.Append(append(append(key(keyConflict, dir[:]), name...), 0))
}

func authorKey(a AuthorID) []byte { return key(keyAuthor, a[:]) }

func vectorKey(a, of AuthorID) []byte { return key(keyVector, a[:], of[:]) }

func batchKey(a AuthorID, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(key(keyBatch, a[:]), seq)
}

func adoptedKey(a, by AuthorID, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(key(keyAdopted, a[:], by[:]), seq)
}

func claimKey(d Device) []byte { return key(keyClaim, d[:]) }

func horizonKey(d Device) []byte { return key(keyPromise, d[:]) }

func heirKey(a, by AuthorID) []byte { return key(keyHeir, a[:], by[:]) }

func pendingKey(lamport uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 10), 't', keyPending), lamport)
}
