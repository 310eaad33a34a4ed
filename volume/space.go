package volume

import (
	"syscall"
	"time"
)

// What a program did goes into the state a moment after it was acknowledged, and the state has no way back if it finds no
// room then. So some of the disk is kept for that: when no more than it is free, programs get ENOSPC.

const (
	// keepFree is how much is kept, or the part of the disk that keepPart says if that is less: half of what chunks
	// leave free, so that a disk that contents have filled still takes names.
	keepFree = 32 << 20
	keepPart = 40
	// A look at the disk is believed for a moment, where there is plenty of room for longer: others may fill
	// it fast.
	plenty     = 1 << 30
	lookOften  = time.Millisecond
	lookRarely = 100 * time.Millisecond
)

// look is what was seen of the disk, in bytes.
type look struct {
	at         time.Time
	free, keep uint64
}

// leftForUse returns ENOSPC if too little of the disk is free; removals may use half of what is kept.
func (v *Volume) leftForUse(removal bool) error {
	l, ok := v.lookAtDisk()
	if !ok {
		return nil // the write itself will tell
	}
	keep := l.keep
	if removal {
		keep /= 2
	}
	if l.free < keep {
		return syscall.ENOSPC
	}
	return nil
}

// roomFor returns ENOSPC if something was written to a file while the disk had no room, and it still has none: it must not take what is kept for
// what there was room for.
func (v *Volume) roomFor(in *inode) error {
	if !in.roomless.Load() {
		return nil
	}
	if err := v.leftForUse(false); err != nil {
		return err
	}
	in.roomless.Store(false)
	return nil
}

// leftToJournal reports whether the disk has room for n bytes more in the journal: the state writes them twice.
func (v *Volume) leftToJournal(n int64) bool {
	l, ok := v.lookAtDisk()
	return !ok || l.free >= l.keep+2*uint64(n)
}

// kept returns how much of a disk is kept.
func kept(total uint64) uint64 { return min(keepFree, total/keepPart) }

// lookAtDisk returns what the disk has, if that is known.
func (v *Volume) lookAtDisk() (l *look, ok bool) {
	if v.cfg.DiskUsage == nil {
		return nil, false
	}
	if l = v.looked.Load(); l != nil && time.Since(l.at) <= l.believed() {
		return l, true
	}
	total, free, err := v.cfg.DiskUsage()
	if err != nil {
		return nil, false
	}
	l = &look{time.Now(), free, kept(total)}
	v.looked.Store(l)
	return l, true
}

// believed returns how long what was seen counts.
func (l *look) believed() time.Duration {
	if l.free > plenty {
		return lookRarely
	}
	return lookOften
}
