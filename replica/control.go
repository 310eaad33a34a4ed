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

	removals   []*entry               // all, whether or not they hold
	inForce    []*removal             // those that do
	voided     map[Hash]bool          // entries without effect
	admissions map[DeviceID][]*entry  // all
	views      map[string]*controlLog // earlier states, by heads
	current    *writing               // nil: to be found
}

type deviceState struct {
	admissions []*entry
	admitted   *entry // the winning one
	renamed    *entry // nil: never
	returns    int    // how often it said that it is back

	valid       bool // one of its admissions is
	revocations []*removal
	revoked     *entry // nil: not thrown out
}

// out reports whether a device has no part any more.
func (d *deviceState) out() bool { return d.revoked != nil || !d.valid }

type epochState struct {
	opened *entry                 // the first; valid ones go first
	valid  bool                   // opened by an entry that is
	wraps  map[DeviceID]wrapState // the zero device is the recovery key
}

type wrapState struct {
	key   []byte
	from  *entry
	valid bool
}

func newControlLog(volume VolumeID) *controlLog {
	c := &controlLog{
		volume:  volume,
		entries: map[Hash]*entry{},
		heads:   map[Hash]struct{}{},
		views:   map[string]*controlLog{},
	}
	c.reset()
	return c
}

// reset forgets what the entries say.
func (c *controlLog) reset() {
	c.devices = map[DeviceID]*deviceState{}
	c.epochs = map[EpochID]*epochState{}
	c.policy = map[string]*entry{}
	c.recoveries, c.recovery = nil, nil
	c.checkpoints = map[Hash]*checkpointState{}
	c.inForce, c.current = nil, nil
	c.voided = map[Hash]bool{}
	c.admissions = map[DeviceID][]*entry{}
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
	knowing := c.onTop(e.parents)
	c.link(e)
	if removes(e) || len(c.removals) > 0 && !knowing && isAdmission(e) {
		c.evaluate()
		return
	}
	if isAdmission(e) {
		c.admissions[admitted(e)] = append(c.admissions[admitted(e)], e)
	}
	if !knowing && c.isVoid(e, c.inForce, c.voided) {
		c.voided[e.hash] = true
	}
	c.apply(e)
}

// restore takes an entry that was judged when it came. evaluate must follow.
func (c *controlLog) restore(e *entry) error {
	if _, twice := c.entries[e.hash]; twice || !c.knows(e.parents) {
		return invalid("control entry twice, or before its parents")
	}
	c.link(e)
	return nil
}

// link puts an entry in its place, without effect yet.
func (c *controlLog) link(e *entry) {
	for _, p := range e.parents {
		e.height = max(e.height, c.entries[p].height+1)
		delete(c.heads, p)
	}
	c.entries[e.hash] = e
	c.order = append(c.order, e)
	c.heads[e.hash] = struct{}{}
	if removes(e) {
		c.removals = append(c.removals, e)
	}
}

// judge decides whether the signer had the right to say this, from what its
// entry builds on and nothing else: so every device decides alike.
func (c *controlLog) judge(e *entry) error {
	c = c.asKnownBy(e.parents)
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
	if r := e.what.GetRevoke(); r != nil && (!c.everAdmitted(DeviceID(r.GetDevice()), e, 0) || e.signer == DeviceID(r.GetDevice())) {
		return invalid("revocation of a device that was not let in, or of oneself")
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
	if d == nil || d.out() {
		return false
	}
	return c.everAdmitted(device, e, role)
}

// everAdmitted is admittedBefore for devices that may have been thrown out since.
func (c *controlLog) everAdmitted(device DeviceID, e *entry, role Role) bool {
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
	if c.onTop(e.parents) { // the usual case: it builds on everything there is
		return true
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

// apply has an entry take effect. Of void ones, what others may have built on before
// they knew is remembered: the admission of a device that wrote something, keys that
// something was sealed with, and checkpoints, which count once a device in good standing has said the same.
func (c *controlLog) apply(e *entry) {
	void := c.voided[e.hash]
	if void && (e.what.GetRename() != nil || e.what.GetPolicy() != nil || e.what.GetRecovery() != nil || e.what.GetReturn() != nil) {
		return
	}
	c.current = nil
	switch w := e.what.GetWhat().(type) {
	case *replicapb.ControlEntry_Genesis:
		c.admit(e.signer, e)
		c.recoveries = append(c.recoveries, e)
		c.recovery = e
		c.devices[e.signer].valid = true
	case *replicapb.ControlEntry_Admit:
		c.admit(DeviceID(w.Admit.GetDevice()), e)
		c.addWraps(e, w.Admit.GetWraps())
	case *replicapb.ControlEntry_Rename:
		if d := c.devices[DeviceID(w.Rename.GetDevice())]; e.beats(d.renamed) {
			d.renamed = e
		}
	case *replicapb.ControlEntry_Epoch:
		if !w.Epoch.GetHanded() {
			c.openEpoch(e, EpochID(w.Epoch.GetId()))
		}
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
		for _, s := range c.checkpoints { // its entries are in order
			if s.endorsed[e.signer] {
				s.gaveUp[e.signer] = true
			}
		}
	case *replicapb.ControlEntry_Checkpoint:
		if w.Checkpoint.GetFormat() == 1 {
			c.checkpoints[e.hash] = &checkpointState{entry: e, endorsed: map[DeviceID]bool{e.signer: true}, gaveUp: map[DeviceID]bool{}, vouched: !void}
		}
	case *replicapb.ControlEntry_Endorse:
		if s := c.checkpoints[Hash(w.Endorse.GetCheckpoint())]; s != nil {
			s.endorsed[e.signer] = true
			delete(s.gaveUp, e.signer)
			s.vouched = s.vouched || !void
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
	valid := !c.voided[e.hash]
	if valid == d.valid && e.beats(d.admitted) || valid && !d.valid {
		d.admitted = e
	}
	d.valid = d.valid || valid
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
	s, valid := c.epoch(id), !c.voided[e.hash]
	if s.opened == nil || valid && !s.valid || valid == s.valid && s.opened.beats(e) {
		s.opened, s.valid = e, valid
	}
}

func (c *controlLog) addWraps(e *entry, wraps []*replicapb.Wrap) {
	valid := !c.voided[e.hash]
	for _, w := range wraps {
		s := c.epoch(EpochID(w.GetEpoch()))
		var device DeviceID
		copy(device[:], w.GetDevice())
		if was := s.wraps[device]; valid && !was.valid || valid == was.valid && e.beats(was.from) {
			s.wraps[device] = wrapState{w.GetKey(), e, valid}
		}
	}
}

// currentEpoch returns the epoch to write in: of those that nobody can open who is out,
// the last opened, and of several at once the same one everywhere. There may be none.
func (c *controlLog) currentEpoch() (id EpochID, found bool) {
	if c.current == nil {
		var last *entry
		for i, s := range c.epochs {
			if s.opened != nil && s.opened.beats(last) && !c.leaked(s) {
				id, last = i, s.opened
			}
		}
		c.current = &writing{id, last != nil}
	}
	return c.current.epoch, c.current.found
}

// lastEpochOf returns the last epoch that a device can open.
func (c *controlLog) lastEpochOf(device DeviceID) (id EpochID) {
	var last *entry
	for i, s := range c.epochs {
		if _, can := s.wraps[device]; can && s.opened != nil && s.opened.beats(last) {
			id, last = i, s.opened
		}
	}
	return id
}

// writing is the epoch to write in, if there is one.
type writing struct {
	epoch EpochID
	found bool
}

// leaked reports whether somebody may be able to open an epoch who is out: a device, or
// the holder of a phrase that was retired.
func (c *controlLog) leaked(s *epochState) bool {
	if !s.valid || c.isOut(s.opened.signer) || !c.precedes(c.recovery, s.opened) {
		return true
	}
	for device, w := range s.wraps {
		if w.valid && c.isOut(device) {
			return true
		}
	}
	return false
}

// isOut reports whether a device was let in once and has no part any more.
func (c *controlLog) isOut(device DeviceID) bool {
	d := c.devices[device]
	return d != nil && d.out()
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

// device returns a device that is in.
func (c *controlLog) device(id DeviceID) (Device, bool) {
	if s := c.devices[id]; s == nil || s.out() {
		return Device{}, false
	}
	return c.known(id)
}

// known returns a device that is in or was.
func (c *controlLog) known(id DeviceID) (Device, bool) {
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

// deviceList returns the devices that are in, in the order of their admission.
func (c *controlLog) deviceList() []Device {
	ids := make([]DeviceID, 0, len(c.devices))
	for id, s := range c.devices {
		if !s.out() {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b DeviceID) int {
		if c.devices[b].admitted.beats(c.devices[a].admitted) {
			return -1
		}
		return 1
	})
	out := make([]Device, len(ids))
	for i, id := range ids {
		out[i], _ = c.known(id)
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
