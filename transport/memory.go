package transport

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Memory is a network inside one process, for tests and simulations: the same TLS
// and streams as elsewhere, over pipes. Addresses are any text. It may be slow,
// and may be cut between two devices. The zero Link is as fast as memory.
type Memory struct {
	mu        sync.Mutex
	listeners map[string]*memListener
	link      Link
	lines     map[*line]struct{}
	cuts      map[[2]PeerID]bool
	carried   atomic.Uint64
}

// Carried returns how many bytes all lines have carried, TLS and all.
func (m *Memory) Carried() uint64 { return m.carried.Load() }

// Link is what lies between two nodes of a Memory, in each direction.
type Link struct {
	Delay time.Duration // of every byte
	Rate  int           // bytes per second; 0 means without limit
}

// NewMemory returns an empty network.
func NewMemory() *Memory {
	return &Memory{
		listeners: map[string]*memListener{},
		lines:     map[*line]struct{}{},
		cuts:      map[[2]PeerID]bool{},
	}
}

// Transport returns one node's view of the network.
func (m *Memory) Transport(cfg Config) (Transport, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	id := cfg.id()
	return newSecure(cfg,
		func(ctx context.Context, addr string) (net.Conn, error) { return m.dial(ctx, id, addr) },
		func(addr string) (net.Listener, error) { return m.listen(id, addr) })
}

// SetLink sets what connections made from now on go through.
func (m *Memory) SetLink(l Link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.link = l
}

// Cut lets no byte through between two devices until Heal, and does not tell them,
// as a pulled cable would. What is under way waits.
func (m *Memory) Cut(a, b PeerID) { m.setCut(a, b, true) }

// Heal undoes Cut.
func (m *Memory) Heal(a, b PeerID) { m.setCut(a, b, false) }

func (m *Memory) setCut(a, b PeerID, cut bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, pair := range [][2]PeerID{{a, b}, {b, a}} {
		delete(m.cuts, pair)
		if cut {
			m.cuts[pair] = true
		}
		for l := range m.lines {
			if l.ends == pair {
				l.setCut(cut)
			}
		}
	}
}

func (m *Memory) dial(ctx context.Context, from PeerID, addr string) (net.Conn, error) {
	m.mu.Lock()
	l := m.listeners[addr]
	m.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("nobody listens at %s", addr)
	}
	near, far := m.connect(from, l.id, addr)
	select {
	case l.queue <- far:
		return near, nil
	case <-l.done:
		_ = near.Close()
		return nil, fmt.Errorf("nobody listens at %s", addr)
	case <-ctx.Done():
		_ = near.Close()
		return nil, ctx.Err()
	}
}

// connect makes the two ends of a connection.
func (m *Memory) connect(from, to PeerID, addr string) (near, far net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := &line{ends: [2]PeerID{from, to}}
	l.there, l.back = newPipe(m.link, &m.carried), newPipe(m.link, &m.carried)
	l.closed = func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.lines, l)
	}
	m.lines[l] = struct{}{}
	l.setCut(m.cuts[l.ends])
	dialer := memAddr("the dialer of " + addr)
	return &memConn{line: l, in: l.back, out: l.there, local: dialer, remote: memAddr(addr)},
		&memConn{line: l, in: l.there, out: l.back, local: memAddr(addr), remote: dialer}
}

func (m *Memory) listen(id PeerID, addr string) (net.Listener, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.listeners[addr] != nil {
		return nil, fmt.Errorf("address %s is taken", addr)
	}
	l := &memListener{net: m, id: id, addr: memAddr(addr), queue: make(chan net.Conn), done: make(chan struct{})}
	m.listeners[addr] = l
	return l, nil
}

type memListener struct {
	net   *Memory
	id    PeerID
	addr  memAddr
	queue chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		delete(l.net.listeners, string(l.addr))
		l.net.mu.Unlock()
		close(l.done)
	})
	return nil
}

func (l *memListener) Addr() net.Addr { return l.addr }

type memAddr string

func (a memAddr) Network() string { return "memory" }
func (a memAddr) String() string  { return string(a) }
