package replica

import (
	"bytes"
	"slices"
	"time"

	"github.com/foreverfs/forever/replica/replicapb"
)

// controlLog is the record of devices, epochs and policy: a DAG of signed entries,
// judged by what each entry's signer could know. What it says is a function of
// the set of entries, whatever their order of arrival. Not safe for concurrent use.
type controlLog struct {
	volume  VolumeID
	entries map[Hash]*entry
	order   []*entry // as they arrived: parents before children
	heads   map[Hash]struct{}

	devices    map[DeviceID]*deviceState
	epochs     map[EpochID]*epochState
	policy     map[string]*entry // the winning entry of each key
	recoveries []*entry
	recovery   *entry // the one in force

	checkpoints map[Hash]*checkpointState
}

type deviceState struct {
	admissions []*entry
	admitted   *entry // the winning one
	renamed    *entry // nil: never
	returns    int    // how often it said that it is back
}

type epochState struct {
	opened *entry                 // the first
	wraps  map[DeviceID]wrapState // the zero device is the recovery key
}

type wrapState struct {
	key  []byte
	from *entry
}

func newControlLog(volume VolumeID) *controlLog {
	return &controlLog{
		volume:  volume,
		entries: map[Hash]*entry{},
		heads:   map[Hash]struct{}{},
		devices: map[DeviceID]*deviceState{},
		epochs:  map[EpochID]*epochState{},
		policy:  map[string]*entry{},

		checkpoints: map[Hash]*checkpointState{},
	}
}

// add takes a well-formed entry if it may be there, and reports whether it is new.
func (c *controlLog) add(e *entry) (bool, error) {
	known, err := c.check(e)
	if known || err != nil {
		return false, err
	}
	c.insert(e)
	return true, nil
}

// check decides whether e may be there, and reports whether it already is.
func (c *controlLog) check(e *entry) (known bool, err error) {
	if _, known := c.entries[e.hash]; known {
		return true, nil
	}
	if !c.knows(e.parents) {
		return false, invalid("control entry with an unknown parent")
	}
	return false, c.judge(e)
}

// insert takes an entry that was checked.
func (c *controlLog) insert(e *entry) {
	for _, p := range e.parents {
		e.height = max(e.height, c.entries[p].height+1)
		delete(c.heads, p)
	}
	c.entries[e.hash] = e
	c.order = append(c.order, e)
	c.heads[e.hash] = struct{}{}
	c.apply(e)
}

// judge decides whether the signer had the right to say this, from what its
// entry builds on and nothing else: so every device decides alike.
func (c *controlLog) judge(e *entry) error {
	if e.what.GetGenesis() != nil {
		if len(c.order) > 0 {
			return invalid("a second genesis")
		}
		return nil
	}
	if r := e.what.GetRename(); r != nil {
		if !c.admittedBefore(DeviceID(r.GetDevice()), e, 0) {
			return invalid("name for a device that was not admitted")
		}
		if e.signer == DeviceID(r.GetDevice()) {
			return nil
		}
	}
	if e.what.GetReturn() != nil {
		if !c.admittedBefore(e.signer, e, RoleMember) {
			return invalid("return of a device that is no member")
		}
		return nil
	}
	if e.what.GetCheckpoint() != nil || e.what.GetEndorse() != nil {
		return c.judgeCheckpointing(e)
	}
	if c.admittedBefore(e.signer, e, RoleMember) || c.recoveryBefore(e.signer, e) {
		return nil
	}
	return invalid("control entry by a device without the right to it")
}

// admittedBefore reports whether device was admitted in the past of e; role 0 is any.
func (c *controlLog) admittedBefore(device DeviceID, e *entry, role Role) bool {
	d := c.devices[device]
	if d == nil {
		return false
	}
	var last *entry
	for _, a := range d.admissions {
		if c.precedes(a, e) && a.beats(last) {
			last = a
		}
	}
	return last != nil && (role == 0 || roleIn(last) == role)
}

// recoveryBefore reports whether key is the recovery key in force in the past of e.
func (c *controlLog) recoveryBefore(key DeviceID, e *entry) bool {
	var last *entry
	for _, r := range c.recoveries {
		if c.precedes(r, e) && r.beats(last) {
			last = r
		}
	}
	return last != nil && bytes.Equal(recoveryIn(last).GetSign(), key[:])
}

// precedes reports whether a is in the past of e, which is not in the log yet.
func (c *controlLog) precedes(a, e *entry) bool {
	if len(e.parents) == len(c.heads) {
		all := true
		for _, p := range e.parents {
			_, is := c.heads[p]
			all = all && is
		}
		if all { // the usual case: it builds on everything there is
			return true
		}
	}
	seen := map[Hash]bool{}
	next := slices.Clone(e.parents)
	for len(next) > 0 {
		h := next[len(next)-1]
		next = next[:len(next)-1]
		if h == a.hash {
			return true
		}
		if p := c.entries[h]; !seen[h] && p.height > a.height {
			next = append(next, p.parents...)
		}
		seen[h] = true
	}
	return false
}

func (c *controlLog) apply(e *entry) {
	switch w := e.what.GetWhat().(type) {
	case *replicapb.ControlEntry_Genesis:
		c.admit(e.signer, e)
		c.recoveries = append(c.recoveries, e)
		c.recovery = e
	case *replicapb.ControlEntry_Admit:
		c.admit(DeviceID(w.Admit.GetDevice()), e)
		c.addWraps(e, w.Admit.GetWraps())
	case *replicapb.ControlEntry_Rename:
		d := c.devices[DeviceID(w.Rename.GetDevice())]
		if e.beats(d.renamed) {
			d.renamed = e
		}
	case *replicapb.ControlEntry_Epoch:
		c.openEpoch(e, EpochID(w.Epoch.GetId()))
		c.addWraps(e, w.Epoch.GetWraps())
	case *replicapb.ControlEntry_Policy:
		for _, s := range w.Policy.GetSettings() {
			if e.beats(c.policy[s.GetKey()]) {
				c.policy[s.GetKey()] = e
			}
		}
	case *replicapb.ControlEntry_Recovery:
		c.recoveries = append(c.recoveries, e)
		if e.beats(c.recovery) {
			c.recovery = e
		}
	case *replicapb.ControlEntry_Return:
		c.devices[e.signer].returns++
	case *replicapb.ControlEntry_Checkpoint:
		if w.Checkpoint.GetFormat() == 1 {
			c.checkpoints[e.hash] = &checkpointState{entry: e, endorsed: map[DeviceID]bool{e.signer: true}}
		}
	case *replicapb.ControlEntry_Endorse:
		if s := c.checkpoints[Hash(w.Endorse.GetCheckpoint())]; s != nil {
			s.endorsed[e.signer] = true
		}
	}
}

func (c *controlLog) admit(device DeviceID, e *entry) {
	d := c.devices[device]
	if d == nil {
		d = &deviceState{}
		c.devices[device] = d
	}
	d.admissions = append(d.admissions, e)
	if e.beats(d.admitted) {
		d.admitted = e
	}
}

// epoch returns the state of an epoch. One that only wrapped keys have named so
// far is not open.
func (c *controlLog) epoch(id EpochID) *epochState {
	s := c.epochs[id]
	if s == nil {
		s = &epochState{wraps: map[DeviceID]wrapState{}}
		c.epochs[id] = s
	}
	return s
}

func (c *controlLog) openEpoch(e *entry, id EpochID) {
	if s := c.epoch(id); s.opened == nil || s.opened.beats(e) {
		s.opened = e
	}
}

func (c *controlLog) addWraps(e *entry, wraps []*replicapb.Wrap) {
	for _, w := range wraps {
		s := c.epoch(EpochID(w.GetEpoch()))
		var device DeviceID
		copy(device[:], w.GetDevice())
		if e.beats(s.wraps[device].from) {
			s.wraps[device] = wrapState{w.GetKey(), e}
		}
	}
}

// currentEpoch returns the epoch to write in: the last opened, and of several
// at once the same one everywhere.
func (c *controlLog) currentEpoch() (EpochID, bool) {
	var id EpochID
	var last *entry
	for i, s := range c.epochs {
		if s.opened != nil && s.opened.beats(last) {
			id, last = i, s.opened
		}
	}
	return id, last != nil
}

// knows reports whether every hash names an entry.
func (c *controlLog) knows(hashes []Hash) bool {
	for _, h := range hashes {
		if _, ok := c.entries[h]; !ok {
			return false
		}
	}
	return true
}

// headList returns at most maxHeads heads, the highest first chosen, sorted by hash.
func (c *controlLog) headList() []Hash {
	list := make([]*entry, 0, len(c.heads))
	for h := range c.heads {
		list = append(list, c.entries[h])
	}
	slices.SortFunc(list, func(a, b *entry) int {
		if a.beats(b) {
			return -1
		}
		return 1
	})
	out := make([]Hash, 0, min(len(list), maxHeads))
	for _, e := range list[:min(len(list), maxHeads)] {
		out = append(out, e.hash)
	}
	slices.SortFunc(out, func(a, b Hash) int { return bytes.Compare(a[:], b[:]) })
	return out
}

// lacking returns, parents first, the entries that a device with the given heads
// may lack. Heads unknown here say nothing.
func (c *controlLog) lacking(heads []Hash) []*entry {
	has := map[Hash]bool{}
	next := slices.Clone(heads)
	for len(next) > 0 {
		h := next[len(next)-1]
		next = next[:len(next)-1]
		if e, ok := c.entries[h]; ok && !has[h] {
			has[h] = true
			next = append(next, e.parents...)
		}
	}
	var out []*entry
	for _, e := range c.order {
		if !has[e.hash] {
			out = append(out, e)
		}
	}
	return out
}

// reach reports whether heads are known and have an entry, which is known, among them or in their past.
func (c *controlLog) reach(heads []Hash, to Hash) bool {
	return c.knows(heads) && !slices.ContainsFunc(c.lacking(heads), func(e *entry) bool { return e.hash == to })
}

// Device is one device as the control log has it.
type Device struct {
	ID       DeviceID
	Name     string
	Role     Role
	Box      []byte // X25519 key that epoch keys are wrapped to
	Admitted time.Time
	By       DeviceID // who let it in; the founder names itself
}

func (c *controlLog) device(id DeviceID) (Device, bool) {
	s := c.devices[id]
	if s == nil {
		return Device{}, false
	}
	d := Device{ID: id, Role: roleIn(s.admitted), By: s.admitted.signer, Admitted: time.UnixMilli(s.admitted.what.GetTime())}
	if g := s.admitted.what.GetGenesis(); g != nil {
		d.Name, d.Box = g.GetName(), g.GetBox()
	} else {
		a := s.admitted.what.GetAdmit()
		d.Name, d.Box = a.GetName(), a.GetBox()
	}
	if s.renamed != nil {
		d.Name = s.renamed.what.GetRename().GetName()
	}
	return d, true
}

// deviceList returns all devices in the order of their admission.
func (c *controlLog) deviceList() []Device {
	ids := make([]DeviceID, 0, len(c.devices))
	for id := range c.devices {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b DeviceID) int {
		if c.devices[b].admitted.beats(c.devices[a].admitted) {
			return -1
		}
		return 1
	})
	out := make([]Device, len(ids))
	for i, id := range ids {
		out[i], _ = c.device(id)
	}
	return out
}

func (c *controlLog) settings() map[string]string {
	out := make(map[string]string, len(c.policy))
	for key, e := range c.policy {
		for _, s := range e.what.GetPolicy().GetSettings() {
			if s.GetKey() == key {
				out[key] = s.GetValue()
			}
		}
	}
	return out
}

func roleIn(admission *entry) Role {
	if a := admission.what.GetAdmit(); a != nil {
		return Role(a.GetRole())
	}
	return RoleMember
}

func recoveryIn(e *entry) *replicapb.Recovery {
	if g := e.what.GetGenesis(); g != nil {
		return g.GetRecovery()
	}
	return e.what.GetRecovery()
}
