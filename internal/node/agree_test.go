package node

import (
	"fmt"
	"slices"
	"testing"

	"github.com/foreverfs/forever/replica"
)

// several makes a volume of several members that have agreed on a checkpoint.
func several(t *testing.T, names ...string) []byHand {
	t.Helper()
	cfg := byHandConfig(t, "a")
	if _, err := Create(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	all := []byHand{newByHand(t, cfg)}
	for _, name := range names {
		all = append(all, all[0].joinByHand(name))
	}
	all[0].fill("one")
	agreed(all...)
	return all
}

// agreed lets the members work and step until they have agreed on a further checkpoint of all of them.
func agreed(members ...byHand) {
	first := members[0]
	first.t.Helper()
	for i := range 15 {
		last := lastOf(first.n.repl.Checkpoints())
		first.fill(fmt.Sprint("work", i, "-"))
		for _, m := range members {
			m.steps()
			alike(members...)
		}
		if cp := first.n.newestComplete(); cp != nil && cp.Clock > last && len(cp.Active) == len(members) {
			rest(members...)
			return
		}
	}
	first.t.Fatal("no further checkpoint of all")
}

// rest lets the members step until none has anything to do.
func rest(members ...byHand) {
	first := members[0]
	first.t.Helper()
	for range 20 {
		for _, m := range members {
			m.steps()
			alike(members...)
		}
		if list := first.n.repl.Checkpoints(); list[0].Complete() && !first.isDue(list) {
			return
		}
	}
	first.t.Fatal("no rest")
}

func (m byHand) close() {
	m.t.Helper()
	if err := m.n.Close(); err != nil {
		m.t.Error(err)
	}
}

// makes has a member make a checkpoint now.
func (m byHand) makes() replica.Checkpoint {
	m.t.Helper()
	before := m.n.repl.Checkpoints()
	m.due = 100
	if err := m.make(m.t.Context(), before); err != nil {
		m.t.Fatal(err)
	}
	for _, cp := range m.n.repl.Checkpoints() {
		if !slices.ContainsFunc(before, func(o replica.Checkpoint) bool { return o.ID == cp.ID }) {
			return cp
		}
	}
	m.t.Fatal("made no checkpoint")
	return replica.Checkpoint{}
}

// full lets nothing more into a member's store that others push.
func (m byHand) full() {
	m.t.Helper()
	if err := (controlNode{m.n}).SetQuota(m.t.Context(), 1); err != nil {
		m.t.Fatal(err)
	}
}

func (m byHand) files() uint64 {
	files, _, _ := m.n.vol.Count()
	return files
}

// TestExportAtEndorsers: whoever endorses a checkpoint has its export, so it is not lost with the maker.
func TestExportAtEndorsers(t *testing.T) {
	all := several(t, "w")
	a, w := all[0], all[1]
	a.full()
	w.fill("two")
	promiseAll(a, w)
	cp := w.makes()
	alike(a, w)
	a.steps()
	if got := a.n.newestComplete(); got == nil || got.ID != cp.ID {
		t.Fatal("not complete")
	}
	if here, err := a.n.isHere(t.Context(), cp.Version); err != nil || !here {
		t.Errorf("its export is here: %v, %v", here, err)
	}
	w.close()
	a.joinByHand("c")
}

// TestExportLost: the export of the newest complete checkpoint is nowhere any more; the logs are. Who joins takes those, and a
// further checkpoint is made from them.
func TestExportLost(t *testing.T) {
	for _, before := range []string{"an older one", "nothing"} {
		t.Run(before+" before it", func(t *testing.T) {
			ctx := t.Context()
			var a, w byHand
			if before == "nothing" {
				cfg := byHandConfig(t, "a")
				if _, err := Create(ctx, cfg); err != nil {
					t.Fatal(err)
				}
				a = newByHand(t, cfg)
				w = a.joinByHand("w")
			} else {
				all := several(t, "w")
				a, w = all[0], all[1]
			}
			a.full()
			w.fill("two")
			promiseAll(a, w)
			cp := w.makes()
			alike(a, w)
			if err := a.n.repl.Endorse(cp.ID); err != nil { // as versions did that kept no export
				t.Fatal(err)
			}
			alike(a, w)
			w.close()
			if err := a.n.repl.Revoke(w.n.repl.Self(), "lost"); err != nil {
				t.Fatal(err)
			}
			a.steps()
			c := a.joinByHand("c")
			alike(a, c)
			if c.files() != a.files() {
				t.Errorf("%d files there, %d here", c.files(), a.files())
			}
			agreed(a, c)
		})
	}
}
