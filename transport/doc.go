// Package transport gives authenticated connections to peers, each carrying many
// streams. A peer is named by its Ed25519 key and proves in a TLS 1.3 handshake
// that it holds it; whether it may stay is for the Handshaker to say, which is
// given by whoever uses the package. docs/format/transport.md says what goes over
// the wire.
//
// # Implementations
//
// NewTCP and NewUnix connect machines and processes. Memory is a network inside
// one process, for tests: the same TLS and streams over pipes that can be slowed
// down and cut.
//
// # What is promised
//
// A connection ends, on both sides, about IdleTimeout after the other side fell
// silent. Streams of one connection do not wait for each other's readers. A Read
// returns io.EOF only if the other side ended its half of the stream; when the
// connection is lost instead, it fails with ErrClosed.
//
// Whoever has not passed the handshake costs a bounded amount of memory for
// HandshakeTimeout at most, and there are at most MaxPending of them. Whoever has
// passed it may still be hostile: what it can make this side hold is bounded by
// StreamWindow for each stream that was accepted, and 256 KiB for each of up to
// 256 that were not.
//
// # Locks
//
// conn.mu guards a connection's table of streams. It is taken from yamux's
// receiving goroutine and therefore never held during a call into yamux.
package transport
