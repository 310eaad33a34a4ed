package transport

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

const (
	// minFrame is what a piece of a stream shrinks to on the slowest links.
	minFrame = 2 << 10
	// A piece that took longer than slowFrame to be given to the kernel is too
	// large: what is urgent on other streams waits for it. One that took less than
	// quickFrame may grow.
	slowFrame  = 10 * time.Millisecond
	quickFrame = 2 * time.Millisecond
)

// pace keeps the bytes that wait before the link few: those of a frame that other
// streams cannot overtake, and those in the kernel that were not sent yet. So a
// word that keeps a lease alive gets through while a file is sent over a slow link.
type pace struct {
	frame   atomic.Int64 // size of the next piece, in bytes
	raw     *net.TCPConn // nil: no TCP
	up      *rate.Limiter
	down    *rate.Limiter
	backlog int64 // what the kernel was told; the one writer's
}

func newPace(raw net.Conn, up, down *rate.Limiter) *pace {
	p := &pace{up: up, down: down}
	p.raw, _ = raw.(*net.TCPConn)
	first := int64(maxFrame)
	if up != nil {
		first = int64(up.Burst())
	}
	p.frame.Store(first)
	p.limitBacklog(first)
	return p
}

// piece returns how many bytes of a stream to send as a whole.
func (p *pace) piece() int { return int(p.frame.Load()) }

// sent notes how long n bytes took to be given to the kernel, and to be allowed to.
func (p *pace) sent(n int, took time.Duration) {
	frame := p.frame.Load()
	switch {
	case took > slowFrame:
		frame = max(minFrame, frame/2)
	case took < quickFrame && int64(n) >= frame/2:
		frame = min(maxFrame, 2*frame)
	default:
		return
	}
	p.frame.Store(frame)
	p.limitBacklog(frame)
}

// limitBacklog has the kernel take no more bytes than two frames before they are
// sent (TCP_NOTSENT_LOWAT). It is no error if it will not.
func (p *pace) limitBacklog(frame int64) {
	if p.raw == nil || p.backlog == 2*frame {
		return
	}
	p.backlog = 2 * frame
	setOption(p.raw, unix.TCP_NOTSENT_LOWAT, int(2*frame))
}

// beforeSend waits until n bytes may be sent.
func (p *pace) beforeSend(ctx context.Context, n int) error { return wait(ctx, p.up, n) }

// mostRead is how many of n bytes to read at a time: no more than afterRead lets go soon.
func (p *pace) mostRead(n int) int {
	if p.down == nil {
		return n
	}
	return min(n, p.down.Burst())
}

// afterRead waits for as long as n bytes that have come should have taken; TCP then
// slows the sender down.
func (p *pace) afterRead(ctx context.Context, n int) { _ = wait(ctx, p.down, n) }

func wait(ctx context.Context, l *rate.Limiter, n int) error {
	for l != nil && n > 0 {
		m := min(n, l.Burst())
		if err := l.WaitN(ctx, m); err != nil {
			return err
		}
		n -= m
	}
	return nil
}

// limiter allows bytes per second in pieces that take 20 ms or so; 0 means no limit.
func limiter(bytes int64) *rate.Limiter {
	if bytes <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytes), int(max(minFrame, min(bytes/50, maxFrame))))
}
