package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/foreverfs/forever/replica/replicapb"
	"github.com/foreverfs/forever/transport"
)

// Two devices that cannot reach each other, as behind two NATs, are connected by way of a third
// that both are connected with: it copies bytes between a stream from one and a stream to the other. What
// is inside is the connection that they would have made themselves, TLS with pinned keys, so
// that the one in the middle sees and changes nothing. It gives way to a direct one.

const (
	// maxSplices bounds what a device copies for others at a time, maxSplicesOf what it does
	// for one: a stream each, of the maxStreams that there may be.
	maxSplices   = 64
	maxSplicesOf = 6
	// spliceTries is how many devices are asked in turn.
	spliceTries = 3
	// spliceAfter is how long addresses are tried before others are asked to lead on.
	spliceAfter = time.Second
	// spliceAnswer bounds the wait for an answer.
	spliceAnswer = 5 * time.Second
	maxSplice    = 1024 // bytes of a message
)

// errSplice says that a device does not lead on to another.
var errSplice = errors.New("the device in the middle says no")

// direct reports whether a session's connection goes through nobody.
func (s *session) direct() bool { return s.via == DeviceID{} }

// dialBoth connects with a device at one of its addresses. If that takes long, or fails, it is talked to through others meanwhile.
func (r *Replica) dialBoth(ctx context.Context, addrs []string, id DeviceID) (conn transport.Conn, addr string, err error) {
	done := make(chan struct{})
	r.spawn(func() {
		defer close(done)
		conn, addr, err = r.dialAny(ctx, addrs, id)
	})
	select {
	case <-done:
	case <-time.After(spliceAfter):
	}
	select {
	case <-done:
		if _, refused := asRefused(err); err == nil || refused || ctx.Err() != nil {
			return conn, addr, err
		}
	default:
	}
	if through, via := r.dialSpliced(ctx, id); through != nil {
		s := r.meet(through, via)
		r.spawn(func() { r.converse(through, s) })
	}
	<-done
	return conn, addr, err
}

// dialSpliced connects with a device by way of others; nil if none of them leads there, or there is a connection already.
func (r *Replica) dialSpliced(ctx context.Context, id DeviceID) (transport.Conn, DeviceID) {
	r.mu.Lock()
	if r.sessions[id] != nil {
		r.mu.Unlock()
		return nil, DeviceID{}
	}
	var direct []*session
	for _, s := range r.sessions {
		if s.direct() {
			direct = append(direct, s)
		}
	}
	r.mu.Unlock()
	rand.Shuffle(len(direct), func(i, j int) { direct[i], direct[j] = direct[j], direct[i] })
	for _, s := range direct[:min(len(direct), spliceTries)] {
		conn, err := s.splice(ctx, id)
		if err == nil {
			return conn, s.peer
		}
		r.log.Debug("cannot reach device through another", "device", id, "via", s.name, "error", err)
	}
	return nil, DeviceID{}
}

// splice connects with a device through the peer.
func (s *session) splice(ctx context.Context, id DeviceID) (transport.Conn, error) {
	st, err := s.openSplice(ctx, replicapb.Stream_KIND_SPLICE, id)
	if err != nil {
		return nil, err
	}
	return s.r.transport.DialOver(ctx, newSpliced(s, st), transport.PeerID(id))
}

// openSplice opens a stream of one of the two kinds, and returns it once the peer has said yes.
func (s *session) openSplice(ctx context.Context, kind replicapb.Stream_Kind, id DeviceID) (_ *stream, err error) {
	raw, err := s.conn.Open(ctx)
	if err != nil {
		return nil, err
	}
	st := newStream(raw)
	defer func() {
		if err != nil {
			st.abort()
		}
	}()
	if err := raw.SetDeadline(time.Now().Add(spliceAnswer)); err != nil {
		return nil, err
	}
	for _, m := range []proto.Message{&replicapb.Stream{Kind: kind}, &replicapb.Splice{Device: id[:]}} {
		if err := st.write(m); err != nil {
			return nil, err
		}
	}
	if err := st.flush(); err != nil {
		return nil, err
	}
	var reply replicapb.SpliceReply
	if err := st.read(&reply, maxSplice); err != nil {
		return nil, err
	}
	if why := reply.GetRefused(); why != "" {
		return nil, fmt.Errorf("%w: %s", errSplice, printable(why))
	}
	return st, raw.SetDeadline(time.Time{})
}

// readSplice reads whom a stream is for or from.
func readSplice(st *stream) (DeviceID, error) {
	var m replicapb.Splice
	if err := st.read(&m, maxSplice); err != nil {
		return DeviceID{}, err
	}
	return fixed32[DeviceID](m.GetDevice(), "device")
}

// answerSplice says yes, or why not.
func answerSplice(st *stream, refused string) error {
	if err := st.write(&replicapb.SpliceReply{Refused: refused}); err != nil {
		return err
	}
	return st.flush()
}

// serveSplice leads a stream of the peer's on to a third device, and copies until either end closes.
func (s *session) serveSplice(st *stream) error {
	id, err := readSplice(st)
	if err != nil {
		return err
	}
	r := s.r
	r.mu.Lock()
	to, refused := r.sessions[id], ""
	switch {
	case to == nil || to == s:
		refused = "not connected with that device"
	case !s.direct() || !to.direct():
		refused = "one connection through others is enough"
	case r.splices >= maxSplices || s.splices >= maxSplicesOf || to.splices >= maxSplicesOf:
		refused = "as many as there may be"
	default:
		r.splices++
		s.splices++
		to.splices++
	}
	r.mu.Unlock()
	if refused != "" {
		return ended(answerSplice(st, refused))
	}
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.splices--
		s.splices--
		to.splices--
	}()
	on, err := to.openSplice(s.ctx, replicapb.Stream_KIND_SPLICED, s.peer)
	if err != nil {
		return ended(answerSplice(st, "that device does not take it"))
	}
	defer to.closeWith(on)()
	if err := answerSplice(st, ""); err != nil {
		return nil
	}
	r.log.Debug("leading a connection on", "from", s.name, "to", to.name)
	var wg sync.WaitGroup
	for _, pair := range [][2]*stream{{st, on}, {on, st}} {
		wg.Go(func() {
			_, _ = io.Copy(pair[1].raw, pair[0].r) // whatever it is, it ends both
			pair[0].abort()
			pair[1].abort()
		})
	}
	wg.Wait()
	return nil
}

// ended leaves the session alone when a stream has ended.
func ended(err error) error {
	if errors.Is(err, ErrInvalid) {
		return err
	}
	return nil
}

// takeSplice takes a connection that comes through the peer, and talks on it until it ends.
func (s *session) takeSplice(st *stream) error {
	id, err := readSplice(st)
	if err != nil {
		return err
	}
	r := s.r
	r.mu.Lock()
	_, known := r.control.device(id)
	direct := r.sessions[id] != nil && r.sessions[id].direct()
	r.mu.Unlock()
	if !known || direct || !s.direct() {
		return ended(answerSplice(st, "there is no need"))
	}
	if err := answerSplice(st, ""); err != nil {
		return nil
	}
	conn, err := r.transport.AcceptOver(s.ctx, newSpliced(s, st))
	if err != nil {
		r.log.Debug("a connection through another device did not come about", "device", id, "via", s.name, "error", err)
		return nil
	}
	if DeviceID(conn.Peer()) != id {
		return errors.Join(conn.Close(), invalid("a connection from another device than was said"))
	}
	r.converse(conn, r.meet(conn, s.peer))
	return nil
}

// spliced is one end of what leads through another device, as TLS wants it.
type spliced struct {
	st    *stream
	via   string
	close context.CancelFunc

	mu    sync.Mutex
	write *time.Timer // ends it when a write takes too long
}

var _ net.Conn = (*spliced)(nil)

// newSpliced closes st when the session that it is part of ends, or with Close. That may have to wait
// for the link, as Close must not: readers of the connection inside are busy until it returns.
func newSpliced(s *session, st *stream) *spliced {
	ctx, cancel := context.WithCancel(s.ctx)
	c := &spliced{st: st, via: s.name, close: cancel}
	c.write = time.AfterFunc(time.Hour, st.abort)
	c.write.Stop()
	s.r.spawn(func() {
		<-ctx.Done()
		st.abort()
	})
	return c
}

func (c *spliced) Read(p []byte) (int, error) { return c.st.r.Read(p) }
func (c *spliced) LocalAddr() net.Addr        { return viaAddr(c.via) }
func (c *spliced) RemoteAddr() net.Addr       { return viaAddr(c.via) }

func (c *spliced) Write(p []byte) (int, error) {
	defer c.write.Stop() // it was in time
	return c.st.raw.Write(p)
}

func (c *spliced) Close() error {
	c.write.Stop()
	_ = c.st.raw.SetDeadline(time.Unix(1, 0)) // ends reads and writes under way
	c.close()
	return nil
}

func (c *spliced) SetDeadline(t time.Time) error     { return c.st.raw.SetDeadline(t) }
func (c *spliced) SetReadDeadline(t time.Time) error { return c.st.raw.SetDeadline(t) }

// SetWriteDeadline leaves reads alone: the stream below has one deadline for both. A write that
// misses it ends the connection, as it would anyway.
func (c *spliced) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.IsZero() {
		c.write.Stop()
		return nil
	}
	c.write.Reset(time.Until(t))
	return nil
}

// viaAddr is the address of what comes through another device.
type viaAddr string

// Network implements net.Addr.
func (a viaAddr) Network() string { return "splice" }

// String implements net.Addr.
func (a viaAddr) String() string { return "via " + string(a) }
