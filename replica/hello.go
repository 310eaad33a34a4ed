package replica

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/foreverfs/forever/replica/replicapb"
	"github.com/foreverfs/forever/transport"
)

// protocolVersion is the version of the messages between peers.
const protocolVersion = 1

// peerHello is what a peer said of itself; it is a connection's Session.
type peerHello struct {
	instance [16]byte
	port     uint32
	addrs    []string
	joining  bool // it was let in with this hello, and reads the control log only
}

// handshaker lets in whom the control log knows, and newcomers with an invite.
type handshaker struct{ r *Replica }

var _ transport.Handshaker = handshaker{}

// Handshake implements transport.Handshaker. The dialing side speaks first.
func (h handshaker) Handshake(ctx context.Context, s transport.Stream, peer transport.PeerID, dialed bool) (any, error) {
	own := h.r.hello()
	if dialed {
		return dialHello(s, own, h.r.cfg.Volume)
	}
	return h.r.answerHello(ctx, s, own, DeviceID(peer))
}

// dialHello says hello and takes the answer, which may be a refusal.
func dialHello(s transport.Stream, own *replicapb.Hello, volume VolumeID) (*peerHello, error) {
	if err := codec.Write(s, own); err != nil {
		return nil, fmt.Errorf("say hello: %w", err)
	}
	var p replicapb.Hello
	if err := codec.Read(s, &p, maxHello); err != nil {
		return nil, fmt.Errorf("await hello: %w", err)
	}
	if f := p.GetRefused(); f != nil {
		return nil, &RefusedError{Code: Code(f.GetCode()), Reason: printable(f.GetReason()), peers: f.GetPeers()}
	}
	hello, refusal := judgeHello(&p, volume)
	if refusal != nil {
		return nil, refusal
	}
	return hello, nil
}

// answerHello takes the other side's hello and answers it.
func (r *Replica) answerHello(ctx context.Context, s transport.Stream, own *replicapb.Hello, peer DeviceID) (*peerHello, error) {
	var p replicapb.Hello
	if err := codec.Read(s, &p, maxHello); err != nil {
		return nil, fmt.Errorf("await hello: %w", err)
	}
	hello, refusal := judgeHello(&p, r.cfg.Volume)
	if refusal == nil {
		refusal = r.judgePeer(peer, &p)
	}
	if refusal == nil && r.runsBeside(ctx, peer, hello.instance) {
		refusal = refusedClone()
	}
	if refusal != nil {
		own = &replicapb.Hello{
			Protocol: protocolVersion,
			Refused:  &replicapb.Refused{Code: uint32(refusal.Code), Reason: refusal.Reason, Peers: refusal.peers},
		}
	}
	if err := codec.Write(s, own); err != nil {
		return nil, fmt.Errorf("answer hello: %w", err)
	}
	if refusal != nil {
		return nil, refusal
	}
	hello.joining = p.GetJoin() != nil
	return hello, nil
}

func judgeHello(p *replicapb.Hello, volume VolumeID) (*peerHello, *RefusedError) {
	if p.GetProtocol() != protocolVersion {
		return nil, &RefusedError{Code: CodeProtocol, Reason: fmt.Sprintf("protocol %d, this side speaks %d", p.GetProtocol(), protocolVersion)}
	}
	if !bytes.Equal(p.GetVolume(), volume[:]) {
		return nil, &RefusedError{Code: CodeVolume, Reason: "this device holds another volume"}
	}
	instance, err := fixed16(p.GetInstance(), "instance")
	if err != nil || p.GetPort() > 65535 {
		return nil, &RefusedError{Code: CodeOther, Reason: "malformed hello"}
	}
	return &peerHello{instance: instance, port: p.GetPort(), addrs: validAddrs(p.GetAddrs())}, nil
}

// judgePeer decides whether a device may take part.
func (r *Replica) judgePeer(peer DeviceID, p *replicapb.Hello) *RefusedError {
	if peer == r.self {
		return refusedClone()
	}
	if p.GetJoin() != nil {
		refusal, err := r.letIn(peer, p.GetJoin())
		if err != nil {
			r.log.Error("cannot let a device in", "device", peer, "error", err)
			return &RefusedError{Code: CodeOther, Reason: "internal error, see the other side's log"}
		}
		return refusal
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.control.isOut(peer) {
		return &RefusedError{Code: CodeRevoked, Reason: "this device was revoked; to take part again, it must join anew with a new data directory"}
	}
	switch inForce, retired := r.recoveryKey(peer); {
	case inForce:
		return nil
	case retired:
		return &RefusedError{Code: CodeRevoked, Reason: "this recovery phrase was retired: a newer one was exported"}
	}
	if _, ok := r.control.device(peer); !ok {
		return &RefusedError{Code: CodeUnknownDevice, Reason: "this device was not let in; ask for an invite"}
	}
	if r.crowded(peer) {
		return &RefusedError{Code: CodeCrowded, Reason: "this device has as many connections as it wants", peers: r.others(peer)}
	}
	if p := r.peers[peer]; p != nil && time.Now().Before(p.banned) {
		return &RefusedError{Code: CodeOther, Reason: "this device broke the protocol; it may try again in a while"}
	}
	return nil
}

// hello says where this device listens. A host that others cannot use is left
// out: they take the one they see.
func (r *Replica) hello() *replicapb.Hello {
	h := &replicapb.Hello{Protocol: protocolVersion, Volume: r.cfg.Volume[:], Instance: r.instance[:]}
	r.mu.Lock()
	addr := r.listenAddr
	r.mu.Unlock()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		if addr != "" {
			h.Addrs = append(h.Addrs, addr)
		}
		return h
	}
	if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		h.Port = uint32(n)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
		h.Addrs = append(h.Addrs, addr)
	}
	return h
}

// Addrs returns the addresses that others may reach this device at, best first.
func (r *Replica) Addrs() []string {
	r.mu.Lock()
	addr := r.listenAddr
	r.mu.Unlock()
	if addr == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	if err != nil || host != "" && (ip == nil || !ip.IsUnspecified()) {
		return []string{addr}
	}
	var out []string
	for _, ip := range interfaceIPs() {
		out = append(out, net.JoinHostPort(ip, port))
	}
	return out[:min(len(out), maxAddrs)]
}

// interfaceIPs lists this machine's addresses, loopback last.
func interfaceIPs() []string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return []string{"127.0.0.1"}
	}
	var far, near []string
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		switch {
		case !ok || n.IP.IsLinkLocalUnicast():
		case n.IP.IsLoopback():
			near = append(near, n.IP.String())
		default:
			far = append(far, n.IP.String())
		}
	}
	return append(far[:min(len(far), maxAddrs-1)], near...)
}

// validAddrs keeps what may be an address, and no more than a few.
func validAddrs(list []string) []string {
	var out []string
	for _, a := range list {
		if len(out) < maxAddrs && a != "" && len(a) <= maxAddr && printable(a) == a {
			out = append(out, a)
		}
	}
	return out
}

// printable cuts foreign text to what may stand in a log line.
func printable(s string) string {
	out := make([]rune, 0, min(len(s), 200))
	for _, c := range s {
		if len(out) == 200 {
			break
		}
		if unprintable(c) && c != '/' {
			c = '?'
		}
		out = append(out, c)
	}
	return string(out)
}
