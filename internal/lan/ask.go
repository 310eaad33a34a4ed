package lan

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// The library's own client joins the group by the default route, which two machines on one cable do
// not have; so the questions are ours.

var (
	group4 = &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353}
	group6 = &net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: 5353}
)

// maxPacket bounds an answer, in bytes.
const maxPacket = 9000

// answer is a device that has announced itself.
type answer struct {
	name string // instance
	addr string // HOST:PORT
}

// askOn asks on one interface who offers the service, by IPv4 or IPv6, and returns what was answered in time.
func askOn(ctx context.Context, iface *net.Interface, six bool) ([]answer, error) {
	conn, group, err := openOn(iface, six)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	question := new(dns.Msg)
	question.SetQuestion(service+"."+domain, dns.TypePTR)
	question.Question[0].Qclass |= 1 << 15 // answers to this port, RFC 6762 section 5.4
	question.RecursionDesired = false
	packet, err := question.Pack()
	if err != nil {
		return nil, err
	}
	if _, err := conn.WriteTo(packet, group); err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(answerTime)); err != nil {
		return nil, err
	}
	var out []answer
	buf := make([]byte, maxPacket)
	for len(out) < maxFound {
		n, _, err := conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		var m dns.Msg
		if m.Unpack(buf[:n]) == nil && m.Response {
			out = append(out, answers(&m)...)
		}
	}
	return out[:min(len(out), maxFound)], nil
}

// openOn makes a socket that multicasts on one interface.
func openOn(iface *net.Interface, six bool) (net.PacketConn, *net.UDPAddr, error) {
	network, group := "udp4", group4
	if six {
		network, group = "udp6", group6
	}
	conn, err := net.ListenPacket(network, ":0")
	if err != nil {
		return nil, nil, err
	}
	if six {
		err = ipv6.NewPacketConn(conn).SetMulticastInterface(iface)
	} else {
		err = ipv4.NewPacketConn(conn).SetMulticastInterface(iface)
	}
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return conn, group, nil
}

// answers takes the devices out of a message: their names, ports and addresses, each once and
// no more than maxFound. Any name may have any address, so there may be many times the records.
func answers(m *dns.Msg) (out []answer) {
	seen := map[answer]bool{}
	hosts := map[string][]net.IP{}
	all := append(append([]dns.RR{}, m.Answer...), m.Extra...)
	for _, rr := range all {
		name := strings.ToLower(rr.Header().Name)
		switch rr := rr.(type) {
		case *dns.A:
			hosts[name] = append(hosts[name], rr.A)
		case *dns.AAAA:
			hosts[name] = append(hosts[name], rr.AAAA)
		}
	}
	for _, rr := range all {
		srv, ok := rr.(*dns.SRV)
		if !ok || srv.Port == 0 {
			continue
		}
		name, ok := strings.CutSuffix(strings.ToLower(srv.Hdr.Name), "."+service+"."+domain)
		if !ok {
			continue
		}
		for _, ip := range hosts[strings.ToLower(srv.Target)] {
			if len(ip) == 0 || ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
				continue
			}
			a := answer{name, net.JoinHostPort(ip.String(), strconv.Itoa(int(srv.Port)))}
			if seen[a] {
				continue
			}
			if len(out) == maxFound {
				return out
			}
			seen[a] = true
			out = append(out, a)
		}
	}
	return out
}
