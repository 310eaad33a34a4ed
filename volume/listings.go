package volume

import (
	"bytes"
	"container/list"
	"math/rand/v2"
	"sort"
	"sync"

	"github.com/foreverfs/forever/namespace"
)

// A cookie says how far a listing got: a number for the listing, and how many entries it gave up to there. Who goes on
// may do so with another handle (an NFS server opens the directory for each piece), when names before that place are gone and
// counting leads elsewhere. So what a listing gave is remembered for a while, beyond its handle.

const (
	// placeBits is how much of a cookie is the place in the listing; the rest, up to 63 bits, is the listing's number.
	placeBits = 32
	maxNumber = 1<<(63-placeBits) - 1
	// maxListed is how many bytes what was listed may take, in all directories together.
	maxListed = 4 << 20
	// listedCost is what a page takes in memory beside its names, roughly.
	listedCost = 256
)

// listing is one way through a directory. Its pages follow one another, each behind a name.
type listing struct {
	dir    namespace.NodeID
	number uint64
	marks  []dirMark // by ascending place; guarded by listings.mu
	known  int       // marks with names; guarded by listings.mu
}

// dirMark is where a page begins.
type dirMark struct {
	place uint64
	after string        // the page has what follows this name
	names pageNames     // that were given; nil: none yet, or forgotten
	el    *list.Element // in listings.pages, if there are names
}

// cookie returns the cookie of a place.
func (l *listing) cookie(place uint64) uint64 {
	if place <= firstName {
		return place
	}
	return l.number<<placeBits | place
}

// parseCookie takes a cookie apart. Number 0 is no listing's.
func parseCookie(cookie uint64) (number, place uint64) {
	return cookie >> placeBits, cookie & (1<<placeBits - 1)
}

// listings remembers the names that listings gave, least recently used out first.
type listings struct {
	mu     sync.Mutex
	number uint64 // of the latest
	known  map[uint64]*listing
	pages  list.List // of listedPage, most recent first
	size   int
	spare  pageNames // memory of a forgotten page, for the next
}

// listedPage names a page of a listing.
type listedPage struct {
	l     *listing
	index int // in marks
}

// newListings begins somewhere, so that cookies of an earlier life of this node are hardly taken for new ones.
func newListings() *listings {
	return &listings{number: rand.Uint64N(maxNumber / 2), known: map[uint64]*listing{}}
}

// begin returns a new listing, of what follows a name in a directory.
func (s *listings) begin(dir namespace.NodeID, place uint64, after string) *listing {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number = s.number%maxNumber + 1
	return &listing{dir: dir, number: s.number, marks: []dirMark{{place: place, after: after}}}
}

// find returns the listing of a directory that has a number, if it is known.
func (s *listings) find(dir namespace.NodeID, number uint64) *listing {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.known[number]; l != nil && l.dir == dir {
		return l
	}
	return nil
}

// mark returns the last mark of a listing that is not behind a place, and its index; -1 if there is none. Its names are
// for those who hold mu.
func (s *listings) mark(l *listing, place uint64) (m dirMark, index int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	index = sort.Search(len(l.marks), func(i int) bool { return l.marks[i].place > place }) - 1
	if index >= 0 {
		m = l.marks[index]
	}
	return m, index
}

// extend notes that the page at an index is followed by one that begins at a place, behind a name.
func (s *listings) extend(l *listing, index int, place uint64, after string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if index == len(l.marks)-1 {
		l.marks = append(l.marks, dirMark{place: place, after: after})
	}
}

// give notes what the page at an index has, to be read from a place in it on. If the listing has given other names there, it
// returns the name that was before that place, and that there is one.
func (s *listings) give(l *listing, index int, entries []namespace.Entry, place uint64) (after string, other bool) {
	if len(entries) == 0 {
		return "", false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	names := packNames(s.spare[:0], entries)
	s.spare = nil
	m := &l.marks[index]
	if m.names != nil {
		s.pages.MoveToFront(m.el)
		s.spare = names
		if bytes.Equal(m.names, names) {
			return "", false
		}
		if place == m.place {
			return m.after, true
		}
		return m.names.at(place - m.place - 1), true
	}
	m.names, m.el = names, s.pages.PushFront(listedPage{l, index})
	if l.known++; l.known == 1 {
		s.known[l.number] = l
	}
	for s.size += names.cost(); s.size > maxListed; {
		s.forget(s.pages.Back())
	}
	return "", false
}

// forget lets go of a page's names; mu is held.
func (s *listings) forget(el *list.Element) {
	p := s.pages.Remove(el).(listedPage)
	m := &p.l.marks[p.index]
	s.size -= m.names.cost()
	s.spare, m.names, m.el = m.names, nil, nil
	if p.l.known--; p.l.known == 0 {
		delete(s.known, p.l.number)
	}
}

// pageNames are the names of a page, each behind a byte with its length.
type pageNames []byte

// packNames makes the names of entries, in the memory of p if they fit.
func packNames(p pageNames, entries []namespace.Entry) pageNames {
	size, at := len(entries), 0
	for i := range entries {
		size += len(entries[i].Name)
	}
	if cap(p) < size || cap(p) > 2*size { // memory that is not used counts, too
		p = make(pageNames, size)
	}
	p = p[:size]
	for i := range entries {
		name := entries[i].Name
		p[at] = byte(len(name))
		at += 1 + copy(p[at+1:], name)
	}
	return p
}

// cost is what the page takes in memory, in bytes.
func (p pageNames) cost() int { return cap(p) + listedCost }

// at returns the name at an index, or the last.
func (p pageNames) at(index uint64) string {
	for {
		end := 1 + int(p[0])
		if index == 0 || end == len(p) {
			return string(p[1:end])
		}
		index, p = index-1, p[end:]
	}
}
