package namespace

import "github.com/foreverfs/forever/chunk"

// Limits of what a tree takes, locally and from others.
const (
	MaxName       = 255       // bytes of a name
	MaxTarget     = 4095      // bytes of a symlink's target
	MaxXattrName  = 255       // bytes of an extended attribute's name
	MaxXattrValue = 64 << 10  // bytes of its value
	MaxInline     = 64 << 10  // bytes of content inside an op
	MaxLinks      = 65000     // names of one file, for local operations
	MaxDevice     = 64        // bytes of a device's name in conflict names
	MaxBatchOps   = 65536     // ops in one batch
	maxSteps      = 200       // directories that one op moves
	MaxOp         = 256 << 10 // bytes of one op
	MaxPayload    = 16 << 20  // bytes of one batch
)

// modeBits are the bits of Mode: permissions, set-id and sticky.
const modeBits = 0o7777

// Node is what the tree knows of a node. Times are Unix nanoseconds.
type Node struct {
	ID    NodeID
	Kind  Kind
	Mode  uint32 // 07777
	UID   uint32
	GID   uint32
	Rdev  uint32
	Nlink uint32 // visible names; for a directory 2 and its subdirectories, 0 once removed
	// Parent is the directory that holds a directory; Root's is Root itself.
	Parent NodeID
	Atime  int64
	Mtime  int64
	Ctime  int64
	Btime  int64
	Target string // of a symlink
	// Content is the visible content of a file; its ID is zero if nothing was ever written.
	Content Content
	// Heads has all contents that no later one replaced, the visible one
	// first, if there are several: others wrote without knowing of each other. Else nil.
	Heads []Content
}

// Content is one version of a file's content. Inline must not be changed.
type Content struct {
	ID OpID
	chunk.Version
	Mtime int64 // of the file, Unix ns
	Time  int64 // when it was published, by its author's clock, Unix ns
}

// Entry is a name in a directory.
type Entry struct {
	Name string
	Node NodeID
	Kind Kind
	ID   EntryID
}

// Changes says what a merge changed, for caches to follow. What it lists may be unchanged after all.
type Changes struct {
	Nodes   []NodeID // attributes or content
	Entries []Name   // names that appeared, vanished or mean something else
	Dirs    []NodeID // directories in which any name may have
}

// Name is a place in a directory.
type Name struct {
	Dir  NodeID
	Name string
}

// CreateSpec says what Create makes.
type CreateSpec struct {
	Kind   Kind
	Mode   uint32 // 07777
	UID    uint32
	GID    uint32
	Rdev   uint32            // of devices
	Target string            // of symlinks
	Xattrs map[string][]byte // set in the same op
}

// AttrMask says which fields of an AttrChange count. The numbers are part of the op format.
type AttrMask uint32

// The fields of AttrChange.
const (
	AttrMode AttrMask = 1 << iota
	AttrUID
	AttrGID
	AttrAtime
	AttrMtime
	AttrCtime

	attrAll = AttrCtime<<1 - 1
)

// AttrChange is a change of attributes; only what Mask names counts. The
// change time becomes the time of the op unless it is named.
type AttrChange struct {
	Mask  AttrMask
	Mode  uint32 // 07777
	UID   uint32
	GID   uint32
	Atime int64 // Unix ns
	Mtime int64 // Unix ns
	Ctime int64 // Unix ns
}

// RenameFlags are the flags of Rename, numbered as in renameat2(2).
type RenameFlags uint32

// The flags of Rename; at most one may be given.
const (
	NoReplace RenameFlags = 1
	Exchange  RenameFlags = 2
)
