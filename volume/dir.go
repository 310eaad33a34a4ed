package volume

import (
	"context"
	"fmt"
	"sort"
	"sync"

	"github.com/foreverfs/forever/namespace"
)

// dirPage is how many entries of a directory are read from the tree at a time.
const dirPage = 512

// DirHandle is an open directory. Positions are names, so that entries made
// or removed meanwhile neither repeat nor hide others.
type DirHandle struct {
	v    *Volume
	in   *inode
	once sync.Once

	mu      sync.Mutex
	marks   []dirMark // where pages begin, by ascending cookie
	page    []namespace.Entry
	pageAt  uint64 // cookie before the page's first entry
	haveEnd bool   // the page is the directory's last
}

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
	out := make([]DirEntry, 0, min(limit, 2*dirPage))
	if cookie == 0 { // rewound: forget what was read
		d.marks, d.page = d.marks[:1], nil
	}
	for ; cookie < firstName && len(out) < limit; cookie++ {
		e := DirEntry{Name: ".", Ino: d.in.ino, Kind: namespace.KindDir, Cookie: cookie + 1}
		if cookie == 1 {
			e.Name, e.Ino = "..", d.parent()
		}
		out = append(out, e)
	}
	for len(out) < limit {
		more, err := d.seek(cookie)
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
		for _, e := range d.page[cookie-d.pageAt:] {
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
func (d *DirHandle) parent() uint64 {
	n, err := d.v.node(d.in)
	if err != nil || d.in.ino == RootIno {
		return RootIno
	}
	return n.Parent.Ino()
}

// seek makes the page the one with the entry after cookie, or says that there is none.
func (d *DirHandle) seek(cookie uint64) (bool, error) {
	for {
		if d.page != nil && cookie >= d.pageAt {
			if cookie < d.pageAt+uint64(len(d.page)) {
				return true, nil
			}
			if d.haveEnd {
				return false, nil
			}
		}
		if err := d.load(cookie); err != nil {
			return false, err
		}
	}
}

// load reads the page that begins at the last mark not after cookie; each call
// with one cookie comes a page nearer.
func (d *DirHandle) load(cookie uint64) error {
	i := sort.Search(len(d.marks), func(i int) bool { return d.marks[i].cookie > cookie }) - 1
	m := d.marks[i]
	d.v.treeMu.RLock()
	page, err := d.v.cfg.Tree.List(d.in.id, m.name, dirPage)
	d.v.treeMu.RUnlock()
	if err != nil {
		return fmt.Errorf("list inode %d: %w", d.in.ino, err)
	}
	if page == nil {
		page = []namespace.Entry{}
	}
	d.page, d.pageAt, d.haveEnd = page, m.cookie, len(page) < dirPage
	if i == len(d.marks)-1 && !d.haveEnd {
		d.marks = append(d.marks, dirMark{m.cookie + uint64(len(page)), page[len(page)-1].Name})
	}
	return nil
}
