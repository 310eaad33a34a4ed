package volume

import (
	"sync"

	"github.com/foreverfs/forever/namespace"
)

const (
	// lookAheadAfter is how many names must have been looked up in order before those after them are read ahead.
	lookAheadAfter = 3
	// minLookAhead and maxLookAhead bound how many names are read ahead at a time.
	minLookAhead = 32
	maxLookAhead = 256
	// lookAheadRest is how many names are passed over for each that was in memory already.
	lookAheadRest = 16
)

// lookAhead follows the names that are looked up in a directory, and has what the tree keeps of the names after them read from the
// disk once they come in order, as from a program that has a sorted list of files (ls, rsync, git). Its zero value is ready.
type lookAhead struct {
	mu     sync.Mutex
	last   string // looked up last
	run    int    // names in order so far
	half   string // the next part is read when this name is reached; empty: at once
	upTo   string // up to this name all was read
	window int    // how many were read last
	rest   int    // names to pass over before more is read
	busy   bool   // being read
}

// found notes that a name was found, and reports whether those after some name should be read now, and how many.
func (l *lookAhead) found(name string) (after string, n int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if name <= l.last {
		l.run, l.half, l.upTo, l.window = 0, "", "", 0
	}
	l.last = name
	if l.run++; l.run < lookAheadAfter || l.busy || name < l.half {
		return "", 0, false
	}
	if l.rest > 0 {
		l.rest--
		return "", 0, false
	}
	l.busy = true
	l.window = min(max(minLookAhead, 2*l.window), maxLookAhead)
	return max(name, l.upTo), l.window, true
}

// read notes which entries were looked at, and how many of their records were not in memory.
func (l *lookAhead) read(entries []namespace.Entry, read int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = false
	n := len(entries)
	if n == 0 {
		l.half = lastName // until names come in another order
		return
	}
	l.half, l.upTo = entries[n/2].Name, entries[n-1].Name
	if read < n/2 { // the directory is in use: more of it will be in memory
		l.rest = lookAheadRest * n
	}
}

// lastName comes after all names.
const lastName = "\xff\xff"

// lookAhead reads what will be looked up after a name that was found in a directory.
func (v *Volume) lookAhead(dir *inode, name string) {
	after, n, ok := dir.names.found(name)
	if !ok {
		return
	}
	started := v.early(func() { dir.names.read(v.warm(dir, after, n)) })
	if !started {
		dir.names.read(nil, 0)
	}
}

// warm has what the tree keeps of up to n entries of a directory behind a name in memory. It returns them, and how many of
// their records were not there; errors are left to who needs them.
func (v *Volume) warm(dir *inode, after string, n int) (entries []namespace.Entry, read int) {
	entries, err := v.list(nil, dir.id, after, n)
	if err == nil {
		read, err = v.cfg.Tree.Warm(dir.id, entries)
	}
	if err != nil {
		v.log.Debug("read ahead failed", "directory", dir.ino, "error", err)
	}
	return entries, read
}

// Warm has what the attributes of entries that Read returned need in memory, and soon that of those after them, unless that was
// there already.
func (d *DirHandle) Warm(entries []DirEntry) {
	list := make([]namespace.Entry, 0, len(entries))
	for i := range entries {
		if e := &entries[i]; e.Cookie > firstName {
			list = append(list, namespace.Entry{Name: e.Name, Node: e.id})
		}
	}
	if len(list) == 0 {
		return
	}
	v := d.v
	read, err := v.cfg.Tree.Warm(d.in.id, list)
	if err != nil {
		v.log.Debug("read ahead failed", "directory", d.in.ino, "error", err)
	}
	if read < len(list)/2 && !d.cold.Swap(false) {
		return
	}
	v.early(func() {
		entries, read := v.warm(d.in, list[len(list)-1].Name, len(list))
		d.cold.Store(read > 0 && read >= len(entries)/2)
	})
}

// list reads up to n entries of a directory behind a name, into the memory of buf if they fit.
func (v *Volume) list(buf []namespace.Entry, dir namespace.NodeID, after string, n int) ([]namespace.Entry, error) {
	v.treeMu.RLock()
	defer v.treeMu.RUnlock()
	return v.cfg.Tree.ListInto(buf, dir, after, n)
}
