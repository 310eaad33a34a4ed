package transport

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

// dialer and binder are what distinguishes the implementations below TLS.
type (
	dialer func(ctx context.Context, addr string) (net.Conn, error)
	binder func(addr string) (net.Listener, error)
)

// secure is a Transport with TLS and yamux over any kind of net.Conn.
type secure struct {
	cfg  Config
	cert tls.Certificate
	self PeerID
	dial dialer
	bind binder
	// up and down are shared by all connections; nil means no limit.
	up, down *rate.Limiter
}

var _ Transport = (*secure)(nil)

func newSecure(cfg Config, d dialer, b binder) (Transport, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	cert, err := certificate(cfg.Identity)
	if err != nil {
		return nil, err
	}
	t := &secure{cfg: cfg, cert: cert, self: PeerID(cfg.Identity.Public().(ed25519.PublicKey)), dial: d, bind: b}
	if cfg.Port != nil {
		t.up, t.down = cfg.Port.up, cfg.Port.down
	} else {
		t.up, t.down = limiter(cfg.UploadLimit), limiter(cfg.DownloadLimit)
	}
	return t, nil
}

// NewTCP returns the Transport over TCP. Addresses are host:port.
func NewTCP(cfg Config) (Transport, error) {
	d := &net.Dialer{KeepAlive: -1} // connections have a keep-alive of their own
	l := &net.ListenConfig{KeepAlive: -1}
	return newSecure(cfg,
		func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) },
		func(addr string) (net.Listener, error) { return l.Listen(context.Background(), "tcp", addr) })
}

// NewUnix returns the Transport over Unix sockets. Addresses are paths. A socket
// that nobody listens on any more is replaced; a new one is the owner's alone.
func NewUnix(cfg Config) (Transport, error) {
	d := &net.Dialer{}
	return newSecure(cfg,
		func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "unix", addr) },
		listenUnix)
}

func listenUnix(path string) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) && abandoned(path) {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove abandoned socket: %w", err)
		}
		l, err = net.Listen("unix", path)
	}
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(path, "@") { // not in the file system
		return l, nil
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect socket: %w", err), l.Close())
	}
	return l, nil
}

// abandoned says whether path is a socket without a listener.
func abandoned(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return false
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// Dial implements Transport.
func (t *secure) Dial(ctx context.Context, addr string, peer PeerID) (Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.HandshakeTimeout)
	defer cancel()
	raw, err := t.dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	conf := tlsConfig(t.cert, &peer)
	conf.ServerName = t.serverName(peer)
	c, err := t.establish(ctx, raw, conf, nil)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	return c, nil
}

// DialOver implements Transport.
func (t *secure) DialOver(ctx context.Context, raw net.Conn, peer PeerID) (Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.HandshakeTimeout)
	defer cancel()
	c, err := t.establish(ctx, raw, tlsConfig(t.cert, &peer), nil)
	if err != nil {
		return nil, fmt.Errorf("dial over a connection: %w", err)
	}
	return c, nil
}

// AcceptOver implements Transport.
func (t *secure) AcceptOver(ctx context.Context, raw net.Conn) (Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.HandshakeTimeout)
	defer cancel()
	c, err := t.establish(ctx, raw, tlsConfig(t.cert, nil), func() *secure { return t })
	if err != nil {
		return nil, fmt.Errorf("accept over a connection: %w", err)
	}
	return c, nil
}

// establish takes raw over and makes a Conn of it, or closes it. If choose is given, raw was
// accepted, and who was dialed may be another transport of the same Port, which choose
// returns once conf has been used.
func (t *secure) establish(ctx context.Context, raw net.Conn, conf *tls.Config, choose func() *secure) (_ *conn, err error) {
	boundWaits(raw)
	w := newWire(raw, newPace(raw, t.up, t.down))
	stop := context.AfterFunc(ctx, func() { _ = w.Close() })
	defer func() {
		if !stop() && err == nil { // closed behind our back
			err = ctx.Err()
		}
		if err != nil {
			_ = w.Close()
			if ctx.Err() != nil {
				err = fmt.Errorf("%w (%w)", ctx.Err(), err)
			}
		}
	}()
	make := tls.Server
	if choose == nil {
		make = tls.Client
	}
	tc := make(w, conf)
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, explain(err)
	}
	if choose != nil {
		t = choose()
	}
	cs := tc.ConnectionState()
	peer, err := peerOf(&cs)
	if err != nil {
		return nil, err
	}
	c := &conn{peer: peer, dialed: choose == nil, remote: raw.RemoteAddr().String(), local: raw.LocalAddr().String()}
	if c.session, err = agree(ctx, &t.cfg, tc, peer, c.dialed); err != nil {
		return nil, err
	}
	if err := newConn(ctx, &t.cfg, w, tc, c); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		_ = c.Close()
		return nil, ctx.Err()
	}
	return c, nil
}

// Listen implements Transport.
func (t *secure) Listen(addr string) (Listener, error) {
	port := t.cfg.Port
	if port == nil {
		port = NewPort(0, 0)
	}
	l, err := port.listen(t, addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return l, nil
}
