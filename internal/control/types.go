package control

import (
	"time"
	"unicode/utf8"
)

// rawName returns a name that is not UTF-8, which JSON cannot hold: such a name goes in a field of bytes beside the one that shows
// it with U+FFFD for what cannot be shown. It is nil for others.
func rawName(name string) []byte {
	if utf8.ValidString(name) {
		return nil
	}
	return []byte(name)
}

// unraw puts a name back that is not UTF-8.
func unraw(name *string, raw []byte) {
	if raw != nil {
		*name = string(raw)
	}
}

// Status is what a node says of itself. Its JSON form is stable: fields are
// added, never renamed or removed. Sizes are in bytes.
type Status struct {
	Version    string    `json:"version"`
	PID        int       `json:"pid"`
	Started    time.Time `json:"started"`
	DataDir    string    `json:"data_dir"`
	RawDataDir []byte    `json:"data_dir_raw,omitempty"` // see rawName
	Volume     string    `json:"volume"`
	Role       string    `json:"role"`
	Mountpoint string    `json:"mountpoint,omitempty"`
	ReadOnly   bool      `json:"read_only"`
	Listen     string    `json:"listen,omitempty"`
	// Files, Directories and Bytes count the tree; a keyless replica cannot know them.
	Files       uint64 `json:"files"`
	Directories uint64 `json:"directories"`
	Bytes       uint64 `json:"bytes"`
	// Conflicts says what is shown under conflict names.
	Conflicts Conflicts `json:"conflicts"`
	Store     Store     `json:"store"`
	// Devices are all devices of the volume, this one first.
	Devices []Device `json:"devices"`
	// Volumes are the others that the same process serves from this data directory.
	Volumes []Beside `json:"volumes,omitempty"`
	// Checkpoint is the newest that all active members came to; absent if there is none.
	Checkpoint *Checkpoint `json:"checkpoint,omitempty"`
	// Problems says in words what is not in order; empty if nothing is.
	Problems []string `json:"problems,omitempty"`
}

// Checkpoint is what the logs up to some point come to.
type Checkpoint struct {
	ID   string    `json:"id"`
	Made time.Time `json:"made"`
	// Ops counts about the operations in it, Bytes its size.
	Ops   uint64 `json:"ops"`
	Bytes int64  `json:"bytes"`
	// Dropped says that this node has dropped the logs before it.
	Dropped bool `json:"dropped"`
}

// Conflicts counts what is shown under conflict names, and names up to 100 of it.
type Conflicts struct {
	Count uint64   `json:"count"`
	Paths []string `json:"paths,omitempty"`
}

// History is what a path had: the contents of a file, newest first, or the names of a directory.
type History struct {
	Contents []PastContent `json:"contents,omitempty"`
	Entries  []PastEntry   `json:"entries,omitempty"`
}

// PastContent is one content that a path has or had.
type PastContent struct {
	Version   string    `json:"version"` // names it, for restore
	Time      time.Time `json:"time"`    // when it was published
	Device    string    `json:"device"`  // where
	Kind      string    `json:"kind"`
	Size      int64     `json:"size"`
	State     string    `json:"state"` // current, conflict, replaced or removed
	Removed   time.Time `json:"removed,omitzero"`
	RemovedBy string    `json:"removed_by,omitempty"`
	Target    string    `json:"target,omitempty"`
}

// PastEntry is a name that a directory has or had.
type PastEntry struct {
	Name    string    `json:"name"`
	Raw     []byte    `json:"raw,omitempty"` // see rawName
	Kind    string    `json:"kind"`
	Created time.Time `json:"created"`
	Removed time.Time `json:"removed,omitzero"`
}

// RestoreRequest asks for what a path was, by version or by time.
type RestoreRequest struct {
	Path    string    `json:"path"`
	Version string    `json:"version,omitempty"`
	Time    time.Time `json:"time,omitzero"`
	To      string    `json:"to,omitempty"` // another path; empty means the same
}

// Restored says what a restore did.
type Restored struct {
	Files int `json:"files"` // made or changed
}

// Store is what the chunk store of this node holds.
type Store struct {
	Chunks    uint64 `json:"chunks"`
	Bytes     uint64 `json:"bytes"`
	DiskFree  uint64 `json:"disk_free"`
	DiskTotal uint64 `json:"disk_total"`
	// Used is what this volume takes of the disk, logs and all; Quota how much it may, 0 for no limit.
	Used  uint64 `json:"used"`
	Quota uint64 `json:"quota,omitempty"`
	// Full says that no more chunks are taken.
	Full bool `json:"full,omitempty"`
}

// Device is one device of the volume as this node sees it.
type Device struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Role      string    `json:"role"`
	Self      bool      `json:"self"`
	Connected bool      `json:"connected"`
	Addresses []string  `json:"addresses,omitempty"`
	LastSeen  time.Time `json:"last_seen,omitzero"`
	// Mount says whether the device's mount and this one see each other's changes at
	// once: "connected" or "disconnected", since MountSince; empty if that was never tried.
	Mount      string    `json:"mount,omitempty"`
	MountSince time.Time `json:"mount_since,omitzero"`
	// Via names the device that the connection goes through; empty if it is direct.
	Via string `json:"via,omitempty"`
	// Full says that the device takes no more chunks: its disk is full, or the volume's quota there.
	Full bool `json:"full,omitempty"`
	// What of this node's data the device has not acknowledged yet.
	MissingBatches uint64 `json:"missing_batches"`
	MissingChunks  uint64 `json:"missing_chunks"`
	MissingBytes   uint64 `json:"missing_bytes"`
}

// Progress says how far replication is for one waiter.
type Progress struct {
	// Want is how many other devices shall hold everything, Have how many do.
	Want int `json:"want"`
	Have int `json:"have"`
	// What the device closest to being next still lacks.
	MissingBatches uint64 `json:"missing_batches"`
	MissingChunks  uint64 `json:"missing_chunks"`
	MissingBytes   uint64 `json:"missing_bytes"`
	// Connected counts the devices connected now.
	Connected int `json:"connected"`
	// Full names those that lack something and take no more chunks.
	Full []string `json:"full,omitempty"`
}

// WaitRequest asks to be told when replication has come so far.
type WaitRequest struct {
	// Replicas is how many other devices shall hold everything; 0 means what
	// the policy asks.
	Replicas int `json:"replicas"`
}

// InviteRequest asks for an invite.
type InviteRequest struct {
	Replica bool `json:"replica"`
	// Expires is how long the invite works, in nanoseconds; 0 means an hour.
	Expires time.Duration `json:"expires"`
	// Addresses, HOST:PORT each, stand in the invite instead of those the node
	// knows of itself.
	Addresses []string `json:"addresses,omitempty"`
}

// ScrubProgress says how far a scrub is.
type ScrubProgress struct {
	Chunks uint64 `json:"chunks"`
	Total  uint64 `json:"total"`
	Bytes  uint64 `json:"bytes"`
	// Damaged is how many damaged chunks are still to be fetched.
	Damaged uint64 `json:"damaged,omitempty"`
}

// ScrubReport says what a scrub has read and found.
type ScrubReport struct {
	Chunks   uint64   `json:"chunks"`
	Bytes    uint64   `json:"bytes"`
	Damaged  uint64   `json:"damaged"` // chunks
	Mended   uint64   `json:"mended"`  // of these
	Lost     uint64   `json:"lost"`    // things that are damaged and could not be mended
	Entries  uint64   `json:"entries"` // of the control log
	Batches  uint64   `json:"batches"` // of all logs
	Keys     uint64   `json:"keys"`    // of the state
	Files    uint64   `json:"files"`   // compared as a whole
	Problems []string `json:"problems,omitempty"`
}

// Beside is another volume that the same process serves from the same data directory.
type Beside struct {
	Volume  string `json:"volume"`
	DataDir string `json:"data_dir"`
	// Problem says why it is not served; empty if it is.
	Problem string `json:"problem,omitempty"`
}

// Quota is how much of the disk a volume may use, and uses: chunks, logs and all.
type Quota struct {
	Limit int64 `json:"limit"` // 0: no limit
	Used  int64 `json:"used"`
}

// DeviceRequest asks for something to be done with a device.
type DeviceRequest struct {
	Name    string `json:"name"` // or the beginning of its ID
	NewName string `json:"new_name,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// Setting is one of the volume's policy.
type Setting struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	Set   bool   `json:"set"` // somebody set it; else it is the first value
	About string `json:"about"`
}

// Entry is one file or directory of the tree.
type Entry struct {
	Name      string    `json:"name"`
	Kind      string    `json:"kind"` // file, directory, symlink, device, fifo or socket
	Mode      uint32    `json:"mode"` // 07777
	Size      int64     `json:"size"`
	Mtime     time.Time `json:"mtime"`
	Target    string    `json:"target,omitempty"`
	Raw       []byte    `json:"raw,omitempty"` // see rawName
	RawTarget []byte    `json:"raw_target,omitempty"`
	Char      bool      `json:"char,omitempty"` // of devices: a character device, not a block device
}

// PutOptions says how a file is stored.
type PutOptions struct {
	// Mode is 0777 at most; an existing file keeps its own.
	Mode uint32
}

// event is one line of a streamed answer.
type event struct {
	Progress *Progress      `json:"progress,omitempty"`
	Entry    *Entry         `json:"entry,omitempty"`
	Content  *PastContent   `json:"content,omitempty"`
	Past     *PastEntry     `json:"past,omitempty"`
	Scrub    *ScrubProgress `json:"scrub,omitempty"`
	Problem  string         `json:"problem,omitempty"`
	Scrubbed *ScrubReport   `json:"scrubbed,omitempty"` // without problems: each is a line of its own
	Done     bool           `json:"done,omitempty"`
	Error    *wireError     `json:"error,omitempty"`
}

// textAnswer carries the one line that some requests are made for.
type textAnswer struct {
	Text string `json:"text"`
}
