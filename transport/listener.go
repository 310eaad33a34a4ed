package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// socket accepts connections at one address and authenticates each in a goroutine of its
// own, for one or more listeners: those of the transports that share it.
type socket struct {
	raw     net.Listener
	log     hclog.Logger
	timeout time.Duration // of a handshake
	pending *pending
	ctx     context.Context // ends with the last listener
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	port      *Port
	left      func()      // called when the last listener has gone, with port.mu held
	listeners []*listener // in the order of their coming; guarded by port.mu
}

// listener is one transport's share of a socket.
type listener struct {
	t      *secure
	s      *socket
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	ready  chan *conn
	once   sync.Once
	err    error // of closing the socket
}

var _ Listener = (*listener)(nil)

func newSocket(raw net.Listener, t *secure) *socket {
	s := &socket{raw: raw, log: t.cfg.Logger, timeout: t.cfg.HandshakeTimeout, pending: newPending(t.cfg.MaxPending)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Add(1)
	return s
}

// add makes a listener; port.mu is held.
func (s *socket) add(t *secure) *listener {
	l := &listener{t: t, s: s, ready: make(chan *conn)}
	l.ctx, l.cancel = context.WithCancel(s.ctx)
	s.listeners = append(s.listeners, l)
	return l
}

// choose returns the listener that a server name means, or the first; nil if there is none.
func (s *socket) choose(server string) *listener {
	s.port.mu.Lock()
	defer s.port.mu.Unlock()
	if len(s.listeners) == 0 {
		return nil
	}
	for _, l := range s.listeners {
		if l.t.answersTo(server) {
			return l
		}
	}
	return s.listeners[0]
}

// Addr implements Listener.
func (l *listener) Addr() string { return l.s.raw.Addr().String() }

// Close implements Listener.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.cancel()
		l.err = l.s.leave(l)
	})
	return l.err
}

// leave takes a listener away, and ends the socket with the last one.
func (s *socket) leave(l *listener) error {
	s.port.mu.Lock()
	s.listeners = slices.DeleteFunc(s.listeners, func(o *listener) bool { return o == l })
	last := len(s.listeners) == 0
	if last {
		s.left()
	}
	s.port.mu.Unlock()
	if !last {
		return nil
	}
	s.cancel()
	err := s.raw.Close()
	s.wg.Wait()
	return err
}

// Accept implements Listener.
func (l *listener) Accept(ctx context.Context) (Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.ctx.Done():
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *socket) serve() {
	defer s.wg.Done()
	var pause time.Duration
	for {
		raw, err := s.raw.Accept()
		switch {
		case err == nil:
			pause = 0
			s.take(raw)
		case s.ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			s.cancel()
			return
		default:
			// Out of descriptors, most likely: give them time to come back.
			if pause == 0 {
				s.log.Warn("cannot accept connections", "error", err)
			}
			pause = min(max(2*pause, 10*time.Millisecond), time.Second)
			select {
			case <-time.After(pause):
			case <-s.ctx.Done():
			}
		}
	}
}

// take begins to authenticate a connection, if there is room for it.
func (s *socket) take(raw net.Conn) {
	leave, ok := s.pending.enter(raw)
	if !ok {
		_ = raw.Close()
		return
	}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		s.admit(raw, leave)
	}()
}

// admit authenticates one connection and hands it to Accept.
func (s *socket) admit(raw net.Conn, leave func()) {
	ctx, cancel := context.WithTimeout(s.ctx, s.timeout)
	defer cancel()
	l := s.choose("")
	if l == nil {
		leave()
		_ = raw.Close()
		return
	}
	first := l.t
	conf := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if l = s.choose(hello.ServerName); l == nil {
			return nil, net.ErrClosed
		}
		return tlsConfig(l.t.cert, nil), nil
	}}
	c, err := first.establish(ctx, raw, conf, func() *secure { return l.t })
	leave()
	if err != nil {
		s.log.Debug("connection dropped", "from", raw.RemoteAddr(), "error", err)
		return
	}
	select {
	case l.ready <- c:
	case <-c.Done():
		_ = c.Close()
	case <-l.ctx.Done():
		_ = c.Close()
	}
}

// pending is the set of connections that have not passed the handshake. When it
// is full the oldest gives way: an honest peer is through in a moment, and so is
// not kept out by others that only hold their places.
type pending struct {
	max     int
	maxHost int

	mu    sync.Mutex
	order []*place // the oldest first
	hosts map[string]int
}

type place struct {
	raw  net.Conn
	host string
}

func newPending(most int) *pending {
	return &pending{max: most, maxHost: max(1, most/2), hosts: map[string]int{}}
}

// enter gives raw a place until the returned function is called, or says that
// too many are from the same address.
func (p *pending) enter(raw net.Conn) (leave func(), ok bool) {
	own := &place{raw: raw, host: foreignHost(raw.RemoteAddr())}
	p.mu.Lock()
	if own.host != "" && p.hosts[own.host] >= p.maxHost {
		p.mu.Unlock()
		return nil, false
	}
	var oldest *place
	if len(p.order) >= p.max {
		oldest = p.order[0]
		p.remove(0)
	}
	p.order = append(p.order, own)
	p.hosts[own.host]++
	p.mu.Unlock()
	if oldest != nil {
		_ = oldest.raw.Close()
	}
	return func() { p.leave(own) }, true
}

func (p *pending) leave(own *place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.order {
		if other == own {
			p.remove(i)
			return
		}
	}
}

// remove frees a place; mu is held.
func (p *pending) remove(i int) {
	host := p.order[i].host
	p.order = append(p.order[:i], p.order[i+1:]...)
	if p.hosts[host]--; p.hosts[host] == 0 {
		delete(p.hosts, host)
	}
}

// foreignHost is the IP address of another machine (of a whole /64 network of
// them), or "".
func foreignHost(a net.Addr) string {
	t, ok := a.(*net.TCPAddr)
	if !ok || t.IP.IsLoopback() {
		return ""
	}
	if v4 := t.IP.To4(); v4 != nil {
		return v4.String()
	}
	return t.IP.Mask(net.CIDRMask(64, 128)).String()
}
