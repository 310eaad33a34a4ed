package transport

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// What every implementation must do.

func TestPeersKnowEachOther(t *testing.T) {
	overAll(t, func(t *testing.T, n network) {
		var cfg Config
		cfg.Handshake = handshakeFunc(func(_ context.Context, _ Stream, peer PeerID, dialed bool) (any, error) {
			return fmt.Sprint(peer, dialed), nil
		})
		a, b := newNode(t, n, cfg), listen(t, n, cfg)
		dialed, accepted := connect(t, a, b)
		if dialed.Peer() != b.id || accepted.Peer() != a.id {
			t.Error("wrong peers")
		}
		if !dialed.Dialed() || accepted.Dialed() {
			t.Error("the wrong side dialed")
		}
		if dialed.Session() != fmt.Sprint(b.id, true) || accepted.Session() != fmt.Sprint(a.id, false) {
			t.Errorf("sessions %v and %v", dialed.Session(), accepted.Session())
		}
		if dialed.RemoteAddr() != b.l.Addr() {
			t.Errorf("remote address %q, listens at %q", dialed.RemoteAddr(), b.l.Addr())
		}
	})
}

func TestBytesArrive(t *testing.T) {
	overAll(t, func(t *testing.T, n network) {
		a, b := pair(t, n, Config{StreamWindow: minWindow})
		for _, size := range []int{0, 1, 12, maxFrame - 1, maxFrame, maxFrame + 1, 3 << 20} {
			for _, ends := range [][2]Conn{{a, b}, {b, a}} {
				exchange(t, ends[0], ends[1], size)
			}
		}
	})
}

// exchange sends size bytes there, and a copy back while they come.
func exchange(t *testing.T, from, to Conn, size int) {
	t.Helper()
	near, far := open(t, from, to)
	defer near.Close()
	want := make([]byte, size)
	_, _ = rand.Read(want)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer far.Close()
		if _, err := io.Copy(far, far); err != nil {
			t.Errorf("echo: %v", err)
		}
	})
	wg.Go(func() {
		if _, err := near.Write(want); err != nil {
			t.Errorf("write: %v", err)
		}
		if err := near.CloseWrite(); err != nil {
			t.Errorf("close write: %v", err)
		}
	})
	got, err := io.ReadAll(near)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back of %d, error %v", len(got), size, err)
	}
	wg.Wait()
}

func TestManyStreams(t *testing.T) {
	overAll(t, func(t *testing.T, n network) {
		a, b := pair(t, n, Config{MaxStreams: 32})
		ctx := soon(t)
		var wg sync.WaitGroup
		for _, c := range []Conn{a, b} {
			wg.Go(func() { echoAll(ctx, c, 200, t.Errorf) })
			for range 200 {
				wg.Go(func() {
					s, err := c.Open(ctx)
					if err != nil {
						t.Error(err)
						return
					}
					defer s.Close()
					text := rand.Text()
					_, err = io.WriteString(s, text)
					got := make([]byte, len(text))
					if _, rerr := io.ReadFull(s, got); err != nil || rerr != nil || string(got) != text {
						t.Errorf("sent %s, came %s, errors %v and %v", text, got, err, rerr)
					}
				})
			}
		}
		wg.Wait()
	})
}

// echoAll answers n streams.
func echoAll(ctx context.Context, c Conn, n int, failed func(string, ...any)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for range n {
		s, err := c.Accept(ctx)
		if err != nil {
			failed("accept: %v", err)
			return
		}
		wg.Go(func() {
			defer s.Close()
			if _, err := io.Copy(s, s); err != nil && !errors.Is(err, ErrStopped) {
				failed("echo: %v", err)
			}
		})
	}
}

// A stream whose reader does nothing holds up no other.
func TestStreamsAreIndependent(t *testing.T) {
	overAll(t, func(t *testing.T, n network) {
		a, b := pair(t, n, Config{})
		near, far := open(t, a, b)
		stuck := make(chan error, 1)
		go func() {
			_, err := near.Write(make([]byte, 64<<20))
			stuck <- err
		}()
		for range 10 {
			exchange(t, a, b, 100<<10)
		}
		check(t, far.Close())
		if err := <-stuck; !errors.Is(err, ErrStopped) {
			t.Errorf("write to a closed stream: %v", err)
		}
		if _, err := near.Write([]byte{1}); !errors.Is(err, ErrStopped) {
			t.Errorf("later write to a closed stream: %v", err)
		}
		if n, err := near.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("read from a closed stream: %d, %v", n, err)
		}
		check(t, near.Close())
	})
}

// Closing after writing loses nothing, even if the other side never ends its half.
func TestWrittenBeforeCloseIsRead(t *testing.T) {
	overAll(t, func(t *testing.T, n network) {
		a, b := pair(t, n, Config{})
		near, far := open(t, a, b)
		_, err := near.Write(make([]byte, 100<<10))
		check(t, err)
		check(t, near.Close())
		check(t, near.Close())
		time.Sleep(20 * time.Millisecond) // so that what follows the bytes has come as well
		got, err := io.ReadAll(far)
		if len(got) != 100<<10 || err != nil {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
		check(t, far.Close())
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, ErrClosed) {
			t.Errorf("read after Close: %v", err)
		}
		if _, err := near.Write(make([]byte, 1)); !errors.Is(err, ErrClosed) {
			t.Errorf("write after Close: %v", err)
		}
	})
}

func TestHalfCloseLasts(t *testing.T) {
	overAll(t, func(t *testing.T, n network) {
		a, b := pair(t, n, Config{})
		near, far := open(t, a, b)
		defer near.Close()
		defer far.Close()
		check(t, near.CloseWrite())
		if _, err := near.Write([]byte{1}); !errors.Is(err, ErrClosed) {
			t.Errorf("write after CloseWrite: %v", err)
		}
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read: %v", err)
		}
		for range 3 {
			_, err := far.Write([]byte("x"))
			check(t, err)
			_, err = io.ReadFull(near, make([]byte, 1))
			check(t, err)
		}
	})
}

func TestDeadlines(t *testing.T) {
	overAll(t, func(t *testing.T, n network) {
		a, b := pair(t, n, Config{StreamWindow: minWindow})
		near, far := open(t, a, b)
		defer near.Close()
		defer far.Close()
		check(t, near.SetDeadline(time.Now().Add(30*time.Millisecond)))
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		if _, err := near.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: %v", err)
		}
		check(t, near.SetDeadline(time.Time{}))
		_, err := far.Write([]byte("x"))
		check(t, err)
		_, err = io.ReadFull(near, make([]byte, 1))
		check(t, err)
	})
}

func TestBlockedCallsReturn(t *testing.T) {
	ends := map[string]func(c Conn, s Stream){
		"stream closed":     func(_ Conn, s Stream) { _ = s.Close() },
		"connection closed": func(c Conn, _ Stream) { _ = c.Close() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			overAll(t, func(t *testing.T, n network) {
				a, b := pair(t, n, Config{})
				near, far := open(t, a, b)
				defer far.Close()
				errs := make(chan error, 2)
				go func() { _, err := near.Read(make([]byte, 1)); errs <- err }()
				go func() { _, err := near.Write(make([]byte, 64<<20)); errs <- err }()
				time.Sleep(20 * time.Millisecond)
				end(a, near)
				for range 2 {
					if err := <-errs; !errors.Is(err, ErrClosed) {
						t.Errorf("got %v", err)
					}
				}
			})
		})
	}
}

func TestOtherSideHearsOfClose(t *testing.T) {
	overAll(t, func(t *testing.T, n network) {
		a, b := pair(t, n, Config{})
		near, far := open(t, a, b)
		whole, wholeFar := open(t, a, b)
		check(t, whole.Close())
		if _, err := wholeFar.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("end of a whole stream: %v", err)
		}
		_, err := near.Write([]byte("cut sho"))
		check(t, err)
		_, err = io.ReadFull(far, make([]byte, 7))
		check(t, err)
		check(t, a.Close())
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, ErrClosed) {
			t.Errorf("read: %v", err)
		}
		<-b.Done()
		if _, err := b.Accept(soon(t)); !errors.Is(err, ErrClosed) {
			t.Errorf("accept: %v", err)
		}
		if _, err := b.Open(soon(t)); !errors.Is(err, ErrClosed) {
			t.Errorf("open: %v", err)
		}
		if _, err := far.Write([]byte{1}); !errors.Is(err, ErrClosed) {
			t.Errorf("write: %v", err)
		}
		if _, err := wholeFar.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("end of a whole stream after the connection's: %v", err)
		}
		for _, s := range []Stream{near, far, wholeFar} {
			check(t, s.Close())
		}
		check(t, a.Close())
	})
}

func TestContexts(t *testing.T) {
	overAll(t, func(t *testing.T, n network) {
		a, b := pair(t, n, Config{MaxStreams: 1})
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		if _, err := a.Accept(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("accept: %v", err)
		}
		near, far := open(t, a, b)
		if _, err := a.Open(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("open: %v", err)
		}
		// The place is free once both are done with the stream.
		check(t, near.Close())
		check(t, far.Close())
		next, _ := open(t, a, b)
		check(t, next.Close())
	})
}

func TestRefusalArrives(t *testing.T) {
	overAll(t, func(t *testing.T, n network) {
		no := handshakeFunc(func(_ context.Context, s Stream, _ PeerID, dialed bool) (any, error) {
			return nil, fmt.Errorf("judge: %w", &Refusal{"not \x1b[31mtoday\n"})
		})
		const want = "not ?[31mtoday?"
		t.Run("listener", func(t *testing.T) {
			heard := make(chan error, 1)
			dialer := newNode(t, n, Config{Handshake: handshakeFunc(
				func(_ context.Context, s Stream, _ PeerID, _ bool) (any, error) {
					_, _ = s.Write(make([]byte, 100<<10)) // which nobody reads
					_, err := io.ReadAll(s)
					heard <- err
					return nil, errors.New("did not work")
				})})
			l := listen(t, n, Config{Handshake: no})
			_, err := dialer.Dial(soon(t), l.l.Addr(), l.id)
			for _, err := range []error{err, <-heard} {
				var r *Refusal
				if !errors.As(err, &r) || r.Reason != want {
					t.Errorf("got %v", err)
				}
			}
		})
		t.Run("dialer", func(t *testing.T) {
			heard := make(chan error, 1)
			l := listen(t, n, Config{Handshake: handshakeFunc(
				func(_ context.Context, s Stream, _ PeerID, _ bool) (any, error) {
					_, err := s.Read(make([]byte, 1))
					heard <- err
					return nil, err
				})})
			_, err := newNode(t, n, Config{Handshake: no}).Dial(soon(t), l.l.Addr(), l.id)
			var r *Refusal
			if !errors.As(err, &r) {
				t.Errorf("dial: %v", err)
			}
			if err := <-heard; !errors.As(err, &r) || r.Reason != want {
				t.Errorf("other side: %v", err)
			}
		})
		t.Run("both", func(t *testing.T) {
			l := listen(t, n, Config{Handshake: no})
			from := time.Now()
			_, err := newNode(t, n, Config{Handshake: no}).Dial(soon(t), l.l.Addr(), l.id)
			if !errors.As(err, new(*Refusal)) || time.Since(from) > lingerTimeout/2 {
				t.Errorf("dial: %v after %v", err, time.Since(from))
			}
		})
		t.Run("too late to be heard by the handshaker", func(t *testing.T) {
			l := listen(t, n, Config{Handshake: no})
			_, err := newNode(t, n, Config{}).Dial(soon(t), l.l.Addr(), l.id)
			if !errors.As(err, new(*Refusal)) {
				t.Errorf("dial: %v", err)
			}
		})
		t.Run("without a word", func(t *testing.T) {
			l := listen(t, n, Config{Handshake: handshakeFunc(
				func(context.Context, Stream, PeerID, bool) (any, error) { return nil, errors.New("secret") })})
			_, err := newNode(t, n, Config{}).Dial(soon(t), l.l.Addr(), l.id)
			if err == nil || errors.As(err, new(*Refusal)) || strings.Contains(err.Error(), "secret") {
				t.Errorf("dial: %v", err)
			}
		})
	})
}

// The two Handshakers talk as on any stream.
func TestHandshakersTalk(t *testing.T) {
	overAll(t, func(t *testing.T, n network) {
		cfg := Config{Handshake: handshakeFunc(func(_ context.Context, s Stream, peer PeerID, dialed bool) (any, error) {
			sent := make(chan error, 1)
			go func() {
				_, err := s.Write(bytes.Repeat(peer[:], 3000))
				sent <- errors.Join(err, s.CloseWrite())
			}()
			got, err := io.ReadAll(s)
			return got, errors.Join(err, <-sent)
		})}
		a, b := newNode(t, n, cfg), listen(t, n, cfg)
		dialed, accepted := connect(t, a, b)
		if !bytes.Equal(dialed.Session().([]byte), bytes.Repeat(a.id[:], 3000)) ||
			!bytes.Equal(accepted.Session().([]byte), bytes.Repeat(b.id[:], 3000)) {
			t.Error("they did not understand each other")
		}
		exchange(t, dialed, accepted, 1000)
	})
}

// What one Handshaker says and the other does not want to hear is in nobody's way.
func TestHandshakerLeavesBytes(t *testing.T) {
	overAll(t, func(t *testing.T, n network) {
		cfg := Config{Handshake: handshakeFunc(func(_ context.Context, s Stream, _ PeerID, _ bool) (any, error) {
			_, err := s.Write(make([]byte, 50_000))
			if err == nil {
				_, err = io.ReadFull(s, make([]byte, 100))
			}
			return nil, err
		})}
		a, b := pair(t, n, cfg)
		exchange(t, a, b, 1000)
	})
}

func TestWrongPeer(t *testing.T) {
	overAll(t, func(t *testing.T, n network) {
		l := listen(t, n, Config{})
		other := newNode(t, n, Config{})
		if _, err := other.Dial(soon(t), l.l.Addr(), other.id); !errors.Is(err, ErrWrongPeer) {
			t.Errorf("got %v", err)
		}
	})
}

func TestNobodyThere(t *testing.T) {
	overAll(t, func(t *testing.T, n network) {
		l := listen(t, n, Config{})
		addr := l.l.Addr()
		check(t, l.l.Close())
		if _, err := newNode(t, n, Config{}).Dial(soon(t), addr, l.id); err == nil {
			t.Error("reached a closed listener")
		}
		again, err := l.Listen(addr)
		check(t, err)
		check(t, again.Close())
		if _, err := again.Accept(soon(t)); !errors.Is(err, ErrClosed) {
			t.Errorf("accept: %v", err)
		}
	})
}

func TestAddressTaken(t *testing.T) {
	overAll(t, func(t *testing.T, n network) {
		l := listen(t, n, Config{})
		if again, err := l.Listen(l.l.Addr()); err == nil {
			t.Error("listens twice")
			_ = again.Close()
		}
	})
}

// Dial ends with its context, whatever the other side does.
func TestDialEnds(t *testing.T) {
	overAll(t, func(t *testing.T, n network) {
		ctx, cancel := context.WithCancel(context.Background())
		listener := handshakeFunc(func(_ context.Context, s Stream, _ PeerID, _ bool) (any, error) {
			cancel()
			_, err := s.Read(make([]byte, 1))
			return nil, err
		})
		dialer := handshakeFunc(func(ctx context.Context, s Stream, _ PeerID, _ bool) (any, error) {
			_, err := s.Read(make([]byte, 1))
			return nil, err
		})
		l := listen(t, n, Config{Handshake: listener})
		if _, err := newNode(t, n, Config{Handshake: dialer}).Dial(ctx, l.l.Addr(), l.id); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// Connections come and go in parallel, and each is the right one.
func TestManyConnections(t *testing.T) {
	overAll(t, func(t *testing.T, n network) {
		l := listen(t, n, Config{})
		const count = 20
		var mu sync.Mutex
		var dialed, accepted []string
		var wg sync.WaitGroup
		for range count {
			wg.Go(func() {
				c, err := l.l.Accept(soon(t))
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				echoAll(soon(t), c, 1, t.Errorf)
				mu.Lock()
				defer mu.Unlock()
				accepted = append(accepted, c.Peer().String())
			})
			wg.Go(func() {
				d := newNode(t, n, Config{})
				c, err := d.Dial(soon(t), l.l.Addr(), l.id)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				s, err := c.Open(soon(t))
				if err == nil {
					defer s.Close()
					_, err = s.Write([]byte("hello"))
				}
				if err == nil {
					err = s.CloseWrite()
				}
				if got, rerr := io.ReadAll(s); string(got) != "hello" || err != nil || rerr != nil {
					t.Errorf("%s, %v, %v", got, err, rerr)
				}
				mu.Lock()
				defer mu.Unlock()
				dialed = append(dialed, d.id.String())
			})
		}
		wg.Wait()
		slices.Sort(dialed)
		slices.Sort(accepted)
		if !slices.Equal(dialed, accepted) {
			t.Errorf("dialed %v, accepted %v", dialed, accepted)
		}
	})
}
