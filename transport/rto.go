package transport

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// longestWait bounds the pause between two attempts of TCP to get something through. The pauses double
// (RFC 6298) up to two minutes, from as long as an outage before has made a round trip look; so
// after one of a few seconds a link lay idle until the connection was given up.
// The kernel itself gives up after some fifteen attempts, so later than Config.IdleTimeout does by default.
const longestWait = time.Second

// boundWaits sets longestWait for a connection if it is TCP and the kernel can (Linux 6.15).
func boundWaits(raw net.Conn) {
	if tcp, ok := raw.(*net.TCPConn); ok {
		setOption(tcp, unix.TCP_RTO_MAX_MS, int(longestWait.Milliseconds()))
	}
}

// setOption sets an option of a TCP connection. It is no error if the kernel will not.
func setOption(tcp *net.TCPConn, option, value int) {
	if c, err := tcp.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, option, value)
		})
	}
}
