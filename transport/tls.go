package transport

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// protocol is what both sides ask for in ALPN, so that nothing else is mistaken
// for a peer. It carries the version of everything below the Handshaker.
const protocol = "forever/1"

// errCertificate says that a peer's certificate does not carry a device key.
var errCertificate = fmt.Errorf("%w: its certificate carries no device key", ErrProtocol)

// certificate makes the self-signed certificate that carries a device's key.
// Nothing in it counts but the key.
func certificate(key ed25519.PrivateKey) (tls.Certificate, error) {
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// peerOf returns the key that the other side has proved to hold.
func peerOf(cs *tls.ConnectionState) (p PeerID, err error) {
	if len(cs.PeerCertificates) != 1 {
		return p, errCertificate
	}
	key, ok := cs.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok || len(key) != len(p) {
		return p, errCertificate
	}
	return PeerID(key), nil
}

// tlsConfig is the configuration of either side. Names, dates and chains mean
// nothing here: the key is pinned by whoever dials, and judged by the Handshaker
// of whoever listens. want is nil for a listener, zero for one who dials whoever answers.
func tlsConfig(cert tls.Certificate, want *PeerID) *tls.Config {
	return &tls.Config{
		Certificates:           []tls.Certificate{cert},
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{protocol},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // VerifyConnection pins the key instead
		SessionTicketsDisabled: true,
		// Small first records favor web pages; here they cost a tenth of the speed.
		DynamicRecordSizingDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol != protocol {
				return ErrNoPeer
			}
			got, err := peerOf(&cs)
			if err != nil {
				return err
			}
			if want != nil && *want != (PeerID{}) && got != *want {
				return ErrWrongPeer
			}
			return nil
		},
	}
}

// explain tells an answer that is not ours from a connection that broke.
func explain(err error) error {
	var header tls.RecordHeaderError
	var op *net.OpError
	alert := errors.As(err, &op) && op.Op == "remote error" // how crypto/tls marks an alert
	if alert || errors.As(err, &header) || errors.Is(err, errCertificate) {
		return fmt.Errorf("%w (%w)", ErrNoPeer, err)
	}
	return err
}
