package transport

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// network makes the transports of one test's nodes and the addresses to listen at.
type network struct {
	make func(Config) (Transport, error)
	addr func() string
}

// networks are all implementations.
var networks = map[string]func(t testing.TB) network{
	"tcp": func(testing.TB) network {
		return network{NewTCP, ownAddress}
	},
	"unix": func(t testing.TB) network {
		dir, n := t.TempDir(), 0
		return network{NewUnix, func() string { n++; return filepath.Join(dir, string(rune('a'+n))) }}
	},
	"memory": func(testing.TB) network {
		return network{NewMemory().Transport, func() string { return rand.Text() }}
	},
}

var addresses atomic.Int32 // given to listeners of this process

// ownAddress returns an address that nobody else listens at, also once it is closed: the host is this process's alone, and no port
// is given twice.
func ownAddress() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d:%d", 64+pid>>16, pid>>8&0xff, pid&0xff, 10_000+addresses.Add(1))
}

// overAll runs a test on every implementation.
func overAll(t *testing.T, test func(t *testing.T, n network)) {
	for name, make := range networks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, make(t))
		})
	}
}

// handshakeFunc is a Handshaker.
type handshakeFunc func(ctx context.Context, s Stream, peer PeerID, dialed bool) (any, error)

func (f handshakeFunc) Handshake(ctx context.Context, s Stream, peer PeerID, dialed bool) (any, error) {
	return f(ctx, s, peer, dialed)
}

// anyone lets everybody in.
var anyone = handshakeFunc(func(context.Context, Stream, PeerID, bool) (any, error) { return nil, nil })

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// node is one side of a test.
type node struct {
	Transport
	id  PeerID
	key ed25519.PrivateKey
	l   Listener
}

// newNode makes a node with a key of its own; what cfg lacks is filled in.
func newNode(t testing.TB, n network, cfg Config) *node {
	t.Helper()
	if cfg.Identity == nil {
		cfg.Identity = newKey(t)
	}
	if cfg.Handshake == nil {
		cfg.Handshake = anyone
	}
	tr, err := n.make(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &node{Transport: tr, id: cfg.id(), key: cfg.Identity}
}

// listen makes a node that listens until the end of the test.
func listen(t testing.TB, n network, cfg Config) *node {
	t.Helper()
	d := newNode(t, n, cfg)
	l, err := d.Listen(n.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, l.Close()) })
	d.l = l
	return d
}

// soon is a context for what takes no time unless it hangs.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// connect connects two nodes; b listens.
func connect(t testing.TB, a, b *node) (dialed, accepted Conn) {
	t.Helper()
	type result struct {
		c   Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		c, err := b.l.Accept(soon(t))
		done <- result{c, err}
	}()
	dialed, err := a.Dial(soon(t), b.l.Addr(), b.id)
	check(t, err)
	r := <-done
	check(t, r.err)
	t.Cleanup(func() {
		check(t, dialed.Close())
		check(t, r.c.Close())
	})
	return dialed, r.c
}

// pair connects two new nodes.
func pair(t testing.TB, n network, cfg Config) (dialed, accepted Conn) {
	t.Helper()
	return connect(t, newNode(t, n, cfg), listen(t, n, cfg))
}

// open makes a stream and returns its two ends; the first byte has passed.
func open(t testing.TB, from, to Conn) (near, far Stream) {
	t.Helper()
	near, err := from.Open(soon(t))
	check(t, err)
	far, err = to.Accept(soon(t))
	check(t, err)
	return near, far
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
