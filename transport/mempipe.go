package transport

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// pipeBuffer is what a pipe holds on top of what its link has under way.
const pipeBuffer = 256 << 10

// line is a connection in memory: two pipes.
type line struct {
	ends        [2]PeerID // the dialer's first
	there, back *pipe
	open        atomic.Int32 // ends that were closed
	closed      func()
}

func (l *line) setCut(cut bool) {
	l.there.change(func() { l.there.cut = cut })
	l.back.change(func() { l.back.cut = cut })
}

// segment is what one write put into a pipe.
type segment struct {
	b    []byte
	when time.Time // it arrives then
}

// pipe carries bytes in one direction.
type pipe struct {
	link     Link
	carried  *atomic.Uint64 // by all pipes
	capacity int

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at every change
	segments []segment
	size     int
	free     time.Time // when the link has sent all it was given
	cut      bool
	ended    bool // the writer closed
	broken   bool // the reader closed
}

func newPipe(l Link, carried *atomic.Uint64) *pipe {
	return &pipe{
		link:     l,
		carried:  carried,
		capacity: pipeBuffer + int(float64(l.Rate)*l.Delay.Seconds()),
		changed:  make(chan struct{}),
	}
}

// change makes a change that wakes whoever waits.
func (p *pipe) change(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn()
	p.wake()
}

func (p *pipe) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// wait releases mu until something changes, at the latest until when (zero:
// never), and fails if d has passed.
func (p *pipe) wait(d *deadline, when time.Time) error {
	changed, passed := p.changed, d.channel()
	p.mu.Unlock()
	defer p.mu.Lock()
	var arrival <-chan time.Time
	if !when.IsZero() {
		t := time.NewTimer(time.Until(when))
		defer t.Stop()
		arrival = t.C
	}
	select {
	case <-changed:
	case <-arrival:
	case <-passed:
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (p *pipe) read(b []byte, d *deadline) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		var when time.Time
		switch {
		case p.broken:
			return 0, net.ErrClosed
		case d.passed():
			return 0, os.ErrDeadlineExceeded
		case p.cut:
		case len(p.segments) > 0:
			when = p.segments[0].when
			if time.Until(when) <= 0 {
				return p.take(b), nil
			}
		case p.ended:
			return 0, io.EOF
		}
		if err := p.wait(d, when); err != nil {
			return 0, err
		}
	}
}

// take moves bytes that have arrived into b; mu is held.
func (p *pipe) take(b []byte) (n int) {
	for n < len(b) && len(p.segments) > 0 && time.Until(p.segments[0].when) <= 0 {
		s := &p.segments[0]
		m := copy(b[n:], s.b)
		n += m
		if s.b = s.b[m:]; len(s.b) == 0 {
			p.segments = p.segments[1:]
		}
	}
	p.size -= n
	p.wake()
	return n
}

func (p *pipe) write(b []byte, d *deadline) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.ended:
			return n, net.ErrClosed
		case p.broken && !p.cut:
			return n, io.ErrClosedPipe
		case d.passed():
			return n, os.ErrDeadlineExceeded
		case n == len(b):
			return n, nil
		case p.size < p.capacity:
			m := min(len(b)-n, p.capacity-p.size)
			p.put(b[n : n+m])
			n += m
			continue
		}
		if err := p.wait(d, time.Time{}); err != nil {
			return n, err
		}
	}
}

// put gives bytes to the link; mu is held.
func (p *pipe) put(b []byte) {
	p.carried.Add(uint64(len(b)))
	t := time.Now()
	if p.free.Before(t) {
		p.free = t
	}
	if p.link.Rate > 0 {
		p.free = p.free.Add(time.Duration(float64(len(b)) / float64(p.link.Rate) * float64(time.Second)))
	}
	p.segments = append(p.segments, segment{append([]byte(nil), b...), p.free.Add(p.link.Delay)})
	p.size += len(b)
	p.wake()
}

// memConn is one end of a line.
type memConn struct {
	line          *line
	in, out       *pipe
	local, remote memAddr
	readBy        deadline
	writeBy       deadline
	once          sync.Once
}

var _ net.Conn = (*memConn)(nil)

func (c *memConn) Read(b []byte) (int, error)  { return c.in.read(b, &c.readBy) }
func (c *memConn) Write(b []byte) (int, error) { return c.out.write(b, &c.writeBy) }
func (c *memConn) LocalAddr() net.Addr         { return c.local }
func (c *memConn) RemoteAddr() net.Addr        { return c.remote }

func (c *memConn) Close() error {
	c.once.Do(func() {
		c.out.change(func() { c.out.ended = true })
		c.in.change(func() { c.in.broken = true })
		if c.line.open.Add(1) == 2 {
			c.line.closed()
		}
	})
	return nil
}

func (c *memConn) SetDeadline(t time.Time) error {
	c.readBy.set(t)
	c.writeBy.set(t)
	return nil
}

func (c *memConn) SetReadDeadline(t time.Time) error {
	c.readBy.set(t)
	return nil
}

func (c *memConn) SetWriteDeadline(t time.Time) error {
	c.writeBy.set(t)
	return nil
}

// deadline is a time that may be set while somebody waits for it.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	over  chan struct{} // closed when the time has come
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.over // the timer is about to close it, or has
	}
	d.timer = nil
	if d.over == nil || isClosed(d.over) {
		d.over = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	if wait := time.Until(t); wait > 0 {
		over := d.over
		d.timer = time.AfterFunc(wait, func() { close(over) })
		return
	}
	close(d.over)
}

func (d *deadline) channel() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over == nil {
		d.over = make(chan struct{})
	}
	return d.over
}

func (d *deadline) passed() bool { return isClosed(d.channel()) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
