package transport

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// Refusal is a Handshaker's no, with the reason that the other side is told. It
// may carry foreign text, which has been made fit for a log line.
type Refusal struct{ Reason string }

// Error implements error.
func (r *Refusal) Error() string { return "transport: refused: " + r.Reason }

// Records of the handshake: their kind, two bytes of length (big endian), and
// the payload.
const (
	recordData    = 1 // bytes of the Handshaker
	recordEnd     = 2 // none follow
	recordAgreed  = 3 // the Handshaker said yes; what follows is yamux
	recordRefused = 4 // it said no: the reason, in UTF-8

	recordHead = 3
	maxRecord  = 16 << 10
	maxReason  = 1024

	// lingerTimeout is how long a refusal waits for the other side to take it.
	lingerTimeout = 2 * time.Second
)

// errHungUp says that a connection ended in the middle of the handshake.
var errHungUp = fmt.Errorf("the other side hung up during the handshake: %w", io.ErrUnexpectedEOF)

// agree runs the Handshaker on an authenticated connection and exchanges
// verdicts. On a nil error both sides have agreed and tc's next byte is yamux's.
func agree(ctx context.Context, cfg *Config, tc *tls.Conn, peer PeerID, dialed bool) (any, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(cfg.HandshakeTimeout)
	}
	s := &opening{conn: tc, deadline: deadline, unread: cfg.MaxHandshake, unsent: cfg.MaxHandshake}
	if err := s.SetDeadline(deadline); err != nil {
		return nil, err
	}
	session, err := cfg.Handshake.Handshake(ctx, s, peer, dialed)
	_ = tc.SetDeadline(deadline) // whatever it was set to in there
	if err == nil {
		err = s.settle()
	} else if refused := s.refusal(); refused != nil {
		// The Handshaker failed for that reason, even if it forgot to say so.
		if !errors.As(err, new(*Refusal)) {
			err = refused
		}
	} else {
		s.refuse(err)
	}
	if err != nil {
		return nil, err
	}
	return session, tc.SetDeadline(time.Time{})
}

// opening is the Stream of a handshake: records on the bare TLS connection, so
// that yamux with its windows starts only for those who are let in.
type opening struct {
	conn     *tls.Conn
	deadline time.Time

	reading sync.Mutex // guards what follows
	left    int        // of the present record
	unread  int        // what the other side may still send
	theirs  error      // io.EOF, or why there is nothing more to read
	agreed  bool       // it said yes
	no      *Refusal   // it said no

	writing sync.Mutex // guards what follows
	unsent  int
	ended   bool
}

var _ Stream = (*opening)(nil)

// Read implements Stream.
func (s *opening) Read(p []byte) (int, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	for s.left == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n, err := s.conn.Read(p[:min(len(p), s.left)])
	s.left -= n
	if n > 0 {
		return n, nil
	}
	return 0, s.broken(err)
}

// next reads the head of the next record; reading is held.
func (s *opening) next() error {
	if s.theirs != nil && (s.agreed || s.no != nil || !errors.Is(s.theirs, io.EOF)) {
		return s.theirs
	}
	var head [recordHead]byte
	if _, err := io.ReadFull(s.conn, head[:]); err != nil {
		return s.broken(err)
	}
	n := int(binary.BigEndian.Uint16(head[1:]))
	switch kind := head[0]; {
	case kind == recordData && s.theirs == nil && n > 0 && n <= maxRecord:
		if n > s.unread {
			s.theirs = fmt.Errorf("%w: it sends too much: %w", ErrProtocol, ErrTooLarge)
			return s.theirs
		}
		s.left, s.unread = n, s.unread-n
		return nil
	case kind == recordEnd && s.theirs == nil && n == 0:
		s.theirs = io.EOF
	case kind == recordAgreed && n == 0:
		s.theirs, s.agreed = io.EOF, true
	case kind == recordRefused && n <= maxReason:
		reason := make([]byte, n)
		if _, err := io.ReadFull(s.conn, reason); err != nil {
			return s.broken(err)
		}
		s.no = &Refusal{printable(string(reason))}
		s.theirs = s.no
	default:
		s.theirs = fmt.Errorf("%w: record of kind %d with %d bytes", ErrProtocol, kind, n)
	}
	return s.theirs
}

// broken makes of an error of the connection what Read returns; it is not final
// if it is a deadline.
func (s *opening) broken(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		err = errHungUp
	}
	s.theirs = err
	return err
}

// Write implements Stream.
func (s *opening) Write(p []byte) (n int, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.ended {
		return 0, ErrClosed
	}
	if len(p) > s.unsent {
		return 0, fmt.Errorf("handshake of more than MaxHandshake bytes: %w", ErrTooLarge)
	}
	for n < len(p) {
		piece := p[n:min(len(p), n+maxRecord)]
		if err := s.record(recordData, piece); err != nil {
			return n, err
		}
		n += len(piece)
		s.unsent -= len(piece)
	}
	return n, nil
}

// record writes a record in one piece; writing is held.
func (s *opening) record(kind byte, payload []byte) error {
	b := make([]byte, recordHead, recordHead+len(payload))
	b[0] = kind
	binary.BigEndian.PutUint16(b[1:], uint16(len(payload)))
	_, err := s.conn.Write(append(b, payload...))
	return err
}

// CloseWrite implements Stream.
func (s *opening) CloseWrite() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.ended {
		return nil
	}
	s.ended = true
	return s.record(recordEnd, nil)
}

// Close implements Stream. The verdicts still pass.
func (s *opening) Close() error { return s.CloseWrite() }

// SetDeadline implements Stream, within the deadline of the whole handshake.
func (s *opening) SetDeadline(t time.Time) error {
	if t.IsZero() || t.After(s.deadline) {
		t = s.deadline
	}
	return s.conn.SetDeadline(t)
}

// settle says yes and waits for the other side's verdict.
func (s *opening) settle() error {
	s.writing.Lock()
	s.ended = true
	err := s.record(recordAgreed, nil)
	s.writing.Unlock()
	if err != nil {
		return err
	}
	s.reading.Lock()
	defer s.reading.Unlock()
	for !s.agreed {
		// What the Handshaker left unread is of no use to anybody.
		if _, err := io.CopyN(io.Discard, s.conn, int64(s.left)); err != nil {
			return s.broken(err)
		}
		s.left = 0
		if err := s.next(); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	return nil
}

// refusal is the other side's, if it came.
func (s *opening) refusal() *Refusal {
	s.reading.Lock()
	defer s.reading.Unlock()
	return s.no
}

// refuse tells the other side the reason if err is a Refusal, and waits until it
// has been taken: closing at once, with bytes unread, would throw it away.
func (s *opening) refuse(err error) {
	var no *Refusal
	if !errors.As(err, &no) {
		return
	}
	reason := printable(no.Reason)
	_ = s.conn.SetDeadline(time.Now().Add(lingerTimeout))
	s.writing.Lock()
	s.ended = true
	werr := s.record(recordRefused, []byte(reason))
	s.writing.Unlock()
	if werr != nil || s.conn.CloseWrite() != nil {
		return
	}
	s.reading.Lock()
	defer s.reading.Unlock()
	_, _ = io.CopyN(io.Discard, s.conn, int64(s.unread)+maxRecord)
}

// printable makes a reason fit for a log line and for its record.
func printable(s string) string {
	s = strings.Map(func(c rune) rune {
		if c == utf8.RuneError || !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, s)
	for len(s) > maxReason {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}
