package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/casstore"
	"github.com/foreverfs/forever/internal/readaround"
	"github.com/foreverfs/forever/internal/writefs"
)

// Programs are told ENOSPC while there is still room for what the node has acknowledged, but another program may take that
// in no time. So the node holds some of the disk itself, in a file that goes when the state finds no room.

const (
	reserveName = "reserve"
	// reserveSize is how much is held, or the part of the disk, or of the quota, that reservePart says if that is less.
	reserveSize = 16 << 20
	reservePart = 80
	// reserveTimes is how many times as much has to be free for it to be taken.
	reserveTimes = 10
	// reserveDelay is when it is taken first, and reserveInterval how often it is looked after.
	reserveDelay    = time.Second
	reserveInterval = 10 * time.Second
	// fullPause is how long a write waits on a disk that is full for good: pebble tries some again and again.
	fullPause = 100 * time.Millisecond
)

// stateDisk returns the file system of the state, on another: a write that finds no room, on the disk or in its user's quota, is done in
// place of the reserve.
func stateDisk(d *dataDir, fs vfs.FS) vfs.FS {
	return readaround.FS{FS: vfs.OnDiskFull(writefs.FS{FS: fs, Result: writefs.NoSpace}, func() {
		if os.Remove(d.join(reserveName)) != nil {
			time.Sleep(fullPause)
		}
	})}
}

// inReserve does fn, and once more in place of the reserve if it finds no room.
func (d *dataDir) inReserve(fn func() error) error {
	err := fn()
	if errors.Is(writefs.NoSpace(err), syscall.ENOSPC) && os.Remove(d.join(reserveName)) == nil {
		err = fn()
	}
	return err
}

// roomBeside returns ENOSPC if the disk has no room for so many bytes beside what chunks leave free.
func (n *Node) roomBeside(bytes uint64) error {
	total, free, err := n.diskUsage()
	if err != nil {
		return nil // the write itself will tell
	}
	if kept := casstore.DefaultReserve(total); free < kept+bytes {
		return fmt.Errorf("%d MiB free, %d MiB are kept and %d MiB wanted: %w", free>>20, kept>>20, bytes>>20, syscall.ENOSPC)
	}
	return nil
}

// sparing is a file system for what can be done without: it takes nothing that the disk has no room for.
type sparing struct {
	vfs.FS
	room func(bytes uint64) error
}

var _ vfs.FS = sparing{}

// Unwrap returns the file system underneath.
func (s sparing) Unwrap() vfs.FS { return s.FS }

// Create implements vfs.FS.
func (s sparing) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, category)
	if err != nil {
		return nil, err
	}
	return sparingFile{f, s.room}, nil
}

// sparingFile is a file of a sparing file system that is written.
type sparingFile struct {
	vfs.File
	room func(bytes uint64) error
}

// Write implements vfs.File.
func (f sparingFile) Write(b []byte) (int, error) {
	if err := f.room(uint64(len(b))); err != nil {
		return 0, err
	}
	return f.File.Write(b)
}

// keepReserve holds the reserve while there is room for it. A node for the moment has none.
func (n *Node) keepReserve(ctx context.Context) error {
	for wait := reserveDelay; ; wait = reserveInterval {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
		if err := n.takeReserve(); err != nil {
			n.log.Warn("cannot hold disk space in reserve", "error", err)
		}
	}
}

// takeReserve holds the reserve, if it is not held and the disk has plenty of room.
func (n *Node) takeReserve() error {
	total, free, err := n.diskUsage()
	size := int64(min(reserveSize, total/reservePart))
	if limit := n.budget.limit.Load(); limit > 0 {
		size = min(size, limit/reservePart)
	}
	name := n.dir.join(reserveName)
	if info, gone := os.Stat(name); err != nil || gone == nil && info.Size() >= size || free < reserveTimes*uint64(size) {
		return err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make reserve: %w", err)
	}
	defer f.Close()
	err = unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = nil // there is none, then
	}
	if info, serr := f.Stat(); serr != nil || info.Size() < size {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// spendReserve lets a node that ends have the reserve for that.
func (n *Node) spendReserve() error {
	if err := os.Remove(n.dir.join(reserveName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// watchState ends the node if its state takes no more updates.
func (n *Node) watchState(ctx context.Context) error {
	select {
	case <-n.state.Broken():
		return n.state.Err()
	case <-ctx.Done():
		return nil
	}
}

// watchStore ends the node if the index of its chunks cannot be written any more.
func (n *Node) watchStore(ctx context.Context) error {
	select {
	case <-n.store.Broken():
		return n.store.Err()
	case <-ctx.Done():
		return nil
	}
}
