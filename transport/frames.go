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
	// streams wait for it.
	maxFrame = 64 << 10
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
// It refuses what yamux would fall for: pings, for each of which it starts a
// goroutine; streams with numbers of the other side's; frames so large that
// reads, which wait for a frame to be whole, would outlive any deadline. And it
// tells the end of a stream from the end of the connection, which yamux's reads
// do not.
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

	// The rest belongs to yamux's receiving goroutine,
	head [frameHead]byte
	have int    // bytes of head
	body uint32 // bytes to come of the frame
	// except this: when the frame that has not come whole began, or 0.
	began atomic.Int64

	writes muxerWrite // yamux's sending goroutine's
}

// muxerWrite says whether a frame's body is still to follow its head.
type muxerWrite struct{ body bool }

func (m *muxer) Read(p []byte) (int, error) {
	n, err := m.tls.Read(p)
	if bad := m.inspect(p[:n]); bad != nil {
		return 0, bad
	}
	return n, err
}

// inspect follows the frames in b, which may begin and end anywhere.
func (m *muxer) inspect(b []byte) error {
	for len(b) > 0 {
		if m.body > 0 {
			n := min(m.body, uint32(len(b)))
			m.body -= n
			b = b[n:]
			continue
		}
		n := copy(m.head[m.have:], b)
		m.have += n
		b = b[n:]
		if m.have < frameHead {
			break
		}
		m.have = 0
		f := parseFrame(&m.head)
		if err := m.judge(f); err != nil {
			return err
		}
		if f.kind == frameData {
			m.body = f.length
		}
	}
	switch {
	case m.body == 0 && m.have == 0:
		m.began.Store(0)
	case m.began.Load() == 0:
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
	if !m.writes.body && !m.wire.collect() {
		return 0, net.ErrClosed
	}
	n, err := m.tls.Write(p)
	if err != nil {
		return n, err
	}
	m.writes.body = !m.writes.body && len(p) == frameHead && hasBody(p)
	if m.writes.body {
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
