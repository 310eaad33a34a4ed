package transport

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// What strangers and bad peers may do, and what happens to them.

// stillServes says that the node lets honest peers in.
func stillServes(t *testing.T, l *node) {
	t.Helper()
	a, b := connect(t, newNode(t, networks["tcp"](t), Config{}), l)
	exchange(t, a, b, 100)
}

// dropped waits until the other side closes c, and fails if that takes longer than
// it may.
func dropped(t *testing.T, c net.Conn, within time.Duration) {
	t.Helper()
	from := time.Now()
	check(t, c.SetReadDeadline(from.Add(within+5*time.Second)))
	_, err := io.Copy(io.Discard, c)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("never dropped")
	} else if took := time.Since(from); took > within {
		t.Errorf("dropped after %v only", took)
	}
}

func rawDial(t *testing.T, l *node) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.l.Addr())
	check(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestStrangersAreDropped(t *testing.T) {
	const timeout = 300 * time.Millisecond
	const late = timeout + 2*time.Second // for slow machines under the race detector
	strangers := map[string]func(t *testing.T, c net.Conn){
		"silence": func(*testing.T, net.Conn) {},
		"garbage": func(_ *testing.T, c net.Conn) { _, _ = c.Write(make([]byte, 1<<20)) },
		"http":    func(_ *testing.T, c net.Conn) { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\n\r\n") },
		"slow": func(t *testing.T, c net.Conn) {
			// A byte of a proper hello at a time.
			go func() {
				for {
					if _, err := c.Write([]byte{22}); err != nil {
						return
					}
					time.Sleep(20 * time.Millisecond)
				}
			}()
		},
		"no certificate": func(t *testing.T, c net.Conn) {
			tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
			go func() { _, _ = tc.Write([]byte("hello")) }()
		},
		"other protocol": func(t *testing.T, c net.Conn) {
			go tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}).Handshake()
		},
		"no protocol": func(t *testing.T, c net.Conn) {
			cert, err := certificate(newKey(t))
			check(t, err)
			go tls.Client(c, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}}).Handshake()
		},
		"old TLS": func(t *testing.T, c net.Conn) {
			cfg := strangerConfig(t)
			cfg.MaxVersion = tls.VersionTLS12
			go tls.Client(c, cfg).Handshake()
		},
		"key of another kind": func(t *testing.T, c net.Conn) {
			cfg := strangerConfig(t)
			cfg.Certificates = []tls.Certificate{ecdsaCertificate(t)}
			go tls.Client(c, cfg).Handshake()
		},
		"two certificates": func(t *testing.T, c net.Conn) {
			cfg := strangerConfig(t)
			cert := &cfg.Certificates[0]
			cert.Certificate = append(cert.Certificate, cert.Certificate[0])
			go tls.Client(c, cfg).Handshake()
		},
		"silence after TLS": func(t *testing.T, c net.Conn) {
			go tls.Client(c, strangerConfig(t)).Handshake()
		},
	}
	for name, act := range strangers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := listen(t, networks["tcp"](t), Config{HandshakeTimeout: timeout, MaxPending: 4,
				Handshake: handshakeFunc(func(_ context.Context, s Stream, _ PeerID, _ bool) (any, error) {
					_, err := io.ReadAll(s)
					return nil, err
				})})
			c := rawDial(t, l)
			act(t, c)
			dropped(t, c, late)
			if n := len(l.l.(*listener).ready); n != 0 {
				t.Error("let in")
			}
		})
	}
}

// strangerConfig is what a peer that keeps to TLS uses.
func strangerConfig(t testing.TB) *tls.Config {
	t.Helper()
	cert, err := certificate(newKey(t))
	check(t, err)
	return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}, Certificates: []tls.Certificate{cert}}
}

func ecdsaCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Those who hold connections open keep nobody else out.
func TestTooManyStrangers(t *testing.T) {
	t.Parallel()
	l := listen(t, networks["tcp"](t), Config{MaxPending: 8, HandshakeTimeout: 30 * time.Second})
	var first net.Conn
	for i := range 50 {
		c := rawDial(t, l)
		if i == 0 {
			first = c
		}
	}
	dropped(t, first, 10*time.Second)
	stillServes(t, l)
	p := l.l.(*listener).s.pending
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.order) > 8 {
		t.Errorf("%d connections are pending", len(p.order))
	}
}

func TestPendingPlaces(t *testing.T) {
	p := newPending(4)
	from := func(addr string) *addressed {
		a, err := net.ResolveTCPAddr("tcp", addr)
		check(t, err)
		return &addressed{addr: a}
	}
	enter := func(c *addressed) func() {
		leave, ok := p.enter(c)
		if !ok {
			t.Fatalf("no place for %v", c.addr)
		}
		return leave
	}
	a := from("10.0.0.1:1")
	leaveA := enter(a)
	leaveA2 := enter(from("10.0.0.1:2"))
	if _, ok := p.enter(from("10.0.0.1:3")); ok {
		t.Error("one address has more than half of the places")
	}
	leaveA2()
	enter(from("[2001:db8::1]:1"))
	enter(from("[2001:db8::ffff]:1"))
	if _, ok := p.enter(from("[2001:db8::2]:1")); ok {
		t.Error("one network has more than half of the places")
	}
	enter(from("127.0.0.1:1"))
	if a.closed {
		t.Error("closed too early")
	}
	enter(from("127.0.0.1:2"))
	if !a.closed {
		t.Error("the oldest did not give way")
	}
	leaveA() // has no place any more
	if len(p.order) != 4 {
		t.Errorf("%d places are taken", len(p.order))
	}
}

type addressed struct {
	net.Conn
	addr   net.Addr
	closed bool
}

func (a *addressed) RemoteAddr() net.Addr { return a.addr }
func (a *addressed) Close() error         { a.closed = true; return nil }

// What answers is something else.
func TestDialingSomethingElse(t *testing.T) {
	answers := map[string]func(c net.Conn){
		"http": func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") },
		"tls": func(c net.Conn) {
			_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{ecdsaCertificate(t)}}).Handshake()
		},
		"tls with another protocol": func(c net.Conn) {
			_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{ecdsaCertificate(t)}, NextProtos: []string{"h2"}}).Handshake()
		},
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			n := network{NewTCP, nil}
			raw, err := net.Listen("tcp", "127.0.0.1:0")
			check(t, err)
			defer raw.Close()
			go func() {
				if c, err := raw.Accept(); err == nil {
					answer(c)
					_, _ = io.CopyN(io.Discard, c, 1<<20)
					_ = c.Close()
				}
			}()
			if _, err := newNode(t, n, Config{}).Dial(soon(t), raw.Addr().String(), PeerID{1}); !errors.Is(err, ErrNoPeer) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("silence", func(t *testing.T) {
		raw, err := net.Listen("tcp", "127.0.0.1:0")
		check(t, err)
		defer raw.Close()
		d := newNode(t, network{NewTCP, nil}, Config{HandshakeTimeout: 100 * time.Millisecond})
		if _, err := d.Dial(context.Background(), raw.Addr().String(), PeerID{1}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// stranger is a TLS connection to l with a proper key, whose handshake is its own.
func stranger(t *testing.T, l *node) *tls.Conn {
	t.Helper()
	c := tls.Client(rawDial(t, l), strangerConfig(t))
	check(t, c.Handshake())
	return c
}

func recordBytes(kind byte, n int, payload string) []byte {
	return append([]byte{kind, byte(n >> 8), byte(n)}, payload...)
}

func TestBadHandshakes(t *testing.T) {
	cases := map[string][]byte{
		"unknown record":      recordBytes(9, 0, ""),
		"empty data":          recordBytes(recordData, 0, ""),
		"large record":        recordBytes(recordData, maxRecord+1, ""),
		"too much":            []byte(strings.Repeat(string(recordBytes(recordData, 1000, strings.Repeat("x", 1000))), 30)),
		"data after end":      append(recordBytes(recordEnd, 0, ""), recordBytes(recordData, 1, "x")...),
		"two ends":            append(recordBytes(recordEnd, 0, ""), recordBytes(recordEnd, 0, "")...),
		"end with payload":    recordBytes(recordEnd, 1, "x"),
		"verdict with a text": recordBytes(recordAgreed, 1, "x"),
		"large reason":        recordBytes(recordRefused, maxReason+1, ""),
	}
	for name, say := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failed := make(chan error, 1)
			l := listen(t, networks["tcp"](t), Config{MaxHandshake: 20_000, Handshake: handshakeFunc(
				func(_ context.Context, s Stream, peer PeerID, _ bool) (any, error) {
					_, err := io.Copy(io.Discard, s)
					if err == nil { // what follows is for the verdicts
						err = s.(*opening).settle()
					}
					select {
					case failed <- err:
					default:
					}
					return nil, err
				})})
			c := stranger(t, l)
			_, err := c.Write(say)
			check(t, err)
			dropped(t, c, 5*time.Second)
			if err := <-failed; !errors.Is(err, ErrProtocol) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// badPeer is a peer that passed the handshake and then writes frames of its own.
type badPeer struct {
	*tls.Conn
	conn Conn // the victim's end
}

func newBadPeer(t *testing.T, cfg Config) *badPeer {
	t.Helper()
	l := listen(t, networks["tcp"](t), cfg)
	c := stranger(t, l)
	_, err := c.Write(append(recordBytes(recordAgreed, 0, ""), frameBytes(frameWindow, flagSYN, 1, 0)...))
	check(t, err)
	_, err = io.ReadFull(c, make([]byte, recordHead))
	check(t, err)
	conn, err := l.l.Accept(soon(t))
	check(t, err)
	t.Cleanup(func() { check(t, conn.Close()) })
	return &badPeer{c, conn}
}

func frameBytes(kind byte, flags uint16, stream, length uint32) []byte {
	b := []byte{frameVersion, kind}
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	return binary.BigEndian.AppendUint32(b, length)
}

func TestBadPeers(t *testing.T) {
	many := func(n int, frame func(i uint32) []byte) (b []byte) {
		for i := range n {
			b = append(b, frame(uint32(i))...)
		}
		return b
	}
	cases := map[string][]byte{
		"version":            {1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0},
		"kind":               frameBytes(7, 0, 1, 0),
		"ping":               frameBytes(2, flagSYN, 0, 1),
		"goodbye":            frameBytes(frameGoAway, 0, 0, 1),
		"large frame":        frameBytes(frameData, 0, 1, maxFrameIn+1),
		"not its number":     frameBytes(frameWindow, flagSYN, 2, 0),
		"same stream twice":  many(2, func(uint32) []byte { return frameBytes(frameWindow, flagSYN, 3, 0) }),
		"control ends":       frameBytes(frameWindow, flagFIN, 1, 0),
		"control cut":        frameBytes(frameWindow, flagRST, 1, 0),
		"no control message": append(frameBytes(frameData, 0, 1, 5), 9, 0, 0, 0, 0),
		"too many streams": many(3*backlog, func(i uint32) []byte {
			return frameBytes(frameWindow, flagSYN, 3+2*i, 0)
		}),
		"over the window": many(2, func(uint32) []byte {
			return append(frameBytes(frameData, 0, 1, maxFrameIn), make([]byte, maxFrameIn)...)
		}),
	}
	for name, say := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newBadPeer(t, Config{StreamWindow: minWindow})
			_, _ = p.Write(say)
			select {
			case <-p.conn.Done():
			case <-time.After(5 * time.Second):
				t.Fatal("still connected")
			}
			if _, err := p.conn.Accept(soon(t)); !errors.Is(err, ErrClosed) {
				t.Errorf("got %v", err)
			}
			dropped(t, p.NetConn(), 5*time.Second)
		})
	}
}

// A peer may speak of streams that do not exist, for as long as it likes.
func TestWordsAboutNothing(t *testing.T) {
	t.Parallel()
	p := newBadPeer(t, Config{})
	for i := range uint32(5000) {
		b := append(frameBytes(frameWindow, flagFIN, 1001+2*i, 0), frameBytes(frameData, 0, 1, controlSize)...)
		b = binary.BigEndian.AppendUint32(append(b, controlStop), 5000+i)
		_, err := p.Write(b)
		check(t, err)
	}
	s, err := p.conn.Open(soon(t))
	check(t, err)
	check(t, s.Close())
	c := p.conn.(*conn)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.early) != 0 {
		t.Errorf("remembers %d streams", len(c.early))
	}
}

// More streams than agreed end the connection, also when they are accepted.
func TestTooManyStreamsAccepted(t *testing.T) {
	t.Parallel()
	p := newBadPeer(t, Config{MaxStreams: 4})
	for i := range uint32(20) {
		_, _ = p.Write(frameBytes(frameWindow, flagSYN, 3+2*i, 0))
	}
	for {
		s, err := p.conn.Accept(soon(t))
		if errors.Is(err, ErrProtocol) {
			return
		}
		check(t, err)
		defer s.Close()
	}
}

// A stream that the other side resets is no stream that ended.
func TestResetIsNoEnd(t *testing.T) {
	t.Parallel()
	p := newBadPeer(t, Config{})
	_, err := p.Write(append(frameBytes(frameData, flagSYN, 3, 2), 'h', 'i'))
	check(t, err)
	s, err := p.conn.Accept(soon(t))
	check(t, err)
	defer s.Close()
	_, err = io.ReadFull(s, make([]byte, 2))
	check(t, err)
	_, err = p.Write(frameBytes(frameWindow, flagRST, 3, 0))
	check(t, err)
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, errReset) {
		t.Errorf("got %v", err)
	}
}

// However the bytes come, the frames in them are the same, and whole.
func TestFramesInPieces(t *testing.T) {
	frames := [][]byte{
		frameBytes(frameWindow, flagSYN, 3, 0),
		append(frameBytes(frameData, flagFIN, 3, 5), "hello"...),
		frameBytes(frameData, 0, 1, 0),
		append(frameBytes(frameData, 0, 7, maxFrameIn), make([]byte, maxFrameIn)...),
		frameBytes(frameWindow, flagRST, 5, 77),
	}
	for _, piece := range []int{1, 5, 11, 12, 13, 29, 1000, 1 << 20} {
		var got []string
		near, far := memoryTLS(t)
		m := &muxer{
			tls:    far,
			odd:    true,
			opened: func(id uint32) error { got = append(got, fmt.Sprint("open ", id)); return nil },
			ended:  func(id uint32, cut bool) { got = append(got, fmt.Sprint("end ", id, cut)) },
		}
		go func() {
			all := slices.Concat(frames...)
			for large := len(all) - frameHead; len(all) > 0; {
				n := min(piece, len(all))
				if len(all) < large-100 && len(all) > 100 { // not all of the large one byte by byte
					n = min(max(piece, 10_000), len(all)-100)
				}
				_, _ = near.Write(all[:n])
				all = all[n:]
			}
			_ = near.Close()
		}()
		for _, want := range frames {
			for _, part := range [][]byte{want[:frameHead], want[frameHead:]} {
				b := make([]byte, len(part))
				if _, err := io.ReadFull(m, b); err != nil || !bytes.Equal(b, part) {
					t.Fatalf("pieces of %d: got %.20x of %.20x, %v", piece, b, part, err)
				}
			}
			if m.in.next < m.in.whole && piece < frameHead {
				t.Errorf("pieces of %d: more than a frame", piece)
			}
		}
		if _, err := m.Read(make([]byte, 1)); err != io.EOF || m.began.Load() != 0 {
			t.Errorf("pieces of %d: at the end: %v", piece, err)
		}
		if want := "[open 3 end 3 false end 5 true]"; fmt.Sprint(got) != want {
			t.Errorf("pieces of %d: got %v, want %s", piece, got, want)
		}
		_ = far.Close()
	}
}

// A frame whose bytes do not come keeps nobody beyond a deadline, and ends the
// connection in the end.
func TestFrameThatDoesNotEnd(t *testing.T) {
	t.Parallel()
	p := newBadPeer(t, Config{})
	_, err := p.Write(append(frameBytes(frameWindow, flagSYN, 3, 0), frameBytes(frameData, 0, 3, 1000)...))
	check(t, err)
	s, err := p.conn.Accept(soon(t))
	check(t, err)
	defer s.Close()
	time.Sleep(20 * time.Millisecond)
	check(t, s.SetDeadline(time.Now().Add(20*time.Millisecond)))
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	c := p.conn.(*conn)
	if err := c.check(now() + int64(stallTimeout) - int64(time.Second)); errors.Is(err, ErrProtocol) {
		t.Errorf("too early: %v", err)
	}
	c.wire.lastIn.Store(now() + int64(stallTimeout))
	if err := c.check(now() + int64(stallTimeout)); !errors.Is(err, ErrProtocol) {
		t.Errorf("at last: %v", err)
	}
}
