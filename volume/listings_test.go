package volume

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/foreverfs/forever/namespace"
)

// rigOfNames is a rig whose root has n empty files.
func rigOfNames(t *testing.T, n int) *rig {
	t.Helper()
	r := newRig(t, 1, nil)
	for i := range n {
		r.create(listedName(i)).Release()
	}
	return r
}

func listedName(i int) string { return fmt.Sprintf("f%05d", i) }

func (r *rig) openRoot() *DirHandle {
	r.t.Helper()
	d, err := r.OpenDir(ctx, RootIno)
	must(r.t, err)
	return d
}

// piece reads behind a cookie, with a handle of its own.
func (r *rig) piece(cookie uint64, n int) []DirEntry {
	r.t.Helper()
	d := r.openRoot()
	defer d.Release()
	entries, err := d.Read(cookie, n)
	must(r.t, err)
	return entries
}

func (r *rig) remove(entries []DirEntry) {
	r.t.Helper()
	for _, e := range entries {
		if strings.HasPrefix(e.Name, "f") {
			must(r.t, r.Unlink(ctx, RootIno, e.Name))
		}
	}
}

// TestListWithManyHandles reads a directory with a new handle for each piece, goes on behind any entry of the last piece, and
// removes what it has passed.
func TestListWithManyHandles(t *testing.T) {
	for _, c := range []struct{ read, used int }{{100, 100}, {100, 37}, {700, 650}, {1, 1}} {
		const n = 1300
		r := rigOfNames(t, n)
		seen, last := 0, uint64(0)
		for list := r.piece(0, c.read); len(list) > 0; list = r.piece(last, c.read) {
			list = list[:min(c.used, len(list))]
			for _, e := range list {
				if e.Cookie <= last {
					t.Fatalf("the cookie of %s is %#x, after %#x", e.Name, e.Cookie, last)
				}
				last = e.Cookie
			}
			r.remove(list)
			seen += len(list)
		}
		if seen != n+2 {
			t.Errorf("%d read, %d used: %d names were listed, want %d", c.read, c.used, seen, n+2)
		}
	}
}

// TestGoOnBehindAnyEntry goes back to places of two listings that took turns with changes.
func TestGoOnBehindAnyEntry(t *testing.T) {
	const n = 1200
	r := rigOfNames(t, n)
	d := r.openRoot()
	defer d.Release()
	all := func() (list []DirEntry) {
		for cookie := uint64(0); ; cookie = list[len(list)-1].Cookie {
			entries, err := d.Read(cookie, 200)
			must(t, err)
			if len(entries) == 0 {
				return list
			}
			list = append(list, entries...)
		}
	}
	first := all()
	r.remove(first[100:150])
	r.remove(first[800:810])
	second := all()
	r.remove(first[:100])
	var left []string
	for _, e := range r.piece(firstName, 2*n) {
		left = append(left, e.Name)
	}
	for which, list := range [][]DirEntry{first, second} {
		for i, e := range list[firstName:] {
			if i%7 != 0 && i > 10 { // each is remembered, too
				continue
			}
			after, _ := slices.BinarySearch(left, e.Name+"\x00")
			for _, entries := range [][]DirEntry{r.piece(e.Cookie, 1), func() []DirEntry {
				entries, err := d.Read(e.Cookie, 1)
				must(t, err)
				return entries
			}()} {
				switch {
				case after == len(left) && len(entries) == 0:
				case after == len(left) || len(entries) == 0 || entries[0].Name != left[after]:
					t.Fatalf("listing %d, behind entry %d, %s: %v, want what is at %d of %d", which, i, e.Name, entries, after, len(left))
				}
			}
		}
	}
}

// TestNewNamesDoNotShift: names made before the place of another handle do not come twice.
func TestNewNamesDoNotShift(t *testing.T) {
	r := rigOfNames(t, 10)
	list := r.piece(0, 7)
	r.create("f00000a").Release()
	if next := r.piece(list[6].Cookie, 1); len(next) != 1 || next[0].Name != listedName(5) {
		t.Errorf("%v behind %s", next, list[6].Name)
	}
	if next := r.piece(firstName, 1); len(next) != 1 || next[0].Name != listedName(0) {
		t.Errorf("%v at the start", next)
	}
}

// TestForgottenPlacesCount goes on behind what nobody knows any more, and with what never was a cookie.
func TestForgottenPlacesCount(t *testing.T) {
	const n = 1200
	r := rigOfNames(t, n)
	list := r.piece(0, n+2)
	s := r.listings
	for s.pages.Len() > 0 { // as if much had been listed since
		s.forget(s.pages.Back())
	}
	if len(s.known) != 0 || s.size != 0 {
		t.Fatalf("%d listings and %d bytes are left", len(s.known), s.size)
	}
	for _, i := range []int{2, 513, 514, 515, 1100, n + 1} {
		for _, number := range []uint64{list[i].Cookie >> placeBits, 0, maxNumber} {
			next := r.piece(number<<placeBits|uint64(i+1), 1)
			if i == n+1 && len(next) == 0 {
				continue
			}
			if len(next) != 1 || next[0].Name != list[i+1].Name {
				t.Errorf("behind entry %d of listing %d: %v, want %s", i, number, next, list[i+1].Name)
			}
		}
	}
	// A place before the beginning of its listing was never given.
	list = r.piece(0, n+2)
	r.remove(list[590:595])
	number, place := parseCookie(r.piece(list[600].Cookie, 1)[0].Cookie)
	if place != 602 {
		t.Fatalf("place %d behind entry 600", place)
	}
	if next := r.piece(number<<placeBits|4, 1); len(next) != 1 || next[0].Name != list[4].Name {
		t.Errorf("%v behind two names", next)
	}
}

// TestCookiesThatNeverWere: places of "." and ".." have no listing's number, but anybody may seek there.
func TestCookiesThatNeverWere(t *testing.T) {
	r := rigOfNames(t, 3)
	known, _ := parseCookie(r.piece(0, 5)[4].Cookie)
	for _, number := range []uint64{1, 2, known, maxNumber, 1<<(64-placeBits) - 1} {
		for place := range uint64(firstName + 1) {
			if next := r.piece(number<<placeBits|place, 1); len(next) != 1 || next[0].Name != listedName(0) {
				t.Errorf("place %d of listing %d: %v", place, number, next)
			}
		}
	}
}

// TestListingsTakeLittle lists more than is remembered.
func TestListingsTakeLittle(t *testing.T) {
	s := newListings()
	name := strings.Repeat("n", namespace.MaxName)
	page := make([]namespace.Entry, dirPageSize)
	for i := range page {
		page[i].Name = name[:1+i%len(name)]
	}
	var dir namespace.NodeID
	first := s.begin(dir, firstName, "")
	for i := range 200 {
		l := s.begin(dir, firstName, "")
		if l.number <= first.number {
			t.Fatal("numbers do not grow")
		}
		for j := range 5 {
			s.extend(l, j, uint64(firstName+(j+1)*dirPageSize), name)
			if _, other := s.give(l, j, page, l.marks[j].place); other {
				t.Fatal("given before")
			}
		}
		if s.find(dir, l.number) != l || s.find(namespace.NodeID{1}, l.number) != nil {
			t.Fatal("a listing is not found, or elsewhere")
		}
		if s.size > maxListed || len(s.known) > s.pages.Len() {
			t.Fatalf("%d: %d bytes in %d pages of %d listings", i, s.size, s.pages.Len(), len(s.known))
		}
	}
	if s.size < maxListed/2 {
		t.Errorf("only %d bytes are remembered", s.size)
	}
}

// TestTwoGoOnAtOnce has two handles go on with one listing, and a name go between them: neither takes the other's places for its own.
func TestTwoGoOnAtOnce(t *testing.T) {
	const n = 1200
	r := rigOfNames(t, n)
	list := r.piece(0, dirPageSize+2)
	at := list[len(list)-1].Cookie
	a := r.piece(at, 100)
	r.remove(a[:1])
	b := r.piece(at, 100)
	for i := range 99 {
		if next := r.piece(a[i].Cookie, 1); next[0].Name != a[i+1].Name {
			t.Fatalf("%s behind %s of the first", next[0].Name, a[i].Name)
		}
		if next := r.piece(b[i].Cookie, 1); next[0].Name != b[i+1].Name {
			t.Fatalf("%s behind %s of the second", next[0].Name, b[i].Name)
		}
	}
}
