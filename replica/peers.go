package replica

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/replica/replicapb"
)

// peer is what is remembered of another device; guarded by Replica.mu.
type peer struct {
	addrs    []string // the last that worked first
	lastSeen time.Time
	acked    map[AuthorID]uint64 // durable there
	pushed   Position            // of our store, durable there
	received []byte              // position of its store, durable here
	// lost are logs of the device's own that were shorter there than here
	// when it last connected. What it writes itself it has, without saying so.
	lost    map[AuthorID]bool
	changed bool // since it was saved
	// compared is when both stores were compared last.
	compared time.Time
	lastErr  string
	clone    bool // it says that this device runs elsewhere too
	revoked  bool // it says that this device is out
	full     bool // it takes no more chunks

	// banned is until when it is not talked to, because it broke the protocol.
	banned  time.Time
	strikes int

	// For dialing:
	due     time.Time
	backoff time.Duration
	dialing bool
}

// peer returns the record of a device, made if need be; mu is held.
func (r *Replica) peer(id DeviceID) *peer {
	p := r.peers[id]
	if p == nil {
		p = &peer{acked: map[AuthorID]uint64{}, lost: map[AuthorID]bool{}}
		r.peers[id] = p
	}
	return p
}

// loadPeers reads what is remembered. A position beyond the end of the store names
// chunks that a crash took before they were durable here; what comes in their
// place must be offered again.
func (r *Replica) loadPeers() error {
	end := r.cfg.Store.End()
	err := scanAll(r.cfg.KV, []byte{'r', 'p'}, func(key, value []byte) error {
		id, err := fixed32[DeviceID](key[2:], "device in the state")
		if err != nil {
			return err
		}
		p, err := parsePeer(value)
		if err != nil {
			return err
		}
		if p.pushed.after(end) {
			p.pushed, p.changed = end, true
		}
		r.peers[id] = p
		return nil
	})
	if err != nil {
		return fmt.Errorf("load peers: %w", err)
	}
	return r.savePeers()
}

func parsePeer(value []byte) (*peer, error) {
	var rec replicapb.PeerRecord
	if err := proto.Unmarshal(value, &rec); err != nil {
		return nil, fmt.Errorf("decode peer: %w", err)
	}
	acked, err := vectorOf(rec.GetAcked())
	if err != nil {
		return nil, err
	}
	p := &peer{
		addrs:    rec.GetAddrs(),
		acked:    acked,
		received: rec.GetReceived(),
		compared: time.UnixMilli(rec.GetCompared()),
		lost:     map[AuthorID]bool{},
	}
	if ms := rec.GetLastSeen(); ms != 0 { // else never
		p.lastSeen = time.UnixMilli(ms)
	}
	copy(p.pushed[:], rec.GetPushed())
	return p, nil
}

func (p *peer) record() *replicapb.PeerRecord {
	rec := &replicapb.PeerRecord{
		Addrs:    p.addrs,
		LastSeen: p.lastSeen.UnixMilli(),
		Acked:    positions(p.acked),
		Pushed:   slices.Clone(p.pushed[:]),
		Received: p.received,
	}
	if !p.compared.IsZero() {
		rec.Compared = p.compared.UnixMilli()
	}
	if p.lastSeen.IsZero() {
		rec.LastSeen = 0
	}
	return rec
}

// savePeers writes what changed. It is not flushed: an older record only has
// something offered twice.
func (r *Replica) savePeers() error {
	r.mu.Lock()
	recs := map[DeviceID]*replicapb.PeerRecord{}
	for id, p := range r.peers {
		if p.changed {
			recs[id] = p.record()
			p.changed = false
		}
	}
	r.mu.Unlock()
	if len(recs) == 0 {
		return nil
	}
	err := r.cfg.KV.Update(func(tx kv.Tx) error {
		for id, rec := range recs {
			if err := putProto(tx, peerKey(id), rec); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store what is known of peers: %w", err)
	}
	return nil
}

// learnPeers takes addresses of third devices that a peer passed on, of at most maxPeers. They
// are only hints: who is dialed must prove its key.
func (r *Replica) learnPeers(from DeviceID, list []*replicapb.Peer) error {
	list = list[:min(len(list), maxPeers)]
	ids := make([]DeviceID, len(list))
	for i, p := range list {
		var err error
		if ids[i], err = fixed32[DeviceID](p.GetDevice(), "device"); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, id := range ids {
		if _, known := r.control.device(id); known && id != r.self && id != from {
			r.learnAddrs(id, validAddrs(list[i].GetAddrs()), false)
		}
	}
	return nil
}

// learnAddrs adds addresses of a device; first says that they work, so they go to
// the front. News is told to the connected. mu is held.
func (r *Replica) learnAddrs(id DeviceID, addrs []string, first bool) {
	p := r.peer(id)
	var merged []string
	for _, list := range [][]string{addrs, p.addrs} {
		for _, a := range list {
			if !slices.Contains(merged, a) {
				merged = append(merged, a)
			}
		}
	}
	if !first {
		merged = append(slices.Clone(p.addrs), slices.DeleteFunc(merged, func(a string) bool {
			return slices.Contains(p.addrs, a)
		})...)
	}
	if first {
		merged = forgetSeen(merged)
	}
	merged = merged[:min(len(merged), maxAddrs)]
	if slices.Equal(merged, p.addrs) {
		return
	}
	grown := slices.ContainsFunc(merged, func(a string) bool { return !slices.Contains(p.addrs, a) })
	p.addrs, p.changed = merged, true
	if !grown {
		return
	}
	p.due, p.backoff = time.Time{}, 0
	wake(r.dialWake)
	for _, s := range r.sessions {
		s.gossip[id] = struct{}{}
		wake(s.logWake)
	}
}

// forgetSeen drops IP addresses while there are too many addresses, the last first, and never the first of all: a
// device is seen at ever new ones, but its names were chosen, and may be all that works from elsewhere.
func forgetSeen(addrs []string) []string {
	for i := len(addrs) - 1; i > 0 && len(addrs) > maxAddrs; i-- {
		if host, _, err := net.SplitHostPort(addrs[i]); err == nil && net.ParseIP(host) != nil {
			addrs = slices.Delete(addrs, i, i+1)
		}
	}
	return addrs
}

// seenAt returns the addresses that a peer gave or is seen at.
func (h *peerHello) seenAt(remote string) []string {
	var out []string
	if host, _, err := net.SplitHostPort(remote); err == nil && h.port > 0 {
		out = append(out, net.JoinHostPort(host, strconv.Itoa(int(h.port))))
	}
	return validAddrs(append(out, h.addrs...))
}
