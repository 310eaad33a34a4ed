package node

import (
	"encoding/hex"
	"fmt"
	"slices"
	"testing"

	"github.com/foreverfs/forever/internal/kv"
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

// reopen starts a member again, beside others that run.
func (m byHand) reopen(beside ...byHand) byHand {
	m.t.Helper()
	cfg := m.n.cfg
	for _, o := range beside {
		st, err := o.n.repl.Status()
		if err != nil {
			m.t.Fatal(err)
		}
		cfg.Peers = append(cfg.Peers, st.Listen)
	}
	return newByHand(m.t, cfg)
}

// silence has a member believe that another was never heard of, or was just now.
func (m byHand) silence(d replica.DeviceID, gone bool) {
	name := hex.EncodeToString(d[:])
	m.presence.Silent[name] = 0
	if gone {
		m.presence.Silent[name] = 1000 * day
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

// makesBeside makes a checkpoint of what it and another did since the last one, which the other has and has not judged.
func (m byHand) makesBeside(other byHand) replica.Checkpoint {
	m.t.Helper()
	other.full()
	m.fill("two")
	promiseAll(other, m)
	cp := m.makes()
	alike(other, m)
	return cp
}

// TestExportAtEndorsers: whoever endorses a checkpoint has its export, so it is not lost with the maker.
func TestExportAtEndorsers(t *testing.T) {
	all := several(t, "w")
	a, w := all[0], all[1]
	cp := w.makesBeside(a)
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
			cp := w.makesBeside(a)
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

// TestExportSealedOtherwise: the export is lost with its maker, and who could endorse the checkpoint seals in another epoch by now.
func TestExportSealedOtherwise(t *testing.T) {
	all := several(t, "w")
	a, w := all[0], all[1]
	cp := w.makesBeside(a)
	w.close()
	if err := a.n.repl.Revoke(w.n.repl.Self(), "lost"); err != nil {
		t.Fatal(err)
	}
	for i := 0; len(a.n.newestComplete().Active) != 1; i++ {
		if i == 15 {
			t.Fatal("no checkpoint without the one that is lost")
		}
		a.fill(fmt.Sprint("alone", i, "-"))
		_ = a.step(t.Context()) // says that the export cannot be had
	}
	if got := a.n.checkpoint(cp.ID); got == nil || got.Complete() {
		t.Error("endorsed without its export")
	}
}

// TestMakerLost: what a checkpoint is made of is lost with its maker, before all of it was anywhere else. Once that one is out,
// or forgotten, the others go on.
func TestMakerLost(t *testing.T) {
	for _, revoked := range []bool{false, true} {
		t.Run(fmt.Sprint("revoked ", revoked), func(t *testing.T) {
			all := several(t, "w")
			a, w := all[0], all[1]
			a.close()
			w.fill("away")
			w.makes()
			entries := map[string][]byte{}
			err := w.n.state.Scan([]byte{'c'}, kv.PrefixEnd([]byte{'c'}), func(k, v []byte) bool {
				entries[string(k)] = append([]byte(nil), v...)
				return true
			})
			if err != nil {
				t.Fatal(err)
			}
			w.close()
			a = a.reopen() // and hears of it, but has none of the batches
			err = a.n.state.Update(func(tx kv.Tx) error {
				for k, v := range entries {
					if err := tx.Put([]byte(k), v); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			a.close()
			a = a.reopen()
			if a.n.repl.Checkpoints()[0].Complete() {
				t.Fatal("did not hear of it")
			}
			if revoked {
				if err := a.n.repl.Revoke(w.n.repl.Self(), "lost"); err != nil {
					t.Fatal(err)
				}
			}
			for i := 0; len(a.n.newestComplete().Active) != 1; i++ {
				if i == 15 {
					t.Fatal("no checkpoint without the one that is lost")
				}
				a.fill(fmt.Sprint("alone", i, "-"))
				a.silence(w.n.repl.Self(), !revoked)
				a.steps()
			}
			for range 6 {
				a.steps()
			}
			if made := len(a.n.repl.Checkpoints()); made > 4 {
				t.Errorf("%d checkpoints without work", made)
			}
		})
	}
}

// TestEqualClock: of two checkpoints of the same, one stays incomplete; nobody waits for it. Who has heard of one does not make another.
func TestEqualClock(t *testing.T) {
	all := several(t, "b")
	a, b := all[0], all[1]
	a.fill("two")
	promiseAll(a, b)
	list, seen, active := a.n.repl.Checkpoints(), a.n.vector(), a.n.members()
	for _, m := range all { // neither hears of the other's before
		tree, err := m.anew(t.Context(), list, seen, active)
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.n.repl.ProposeCheckpoint(replica.Checkpoint{Active: active, Clock: tree.clock, Version: tree.version, Digest: tree.digest}, tree.base, seen)
		if err != nil {
			t.Fatal(err)
		}
	}
	alike(a, b)
	a.due = 100
	if err := a.make(t.Context(), list); err != nil || len(a.n.repl.Checkpoints()) != len(list)+2 {
		t.Errorf("made another though there are two meanwhile: %v", err)
	}
	first, second := a, b
	if a.n.repl.Checkpoints()[0].Maker == b.n.repl.Self() {
		first, second = b, a
	}
	first.steps()
	alike(a, b)
	second.steps()
	alike(a, b)
	agreed(a, b)
}

// TestGivenUp: members that made checkpoints while they were away, and then began anew, go on from the one that they began from, and take
// part in the next.
func TestGivenUp(t *testing.T) {
	all := several(t, "v", "w")
	a, away := all[0], all[1:]
	for _, m := range all {
		m.close()
	}
	for i, m := range away {
		m = m.reopen()
		for j := range 4 {
			m.fill(fmt.Sprint("away", i, "-", j, "-"))
		}
		m.makes()
		m.close()
	}
	a = a.reopen()
	for i := range 8 {
		a.fill(fmt.Sprint("alone", i, "-"))
		for _, m := range away {
			a.silence(m.n.repl.Self(), true)
		}
		a.steps()
	}
	for i, m := range away {
		m = m.reopen(a)
		until(t, "the others having gone on", m.n.behind.Load)
		m.close()
		away[i] = m.reopen(a)
		if away[i].n.behind.Load() {
			t.Fatal("still behind")
		}
	}
	for _, m := range away {
		m.steps()
	}
	agreed(a, away[0], away[1])
}

// TestViews: members that do not agree on who is gone make no more checkpoints than there is work.
func TestViews(t *testing.T) {
	all := several(t, "b", "r")
	a, b, r := all[0], all[1], all[2].n.repl.Self()
	all[2].close()
	a.fill("two")
	promiseAll(a, b)
	list := a.n.repl.Checkpoints()
	for i := range 40 {
		a.silence(r, false)
		b.silence(r, true)
		a.put(fmt.Sprint("little", i))
		for _, m := range []byHand{a, b} {
			m.steps()
			alike(a, b)
		}
	}
	worth := 2 * (1 + a.grown(lastOf(list))/a.enough())
	if made := len(a.n.repl.Checkpoints()) - len(list); made == 0 || uint64(made) > worth {
		t.Errorf("%d checkpoints for work that is worth %d", made, worth)
	}
	for range 2 { // once they agree the next one is complete
		a.silence(r, true)
		agreed(a, b)
	}
}

// TestNoSpinning: whatever becomes of what a device made, it makes another one when there was as much work again, not before.
func TestNoSpinning(t *testing.T) {
	all := several(t, "b")
	a := all[0]
	a.fill("two")
	promiseAll(all...)
	before := len(a.n.repl.Checkpoints())
	idle := func() int {
		for range 10 {
			a.steps()
			for _, cp := range a.n.repl.Checkpoints() {
				a.vain[cp.ID] = !cp.Complete() // as if it could never have what the others begin from
			}
		}
		return len(a.n.repl.Checkpoints()) - before
	}
	if made := idle(); made != 1 {
		t.Errorf("%d checkpoints without work", made)
	}
	a.fill("three")
	a.fill("four")
	if made := idle(); made != 2 {
		t.Errorf("%d checkpoints after as much work again", made)
	}
}

// TestReturnLacksExport: a power cut, while a device began anew, took chunks of the export that it had fetched. It fetches them again.
func TestReturnLacksExport(t *testing.T) {
	all := several(t, "w")
	a, w := all[0], all[1]
	w.full()
	a.close()
	w.fill("away")
	w.close()
	a = a.reopen()
	for i := range 6 {
		a.fill(fmt.Sprint("alone", i, "-"))
		a.silence(w.n.repl.Self(), true)
		a.steps()
	}
	w = w.reopen(a)
	until(t, "the others having gone on", w.n.behind.Load)
	cp := w.n.newestComplete()
	if here, err := w.n.isHere(t.Context(), cp.Version); err != nil || here {
		t.Fatalf("the export is here: %v, %v", here, err)
	}
	back, err := w.n.repl.Return()
	if err == nil {
		err = w.n.note(&beginning{Checkpoint: cp.ID, Return: back, Phase: joining})
	}
	if err != nil {
		t.Fatal(err)
	}
	w.close()
	w = w.reopen(a)
	if w.n.behind.Load() {
		t.Error("still behind")
	}
	alike(a, w)
}
