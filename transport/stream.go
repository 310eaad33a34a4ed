package transport

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"
)

// past is a deadline that makes blocked calls return.
var past = time.Unix(1, 0)

// errReset says that a stream was cut off, which no honest peer does.
var errReset = fmt.Errorf("%w: it reset the stream", ErrProtocol)

// stream is a Stream on yamux.
type stream struct {
	c   *conn
	mux *yamux.Stream
	own bool // has one of the places in c.places

	writing sync.Mutex // keeps a Write's pieces together

	closed  atomic.Bool // by Close
	stopped atomic.Bool // by the other side's word
	ended   atomic.Bool // the other side's half, in good order
	cut     atomic.Bool // the other side's half, otherwise

	deadlines sync.Mutex // orders SetDeadline and Close

	over   bool  // Close is done; guarded by c.mu, as is
	overAt int64 // when
}

var _ Stream = (*stream)(nil)

// Read implements Stream.
func (s *stream) Read(p []byte) (int, error) {
	if s.closed.Load() {
		return 0, ErrClosed
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := s.mux.Read(p)
	if err == nil || n > 0 {
		return n, nil
	}
	if errors.Is(err, io.EOF) && s.ended.Load() && !s.closed.Load() {
		return 0, io.EOF
	}
	return 0, s.explain(err)
}

// Write implements Stream. It writes in pieces so that other streams come in between.
func (s *stream) Write(p []byte) (n int, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	for n < len(p) {
		if s.stopped.Load() || s.closed.Load() {
			return n, s.explain(nil)
		}
		m, err := s.mux.Write(p[n:min(len(p), n+s.c.wire.pace.piece())])
		n += m
		if err != nil {
			return n, s.explain(err)
		}
	}
	return n, nil
}

// explain says why a call failed, in this package's errors.
func (s *stream) explain(err error) error {
	switch {
	case s.closed.Load():
		return ErrClosed
	case s.c.mux.IsClosed():
		<-s.c.done // it is about to be known why
		return s.c.err()
	case s.cut.Load():
		return errReset
	case s.stopped.Load():
		return ErrStopped
	case errors.Is(err, yamux.ErrTimeout):
		return os.ErrDeadlineExceeded
	case errors.Is(err, yamux.ErrStreamClosed):
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrClosed, err)
}

// CloseWrite implements Stream.
func (s *stream) CloseWrite() error {
	if s.closed.Load() {
		return ErrClosed
	}
	if err := s.mux.Close(); err != nil {
		return s.explain(err)
	}
	return nil
}

// Close implements Stream.
func (s *stream) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.deadlines.Lock()
	_ = s.mux.SetReadDeadline(past)
	s.deadlines.Unlock()
	_ = s.mux.Close()
	s.c.release(s)
	return nil
}

// SetDeadline implements Stream.
func (s *stream) SetDeadline(t time.Time) error {
	s.deadlines.Lock()
	defer s.deadlines.Unlock()
	if s.closed.Load() {
		return ErrClosed
	}
	return s.mux.SetDeadline(t)
}
