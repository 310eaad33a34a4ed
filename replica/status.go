package replica

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Status is what this device knows of the volume's replication.
type Status struct {
	Self      DeviceID
	Role      Role
	Name      string
	Listen    string // the address it listens at; empty: it does not
	Connected int
	Devices   []DeviceStatus // all, this one first
	// Revoked says that this device is out, or that another says so.
	Revoked bool
	// Clone says that a device refuses to talk to this one because the same
	// device is connected to it from elsewhere.
	Clone bool
}

// DeviceStatus is one device as this one sees it.
type DeviceStatus struct {
	Device
	Self      bool
	Connected bool
	Addrs     []string
	LastSeen  time.Time // zero: never
	// Mount says whether the device's mount and this one are kept in step, and
	// MountSince since when; unknown if leases were never exchanged with it.
	Mount      MountState
	MountSince time.Time
	// AckedBatches is how many of the batches stored here the device holds
	// durably; the Missing fields say what of this device's data it has not
	// acknowledged.
	AckedBatches   uint64
	MissingBatches uint64
	MissingChunks  uint64
	MissingBytes   uint64
	Full           bool   // it takes no more chunks
	Via            string // name of the device that the connection goes through; empty: it is direct
	clone, revoked bool
	untold         bool // it is connected, and lacks some of the control log
}

// MountState is whether two mounts are kept in step.
type MountState uint8

// The states of another device's mount.
const (
	MountUnknown MountState = iota
	MountDisconnected
	MountConnected
)

// String returns "connected", "disconnected" or "".
func (s MountState) String() string {
	switch s {
	case MountConnected:
		return "connected"
	case MountDisconnected:
		return "disconnected"
	}
	return ""
}

// Progress says how far a Wait is.
type Progress struct {
	Want int // other devices that shall hold everything
	Have int // that do
	// What the device closest to being the next still lacks.
	MissingBatches uint64
	MissingChunks  uint64
	MissingBytes   uint64
	Connected      int
	Full           []string // names of those that lack something and take no more chunks
}

// Status returns what is known now.
func (r *Replica) Status() (Status, error) {
	r.mu.Lock()
	me, _ := r.control.known(r.self)
	st := Status{Self: r.self, Role: me.Role, Name: me.Name, Listen: r.listenAddr, Connected: len(r.sessions)}
	st.Revoked = r.control.isOut(r.self)
	vector := r.counts()
	devices := r.control.deviceList()
	r.mu.Unlock()
	st.Devices = append(st.Devices, DeviceStatus{Device: me, Self: true, Connected: true, Addrs: r.Addrs(), LastSeen: r.cfg.Now()})
	for _, d := range devices {
		if d.ID == r.self {
			continue
		}
		ds, err := r.deviceStatus(d, vector, r.cfg.Store.End(), r.tallies)
		if err != nil {
			return Status{}, err
		}
		st.Devices = append(st.Devices, ds)
		st.Clone, st.Revoked = st.Clone || ds.clone, st.Revoked || ds.revoked
	}
	return st, nil
}

// deviceStatus compares what a device acknowledged with a goal.
func (r *Replica) deviceStatus(d Device, vector map[AuthorID]uint64, end Position, counts tallies) (DeviceStatus, error) {
	ds := DeviceStatus{Device: d}
	if r.leases != nil {
		ds.Mount, ds.MountSince = r.leases.state(d.ID)
	}
	r.mu.Lock()
	p := r.peer(d.ID)
	if s := r.sessions[d.ID]; s != nil {
		ds.Connected = true
		through, _ := r.control.known(s.via)
		ds.Via = through.Name
	}
	ds.Addrs = slices.Clone(p.addrs)
	ds.LastSeen = p.lastSeen
	ds.untold = ds.Connected && !r.sessions[d.ID].toldAll()
	ds.clone, ds.revoked, ds.Full = p.clone, p.revoked, p.full
	for a, n := range vector {
		held := min(n, p.acked[a])
		if r.heads[a].device == d.ID && !p.lost[a] {
			held = n
		}
		ds.AckedBatches += held
		ds.MissingBatches += n - held
	}
	pushed := p.pushed
	t := counts.of(d.ID)
	r.mu.Unlock()
	var err error
	ds.MissingChunks, ds.MissingBytes, err = t.count(r.cfg.Store, pushed, end)
	return ds, err
}

// fullPatience is how long Wait waits for a device to have room again.
const fullPatience = 3 * time.Second

// Wait returns once every batch and chunk that is here now is held durably by at
// least n other devices (their own batches, which they do not acknowledge, from when they sent them), or with ctx's error, or with a *FullError. fn, if given, is called with the
// progress from time to time, first at once.
func (r *Replica) Wait(ctx context.Context, n int, fn func(Progress)) error {
	r.mu.Lock()
	vector := r.counts()
	r.mu.Unlock()
	end := r.cfg.Store.End()
	counts := tallies{}
	var full time.Time // since when too few devices have room
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		pr, err := r.progress(n, vector, end, counts)
		if err != nil {
			return err
		}
		if fn != nil {
			fn(pr)
		}
		if pr.Have >= n {
			return nil
		}
		switch others := len(r.Devices()) - 1; {
		case len(pr.Full) == 0 || others-len(pr.Full) >= n:
			full = time.Time{}
		case full.IsZero():
			full = time.Now()
		case time.Since(full) > fullPatience:
			return &FullError{Names: pr.Full, Of: others}
		}
		select {
		case <-changed:
			// Acknowledgements come in swarms.
			if !sleep(ctx, 10*time.Millisecond) {
				return ctx.Err()
			}
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// toldGrace is how long before the end of a connection the control log must have been written for the other side to
// have taken it.
const toldGrace = 250 * time.Millisecond

// LastProposed returns when this device last added to the control log what somebody had asked for; zero: not since Open.
func (r *Replica) LastProposed() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.proposed
}

// AwaitControl returns when some other device has been sent the whole control log, or with ctx's error. Nobody acknowledges
// entries: that the connection held for a moment afterwards has to do.
func (r *Replica) AwaitControl(ctx context.Context) error {
	for !r.controlTold(time.Now().Add(-toldGrace)) {
		if !sleep(ctx, 10*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}

// controlTold reports whether some device was sent the whole control log before a time.
func (r *Replica) controlTold(before time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, s := range r.sessions {
		if !r.control.isOut(id) && s.toldAll() && s.told.Before(before) {
			return true
		}
	}
	return false
}

// toldAll reports whether the peer was sent the whole control log; r.mu is held.
func (s *session) toldAll() bool { return s.synced && len(s.control) == 0 && !s.telling }

// FullError says that so many devices have no room that the others are too few.
type FullError struct {
	Names []string // that have none
	Of    int      // other devices in all
}

// Error implements error.
func (e *FullError) Error() string {
	return fmt.Sprintf("%s: no room for more; %d other devices in all", strings.Join(e.Names, ", "), e.Of)
}

func (r *Replica) progress(n int, vector map[AuthorID]uint64, end Position, counts tallies) (Progress, error) {
	pr := Progress{Want: n}
	var behind []DeviceStatus
	for _, d := range r.Devices() {
		if d.ID == r.self {
			continue
		}
		ds, err := r.deviceStatus(d, vector, end, counts)
		if err != nil {
			return pr, err
		}
		if ds.Connected {
			pr.Connected++
		}
		if ds.MissingBatches == 0 && ds.MissingChunks == 0 && !ds.untold {
			pr.Have++
			continue
		}
		if ds.Full {
			pr.Full = append(pr.Full, ds.Name)
		}
		behind = append(behind, ds)
	}
	if pr.Have >= n || len(behind) == 0 {
		return pr, nil
	}
	next := slices.MinFunc(behind, func(a, b DeviceStatus) int {
		if a.Connected != b.Connected {
			if a.Connected {
				return -1
			}
			return 1
		}
		return int(min(a.MissingBytes, 1<<40)) - int(min(b.MissingBytes, 1<<40))
	})
	pr.MissingBatches, pr.MissingChunks, pr.MissingBytes = next.MissingBatches, next.MissingChunks, next.MissingBytes
	return pr, nil
}
