package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// backlog is how many streams may wait to be accepted.
const backlog = 256

// mux is yamux's session with what lies below it.
type mux struct {
	*yamux.Session
	below *muxer
}

func (m mux) began() int64 { return m.below.began.Load() }

// conn is a Conn on yamux over TLS.
type conn struct {
	cfg     *Config
	peer    PeerID
	session any
	dialed  bool
	remote  string
	local   string

	wire *wire
	mux  mux
	ctl  *yamux.Stream

	incoming chan *stream
	places   chan struct{} // one for each stream that this side opened
	wake     chan struct{} // there are stops to send
	done     chan struct{} // closed by acceptLoop
	wg       sync.WaitGroup

	opening sync.Mutex // orders calls of yamux's open; taken before mu
	nextOwn uint32     // number of the next stream that this side opens; guarded by opening

	mu      sync.Mutex
	streams map[uint32]*stream
	early   map[uint32]early // streams that are about to be in streams
	stops   []uint32         // to be sent
	cause   error            // why it ended: the first reason counts
	closing bool             // nothing more may be spawned
}

var _ Conn = (*conn)(nil)

// early is what the other side said about a stream before it was accepted.
type early uint8

const (
	earlyStop early = 1 << iota
	earlyEnd
	earlyCut
)

func (c *Config) yamux() *yamux.Config {
	y := yamux.DefaultConfig()
	// This package's watchdog does better than these four: they take a slow
	// link for a dead one, or the other half of a stream for a lost one.
	y.EnableKeepAlive = false
	y.ConnectionWriteTimeout = time.Hour
	y.StreamOpenTimeout = 0
	y.StreamCloseTimeout = 0
	y.MaxStreamWindowSize = uint32(c.StreamWindow)
	y.AcceptBacklog = backlog
	y.LogOutput = io.Discard
	return y
}

// newConn makes a Conn of a connection whose handshakes are done. It takes w over,
// also when it fails.
func newConn(ctx context.Context, cfg *Config, w *wire, tc *tls.Conn, c *conn) error {
	c.cfg, c.wire = cfg, w
	c.incoming = make(chan *stream)
	c.places = make(chan struct{}, cfg.MaxStreams)
	c.wake = make(chan struct{}, 1)
	c.done = make(chan struct{})
	c.streams = map[uint32]*stream{}
	c.early = map[uint32]early{}

	below := &muxer{tls: tc, wire: w, odd: !c.dialed, opened: c.noteOpen, ended: c.noteEnd}
	start := yamux.Server
	c.nextOwn = 2
	if c.dialed {
		start = yamux.Client
		c.nextOwn = 3 // 1 is the control stream
	}
	session, err := start(below, cfg.yamux())
	if err != nil {
		_ = w.Close()
		return fmt.Errorf("multiplex: %w", err)
	}
	c.mux = mux{session, below}
	if err := c.openControl(ctx); err != nil {
		_ = c.mux.Close()
		return fmt.Errorf("control stream: %w", err)
	}
	c.spawn(c.acceptLoop)
	c.spawn(c.controlReader)
	c.spawn(c.controlWriter)
	c.spawn(c.watchdog)
	return nil
}

func (c *conn) openControl(ctx context.Context) (err error) {
	if c.dialed {
		c.ctl, err = c.mux.OpenStream()
	} else {
		c.ctl, err = c.mux.AcceptStreamWithContext(ctx)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.early, c.ctl.StreamID())
	return nil
}

// spawn runs fn in a goroutine that Close waits for, unless it is too late.
func (c *conn) spawn(fn func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return false
	}
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		fn()
	}()
	return true
}

func (c *conn) Peer() PeerID          { return c.peer }
func (c *conn) Session() any          { return c.session }
func (c *conn) Dialed() bool          { return c.dialed }
func (c *conn) RemoteAddr() string    { return c.remote }
func (c *conn) LocalAddr() string     { return c.local }
func (c *conn) Done() <-chan struct{} { return c.done }

// Close implements Conn.
func (c *conn) Close() error {
	c.because(ErrClosed)
	c.mux.below.goodbye()
	_ = c.mux.Close()
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.wg.Wait()
	return nil
}

// fail ends the connection without a goodbye. It may be called from goroutines
// that Close waits for.
func (c *conn) fail(err error) {
	c.because(err)
	_ = c.mux.Close()
}

// because sets why the connection ended, unless that is known.
func (c *conn) because(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil {
		c.cause = err
	}
}

// err says why the connection ended.
func (c *conn) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.cause == nil || errors.Is(c.cause, io.EOF):
		return fmt.Errorf("%w by the other side", ErrClosed)
	case errors.Is(c.cause, ErrClosed):
		return c.cause
	}
	return fmt.Errorf("%w: %w", ErrClosed, c.cause)
}

// acceptLoop takes streams from yamux as they are wanted, and ends with the
// connection, which it announces.
func (c *conn) acceptLoop() {
	for {
		m, err := c.mux.AcceptStream()
		if err != nil {
			c.because(err)
			close(c.done)
			_ = c.mux.Close()
			return
		}
		// Streams of both sides, and as many again that one side has closed and the other not yet.
		if c.mux.NumStreams() > 4*c.cfg.MaxStreams+1 {
			c.fail(fmt.Errorf("%w: more than %d streams", ErrProtocol, c.cfg.MaxStreams))
			continue
		}
		select {
		case c.incoming <- c.adopt(m, false):
		case <-c.mux.CloseChan():
		}
	}
}

// Accept implements Conn.
func (c *conn) Accept(ctx context.Context) (Stream, error) {
	select {
	case s := <-c.incoming:
		return s, nil
	case <-c.done:
		return nil, fmt.Errorf("accept stream: %w", c.err())
	case <-ctx.Done():
		return nil, fmt.Errorf("accept stream: %w", ctx.Err())
	}
}

// Open implements Conn. yamux's own call may have to wait, and knows no context.
func (c *conn) Open(ctx context.Context) (Stream, error) {
	select {
	case c.places <- struct{}{}:
	case <-c.done:
		return nil, fmt.Errorf("open stream: %w", c.err())
	case <-ctx.Done():
		return nil, fmt.Errorf("open stream: %w", ctx.Err())
	}
	opened := make(chan *stream)
	if !c.spawn(func() { c.open(ctx, opened) }) {
		<-c.places
		return nil, fmt.Errorf("open stream: %w", c.err())
	}
	select {
	case s := <-opened:
		if s == nil {
			return nil, fmt.Errorf("open stream: %w", c.err())
		}
		return s, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("open stream: %w", ctx.Err())
	}
}

// open gives a stream, or nil if there is none, to whoever waits at out until ctx ends.
func (c *conn) open(ctx context.Context, out chan<- *stream) {
	s := c.openNext()
	select {
	case out <- s:
	case <-ctx.Done():
		if s != nil {
			_ = s.Close()
		}
	}
}

// openNext opens a stream, whose number is expected before the other side can
// speak of it. It may wait for the link under the lock: others would have to as well.
func (c *conn) openNext() *stream {
	c.opening.Lock()
	defer c.opening.Unlock()
	c.mu.Lock()
	c.early[c.nextOwn] = 0
	c.mu.Unlock()
	m, err := c.mux.OpenStream()
	if err != nil { // for good: the connection has ended
		<-c.places
		return nil
	}
	c.nextOwn = m.StreamID() + 2
	return c.adopt(m, true)
}

// adopt enters a stream into the table, with what is already known of it.
func (c *conn) adopt(m *yamux.Stream, own bool) *stream {
	s := &stream{c: c, mux: m, own: own}
	id := m.StreamID()
	c.mu.Lock()
	e := c.early[id]
	delete(c.early, id)
	c.streams[id] = s
	s.stopped.Store(e&earlyStop != 0)
	s.ended.Store(e&earlyEnd != 0)
	s.cut.Store(e&earlyCut != 0)
	c.mu.Unlock()
	if e&earlyStop != 0 {
		c.spawn(func() { _ = m.Close() })
	}
	return s
}

// note keeps what the other side said about a stream that is about to be in the
// table. Of others it may speak as well: it did not know yet that both sides are
// done with it. mu is held.
func (c *conn) note(id uint32, e early) {
	if have, ok := c.early[id]; ok {
		c.early[id] = have | e
	}
}

// noteOpen is called before yamux handles a stream that the other side opens.
func (c *conn) noteOpen(id uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.early) > 2*backlog { // yamux would refuse it, and honest peers wait
		return fmt.Errorf("%w: more than %d streams wait to be accepted", ErrProtocol, backlog)
	}
	c.early[id] = 0
	return nil
}

// noteEnd is called before yamux handles the end of the other side's half of a
// stream.
func (c *conn) noteEnd(id uint32, cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[id]
	switch {
	case s == nil && cut:
		c.note(id, earlyCut)
		return
	case s == nil:
		c.note(id, earlyEnd)
		return
	case cut:
		s.cut.Store(true)
	default:
		s.ended.Store(true)
	}
	c.forget(s)
}

// release is called when s was closed: the other side must end its half, if it has not.
func (c *conn) release(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.over, s.overAt = true, now()
	if c.forget(s) {
		return
	}
	c.stops = append(c.stops, s.mux.StreamID())
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// forget drops a stream that both sides are done with; mu is held.
func (c *conn) forget(s *stream) bool {
	if !s.over || !s.ended.Load() && !s.cut.Load() {
		return false
	}
	id := s.mux.StreamID()
	if c.streams[id] == s {
		delete(c.streams, id)
		if s.own {
			<-c.places
		}
	}
	return true
}
