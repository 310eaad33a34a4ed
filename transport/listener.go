package transport

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// listener accepts connections and authenticates each in a goroutine of its own.
type listener struct {
	t       *secure
	raw     net.Listener
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	ready   chan *conn
	pending *pending
	wg      sync.WaitGroup
	once    sync.Once
	err     error // of raw.Close
}

var _ Listener = (*listener)(nil)

func newListener(t *secure, raw net.Listener) *listener {
	l := &listener{t: t, raw: raw, ready: make(chan *conn), pending: newPending(t.cfg.MaxPending)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.wg.Add(1)
	go l.serve()
	return l
}

// Addr implements Listener.
func (l *listener) Addr() string { return l.raw.Addr().String() }

// Close implements Listener.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.cancel()
		l.err = l.raw.Close()
	})
	l.wg.Wait()
	return l.err
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

func (l *listener) serve() {
	defer l.wg.Done()
	var pause time.Duration
	for {
		raw, err := l.raw.Accept()
		switch {
		case err == nil:
			pause = 0
			l.take(raw)
		case l.ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			l.cancel()
			return
		default:
			// Out of descriptors, most likely: give them time to come back.
			if pause == 0 {
				l.t.cfg.Logger.Warn("cannot accept connections", "error", err)
			}
			pause = min(max(2*pause, 10*time.Millisecond), time.Second)
			select {
			case <-time.After(pause):
			case <-l.ctx.Done():
			}
		}
	}
}

// take begins to authenticate a connection, if there is room for it.
func (l *listener) take(raw net.Conn) {
	leave, ok := l.pending.enter(raw)
	if !ok {
		_ = raw.Close()
		return
	}
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		l.admit(raw, leave)
	}()
}

// admit authenticates one connection and hands it to Accept.
func (l *listener) admit(raw net.Conn, leave func()) {
	ctx, cancel := context.WithTimeout(l.ctx, l.t.cfg.HandshakeTimeout)
	defer cancel()
	c, err := l.t.establish(ctx, raw, nil)
	leave()
	if err != nil {
		l.t.cfg.Logger.Debug("connection dropped", "from", raw.RemoteAddr(), "error", err)
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
