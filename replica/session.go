package replica

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/foreverfs/forever/replica/replicapb"
	"github.com/foreverfs/forever/transport"
)

// maxStreams bounds the streams that a peer may have open.
const maxStreams = 16

// streamDeadline is how long a peer may take to say what a stream is for.
const streamDeadline = 10 * time.Second

// session is one connection with one peer.
type session struct {
	r      *Replica
	conn   transport.Conn
	peer   DeviceID
	name   string
	hello  *peerHello
	began  time.Time
	guest  bool     // the holder of the recovery phrase, who is no device
	via    DeviceID // whom the connection goes through; zero: it is direct
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	comparing sync.Mutex  // one comparison at a time
	logging   atomic.Bool // the peer has opened its stream of logs

	logWake  chan struct{}
	pushWake chan struct{}
	fetch    *fetchClient

	// Guarded by r.mu:
	synced  bool // the peer said what it has
	has     map[AuthorID]uint64
	dirty   map[AuthorID]struct{} // authors that may have something for it
	control []*entry              // to be sent
	telling bool                  // some of them are being written
	told    time.Time             // when the last were written
	acks    map[AuthorID]uint64   // to be sent
	gossip  map[DeviceID]struct{} // whose addresses are to be sent
	forks   map[AuthorID]struct{} // already complained about
	acked   bool                  // the peer's first acknowledgement is in
	heads   []Hash                // of the peer's control log at the start
	behind  bool                  // it was told that what it needs is gone
	outrun  []*replicapb.Outrun   // to be sent
	lacking []Item                // to be offered, whatever the peer's position
	dropped map[AuthorID]droppedAt
	splices int // streams of it that are led on, or come from others
}

// droppedAt is a batch of a device that is out, which did not count when it came.
type droppedAt struct {
	device DeviceID
	seq    uint64
}

func newSession(r *Replica, conn transport.Conn, hello *peerHello) *session {
	s := &session{
		r:        r,
		conn:     conn,
		peer:     DeviceID(conn.Peer()),
		hello:    hello,
		began:    time.Now(),
		logWake:  make(chan struct{}, 1),
		pushWake: make(chan struct{}, 1),
		has:      map[AuthorID]uint64{},
		dirty:    map[AuthorID]struct{}{},
		acks:     map[AuthorID]uint64{},
		gossip:   map[DeviceID]struct{}{},
		forks:    map[AuthorID]struct{}{},
		dropped:  map[AuthorID]droppedAt{},
	}
	s.ctx, s.cancel = context.WithCancelCause(r.closing)
	s.fetch = newFetchClient(s)
	return s
}

// run works until the connection ends and returns why.
func (s *session) run() error {
	defer context.AfterFunc(s.ctx, func() { s.conn.Close() })()
	// Chunks may be asked for from the moment the session is known, which may end before its stream is open.
	defer context.AfterFunc(s.ctx, s.fetch.fail)()
	if s.conn.Dialed() {
		s.spawn("log", func() error { return s.openStream(replicapb.Stream_KIND_LOG, s.runLog) })
		s.spawn("mend", s.mendLoop)
		if s.keepsLeases() {
			s.spawn("leases", s.leaseLoop)
		}
		if s.sharesLocks() {
			s.spawn("locks", s.lockLoop)
		}
	}
	s.spawn("fetch", func() error { return s.openStream(replicapb.Stream_KIND_FETCH, s.fetch.run) })
	s.spawn("push", s.pushLoop)
	s.spawn("accept", s.acceptLoop)
	select {
	case <-s.conn.Done():
		s.cancel(errors.New("connection lost"))
	case <-s.ctx.Done():
	}
	s.conn.Close()
	s.wg.Wait()
	return context.Cause(s.ctx)
}

// spawn runs fn; its failure ends the session.
func (s *session) spawn(what string, fn func() error) {
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		if err := fn(); err != nil {
			if errors.Is(err, ErrInvalid) && s.ctx.Err() == nil {
				s.r.ban(s.peer) // before it can notice and come back
			}
			s.cancel(fmt.Errorf("%s: %w", what, err))
		}
	}()
}

// end closes the session without complaint.
func (s *session) end(reason string) { s.cancel(errors.New(reason)) }

// openStream opens a stream of our own and works on it.
func (s *session) openStream(kind replicapb.Stream_Kind, work func(*stream) error) error {
	raw, err := s.conn.Open(s.ctx)
	if err != nil {
		return err
	}
	st := newStream(raw)
	defer s.closeWith(st)()
	if err := st.write(&replicapb.Stream{Kind: kind}); err != nil {
		return err
	}
	if err := st.flush(); err != nil {
		return err
	}
	return work(st)
}

// closeWith sees to it that st is closed when the session ends, so that no
// reader or writer hangs on it, and returns what closes it.
func (s *session) closeWith(st *stream) func() {
	stop := context.AfterFunc(s.ctx, st.abort)
	return func() {
		stop()
		st.abort()
	}
}

// acceptLoop serves the streams that the peer opens.
func (s *session) acceptLoop() error {
	slots := make(chan struct{}, maxStreams)
	for {
		raw, err := s.conn.Accept(s.ctx)
		if err != nil {
			return err
		}
		select {
		case slots <- struct{}{}:
		default:
			return invalid("more than %d streams", maxStreams)
		}
		s.spawn("stream", func() error {
			defer func() { <-slots }()
			return s.serveStream(newStream(raw))
		})
	}
}

func (s *session) serveStream(st *stream) error {
	defer s.closeWith(st)()
	if err := st.raw.SetDeadline(time.Now().Add(streamDeadline)); err != nil {
		return err
	}
	var p replicapb.Stream
	if err := st.read(&p, 64); err != nil {
		return err
	}
	if err := st.raw.SetDeadline(time.Time{}); err != nil {
		return err
	}
	if s.guest && p.GetKind() != replicapb.Stream_KIND_LOG {
		return nil
	}
	switch p.GetKind() {
	case replicapb.Stream_KIND_LOG:
		if s.conn.Dialed() || s.logging.Swap(true) {
			return invalid("a second stream of logs")
		}
		return s.runLog(st)
	case replicapb.Stream_KIND_PUSH:
		return s.spared(s.takePush(st), "cannot keep what is pushed")
	case replicapb.Stream_KIND_FETCH:
		return s.serveFetch(st)
	case replicapb.Stream_KIND_LEASE:
		if s.keepsLeases() {
			return s.takeLease(st)
		}
	case replicapb.Stream_KIND_LOCK:
		if s.sharesLocks() {
			return s.takeLocks(st)
		}
	case replicapb.Stream_KIND_SPLICE:
		return s.serveSplice(st)
	case replicapb.Stream_KIND_SPLICED:
		return s.takeSplice(st)
	case replicapb.Stream_KIND_COMPARE:
		err := s.serveCompare(st)
		if errors.Is(err, io.EOF) {
			return nil
		}
		return s.spared(err, "cannot compare stores")
	}
	// Of a later version: the other side will do without.
	return nil
}

// spared is for what may go wrong with this side's store: logs and reads go on
// without, and the other side tries again in a while.
func (s *session) spared(err error, what string) error {
	if failed := (storeError{}); errors.As(err, &failed) {
		s.r.log.Warn(what, "device", s.name, "error", failed.err)
		return nil
	}
	return err
}

// stream is a buffered stream of messages; one reader and one writer at a time.
type stream struct {
	raw transport.Stream
	r   *bufio.Reader
	w   *bufio.Writer
}

func newStream(raw transport.Stream) *stream {
	return &stream{raw, bufio.NewReaderSize(raw, 64<<10), bufio.NewWriterSize(raw, 64<<10)}
}

// read reads one message of at most limit bytes. What is no message is ErrInvalid.
func (st *stream) read(m proto.Message, limit int) error {
	err := codec.Read(st.r, m, limit)
	if errors.Is(err, transport.ErrTooLarge) || errors.Is(err, proto.Error) {
		return invalid("message: %v", err)
	}
	return err
}

func (st *stream) write(m proto.Message) error { return codec.Write(st.w, m) }

// abort ends reads and writes under way, which Close alone does not.
func (st *stream) abort() {
	_ = st.raw.SetDeadline(time.Unix(1, 0))
	_ = st.raw.Close()
}

func (st *stream) flush() error { return st.w.Flush() }

// closeOn closes st when ctx ends, so that a reader or writer of it comes back; it
// returns what ends this.
func closeOn(ctx context.Context, st *stream) func() {
	stop := context.AfterFunc(ctx, st.abort)
	return func() { stop() }
}
