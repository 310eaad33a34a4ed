package replica

import (
	"crypto/ed25519"

	"github.com/zeebo/blake3"
	"google.golang.org/protobuf/proto"

	"github.com/foreverfs/forever/replica/replicapb"
)

// What a signature covers begins with one of these, so that none can pass for
// another.
const (
	controlDomain  = "forever control entry 1\x00"
	envelopeDomain = "forever op envelope 1\x00"
	recoveryDomain = "forever recovery key 1\x00"
)

// Caps, in bytes unless said otherwise.
const (
	maxControl  = 1 << 20             // one control entry
	maxEnvelope = 17 << 20            // one envelope
	maxSealed   = 16<<20 + 64<<10     // the sealed batch inside
	maxHeads    = 64                  // parents of an entry, heads in an envelope
	maxName     = 64                  // a device's name
	maxWraps    = 4096                // in one entry
	maxWrap     = 512                 // one wrapped key
	maxSettings = 64                  // in one policy entry
	maxPeers    = 4096                // whose addresses are taken from one message
	maxAddrs    = 8                   // per device
	maxAddr     = 256                 // one address
	maxChunk    = 1<<20 + 256<<10     // one sealed chunk
	maxHello    = 16 << 10            // the handshake's message
	maxMessage  = maxEnvelope + 3<<20 // any message of a session
)

// signed is a body under the signature of a device. The body's hash names it, so
// two signatures of one body are one thing.
type signed struct {
	body, sig []byte
	hash      Hash
}

func sign(key ed25519.PrivateKey, domain string, body []byte) signed {
	s := signed{body: body, hash: blake3.Sum256(body)}
	s.sig = ed25519.Sign(key, s.message(domain))
	return s
}

// message is what the signature covers.
func (s *signed) message(domain string) []byte { return append([]byte(domain), s.hash[:]...) }

func (s *signed) verify(domain string, signer DeviceID) bool {
	return ed25519.Verify(signer[:], s.message(domain), s.sig)
}

func (s *signed) proto() *replicapb.Signed {
	return &replicapb.Signed{Body: s.body, Signature: s.sig}
}

func (s *signed) marshal() ([]byte, error) { return proto.Marshal(s.proto()) }

func fromProto(p *replicapb.Signed, max int) (signed, error) {
	if len(p.GetBody()) > max {
		return signed{}, invalid("signed body of %d bytes", len(p.GetBody()))
	}
	if len(p.GetSignature()) != ed25519.SignatureSize {
		return signed{}, invalid("signature of %d bytes", len(p.GetSignature()))
	}
	return signed{body: p.GetBody(), sig: p.GetSignature(), hash: blake3.Sum256(p.GetBody())}, nil
}

// parseSigned takes apart what marshal made. The result aliases nothing of b.
func parseSigned(b []byte, max int) (signed, error) {
	if len(b) > max+128 {
		return signed{}, invalid("signed message of %d bytes", len(b))
	}
	var p replicapb.Signed
	if err := proto.Unmarshal(b, &p); err != nil {
		return signed{}, invalid("signed message: %v", err)
	}
	return fromProto(&p, max)
}
