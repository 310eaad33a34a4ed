package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// The bytes that docs/format/transport.md describes. They never change: another
// format gets another protocol name.

// talk runs a Handshaker at the accepting end of a connection whose other end is
// the test's, and returns the outcome.
func talk(t testing.TB, cfg Config, other func(c *tls.Conn)) (any, error) {
	t.Helper()
	near, far := memoryTLS(t)
	defer near.Close()
	defer far.Close()
	cfg.Identity = newKey(t)
	if cfg.Handshake == nil {
		cfg.Handshake = anyone
	}
	check(t, cfg.complete())
	done := make(chan struct{})
	go func() {
		defer close(done)
		other(near)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), cfg.HandshakeTimeout)
	defer cancel()
	session, err := agree(ctx, &cfg, far, PeerID{}, false)
	_ = far.Close()
	<-done
	return session, err
}

// memoryTLS is an authenticated connection in memory.
func memoryTLS(t testing.TB) (near, far *tls.Conn) {
	t.Helper()
	a, b := NewMemory().connect(PeerID{}, PeerID{}, "there")
	near, far = tls.Client(a, strangerConfig(t)), tls.Server(b, strangerConfig(t))
	done := make(chan error, 1)
	go func() { done <- far.Handshake() }()
	check(t, near.Handshake())
	check(t, <-done)
	return near, far
}

func TestGoldenHandshake(t *testing.T) {
	cases := map[string]struct {
		handshake handshakeFunc
		says      string // what is sent to it, in hexadecimal
		want      string // what it sends
	}{
		"agreed": {
			func(_ context.Context, s Stream, _ PeerID, _ bool) (any, error) {
				_, err := s.Write([]byte("hello"))
				return nil, err
			},
			"030000", "010005" + "68656c6c6f" + "030000",
		},
		"in pieces": {
			func(_ context.Context, s Stream, _ PeerID, _ bool) (any, error) {
				got, err := io.ReadAll(s)
				if err == nil {
					_, err = s.Write(got)
				}
				return nil, errors.Join(err, s.CloseWrite())
			},
			"01000161" + "01000262" + "63" + "020000" + "030000", "010003616263" + "020000" + "030000",
		},
		"refused": {
			func(context.Context, Stream, PeerID, bool) (any, error) { return nil, &Refusal{"not you"} },
			"030000", "040007" + "6e6f7420796f75",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			says, err := hex.DecodeString(c.says)
			check(t, err)
			var got []byte
			_, _ = talk(t, Config{Handshake: c.handshake}, func(conn *tls.Conn) {
				_, _ = conn.Write(says)
				_ = conn.CloseWrite()
				got, _ = io.ReadAll(conn)
			})
			if hex.EncodeToString(got) != c.want {
				t.Errorf("got  %x\nwant %s", got, c.want)
			}
		})
	}
}

// What a connection begins with after the handshake: the control stream, a
// stream, a word that it lives, another that it is done with a stream.
func TestGoldenFrames(t *testing.T) {
	l := listen(t, networks["tcp"](t), Config{KeepAlive: 50 * time.Millisecond})
	c := stranger(t, l)
	_, err := c.Write(append(recordBytes(recordAgreed, 0, ""), frameBytes(frameWindow, flagSYN, 1, 0)...))
	check(t, err)
	conn, err := l.l.Accept(soon(t))
	check(t, err)
	defer conn.Close()
	expect := func(what, want string) {
		t.Helper()
		b := make([]byte, len(want)/2)
		if _, err := io.ReadFull(c, b); err != nil || hex.EncodeToString(b) != want {
			t.Fatalf("%s: got %x, want %s, %v", what, b, want, err)
		}
	}
	expect("verdict", "030000")
	expect("control stream taken, window raised", "00010002"+"00000001"+"007c0000")
	expect("alive", "00000000"+"00000001"+"00000005"+"0100000000")
	_, err = c.Write(append(frameBytes(frameData, flagSYN, 3, 2), 'h', 'i'))
	check(t, err)
	s, err := conn.Accept(soon(t))
	check(t, err)
	check(t, s.Close())
	var got []byte
	b := make([]byte, 1000)
	want, _ := hex.DecodeString("00000000" + "00000001" + "00000005" + "0200000003")
	for !bytes.Contains(got, want) {
		n, err := c.Read(b)
		check(t, err)
		got = append(got, b[:n]...)
	}
}

func TestProtocolName(t *testing.T) {
	if protocol != "forever/1" {
		t.Error("another protocol needs another page in docs/format")
	}
}

func TestReasonsArePrintable(t *testing.T) {
	cases := map[string]string{
		"plain text, ünïcode":                "plain text, ünïcode",
		"\x00\x1b[0m\n\u202e\xff":            "??[0m???",
		strings.Repeat("ü", maxReason):       strings.Repeat("ü", maxReason/2),
		"x" + strings.Repeat("€", maxReason): "x" + strings.Repeat("€", maxReason/3),
	}
	for in, want := range cases {
		if got := printable(in); got != want {
			t.Errorf("%.20q became %.20q (%d bytes)", in, got, len(got))
		}
	}
}

func FuzzHandshake(f *testing.F) {
	f.Add([]byte("\x01\x00\x05hello\x03\x00\x00"))
	f.Add([]byte("\x02\x00\x00\x03\x00\x00"))
	f.Add([]byte("\x04\x00\x07not you"))
	f.Add([]byte("\x01\x00\x00"))
	f.Add([]byte("\x01\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		const most = 1000
		read := 0
		hs := handshakeFunc(func(_ context.Context, s Stream, _ PeerID, _ bool) (any, error) {
			got, err := io.ReadAll(s)
			read = len(got)
			return nil, err
		})
		_, err := talk(t, Config{Handshake: hs, MaxHandshake: most, HandshakeTimeout: 2 * time.Second}, func(c *tls.Conn) {
			_, _ = c.Write(b)
			_ = c.CloseWrite()
			_, _ = io.Copy(io.Discard, c)
		})
		if read > most {
			t.Errorf("read %d bytes", read)
		}
		var no *Refusal
		if errors.As(err, &no) && (len(no.Reason) > maxReason || !utf8.ValidString(no.Reason)) {
			t.Errorf("reason %q", no.Reason)
		}
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			t.Errorf("did not end by itself: %v", err)
		}
	})
}

// FuzzFrames gives a connection any bytes for frames.
func FuzzFrames(f *testing.F) {
	syn := frameBytes(frameWindow, flagSYN, 3, 0)
	f.Add(syn)
	f.Add(append(frameBytes(frameData, 0, 1, 5), controlStop, 0, 0, 0, 3))
	f.Add(append(append(syn, frameBytes(frameData, 0, 3, 3)...), "abc"...))
	f.Add(append(syn, frameBytes(frameWindow, flagFIN|flagRST, 3, 1<<31)...))
	f.Add(frameBytes(frameGoAway, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		near, far := memoryTLS(t)
		defer near.Close()
		cfg := Config{Identity: newKey(t), Handshake: anyone, MaxStreams: 4}
		check(t, cfg.complete())
		_, err := near.Write(append(frameBytes(frameWindow, flagSYN, 1, 0), b...))
		check(t, err)
		c := &conn{remote: "fuzz"}
		if err := newConn(context.Background(), &cfg, newWire(far.NetConn(), newPace(far.NetConn(), nil, nil)), far, c); err != nil {
			_ = far.Close()
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		go func() { _ = near.CloseWrite() }()
		go func() { _, _ = io.Copy(io.Discard, near) }()
		for {
			s, err := c.Accept(ctx)
			if err != nil {
				break
			}
			check(t, s.SetDeadline(time.Now().Add(time.Second)))
			_, _ = io.Copy(io.Discard, s)
			_ = s.Close()
		}
		if ctx.Err() != nil {
			t.Error("the connection did not end")
		}
		check(t, c.Close())
		if len(c.early) > 2*backlog+1 || len(c.streams) > 3*cfg.MaxStreams {
			t.Errorf("remembers %d and %d streams", len(c.early), len(c.streams))
		}
	})
}
