package lock

import (
	"cmp"
	"slices"
)

// table is the locks that the processes of this mount hold on one file.
type table []Held

// blocker returns the first lock of another owner, by where it starts, that excludes h.
func (t table) blocker(h *Held) (first Held, found bool) {
	for i := range t {
		o := &t[i]
		if o.Owner != h.Owner && o.clashes(&h.Lock) && (!found || o.Start < first.Start) {
			first, found = *o, true
		}
	}
	return first, found
}

// covers reports whether h takes nothing that its owner does not have already.
func (t table) covers(h *Held) bool {
	at := h.Start
	for {
		next, found := at, false
		for i := range t {
			o := &t[i]
			if o.Owner == h.Owner && o.Class == h.Class && o.Start <= at && at <= o.End && (o.Exclusive || !h.Exclusive) {
				if o.End >= h.End {
					return true
				}
				next, found = o.End+1, true
			}
		}
		if !found {
			return false
		}
		at = next
	}
}

// holds reports whether an owner holds any lock of a class.
func (t table) holds(owner uint64, class Class) bool {
	return slices.ContainsFunc(t, func(h Held) bool { return h.Owner == owner && h.Class == class })
}

// part returns what h's owner holds in h's range.
func (t table) part(h *Held) (out table) {
	for _, o := range t {
		if o.Owner == h.Owner && o.overlaps(&h.Lock) {
			o.Start, o.End = max(o.Start, h.Start), min(o.End, h.End)
			out = append(out, o)
		}
	}
	return out
}

// without returns t without what h's owner holds in h's range, and whether that
// makes a difference. What is cut in the middle is split.
func (t table) without(h *Held) (out table, changed bool) {
	out = make(table, 0, len(t)+1)
	for _, o := range t {
		if o.Owner != h.Owner || !o.overlaps(&h.Lock) {
			out = append(out, o)
			continue
		}
		changed = true
		if o.Start < h.Start {
			left := o
			left.End = h.Start - 1
			out = append(out, left)
		}
		if o.End > h.End {
			right := o
			right.Start = h.End + 1
			out = append(out, right)
		}
	}
	return out, changed
}

// with returns t with h in place of what its owner held in its range, one with the
// locks of the same kind beside it.
func (t table) with(h Held) table {
	t, _ = t.without(&h)
	out := t[:0]
	for _, o := range t {
		same := o.Owner == h.Owner && o.Class == h.Class && o.Exclusive == h.Exclusive
		switch {
		case same && o.End < h.Start && o.End+1 == h.Start:
			h.Start = o.Start
		case same && o.Start > h.End && h.End+1 == o.Start:
			h.End = o.End
		default:
			out = append(out, o)
		}
	}
	return append(out, h)
}

// shown returns what others need to know: which ranges are locked and how, not by whom. Of more
// than most ranges some that lie close together are shown as one, with what is between them.
func (t table) shown(most int) []Lock {
	list := make([]Lock, len(t))
	for i := range t {
		list[i] = t[i].Lock
	}
	slices.SortFunc(list, func(a, b Lock) int {
		switch {
		case a.Class != b.Class:
			return int(a.Class) - int(b.Class)
		case a.Exclusive != b.Exclusive:
			if a.Exclusive {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Start, b.Start)
	})
	out := list[:0]
	for _, l := range list {
		if n := len(out); n > 0 {
			last := &out[n-1]
			if last.alike(&l) && (l.Start <= last.End || last.End+1 == l.Start) {
				last.End = max(last.End, l.End)
				continue
			}
		}
		out = append(out, l)
	}
	return atMost(most, out)
}

// atMost closes the smallest gaps between sorted locks of the same kind, as many as it takes
// to leave no more than most.
func atMost(most int, list []Lock) []Lock {
	if len(list) <= most {
		return list
	}
	var gaps []int // the locks behind them
	for i := 1; i < len(list); i++ {
		if list[i].alike(&list[i-1]) {
			gaps = append(gaps, i)
		}
	}
	width := func(i int) uint64 { return list[i].Start - list[i-1].End }
	slices.SortStableFunc(gaps, func(i, j int) int { return cmp.Compare(width(i), width(j)) })
	closed := make([]bool, len(list))
	for _, i := range gaps[:min(len(gaps), len(list)-most)] {
		closed[i] = true
	}
	out := list[:0]
	for i, l := range list {
		if closed[i] {
			out[len(out)-1].End = l.End
			continue
		}
		out = append(out, l)
	}
	return out
}
