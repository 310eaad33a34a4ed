package volume

import (
	"cmp"
	"slices"
	"sort"
)

// overlay is what was written to one block since the block was last sealed:
// extents over whatever lies below. It has no lock; inode.mu guards it.
type overlay struct {
	ext []extent // sorted by offset, disjoint, not touching
	gen uint64   // the inode's generation at the last write
}

// extent is a run of bytes at an offset inside a block. Its data has spare
// capacity for appends.
type extent struct {
	off  int
	data []byte
}

func (e extent) end() int { return e.off + len(e.data) }

// held returns how many bytes of memory the extents take.
func (o *overlay) held() int64 {
	n := 0
	for _, e := range o.ext {
		n += cap(e.data)
	}
	return int64(n)
}

// write lays p over the block at off; blockSize bounds growth. It copies p.
func (o *overlay) write(off int, p []byte, blockSize int) {
	end := off + len(p)
	i := sort.Search(len(o.ext), func(i int) bool { return o.ext[i].end() >= off })
	if i < len(o.ext) && o.ext[i].off <= off && (i+1 == len(o.ext) || end < o.ext[i+1].off) {
		e := &o.ext[i]
		e.data = grow(e.data, end-e.off, blockSize-e.off)
		copy(e.data[off-e.off:], p)
		return
	}
	lo, hi, j := off, end, i
	for ; j < len(o.ext) && o.ext[j].off <= end; j++ {
		lo, hi = min(lo, o.ext[j].off), max(hi, o.ext[j].end())
	}
	merged := extent{off: lo}
	if i == j && hi == blockSize {
		merged.data = append([]byte(nil), p...) // which does not clear what is written anyway
	} else {
		merged.data = grow(nil, hi-lo, blockSize-lo)
		for _, e := range o.ext[i:j] {
			copy(merged.data[e.off-lo:], e.data)
		}
		copy(merged.data[off-lo:], p)
	}
	if i == j {
		o.ext = append(o.ext, extent{})
		copy(o.ext[i+1:], o.ext[i:])
		o.ext[i] = merged
		return
	}
	o.ext[i] = merged
	o.ext = append(o.ext[:i+1], o.ext[j:]...)
}

// grow returns b lengthened to n bytes, doubling its capacity up to limit as it must.
func grow(b []byte, n, limit int) []byte {
	if n <= len(b) {
		return b
	}
	if n <= cap(b) {
		return b[:n]
	}
	c := max(n, 2*cap(b))
	if n > limit/4 {
		c = limit
	}
	nb := make([]byte, n, min(max(c, n), max(limit, n)))
	copy(nb, b)
	return nb
}

// truncate drops everything from off on.
func (o *overlay) truncate(off int) {
	for i, e := range o.ext {
		if e.end() <= off {
			continue
		}
		if e.off < off {
			o.ext[i].data = e.data[:off-e.off]
			i++
		}
		o.ext = o.ext[:i]
		return
	}
}

// covers reports whether every byte of [lo, hi) was written.
func (o *overlay) covers(lo, hi int) bool {
	for _, e := range o.ext {
		if e.off <= lo && hi <= e.end() {
			return true
		}
	}
	return lo >= hi
}

// copyTo lays the written bytes of [off, off+len(dst)) over dst.
func (o *overlay) copyTo(dst []byte, off int) {
	for _, e := range o.ext {
		from, to := max(e.off, off), min(e.end(), off+len(dst))
		if from < to {
			copy(dst[from-off:to-off], e.data[from-e.off:])
		}
	}
}

// gaps calls fn for every run of [lo, hi) that was not written.
func (o *overlay) gaps(lo, hi int, fn func(lo, hi int)) {
	for _, e := range o.ext {
		if e.end() <= lo {
			continue
		}
		if e.off >= hi {
			break
		}
		if lo < e.off {
			fn(lo, e.off)
		}
		lo = e.end()
	}
	if lo < hi {
		fn(lo, hi)
	}
}

// span is a run of bytes of a file.
type span struct{ off, end int64 }

// addSpan adds s to a list of spans, joining it with the last one when they touch.
func addSpan(list []span, s span) []span {
	if n := len(list); n > 0 {
		last := &list[n-1]
		if s.off <= last.end && last.off <= s.end {
			last.off, last.end = min(last.off, s.off), max(last.end, s.end)
			return list
		}
	}
	return append(list, s)
}

// mergeSpans sorts a list of spans and joins those that touch, in place.
func mergeSpans(list []span) []span {
	slices.SortFunc(list, func(a, b span) int { return cmp.Compare(a.off, b.off) })
	out := list[:0]
	for _, s := range list {
		if n := len(out); n > 0 && s.off <= out[n-1].end {
			out[n-1].end = max(out[n-1].end, s.end)
		} else {
			out = append(out, s)
		}
	}
	return out
}
