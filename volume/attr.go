package volume

import "github.com/foreverfs/forever/namespace"

// Attr is what stat shows of an inode. Times are Unix nanoseconds.
type Attr struct {
	Ino    uint64
	Kind   namespace.Kind
	Mode   uint32 // permission, set-id and sticky bits: 07777
	Nlink  uint32
	UID    uint32
	GID    uint32
	Rdev   uint32
	Size   int64
	Blocks int64 // of 512 bytes: as many as Size takes, without the blocks that are holes
	// BlocksVary says that Blocks may be less as soon as what was written is in the tree.
	BlocksVary bool
	Atime      int64
	Mtime      int64
	Ctime      int64
	Btime      int64 // when it was made
}

// Caller is who asks for an operation.
type Caller struct {
	UID, GID, PID uint32
}

// SetAttrMask says which fields of a SetAttr count.
type SetAttrMask uint32

// The fields of SetAttr.
const (
	SetMode SetAttrMask = 1 << iota
	SetUID
	SetGID
	SetSize
	SetAtime
	SetMtime
	SetAtimeNow
	SetMtimeNow
)

// SetAttr is a change of attributes; only what Valid names counts.
type SetAttr struct {
	Valid SetAttrMask
	Mode  uint32 // 07777
	UID   uint32
	GID   uint32
	Size  int64
	Atime int64 // Unix ns
	Mtime int64 // Unix ns
	// Held says that it is done through an open file: others see the size when that is closed, and else at once.
	Held bool
}

// Statfs is what df shows.
type Statfs struct {
	BlockSize uint32
	Blocks    uint64 // of BlockSize
	Bfree     uint64
	Bavail    uint64 // for contents
	Files     uint64
	Ffree     uint64
	NameLen   uint32
}

// DirEntry is one entry of a directory. Cookie names the position after it.
type DirEntry struct {
	Name   string
	Ino    uint64
	Kind   namespace.Kind
	Cookie uint64

	id namespace.NodeID // zero for "." and ".."
}
