package replica

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/foreverfs/forever/transport"
)

const (
	// stagger is how long one address of a device is tried alone before the next is tried as
	// well (RFC 8305).
	stagger = 250 * time.Millisecond
	// maxHints bounds the addresses of unknown devices that are remembered.
	maxHints = 64
)

// errNoAddress says that nobody knows where a device is.
var errNoAddress = errors.New("no address of the device is known")

// hint is an address at which some device of the volume may answer.
type hint struct {
	stays   bool // was given by the user
	device  DeviceID
	due     time.Time
	backoff time.Duration
	dialing bool
}

// Found takes a hint that a device listens at an address; zero stands for one that is not known. It is
// dialed at once if it is not connected; who answers must prove its key.
func (r *Replica) Found(device DeviceID, addr string) {
	if len(validAddrs([]string{addr})) == 0 || device == r.self {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.control.device(device); known {
		free := r.sessions[device] == nil
		r.learnAddrs(device, []string{addr}, free)
		if free {
			p := r.peer(device)
			p.due, p.backoff = time.Time{}, 0
			wake(r.dialWake)
		}
		return
	}
	if r.hints[addr] == nil && len(r.hints) < maxHints {
		r.hints[addr] = &hint{}
		wake(r.dialWake)
	}
}

// NetworkChanged gives up connections from addresses that this machine has no more, and has all devices that are
// not connected dialed at once: what did not answer before may do so now.
func (r *Replica) NetworkChanged() {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return
	}
	own := map[string]bool{}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			own[n.IP.String()] = true
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sessions {
		host, _, err := net.SplitHostPort(s.conn.LocalAddr())
		if ip := net.ParseIP(host); err == nil && ip != nil && !ip.IsLinkLocalUnicast() && !own[ip.String()] {
			s.end("this machine's address is gone")
		}
	}
	for _, p := range r.peers {
		p.due, p.backoff = time.Time{}, 0
	}
	for _, h := range r.hints {
		h.due, h.backoff = time.Time{}, 0
	}
	wake(r.dialWake)
}

// dueHints returns the hints to follow now, and how long to wait for the next; mu is held.
func (r *Replica) dueHints(now time.Time, pause time.Duration) ([]string, time.Duration) {
	var out []string
	for addr, h := range r.hints {
		if h.dialing || r.sessions[h.device] != nil {
			continue
		}
		if wait := h.due.Sub(now); wait > 0 {
			pause = min(pause, wait)
			continue
		}
		h.dialing = true
		out = append(out, addr)
	}
	return out, pause
}

// follow dials whoever is at an address, and talks to it if it is a device of the volume.
func (r *Replica) follow(ctx context.Context, addr string) {
	conn, err := r.dialOne(ctx, addr, DeviceID{})
	r.mu.Lock()
	h := r.hints[addr]
	h.dialing = false
	h.backoff = min(max(2*h.backoff, r.cfg.RetryMin), r.cfg.RetryMax)
	h.due = time.Now().Add(h.backoff)
	if err == nil {
		id := DeviceID(conn.Peer())
		h.device = id
		if _, known := r.control.device(id); known {
			r.learnAddrs(id, []string{addr}, true)
		}
	}
	if !h.stays {
		delete(r.hints, addr)
	}
	r.mu.Unlock()
	wake(r.dialWake)
	if err != nil {
		r.log.Debug("nobody of the volume answers", "address", addr, "error", err)
		return
	}
	r.converse(conn, r.meet(conn, DeviceID{}))
}

// dialAny tries the addresses of a device, each a little after the one before, and returns the
// first connection.
func (r *Replica) dialAny(ctx context.Context, addrs []string, id DeviceID) (transport.Conn, string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn transport.Conn
		addr string
		err  error
	}
	results := make(chan result)
	next, under := 0, 0
	start := func() {
		addr := addrs[next]
		next++
		under++
		r.spawn(func() {
			conn, err := r.dialOne(ctx, addr, id)
			select {
			case results <- result{conn, addr, err}:
			case <-ctx.Done():
				if err == nil {
					conn.Close()
				}
			}
		})
	}
	if len(addrs) == 0 {
		return nil, "", errNoAddress
	}
	var errs []error
	for next < len(addrs) || under > 0 {
		if under == 0 {
			start()
		}
		var more <-chan time.Time
		if next < len(addrs) {
			more = time.After(stagger)
		}
		select {
		case res := <-results:
			if under--; res.err == nil {
				return res.conn, res.addr, nil
			}
			r.log.Debug("cannot reach device", "device", id, "address", res.addr, "error", res.err)
			errs = append(errs, res.err)
		case <-more:
			start()
		case <-ctx.Done():
			return nil, "", ctx.Err()
		}
	}
	return nil, "", errors.Join(errs...)
}
