package volume

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/foreverfs/forever/namespace"
)

// dirPageSize is how many entries of a directory are read from the tree at a time.
const dirPageSize = 512

// DirHandle is an open directory. Pages begin behind names, and those that were handed out and not yet left behind are
// kept, so that entries made or removed meanwhile neither repeat nor hide others.
type DirHandle struct {
	v    *Volume
	in   *inode
	once sync.Once
	cold atomic.Bool // what was read ahead was not in memory

	mu    sync.Mutex
	marks []dirMark // where pages begin, by ascending cookie
	pages []dirPage // one behind the other: those that may be asked for again
}

// dirPage is a run of entries.
type dirPage struct {
	at      uint64 // cookie before the first
	entries []namespace.Entry
	last    bool // of the directory
}

// end returns the cookie after the last entry.
func (p *dirPage) end() uint64 { return p.at + uint64(len(p.entries)) }

// dirMark says that the entries after cookie are those after name.
type dirMark struct {
	cookie uint64
	name   string
}

// Cookies 1 and 2 follow "." and ".."; names begin there.
const firstName = 2

// OpenDir opens a directory.
func (v *Volume) OpenDir(ctx context.Context, ino uint64) (*DirHandle, error) {
	in, err := v.acquire(ino)
	if err != nil {
		return nil, err
	}
	v.observe(ctx, in)
	n, err := v.node(in)
	if err == nil && n.Kind != namespace.KindDir {
		err = namespace.ErrNotDir
	}
	if err != nil {
		v.release(in)
		return nil, err
	}
	return &DirHandle{v: v, in: in, marks: []dirMark{{firstName, ""}}}, nil
}

// Release ends the handle. It may be called twice.
func (d *DirHandle) Release() { d.once.Do(func() { d.v.release(d.in) }) }

// Observe sees to it that what Read returns next, from the start, is what connected mounts made of it.
func (d *DirHandle) Observe(ctx context.Context) { d.v.observe(ctx, d.in) }

// Read returns up to limit entries after the position cookie; 0 is the start. No
// entries: the end.
func (d *DirHandle) Read(cookie uint64, limit int) ([]DirEntry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]DirEntry, 0, min(limit, 2*dirPageSize))
	if cookie == 0 { // rewound: forget what was read
		d.marks, d.pages = d.marks[:1], nil
	}
	// Of what is returned the kernel may take only the beginning, and go on from there.
	for len(d.pages) > 1 && d.pages[0].end() <= cookie {
		d.pages = d.pages[1:]
	}
	for ; cookie < firstName && len(out) < limit; cookie++ {
		e := DirEntry{Name: ".", Ino: d.in.ino, Kind: namespace.KindDir, Cookie: cookie + 1}
		if cookie == 1 {
			e.Name, e.Ino = "..", d.v.parent(d.in)
		}
		out = append(out, e)
	}
	for len(out) < limit {
		page, err := d.seek(cookie)
		if err != nil {
			return nil, err
		}
		if page == nil {
			break
		}
		for _, e := range page.entries[cookie-page.at:] {
			if len(out) == limit {
				break
			}
			cookie++
			out = append(out, DirEntry{Name: e.Name, Ino: e.Node.Ino(), Kind: e.Kind, Cookie: cookie, id: e.Node})
		}
	}
	return out, nil
}

// parent returns the inode number of "..".
func (v *Volume) parent(dir *inode) uint64 {
	n, err := v.node(dir)
	if err != nil || dir.ino == RootIno {
		return RootIno
	}
	return n.Parent.Ino()
}

// seek returns the page with the entry after cookie, or nil if there is none.
func (d *DirHandle) seek(cookie uint64) (*dirPage, error) {
	for {
		for i := range d.pages {
			switch p := &d.pages[i]; {
			case p.at <= cookie && cookie < p.end():
				return p, nil
			case p.last && cookie >= p.end():
				return nil, nil
			}
		}
		if err := d.load(cookie); err != nil {
			return nil, err
		}
	}
}

// load reads the page that begins at the last mark not after cookie; each call
// with one cookie comes a page nearer.
func (d *DirHandle) load(cookie uint64) error {
	i := sort.Search(len(d.marks), func(i int) bool { return d.marks[i].cookie > cookie }) - 1
	m := d.marks[i]
	entries, err := d.v.list(d.in.id, m.name, dirPageSize)
	if err != nil {
		return fmt.Errorf("list inode %d: %w", d.in.ino, err)
	}
	p := dirPage{at: m.cookie, entries: entries, last: len(entries) < dirPageSize}
	if n := len(d.pages); n > 0 && d.pages[n-1].end() != p.at {
		d.pages = nil
	}
	d.pages = append(d.pages, p)
	if i == len(d.marks)-1 && !p.last {
		d.marks = append(d.marks, dirMark{p.end(), entries[len(entries)-1].Name})
	}
	return nil
}
