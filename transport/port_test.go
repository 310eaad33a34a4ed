package transport

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/zeebo/blake3"
)

// named is a handshaker that says who it belongs to.
type named string

// Handshake implements Handshaker.
func (n named) Handshake(context.Context, Stream, PeerID, bool) (any, error) { return string(n), nil }

func portKey(name string) ed25519.PrivateKey {
	seed := blake3.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// TestPort has three transports share one address: each gets the connections that are meant for it, a dialer
// that names none gets the first, and each comes and goes as it likes.
func TestPort(t *testing.T) {
	port := NewPort(0, 0)
	mk := func(name string, p *Port) Transport {
		tr, err := NewTCP(Config{Identity: portKey(name), Handshake: named(name), Name: []byte("volume of " + strings.TrimSuffix(name, " dialer")), Port: p})
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	addr := ownAddress()
	listeners := map[string]Listener{}
	for _, name := range []string{"a", "b", "c"} {
		l, err := mk(name, port).Listen(addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		listeners[name] = l
		if l.Addr() != addr {
			t.Fatalf("%s listens at %s, not %s", name, l.Addr(), addr)
		}
	}
	arrives := func(at, dialer string, peer PeerID) {
		t.Helper()
		got, done := make(chan error, 1), make(chan struct{})
		defer close(done)
		go func() {
			c, err := listeners[at].Accept(ctx)
			if err == nil && c.Session() != at {
				err = fmt.Errorf("%s gets a connection that %v agreed to", at, c.Session())
			}
			got <- err
			if c != nil {
				<-done
				c.Close()
			}
		}()
		c, err := mk(dialer, nil).Dial(ctx, addr, peer)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if want := PeerID(portKey(at).Public().(ed25519.PublicKey)); c.Peer() != want {
			t.Errorf("%v answers, not %s", c.Peer(), at)
		}
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
	id := func(name string) PeerID { return PeerID(portKey(name).Public().(ed25519.PublicKey)) }
	for _, name := range []string{"a", "b", "c"} {
		arrives(name, "x", id(name))
		arrives(name, name+" dialer", PeerID{}) // by the name that both know
	}
	arrives("a", "x", PeerID{})
	if _, err := mk("x", nil).Dial(ctx, addr, id("nobody")); !errors.Is(err, ErrWrongPeer) {
		t.Errorf("a key that nobody has: %v", err)
	}
	if err := listeners["a"].Close(); err != nil {
		t.Error(err)
	}
	if _, err := listeners["a"].Accept(ctx); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	arrives("c", "x", id("c"))
	arrives("b", "x", PeerID{})
	for _, name := range []string{"b", "c"} {
		if err := listeners[name].Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := mk("x", nil).Dial(ctx, addr, id("c")); err == nil {
		t.Error("a port that everybody left answers")
	}
	l, err := mk("a", port).Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	listeners["a"] = l
	arrives("a", "x", id("a"))
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// What a listener on the line sees of a name is never twice the same.
func TestLabel(t *testing.T) {
	name := []byte("name")
	one, two := label(name), label(name)
	if one == two || !isLabel(one, name) || !isLabel(two, name) || isLabel(one, []byte("other")) {
		t.Error(one, two)
	}
	for _, s := range []string{"", ".", "00", "zz." + strings.Repeat("0", 32), strings.Repeat("0", 16) + "." + strings.Repeat("0", 32)} {
		if isLabel(s, name) || isLabel(s, nil) {
			t.Errorf("%q passes", s)
		}
	}
}
