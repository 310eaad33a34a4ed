package replica

import (
	"bytes"
	"slices"
)

// A device is thrown out, and a recovery key retired, by an entry that removes its
// signing key. A removal takes effect on what its signer did not know when it was
// made: what the removed key signed before, and the signer of the removal knew,
// stays; the rest is void, however it is dated and whenever it arrives. Devices that
// throw each other out are both out, unless the recovery key has thrown out one of
// them as well. What follows from that is a function of the set of entries: the
// well-founded model of "a removal holds unless another that holds makes it void"
// (Van Gelder, Ross, Schlipf 1991), where removals that neither hold nor fall hold.
//
// A key that was thrown out stays out: the machine comes back by joining anew.

// removal is an entry that takes the rights of a key.
type removal struct {
	*entry
	device  DeviceID      // thrown out
	retires map[Hash]bool // or: the entries whose recovery keys are retired
	past    map[Hash]bool
	// final: signed by a recovery key that nobody can have slipped in who was thrown out.
	final bool
}

// knows reports whether who removed knew an entry.
func (r *removal) knows(e *entry) bool { return r.past[e.hash] || e.hash == r.hash }

// evaluate makes what the log says anew from its entries.
func (c *controlLog) evaluate() {
	c.reset()
	for _, e := range c.order {
		if isAdmission(e) {
			c.admissions[admitted(e)] = append(c.admissions[admitted(e)], e)
		}
		if recoveryIn(e) != nil {
			c.recoveries = append(c.recoveries, e)
		}
	}
	revocations, retirements := c.removalLists()
	// Who holds a retired phrase can sign what he likes into the past. So a
	// retirement stands unless it falls even though that is left out.
	var retired []*removal
	for _, t := range retirements {
		with := append(slices.Clone(retired), t)
		if void := c.voidUnder(c.holding(revocations, with), with); !void[t.hash] {
			retired = with
		}
	}
	c.inForce = append(c.holding(revocations, retired), retired...)
	c.voided = c.voidUnder(c.inForce, nil)
	c.recoveries = nil
	for _, e := range c.order {
		c.apply(e)
	}
	c.expel()
}

// isAdmission reports whether an entry lets a device in.
func isAdmission(e *entry) bool { return e.what.GetAdmit() != nil || e.what.GetGenesis() != nil }

// admitted returns the device that an admission lets in.
func admitted(e *entry) DeviceID {
	if a := e.what.GetAdmit(); a != nil {
		return DeviceID(a.GetDevice())
	}
	return e.signer
}

// removes reports whether an entry takes the rights of a key.
func removes(e *entry) bool { return e.what.GetRevoke() != nil || e.what.GetRecovery() != nil }

// removalLists returns the revocations and the retirements, the earliest first.
func (c *controlLog) removalLists() (revocations, retirements []*removal) {
	list := slices.Clone(c.removals)
	slices.SortFunc(list, func(a, b *entry) int {
		if b.beats(a) {
			return -1
		}
		return 1
	})
	for _, e := range list {
		r := &removal{entry: e, past: c.pastOf(e.parents)}
		if v := e.what.GetRevoke(); v != nil {
			r.device = DeviceID(v.GetDevice())
			revocations = append(revocations, r)
			continue
		}
		r.retires = map[Hash]bool{}
		for _, k := range c.recoveries {
			if r.past[k.hash] {
				r.retires[k.hash] = true
			}
		}
		retirements = append(retirements, r)
	}
	suspect := c.voidUnder(revocations, nil)
	for _, r := range revocations {
		r.final = slices.ContainsFunc(c.recoveriesOf(r.entry), func(in *entry) bool { return !suspect[in.hash] })
	}
	return revocations, retirements
}

// holding returns the revocations that hold beside some retirements, by alternating
// from above and from below.
func (c *controlLog) holding(revocations, retired []*removal) []*removal {
	not := func(hold []*removal) (out []*removal) {
		void := c.voidUnder(hold, retired)
		for _, r := range revocations {
			if !void[r.hash] {
				out = append(out, r)
			}
		}
		return out
	}
	above := revocations
	for {
		next := not(not(above))
		if len(next) == len(above) {
			return above
		}
		above = next
	}
}

// voidUnder returns the entries that have no effect if certain removals hold.
func (c *controlLog) voidUnder(hold, also []*removal) map[Hash]bool {
	all := append(slices.Clone(hold), also...)
	void := map[Hash]bool{}
	for _, e := range c.order { // parents first
		if c.isVoid(e, all, void) {
			void[e.hash] = true
		}
	}
	return void
}

// isVoid decides about one entry; void has its past decided.
func (c *controlLog) isVoid(e *entry, hold []*removal, void map[Hash]bool) bool {
	if e.what.GetGenesis() != nil || len(hold) == 0 {
		return false
	}
	if len(c.admissions[e.signer]) == 0 {
		return !slices.ContainsFunc(c.recoveriesOf(e), func(in *entry) bool {
			return !void[in.hash] && !slices.ContainsFunc(hold, func(r *removal) bool { return r.retires[in.hash] && !r.knows(e) })
		})
	}
	unknown, last := false, false
	for _, r := range hold {
		if r.device == e.signer && r.retires == nil {
			unknown = unknown || !r.knows(e)
			last = last || r.final
		}
	}
	if unknown && (last || e.what.GetRevoke() == nil) {
		return true
	}
	// The signer's own right may have come from nowhere.
	admissions := c.admissions[e.signer]
	return !slices.ContainsFunc(admissions, func(a *entry) bool {
		return !void[a.hash] && (len(admissions) == 1 || c.precedes(a, e))
	})
}

// recoveriesOf returns the entries that put the key of a signer into force, if that is a
// recovery key. There may be several, and each is enough for what it signed.
func (c *controlLog) recoveriesOf(e *entry) (out []*entry) {
	if len(c.admissions[e.signer]) > 0 {
		return nil
	}
	for _, r := range c.recoveries {
		if bytes.Equal(recoveryIn(r).GetSign(), e.signer[:]) && c.precedes(r, e) {
			out = append(out, r)
		}
	}
	return out
}

// pastOf returns the entries that are or precede some that are in the log.
func (c *controlLog) pastOf(heads []Hash) map[Hash]bool {
	past := map[Hash]bool{}
	next := slices.Clone(heads)
	for len(next) > 0 {
		h := next[len(next)-1]
		next = next[:len(next)-1]
		if e := c.entries[h]; e != nil && !past[h] {
			past[h] = true
			next = append(next, e.parents...)
		}
	}
	return past
}

// expel marks the devices that were thrown out.
func (c *controlLog) expel() {
	for _, r := range c.inForce {
		d := c.devices[r.device]
		if d == nil || r.retires != nil {
			continue
		}
		d.revocations = append(d.revocations, r)
		if r.beats(d.revoked) {
			d.revoked = r.entry
		}
	}
}

// limit returns the last batch of an author that counts, if its device is out: what
// the devices that threw it out, or hold more of it, had of it.
func (c *controlLog) limit(author AuthorID, device DeviceID) (last uint64, limited bool) {
	d := c.devices[device]
	if d == nil || !d.out() {
		return 0, false
	}
	// The word of who was thrown out himself, unknowing, counts only where there is no other.
	words := slices.Clone(d.revocations)
	if slices.ContainsFunc(words, func(r *removal) bool { return !c.tied(r) }) {
		words = slices.DeleteFunc(words, c.tied)
	}
	for _, r := range words {
		for _, p := range r.what.GetRevoke().GetLast() {
			if bytes.Equal(p.GetAuthor(), author[:]) {
				last = max(last, p.GetSeq())
			}
		}
	}
	return last, true
}

// tied reports whether a revocation holds although its signer was thrown out by somebody who did not know of it.
func (c *controlLog) tied(r *removal) bool {
	d := c.devices[r.signer]
	return d != nil && slices.ContainsFunc(d.revocations, func(o *removal) bool { return !o.knows(r.entry) })
}

// maxViews bounds the earlier states of the log that are remembered.
const maxViews = 64

// asKnownBy returns the log as it is to somebody who knows certain heads.
func (c *controlLog) asKnownBy(heads []Hash) *controlLog {
	if c.onTop(heads) || len(c.removals) == 0 {
		return c
	}
	var key []byte
	for _, h := range heads {
		key = append(key, h[:]...)
	}
	if v := c.views[string(key)]; v != nil {
		return v
	}
	past := c.pastOf(heads)
	v := newControlLog(c.volume)
	for _, e := range c.order {
		if past[e.hash] {
			v.link(e)
		}
	}
	v.evaluate()
	if len(c.views) >= maxViews {
		clear(c.views)
	}
	c.views[string(key)] = v
	return v
}

// onTop reports whether heads are all that there is.
func (c *controlLog) onTop(heads []Hash) bool {
	return len(heads) == len(c.heads) && !slices.ContainsFunc(heads, func(h Hash) bool {
		_, is := c.heads[h]
		return !is
	})
}

// outList returns the devices that are out, ascending.
func (c *controlLog) outList() []DeviceID {
	var out []DeviceID
	for id, d := range c.devices {
		if d.out() {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, func(a, b DeviceID) int { return bytes.Compare(a[:], b[:]) })
	return out
}

// standing is what would have to change for any device to be treated otherwise: who
// is out, and what of it counts.
func (c *controlLog) standing() string {
	if len(c.removals) == 0 {
		return ""
	}
	var b []byte
	for _, id := range c.outList() {
		b = append(b, id[:]...)
	}
	for _, r := range c.inForce {
		b = append(b, r.hash[:]...)
	}
	return string(b)
}
