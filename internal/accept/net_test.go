package accept

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
)

var addresses atomic.Int32 // given to nodes of this process

// ownAddress returns an address for a node that nobody else listens at, also while the node is down: the host is this process's
// alone, and no port is given twice.
func ownAddress() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d:%d", 64+pid>>16, pid>>8&0xff, pid&0xff, 10_000+addresses.Add(1))
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
