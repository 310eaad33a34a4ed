package transport

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"sync/atomic"
)

const (
	// maxFrame is the largest piece of a stream that is sent as a whole: other
	// streams wait for it. A block and what is around it fit.
	maxFrame = 80 << 10
	// maxFrameIn is the largest that is taken.
	maxFrameIn = 256 << 10

	frameHead    = 12
	frameData    = 0
	frameWindow  = 1
	frameGoAway  = 3
	flagSYN      = 1
	flagFIN      = 4
	flagRST      = 8
	frameVersion = 0
)

// frame is the head of a yamux frame.
type frame struct {
	version, kind byte
	flags         uint16
	stream        uint32
	length        uint32
}

func parseFrame(b *[frameHead]byte) frame {
	return frame{
		version: b[0],
		kind:    b[1],
		flags:   binary.BigEndian.Uint16(b[2:]),
		stream:  binary.BigEndian.Uint32(b[4:]),
		length:  binary.BigEndian.Uint32(b[8:]),
	}
}

// muxer is what yamux takes for the connection: TLS, with an eye on the frames.
//
// It hands over whole frames only, because yamux holds a stream's lock, and no
// deadline ends a call that waits for it, until a frame's last byte is there. It
// refuses what yamux would fall for: pings, for each of which it starts a
// goroutine; streams with numbers of the other side's; huge frames. And it tells
// the end of a stream from the end of the connection, which yamux's reads do not.
type muxer struct {
	tls  *tls.Conn
	wire *wire
	// odd says whether the other side's streams have odd numbers: it dialed.
	odd bool
	// opened and ended are told of every stream that the other side opens, and of
	// every end of its half of one, cut if not in good order. An error ends the
	// connection.
	opened func(stream uint32) error
	ended  func(stream uint32, cut bool)

	in     frames       // yamux's receiving goroutine's
	began  atomic.Int64 // when the frame that is not whole yet began to come, or 0
	inBody bool         // of the frame being written; yamux's sending goroutine's
}

// frames collects bytes until they make whole frames.
type frames struct {
	buf   []byte
	next  int  // the first byte to hand over
	whole int  // the end of the last whole frame
	end   int  // the end of what has come
	known bool // the head of the frame at whole was judged
}

// firstFrames is the first size of the buffer, enough for a frame of an honest
// peer and the beginning of the next.
const firstFrames = maxFrame + 16<<10

func (m *muxer) Read(p []byte) (int, error) {
	f := &m.in
	for f.next == f.whole {
		f.makeRoom()
		n, err := m.tls.Read(f.buf[f.end:])
		f.end += n
		if bad := m.inspect(); bad != nil {
			return 0, bad
		}
		if err != nil && f.next == f.whole {
			return 0, err
		}
	}
	n := copy(p, f.buf[f.next:f.whole])
	f.next += n
	return n, nil
}

// makeRoom moves the beginning of a frame to the front, once what was before it has
// been handed over, and makes the buffer large enough for the rest.
func (f *frames) makeRoom() {
	f.end = copy(f.buf, f.buf[f.whole:f.end])
	f.next, f.whole = 0, 0
	want := firstFrames
	if f.known {
		want = max(want, f.size())
	}
	if len(f.buf) < want {
		f.buf = append(make([]byte, 0, want), f.buf[:f.end]...)[:want]
	}
}

// head is that of the frame at whole, which has come.
func (f *frames) head() frame { return parseFrame((*[frameHead]byte)(f.buf[f.whole:])) }

// size is that of the frame at whole, whose head has come.
func (f *frames) size() int {
	h := f.head()
	if h.kind != frameData {
		return frameHead
	}
	return frameHead + int(h.length)
}

// inspect judges the frames that have come, each as soon as its head has.
func (m *muxer) inspect() error {
	f := &m.in
	for f.end-f.whole >= frameHead {
		if !f.known {
			if err := m.judge(f.head()); err != nil {
				return err
			}
			f.known = true
		}
		if f.end-f.whole < f.size() {
			break
		}
		f.whole += f.size()
		f.known = false
	}
	switch {
	case f.whole == f.end:
		m.began.Store(0)
	case f.whole > f.next || m.began.Load() == 0:
		m.began.Store(now())
	}
	return nil
}

func (m *muxer) judge(f frame) error {
	switch {
	case f.version != frameVersion:
		return fmt.Errorf("%w: frame of version %d", ErrProtocol, f.version)
	case f.kind == frameGoAway:
		return fmt.Errorf("%w, or so it says of this side", ErrProtocol)
	case f.kind != frameData && f.kind != frameWindow:
		return fmt.Errorf("%w: frame of kind %d", ErrProtocol, f.kind)
	case f.kind == frameData && f.length > maxFrameIn:
		return fmt.Errorf("%w: frame of %d bytes", ErrProtocol, f.length)
	case f.flags&flagSYN != 0 && (f.stream%2 == 1) != m.odd:
		return fmt.Errorf("%w: opened stream %d, which is not its to open", ErrProtocol, f.stream)
	}
	if f.flags&flagSYN != 0 {
		if err := m.opened(f.stream); err != nil {
			return err
		}
	}
	if f.flags&(flagFIN|flagRST) != 0 {
		m.ended(f.stream, f.flags&flagRST != 0)
	}
	return nil
}

// Write is given a frame's head and body one after the other; they go out together.
func (m *muxer) Write(p []byte) (int, error) {
	if !m.inBody && !m.wire.collect() {
		return 0, net.ErrClosed
	}
	n, err := m.tls.Write(p)
	if err != nil {
		return n, err
	}
	m.inBody = !m.inBody && len(p) == frameHead && hasBody(p)
	if m.inBody {
		return n, nil
	}
	return n, m.wire.release()
}

func hasBody(head []byte) bool {
	f := parseFrame((*[frameHead]byte)(head))
	return f.kind == frameData && f.length > 0
}

// Close closes at once: yamux's readers spin until it returns. Goodbyes are said
// before.
func (m *muxer) Close() error { return m.wire.Close() }

// goodbye tells the other side's TLS that nothing follows, unless bytes are on
// their way, which would be in front of it.
func (m *muxer) goodbye() {
	if m.wire.quiet() {
		_ = m.tls.CloseWrite()
	}
}
