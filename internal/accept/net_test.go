package accept

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
)

// freePort returns a TCP port of this machine that nobody listens on.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// tap is a TCP proxy that keeps every byte that goes through.
type tap struct {
	l    net.Listener
	to   string
	mu   sync.Mutex
	seen bytes.Buffer
	wg   sync.WaitGroup
}

func newTap(t testing.TB, to string) *tap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{l: l, to: to}
	p.wg.Add(1)
	go p.serve()
	t.Cleanup(func() { _ = l.Close() })
	return p
}

func (p *tap) addr() string { return p.l.Addr().String() }

func (p *tap) serve() {
	defer p.wg.Done()
	for {
		in, err := p.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		go p.pipe(in, out)
		go p.pipe(out, in)
	}
}

func (p *tap) pipe(dst, src net.Conn) {
	defer dst.Close()
	_, _ = io.Copy(io.MultiWriter(dst, p), src)
}

// Write keeps what passes.
func (p *tap) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.Write(b)
}

// bytes returns all that passed so far.
func (p *tap) bytes() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]byte(nil), p.seen.Bytes()...)
}
