package transport

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Config is shared by all implementations. Zero values mean the defaults.
type Config struct {
	// Identity is this side's key. Required.
	Identity ed25519.PrivateKey
	// Handshake decides who may stay. Required.
	Handshake Handshaker
	// Name is what this side is also known by to those who know no key of it: they Dial
	// with a zero PeerID. Of use with Port; may be empty.
	Name []byte
	// Port, if given, is what Listen shares with other transports; else each Listen has
	// its address alone.
	Port *Port
	// Logger gets what nobody else is told: connections dropped before they
	// were accepted. Default: none.
	Logger hclog.Logger
	// HandshakeTimeout bounds everything before a connection is usable. Default 10 s.
	HandshakeTimeout time.Duration
	// KeepAlive is how often a side that has nothing to say says that it is
	// alive. Default 3 s.
	KeepAlive time.Duration
	// IdleTimeout is after how long without a byte the other side is taken for
	// dead. It must be the longer by far; both sides should have the same.
	// Default 10 s.
	IdleTimeout time.Duration
	// MaxPending bounds the connections to one listener that are still in the
	// handshake. When there are more, the oldest goes. One address other than
	// loopback may have half of them. Default 64.
	MaxPending int
	// MaxHandshake bounds what either side's Handshaker may send, in bytes.
	// Default 1 MiB.
	MaxHandshake int
	// MaxStreams bounds the streams that each side may have open at once. Both
	// sides must have the same. Default 256.
	MaxStreams int
	// StreamWindow is how many bytes of one stream this side takes without
	// their being read: at least 256 KiB. A stream moves at least half of it in
	// each round trip. Default 8 MiB: 200 Mbit/s over 160 ms.
	StreamWindow int
	// UploadLimit and DownloadLimit bound what all connections together send and
	// take, in bytes per second. Default: no limit.
	UploadLimit, DownloadLimit int64
}

const (
	minWindow = 256 << 10 // yamux begins with this
	maxWindow = 1 << 30
)

// complete sets the defaults and checks the rest.
func (c *Config) complete() error {
	if len(c.Identity) != ed25519.PrivateKeySize {
		return errors.New("transport: Config.Identity is no Ed25519 key")
	}
	if c.Handshake == nil {
		return errors.New("transport: Config.Handshake is missing")
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	def(&c.HandshakeTimeout, 10*time.Second)
	def(&c.KeepAlive, 3*time.Second)
	def(&c.IdleTimeout, 10*time.Second)
	def(&c.MaxPending, 64)
	def(&c.MaxHandshake, 1<<20)
	def(&c.MaxStreams, 256)
	def(&c.StreamWindow, 8<<20)
	if c.StreamWindow < minWindow || c.StreamWindow > maxWindow {
		return fmt.Errorf("transport: Config.StreamWindow %d is not within %d and %d", c.StreamWindow, minWindow, maxWindow)
	}
	if c.IdleTimeout < 2*c.KeepAlive {
		return fmt.Errorf("transport: Config.IdleTimeout %v is less than twice KeepAlive %v", c.IdleTimeout, c.KeepAlive)
	}
	return nil
}

func def[T time.Duration | int](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

func (c *Config) id() PeerID { return PeerID(c.Identity.Public().(ed25519.PublicKey)) }
