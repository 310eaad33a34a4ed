package volume

import (
	"context"
	"fmt"
	"slices"
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
	way   *listing            // that Read goes on with; nil: none yet
	pages []dirPage           // of way, one behind the other: those that may be asked for again
	spare [][]namespace.Entry // memory of pages that were left behind, for the next
}

// dirPage is a run of entries.
type dirPage struct {
	place   uint64 // before the first
	entries []namespace.Entry
	last    bool // of the directory
}

// end returns the place after the last entry.
func (p *dirPage) end() uint64 { return p.place + uint64(len(p.entries)) }

// Cookies 1 and 2 follow "." and ".."; names begin there, and so do places.
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
	return &DirHandle{v: v, in: in}, nil
}

// Release ends the handle. It may be called twice.
func (d *DirHandle) Release() { d.once.Do(func() { d.v.release(d.in) }) }

// Observe sees to it that what Read returns next, from the start, is what connected mounts made of it.
func (d *DirHandle) Observe(ctx context.Context) { d.v.observe(ctx, d.in) }

// Read returns up to limit entries after the position cookie; 0 is the start, others are those of entries that this or another
// handle of the directory returned. No entries: the end. Cookies grow from one entry to the next.
func (d *DirHandle) Read(cookie uint64, limit int) ([]DirEntry, error) {
	return d.ReadInto(nil, cookie, limit)
}

// ReadInto is Read that returns its entries in the memory of buf, whatever that held, if they fit.
func (d *DirHandle) ReadInto(buf []DirEntry, cookie uint64, limit int) ([]DirEntry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := buf[:0]
	if cookie == 0 { // rewound: forget what was read
		d.pages = nil
	}
	for ; cookie < firstName && len(out) < limit; cookie++ {
		e := DirEntry{Name: ".", Ino: d.in.ino, Kind: namespace.KindDir, Cookie: cookie + 1}
		if cookie == 1 {
			e.Name, e.Ino = "..", d.v.parent(d.in)
		}
		out = append(out, e)
	}
	place := d.find(cookie)
	// Of what is returned the kernel may take only the beginning, and go on from there.
	for len(d.pages) > 1 && d.pages[0].end() <= place {
		d.spare = append(d.spare, d.pages[0].entries)
		d.pages = slices.Delete(d.pages, 0, 1)
	}
	for len(out) < limit {
		page, err := d.seek(place)
		if err != nil {
			return nil, err
		}
		if page == nil {
			break
		}
		rest := page.entries[place-page.place:]
		rest = rest[:min(len(rest), limit-len(out))]
		out = slices.Grow(out, len(rest))
		for _, e := range rest {
			place++
			out = append(out, DirEntry{Name: e.Name, Ino: e.Node.Ino(), Kind: e.Kind, Cookie: d.way.cookie(place), id: e.Node})
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

// find returns the place that a cookie stands for, and goes on with the listing that it is of. One that is not known (any more)
// counts from the start. Whatever the cookie, the place is none before the first name, which no listing has.
func (d *DirHandle) find(cookie uint64) (place uint64) {
	number, place := parseCookie(cookie)
	switch {
	case cookie <= firstName:
		if len(d.pages) == 0 || d.pages[0].place != firstName {
			d.begin(firstName, "")
		}
		return firstName
	case d.way == nil || d.way.number != number:
		if d.way, d.pages = d.v.listings.find(d.in.id, number), nil; d.way == nil {
			d.begin(firstName, "")
		}
	}
	return max(place, firstName)
}

// begin goes on with a new listing, of what follows a name.
func (d *DirHandle) begin(place uint64, after string) {
	d.way, d.pages = d.v.listings.begin(d.in.id, place, after), nil
}

// seek returns the page with the entry after a place, or nil if there is none.
func (d *DirHandle) seek(place uint64) (*dirPage, error) {
	for {
		for i := range d.pages {
			switch p := &d.pages[i]; {
			case p.place <= place && place < p.end():
				return p, nil
			case p.last && place >= p.end():
				return nil, nil
			}
		}
		if err := d.load(place); err != nil {
			return nil, err
		}
	}
}

// load reads the page that begins at the last mark not after a place; each call
// with one place comes a page nearer. Where the listing has given other names before, it goes on with a new one
// behind the name that it gave at the place.
func (d *DirHandle) load(place uint64) error {
	s := d.v.listings
	m, i := s.mark(d.way, place)
	if i < 0 { // no cookie that was given
		d.begin(firstName, "")
		return nil
	}
	var buf []namespace.Entry
	if n := len(d.spare); n > 0 {
		buf, d.spare = d.spare[n-1], d.spare[:n-1]
	}
	entries, err := d.v.list(buf, d.in.id, m.after, dirPageSize)
	if err != nil {
		return fmt.Errorf("list inode %d: %w", d.in.ino, err)
	}
	p := dirPage{place: m.place, entries: entries, last: len(entries) < dirPageSize}
	if place < p.end() || p.last {
		if after, other := s.give(d.way, i, entries, place); other {
			d.begin(place, after)
			return nil
		}
	}
	if !p.last {
		s.extend(d.way, i, p.end(), entries[len(entries)-1].Name)
	}
	if n := len(d.pages); n > 0 && d.pages[n-1].end() != p.place {
		d.pages = nil
	}
	d.pages = append(d.pages, p)
	return nil
}
