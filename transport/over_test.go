package transport

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// A connection over another one is a connection like any: authenticated, and closed with what it lies on.
func TestOver(t *testing.T) {
	mk := func(name string) Transport {
		tr, err := NewTCP(Config{Identity: portKey(name), Handshake: named(name)})
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	id := func(name string) PeerID { return PeerID(portKey(name).Public().(ed25519.PublicKey)) }
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	pair := func(want PeerID) (near, far Conn, err error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		a, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			var err error
			far, err = mk("b").AcceptOver(ctx, b)
			done <- err
		}()
		near, err = mk("a").DialOver(ctx, a, want)
		return near, far, errors.Join(err, <-done)
	}
	near, far, err := pair(id("b"))
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	defer far.Close()
	if near.Peer() != id("b") || far.Peer() != id("a") || !near.Dialed() || far.Dialed() {
		t.Errorf("%v and %v are connected", far.Peer(), near.Peer())
	}
	out, err := near.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = out.Write([]byte("through"))
		_ = out.CloseWrite()
	}()
	in, err := far.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(in); err != nil || string(b) != "through" {
		t.Errorf("%q, %v", b, err)
	}
	near.Close()
	select {
	case <-far.Done():
	case <-ctx.Done():
		t.Error("the other end lives on")
	}
	if _, _, err := pair(id("c")); !errors.Is(err, ErrWrongPeer) {
		t.Errorf("another device answers: %v", err)
	}
}
