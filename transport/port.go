package transport

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
	"sync"

	"github.com/zeebo/blake3"
	"golang.org/x/time/rate"
)

// Port lets several transports of one process listen at the same address, and bounds
// what they send and take together. Who dials names the key that it wants in TLS's server
// name, in a way that tells nothing to those who do not know the key. Who names none of them
// gets the one that listened first.
type Port struct {
	up, down *rate.Limiter

	mu      sync.Mutex
	sockets map[string]*socket // by the address that was asked for
}

// NewPort returns a Port; the limits are in bytes per second, 0 means none, and take the place
// of those in the Config of each transport.
func NewPort(uploadLimit, downloadLimit int64) *Port {
	return &Port{up: limiter(uploadLimit), down: limiter(downloadLimit), sockets: map[string]*socket{}}
}

// listen adds a listener of t to the socket at an address, which bind opens if it is the first.
func (p *Port) listen(t *secure, addr string) (*listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sockets[addr]
	if s == nil {
		raw, err := t.bind(addr)
		if err != nil {
			return nil, err
		}
		s = newSocket(raw, t)
		s.left = func() { // with p.mu held
			delete(p.sockets, addr)
		}
		s.port = p
		p.sockets[addr] = s
		go s.serve()
	}
	return s.add(t), nil
}

const (
	labelNonce = 8
	labelTag   = 16
)

// label returns a server name by which the owner of a key, or of another name, knows that it is
// meant: a nonce, and a hash of both.
func label(name []byte) string {
	var nonce [labelNonce]byte
	// crypto/rand does not fail.
	_, _ = rand.Read(nonce[:])
	return hex.EncodeToString(nonce[:]) + "." + hex.EncodeToString(labelOf(nonce[:], name))
}

func labelOf(nonce, name []byte) []byte {
	h := blake3.NewDeriveKey("forever 1 label of a listener")
	_, _ = h.Write(nonce)
	_, _ = h.Write(name)
	return h.Sum(nil)[:labelTag]
}

// isLabel reports whether a server name means the owner of a name.
func isLabel(server string, name []byte) bool {
	nonce, tag, _ := strings.Cut(server, ".")
	b, err := hex.DecodeString(nonce)
	return err == nil && len(b) == labelNonce && len(name) > 0 && tag == hex.EncodeToString(labelOf(b, name))
}

// answersTo reports whether a server name means this transport.
func (t *secure) answersTo(server string) bool {
	return isLabel(server, t.self[:]) || isLabel(server, t.cfg.Name)
}

// serverName is what a dialer calls the peer that it wants; zero stands for whoever is called
// by the name that both have in their Config.
func (t *secure) serverName(want PeerID) string {
	if want != (PeerID{}) {
		return label(want[:])
	}
	if len(t.cfg.Name) > 0 {
		return label(t.cfg.Name)
	}
	return ""
}
