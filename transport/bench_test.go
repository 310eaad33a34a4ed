package transport

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// pieces are the sizes of the writes that are measured.
var pieces = []int{4 << 10, 64 << 10, 1 << 20}

// BenchmarkThroughput compares one stream with a bare TLS connection over the same
// TCP loopback. Both ends are in this process and share its processors.
func BenchmarkThroughput(b *testing.B) {
	for _, size := range pieces {
		b.Run(fmt.Sprintf("tls/%dKiB", size>>10), func(b *testing.B) {
			near, far := tlsPair(b)
			pump(b, near, far, size)
		})
		for name := range networks {
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) {
				from, to := pair(b, networks[name](b), Config{})
				near, far := open(b, from, to)
				pump(b, near, far, size)
			})
		}
	}
}

// pump writes pieces and waits until all have been read.
func pump(b *testing.B, w io.Writer, r io.Reader, size int) {
	b.Helper()
	b.SetBytes(int64(size))
	var read atomic.Int64
	go func() {
		buf := make([]byte, 256<<10)
		for {
			n, err := r.Read(buf)
			read.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	p := make([]byte, size)
	var written int64
	before := processorTime()
	for b.Loop() {
		if _, err := w.Write(p); err != nil {
			b.Fatal(err)
		}
		written += int64(size)
	}
	for read.Load() < written { // what is still under way does not count for much
		time.Sleep(time.Millisecond)
	}
	b.ReportMetric(float64(processorTime()-before)/float64(written)*1024, "cpu-ns/KiB")
}

// processorTime is what both ends have used, which says more than the wall clock
// on a machine that does other things as well.
func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// onlyReader hides what else a connection can do.
type onlyReader struct{ io.Reader }

func tlsPair(b *testing.B) (near, far net.Conn) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(b, err)
	defer l.Close()
	cert, err := certificate(newKey(b))
	check(b, err)
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			c = tls.Server(c, tlsConfig(cert, nil))
			err = c.(*tls.Conn).Handshake()
		}
		if err != nil {
			b.Error(err)
		}
		accepted <- c
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	check(b, err)
	c := tls.Client(raw, tlsConfig(cert, nil))
	check(b, c.Handshake())
	far = <-accepted
	b.Cleanup(func() { c.Close(); far.Close() })
	return c, far
}

// BenchmarkRoundTrip is a message there and back on a stream that is open.
func BenchmarkRoundTrip(b *testing.B) {
	for name, make := range networks {
		b.Run(name, func(b *testing.B) {
			from, to := pair(b, make(b), Config{})
			near, far := open(b, from, to)
			go io.Copy(far, onlyReader{far})
			var p [100]byte
			for b.Loop() {
				if _, err := near.Write(p[:]); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(near, p[:]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStream is a stream opened, used and closed.
func BenchmarkStream(b *testing.B) {
	from, to := pair(b, networks["tcp"](b), Config{})
	ctx := context.Background()
	go func() {
		for {
			s, err := to.Accept(ctx)
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(s, onlyReader{s})
				_ = s.Close()
			}()
		}
	}()
	for b.Loop() {
		s, err := from.Open(ctx)
		check(b, err)
		_, err = s.Write([]byte("x"))
		check(b, err)
		check(b, s.CloseWrite())
		_, err = io.ReadAll(s)
		check(b, err)
		check(b, s.Close())
	}
}

// BenchmarkConnect is a connection made and closed.
func BenchmarkConnect(b *testing.B) {
	for name, make := range networks {
		b.Run(name, func(b *testing.B) {
			n := make(b)
			l := listen(b, n, Config{})
			d := newNode(b, n, Config{})
			for b.Loop() {
				done := runAccept(l.l)
				c, err := d.Dial(context.Background(), l.l.Addr(), l.id)
				check(b, err)
				<-done
				check(b, c.Close())
			}
		})
	}
}

func runAccept(l Listener) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(context.Background()); err == nil {
			go func() {
				<-c.Done()
				_ = c.Close()
			}()
		}
	}()
	return done
}

// BenchmarkLongLink says how much of a link of 25 MB/s (200 Mbit/s) and 40 ms round
// trip one stream fills: the metric link% should be near 100.
func BenchmarkLongLink(b *testing.B) {
	m := NewMemory()
	link := Link{Delay: 20 * time.Millisecond, Rate: 25_000_000}
	m.SetLink(link)
	from, to := pair(b, network{m.Transport, func() string { return "far away" }}, Config{})
	near, far := open(b, from, to)
	const size = 1 << 20
	b.SetBytes(size)
	p := make([]byte, size)
	go func() {
		for {
			if _, err := near.Write(p); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, size)
	for b.Loop() {
		if _, err := io.ReadFull(far, buf); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(100*float64(b.N)*size/b.Elapsed().Seconds()/float64(link.Rate), "link%")
}
