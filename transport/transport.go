package transport

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"time"
)

// PeerID names a peer: its Ed25519 public key.
type PeerID [ed25519.PublicKeySize]byte

// String returns the beginning of the key in hexadecimal, for log lines.
func (p PeerID) String() string { return hex.EncodeToString(p[:8]) }

// Errors of connections.
var (
	// ErrWrongPeer says that another device answered than the one dialed.
	ErrWrongPeer = errors.New("transport: another device answers at this address")
	// ErrNoPeer says that what answered does not speak this protocol.
	ErrNoPeer = errors.New("transport: no forever node answers at this address")
	// ErrClosed says that the listener, connection or stream was closed, by
	// either side. For a connection the text says why.
	ErrClosed = errors.New("transport: closed")
	// ErrDead says that the peer fell silent; it is also an ErrClosed.
	ErrDead = errors.New("transport: the peer does not answer any more")
	// ErrProtocol says that the peer broke the protocol; after the handshake it
	// is also an ErrClosed.
	ErrProtocol = errors.New("transport: the peer broke the protocol")
	// ErrStopped is returned by writes once the other side has closed the stream:
	// it reads no more.
	ErrStopped = errors.New("transport: the other side reads no more of this stream")
)

// Stream is one flow of bytes in each direction, in order. One goroutine may
// read while another writes; deadlines and closing are for any.
//
// When a deadline has passed, calls fail with os.ErrDeadlineExceeded. A Write
// whose bytes are already on their way to the kernel may return later than its
// deadline, by as long as the link needs for the 64 KiB it was about to send and
// what other streams had sent before.
type Stream interface {
	// Read and Write do not keep p. A written byte has been given to the
	// kernel; only an answer says that it arrived.
	//
	// Close ends both directions at once: blocked calls return ErrClosed, what
	// was not read is dropped, the other side reads what was written and then
	// io.EOF, and its writes fail with ErrStopped. Close may wait for the link as
	// Write does.
	io.ReadWriteCloser
	// CloseWrite tells the other side that no more bytes follow; reading goes on.
	CloseWrite() error
	// SetDeadline bounds present and future reads and writes; zero means never.
	SetDeadline(t time.Time) error
}

// Conn is an authenticated connection. All methods may be called from several
// goroutines. Whoever has it must Close it.
type Conn interface {
	// Peer is the key that the other side has proved to hold.
	Peer() PeerID
	// Session is what this side's Handshaker returned.
	Session() any
	// Dialed says whether this side made the connection.
	Dialed() bool
	// RemoteAddr is where the other side is, for log lines.
	RemoteAddr() string
	// LocalAddr is this side's address.
	LocalAddr() string
	// Open makes a stream; the other side's Accept returns it. It waits while
	// MaxStreams of this side's are open. Every stream must be closed.
	Open(ctx context.Context) (Stream, error)
	// Accept returns the next stream that the other side opened, in any order.
	Accept(ctx context.Context) (Stream, error)
	// Done closes when the connection has ended, for whatever reason; Open and
	// Accept then say which.
	Done() <-chan struct{}
	// Close ends the connection and all its streams and returns when nothing
	// of it runs any more. What was written may or may not arrive. It may be
	// called twice and returns nil.
	Close() error
}

// Listener accepts connections whose handshakes have succeeded.
type Listener interface {
	// Accept returns the next connection. It fails with ErrClosed or ctx's error
	// only: a connection that goes wrong is dropped.
	Accept(ctx context.Context) (Conn, error)
	// Addr is where it listens, with the port that was found for port 0.
	Addr() string
	// Close ends the listening and the handshakes under way; connections that
	// were accepted stay. It may be called twice.
	Close() error
}

// Transport makes connections. Its methods may be called from several goroutines.
type Transport interface {
	Listen(addr string) (Listener, error)
	// Dial connects to peer, or if that is zero to whoever answers, at addr, within
	// ctx and the HandshakeTimeout. It
	// fails with a *Refusal if either side's Handshaker says no, ErrWrongPeer if
	// another key answers, and ErrNoPeer if something else does.
	Dial(ctx context.Context, addr string, peer PeerID) (Conn, error)
	// DialOver and AcceptOver make a connection over one that leads to the peer already, as
	// through a third device: the two ends of it. They take raw over, and close it if they fail.
	DialOver(ctx context.Context, raw net.Conn, peer PeerID) (Conn, error)
	AcceptOver(ctx context.Context, raw net.Conn) (Conn, error)
}

// Handshaker decides on a new connection to a peer that has proved its key. Both
// sides' run at the same time, at the two ends of s; the connection stands
// when both have returned nil. The result becomes this side's Conn.Session.
//
// If the error is a *Refusal, or wraps one, the other side is told its reason
// (its reads from s fail with the Refusal, and so does its Dial); any other
// error ends the connection without a word. s has the deadline of ctx, carries
// at most MaxHandshake bytes each way, and is of no use after the return.
type Handshaker interface {
	Handshake(ctx context.Context, s Stream, peer PeerID, dialed bool) (any, error)
}
