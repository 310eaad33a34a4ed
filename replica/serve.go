package replica

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/foreverfs/forever/transport"
)

const (
	// bothDialed is how close in time two connections with one peer are taken
	// for both sides having dialed at once. Later, a new one means that the
	// peer has given up the old.
	bothDialed = 3 * time.Second
	// saveInterval is how often what is known of peers is written.
	saveInterval = time.Second
	// steady is how long a connection must have lasted for the next attempt
	// to come soon.
	steady = 5 * time.Second
	// dialTimeout bounds the attempt at one of several addresses.
	dialTimeout = 5 * time.Second
)

// Listen opens the address of Config.Listen, and returns the one it became.
// Serve does it if nobody did before; it is separate so that an address in use
// shows early.
func (r *Replica) Listen() (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener != nil || r.cfg.Listen == "" {
		return r.listenAddr, nil
	}
	l, err := r.transport.Listen(r.cfg.Listen)
	if err != nil {
		return "", fmt.Errorf("listen on %s: %w", r.cfg.Listen, err)
	}
	r.listener, r.listenAddr = l, l.Addr()
	return r.listenAddr, nil
}

// Serve listens, dials the devices it knows, exchanges with all of them and
// delivers, until ctx ends or Close. It returns nil then, and an error only if
// it cannot listen. It is called once.
func (r *Replica) Serve(ctx context.Context) error {
	if _, err := r.Listen(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.closing, cancel)()
	if r.listener != nil {
		r.spawn(func() { r.acceptLoop(ctx) })
	}
	r.spawn(func() { r.deliverLoop(ctx) })
	r.spawn(func() { r.ackLoop(ctx) })
	r.spawn(func() { r.dialLoop(ctx) })
	r.spawn(func() { r.saveLoop(ctx) })
	r.spawn(func() { r.settleLoop(ctx) })
	if r.leases != nil {
		r.spawn(func() { r.leases.run(ctx) })
	}
	if r.locks != nil {
		r.spawn(func() { r.locks.run(ctx) })
	}
	<-ctx.Done()
	return r.Close()
}

func (r *Replica) spawn(fn func()) {
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		fn()
	}()
}

func (r *Replica) acceptLoop(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { r.listener.Close() })()
	for {
		conn, err := r.listener.Accept(ctx)
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return
		}
		if err != nil {
			r.log.Warn("cannot accept a connection", "error", err)
			if !sleep(ctx, time.Second) {
				return
			}
			continue
		}
		s := r.meet(conn, DeviceID{}) // here, so that of two the later counts as the later
		r.spawn(func() { r.converse(conn, s) })
	}
}

// meet makes a session of a connection that passed the handshake, or returns
// nil if it is not to be used.
func (r *Replica) meet(conn transport.Conn, via DeviceID) *session {
	hello, ok := conn.Session().(*peerHello)
	if !ok {
		return nil
	}
	select {
	case <-conn.Done():
		return nil
	default:
	}
	s := newSession(r, conn, hello)
	s.via = via
	r.mu.Lock()
	s.guest, _ = r.recoveryKey(s.peer)
	r.mu.Unlock()
	if s.guest {
		s.name = "the recovery phrase"
		return s
	}
	if !r.register(s) {
		s.end("not needed")
		return nil
	}
	return s
}

// converse runs a session and closes its connection; s may be nil.
func (r *Replica) converse(conn transport.Conn, s *session) {
	defer conn.Close()
	if s == nil {
		return
	}
	defer s.end("done")
	r.log.Info("connected", "device", s.name, "address", conn.RemoteAddr())
	if s.guest {
		r.log.Warn("somebody who has the recovery phrase is connected", "address", conn.RemoteAddr())
		r.log.Info("disconnected", "device", s.name, "reason", s.runGuest())
		return
	}
	err := s.run()
	r.unregister(s)
	switch {
	case r.closing.Err() != nil:
	case errors.Is(err, ErrInvalid):
		r.complain(s.peer, s.name, err)
	default:
		r.log.Info("disconnected", "device", s.name, "reason", err)
	}
}

// ban keeps a peer that broke the protocol away for a time that doubles.
func (r *Replica) ban(id DeviceID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.peer(id)
	p.strikes = min(p.strikes+1, 6)
	p.banned = time.Now().Add(time.Second << (p.strikes - 1))
}

// complain logs what a peer did wrong, once until it does something else.
func (r *Replica) complain(id DeviceID, name string, err error) {
	r.mu.Lock()
	p := r.peer(id)
	told := p.lastErr == err.Error()
	p.lastErr = err.Error()
	r.mu.Unlock()
	if !told {
		r.log.Warn("peer broke the protocol; its connection was closed", "device", name, "error", err)
	}
}

// register makes s the session with its peer, unless another is to be kept: both
// sides decide alike when both dialed at once.
func (r *Replica) register(s *session) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, known := r.control.device(s.peer)
	if !known || r.closing.Err() != nil {
		return false
	}
	s.name = d.Name
	if old := r.sessions[s.peer]; old != nil {
		if !s.direct() && old.direct() || s.direct() == old.direct() && !s.replaces(old) {
			return false
		}
		old.end("replaced by another connection")
	}
	r.sessions[s.peer] = s
	p := r.peer(s.peer)
	p.clone, p.revoked = false, false
	p.lastSeen, p.changed = r.cfg.Now(), true
	r.learnAddrs(s.peer, s.hello.seenAt(s.conn.RemoteAddr()), true)
	for id := range r.sessions {
		s.gossip[id] = struct{}{}
	}
	r.prune()
	r.sessionChange()
	return true
}

// replaces decides between two connections with one peer.
func (s *session) replaces(old *session) bool {
	if s.hello.instance != old.hello.instance || s.began.Sub(old.began) > bothDialed {
		return true // the peer started anew, or gave the old one up
	}
	return s.dialer().less(old.dialer()) || s.dialer() == old.dialer()
}

// dialer returns the device that made the connection.
func (s *session) dialer() DeviceID {
	if s.conn.Dialed() {
		return s.r.self
	}
	return s.peer
}

func (r *Replica) unregister(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.peer(s.peer)
	p.lastSeen, p.changed = r.cfg.Now(), true
	if r.sessions[s.peer] != s {
		return
	}
	delete(r.sessions, s.peer)
	if time.Since(s.began) > steady {
		p.backoff, p.strikes = 0, 0
	}
	p.retry(r.cfg.RetryMin, r.cfg.RetryMax)
	r.sessionChange()
	wake(r.dialWake)
}

// sessionChange tells all who wait for a connection to come or go; mu is held.
func (r *Replica) sessionChange() {
	close(r.sessionsChanged)
	r.sessionsChanged = make(chan struct{})
	r.broadcast()
}

// retry sets when to dial next: after a pause that doubles.
func (p *peer) retry(least, most time.Duration) {
	p.backoff = min(max(2*p.backoff, least), most)
	p.due = time.Now().Add(p.backoff/2 + rand.N(p.backoff/2+1))
	if p.banned.After(p.due) {
		p.due = p.banned
	}
}

// dialLoop keeps dialing the devices that are not connected.
func (r *Replica) dialLoop(ctx context.Context) {
	for {
		ids, addrs, pause := r.dueDials(time.Now())
		for _, id := range ids {
			r.spawn(func() { r.dial(ctx, id) })
		}
		for _, addr := range addrs {
			r.spawn(func() { r.follow(ctx, addr) })
		}
		t := time.NewTimer(pause)
		select {
		case <-r.dialWake:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// dueDials returns whom to dial now, and how long to wait for the next.
func (r *Replica) dueDials(now time.Time) (ids []DeviceID, addrs []string, pause time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pause = time.Minute
	for id, d := range r.control.devices {
		p := r.peer(id)
		if s := r.sessions[id]; d.out() || p.dialing || id == r.self || s != nil && s.direct() ||
			len(p.addrs) == 0 && (s != nil || len(r.sessions) == 0) {
			continue
		}
		if wait := p.due.Sub(now); wait > 0 {
			pause = min(pause, wait)
			continue
		}
		ids = append(ids, id)
	}
	ids = r.wanted(ids)
	for _, id := range ids {
		r.peer(id).dialing = true
	}
	addrs, pause = r.dueHints(now, pause)
	return ids, addrs, pause
}

// dial tries a device's addresses in turn, and talks to it if one answers.
func (r *Replica) dial(ctx context.Context, id DeviceID) {
	r.mu.Lock()
	addrs := r.peer(id).addrs
	r.mu.Unlock()
	conn, addr, err := r.dialBoth(ctx, addrs, id)
	r.mu.Lock()
	if err == nil {
		r.learnAddrs(id, []string{addr}, true)
	}
	p := r.peer(id)
	p.dialing = false
	p.retry(r.cfg.RetryMin, r.cfg.RetryMax)
	r.mu.Unlock()
	wake(r.dialWake)
	if conn == nil {
		r.refusedBy(id, err)
		return
	}
	r.converse(conn, r.meet(conn, DeviceID{}))
}

func (r *Replica) dialOne(ctx context.Context, addr string, id DeviceID) (transport.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return r.transport.Dial(ctx, addr, transport.PeerID(id))
}

// refusedBy logs, once, that a device will not talk to this one.
func (r *Replica) refusedBy(id DeviceID, err error) {
	refused, ok := asRefused(err)
	if !ok {
		return
	}
	r.mu.Lock()
	p := r.peer(id)
	told := p.lastErr == refused.Reason || refused.Code == CodeCrowded
	if refused.Code == CodeCrowded {
		p.elsewhere(r.cfg.RetryMax)
	}
	p.clone = refused.Code == CodeClone
	p.revoked = refused.Code == CodeRevoked
	p.lastErr = refused.Reason
	d, _ := r.control.device(id)
	r.mu.Unlock()
	if err := r.learnPeers(id, refused.peers); err != nil {
		r.log.Debug("a device refuses to talk, and names no device to ask instead", "device", d.Name, "error", err)
	}
	if !told {
		r.log.Warn("a device refuses to talk to this one", "device", d.Name, "reason", refused.Reason)
	}
}

func (r *Replica) saveLoop(ctx context.Context) {
	for sleep(ctx, saveInterval) {
		if err := r.savePeers(); err != nil {
			r.log.Warn("cannot store what is known of peers", "error", err)
		}
	}
	if err := r.savePeers(); err != nil {
		r.log.Warn("cannot store what is known of peers", "error", err)
	}
}
