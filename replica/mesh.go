package replica

import (
	"bytes"
	"slices"
	"time"

	"github.com/zeebo/blake3"

	"github.com/foreverfs/forever/replica/replicapb"
)

// Few devices are all connected with each other. Where there are more than fullMesh others, each
// keeps about meshWanted connections: with those that a hash of both IDs ranks first among
// the devices that can be reached, which makes a random graph of small diameter that
// both sides agree on, and with the next one in the order of IDs, which closes a ring through
// all that can be reached, so that the graph is connected whatever the hash says. A member wants other
// members first, since only connected mounts are kept in step, and one keyless
// replica if there is any. Who has meshLimit connections is asked to let others have a turn, except
// by its neighbours on the ring. No connection is given up for a better one, except that who has
// more than meshLimit, for the ring's sake, gives up the one that is wanted least.
const (
	fullMesh   = 16
	meshWanted = 12
	meshLimit  = 24
)

// wanted returns the devices to dial now, of those that may be: all, or in a large volume as many as
// are missing. mu is held.
func (r *Replica) wanted(ids []DeviceID) []DeviceID {
	devices := r.control.deviceList()
	if len(devices)-1 <= fullMesh {
		return ids
	}
	dialing := 0
	for _, p := range r.peers {
		if p.dialing {
			dialing++
		}
	}
	var out []DeviceID
	if next, found := r.successor(ids); found {
		out = append(out, next)
	}
	missing := meshWanted - len(r.sessions) - dialing
	for _, id := range r.ranked(ids) {
		if len(out) >= missing {
			break
		}
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

// successor returns the device that comes behind this one on the ring before any that is connected, if that may be
// dialed; mu is held.
func (r *Replica) successor(ids []DeviceID) (next DeviceID, found bool) {
	for _, id := range ids {
		if !found || r.between(r.self, id, next) {
			next, found = id, true
		}
	}
	for id := range r.sessions {
		if found && r.between(r.self, id, next) {
			return next, false
		}
	}
	return next, found
}

// between reports whether b lies on the ring behind a and before c.
func (r *Replica) between(a, b, c DeviceID) bool {
	ab, bc, ac := a.less(b), b.less(c), a.less(c)
	if ac {
		return ab && bc
	}
	return ab || bc
}

// ranked sorts devices by how much each is wanted; mu is held.
func (r *Replica) ranked(ids []DeviceID) []DeviceID {
	me, _ := r.control.known(r.self)
	lacksReplica := true
	for id := range r.sessions {
		d, _ := r.control.device(id)
		lacksReplica = lacksReplica && d.Role != RoleReplica
	}
	type rank struct {
		id    DeviceID
		class int
		hash  Hash
	}
	list := make([]rank, 0, len(ids))
	for _, id := range ids {
		d, _ := r.control.device(id)
		k := rank{id: id, hash: pairHash(r.self, id)}
		if d.Role == RoleReplica && me.Role == RoleMember {
			k.class = 1
		}
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b rank) int {
		if a.class != b.class {
			return a.class - b.class
		}
		return bytes.Compare(a.hash[:], b.hash[:])
	})
	if i := slices.IndexFunc(list, func(k rank) bool { return k.class == 1 }); i > 0 && lacksReplica {
		list = append([]rank{list[i]}, slices.Delete(list, i, i+1)...)
	}
	out := make([]DeviceID, len(list))
	for i, k := range list {
		out[i] = k.id
	}
	return out
}

// pairHash is the same for both of a pair.
func pairHash(a, b DeviceID) Hash {
	if b.less(a) {
		a, b = b, a
	}
	return blake3.Sum256(append(a[:], b[:]...))
}

// crowded reports whether a peer is to be asked to go elsewhere; mu is held.
func (r *Replica) crowded(peer DeviceID) bool {
	if len(r.sessions) < meshLimit || r.sessions[peer] != nil || len(r.control.deviceList())-1 <= fullMesh {
		return false
	}
	return !r.neighbours(peer)
}

// neighbours reports whether on one side no connected device lies between this one and a peer on the ring; mu is held.
func (r *Replica) neighbours(peer DeviceID) bool {
	nearer, before := false, false
	for id := range r.sessions {
		nearer = nearer || r.between(r.self, id, peer)
		before = before || r.between(peer, id, r.self)
	}
	return !nearer || !before
}

// prune gives up a connection if there are too many: none with a neighbour on the ring, and none with a newcomer, who
// goes by itself in a moment. mu is held.
func (r *Replica) prune() {
	if len(r.sessions) <= meshLimit || len(r.control.deviceList())-1 <= fullMesh {
		return
	}
	var ids []DeviceID
	for id, s := range r.sessions {
		if !s.hello.joining && !r.neighbours(id) {
			ids = append(ids, id)
		}
	}
	if ranked := r.ranked(ids); len(ranked) > 0 {
		r.sessions[ranked[len(ranked)-1]].end("more connections than are wanted")
	}
}

// maxOthers bounds the devices that a refused one is told of.
const maxOthers = 16

// others returns some devices that a peer may ask instead; mu is held.
func (r *Replica) others(peer DeviceID) (out []*replicapb.Peer) {
	for id := range r.sessions { // in an order that is another each time
		if p := r.peer(id); id != peer && len(p.addrs) > 0 && len(out) < maxOthers {
			out = append(out, &replicapb.Peer{Device: id[:], Addrs: p.addrs[:min(len(p.addrs), 2)]})
		}
	}
	return out
}

// elsewhere notes that a peer asked this device to go elsewhere; mu is held.
func (p *peer) elsewhere(most time.Duration) {
	p.backoff = most
	p.due = time.Now().Add(most)
}
