// Package sealedfs encrypts every file of a file system under one key, below
// software that knows nothing of it: a pebble database runs on it as on the
// file system underneath. It hides contents from whoever gets hold of the disk.
// It does not hide names, sizes and times, and does not detect changes: what
// runs on it has checksums against accidents, not against an adversary.
//
// Each file begins with a header of 64 bytes that carries a random nonce; the
// rest is AES-256-CTR under a key derived from the disk's key and the nonce.
// Sizes are reported without the header. The format is in docs/format/sealedfs.md.
//
// No byte of a file may be written twice with different contents, since both
// would be encrypted alike. So files are only written from front to back:
// WriteAt and OpenReadWrite are refused.
package sealedfs

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var (
	// ErrKey says that a file was sealed under another key, or that its header is damaged.
	ErrKey = errors.New("sealedfs: wrong key or damaged header")
	// ErrNotSealed says that a file does not begin like a sealed file.
	ErrNotSealed = errors.New("sealedfs: not a sealed file")
	// ErrVersion says that a file was sealed by a newer version.
	ErrVersion = errors.New("sealedfs: format of a newer version")
	// ErrRewrite says that a file was to be written other than from front to back.
	ErrRewrite = errors.New("sealedfs: files are written once, from front to back")
)

// FS is a file system whose files are encrypted on the one underneath. It is
// safe for concurrent use if that is. Errors of the one underneath pass through.
type FS struct {
	vfs.FS
	key [32]byte
}

var _ vfs.FS = (*FS)(nil)

// New returns a file system that seals what is on fs under key.
func New(fs vfs.FS, key [32]byte) *FS { return &FS{fs, key} }

// Unwrap returns the file system underneath.
func (s *FS) Unwrap() vfs.FS { return s.FS }

// Create implements vfs.FS. The header is durable with the first Sync.
func (s *FS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, category)
	if err != nil {
		return nil, err
	}
	return s.begin(f, category)
}

// ReuseForWrite implements vfs.FS. What the old file held stays on the disk but
// cannot be read any more: the new header has another nonce.
func (s *FS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.ReuseForWrite(oldname, newname, category)
	if err != nil {
		return nil, err
	}
	return s.begin(f, category)
}

// logCategory is what pebble calls its write-ahead logs.
const logCategory = "pebble-wal"

// begin writes a new header to f, which stands at its beginning.
func (s *FS) begin(f vfs.File, category vfs.DiskWriteCategory) (vfs.File, error) {
	h, c, err := newHeader(s.key)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := f.Write(h); err != nil {
		return nil, errors.Join(fmt.Errorf("write header: %w", err), f.Close())
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("find size: %w", err), f.Close())
	}
	return &file{File: f, c: c, log: category == logCategory, size: fi.Size()}, nil
}

// Open implements vfs.FS. A file that ends within its header, or whose header
// is all zero, is one whose creation a crash cut short: it is empty.
func (s *FS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := s.FS.Open(name, opts...)
	if err != nil {
		return nil, err
	}
	h := make([]byte, headerSize)
	n, err := f.ReadAt(h, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		if fi, serr := f.Stat(); serr == nil && fi.IsDir() {
			return f, nil // opened to list or to sync it
		}
		return nil, errors.Join(fmt.Errorf("read header of %s: %w", name, err), f.Close())
	}
	if n < headerSize || allZero(h) {
		return &file{File: f, empty: true}, nil
	}
	c, err := parseHeader(h, s.key)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", name, err), f.Close())
	}
	return &file{File: f, c: c}, nil
}

// OpenReadWrite implements vfs.FS by refusing with ErrRewrite.
func (s *FS) OpenReadWrite(name string, _ vfs.DiskWriteCategory, _ ...vfs.OpenOption) (vfs.File, error) {
	return nil, &os.PathError{Op: "open", Path: name, Err: ErrRewrite}
}

// Stat implements vfs.FS. Sizes do not count the header.
func (s *FS) Stat(name string) (vfs.FileInfo, error) {
	fi, err := s.FS.Stat(name)
	if err != nil {
		return nil, err
	}
	return wrapInfo(fi), nil
}

// info reports sizes without the header.
type info struct{ vfs.FileInfo }

func wrapInfo(fi vfs.FileInfo) vfs.FileInfo {
	if fi.IsDir() {
		return fi
	}
	return info{fi}
}

// Size returns the length of the content in bytes.
func (i info) Size() int64 { return max(0, i.FileInfo.Size()-headerSize) }
