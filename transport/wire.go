package transport

import (
	"bufio"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// wireRead is how much one system call reads, at most.
	wireRead = 64 << 10
	// wireWrite is how much is collected before a system call writes it. More
	// of either costs more in cache misses than it saves.
	wireWrite = 96 << 10
	// stallTimeout bounds one system call's write, and the arrival of one
	// frame: what is slower than 2 KiB/s counts as broken.
	stallTimeout = 30 * time.Second
	// closeTimeout bounds the goodbye of TLS.
	closeTimeout = time.Second
)

// clock counts from the start of the process, so that atomics can hold it.
var clockStart = time.Now()

func now() int64 { return int64(time.Since(clockStart)) }

// wire lies between TLS and the kernel. It makes few large system calls out of
// TLS's records, and knows when bytes last came and went.
type wire struct {
	net.Conn
	pace     *pace
	open     context.Context // ends with Close, and with it what waits for a limit
	close    context.CancelFunc
	in       *bufio.Reader // used by the one reader that TLS allows
	lastIn   atomic.Int64
	lastOut  atomic.Int64
	deadline atomic.Bool // somebody set one for writes

	mu   sync.Mutex // held while writing, which keeps the bytes in order
	out  []byte     // collected; nil while not holding
	hold bool
	last bool // only a goodbye may follow
}

func newWire(raw net.Conn, p *pace) *wire {
	w := &wire{Conn: raw, pace: p}
	w.open, w.close = context.WithCancel(context.Background())
	w.in = bufio.NewReaderSize(paced{w}, wireRead)
	w.lastIn.Store(now())
	w.lastOut.Store(now())
	return w
}

// paced reads from the kernel no faster than this side wants to.
type paced struct{ w *wire }

func (r paced) Read(p []byte) (int, error) {
	n, err := r.w.Conn.Read(p[:r.w.pace.mostRead(len(p))])
	if n > 0 {
		r.w.lastIn.Store(now()) // that it waits here is not the other side's silence
	}
	r.w.pace.afterRead(r.w.open, n)
	return n, err
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.in.Read(p)
	if n > 0 {
		w.lastIn.Store(now())
	}
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.hold {
		return w.send(p)
	}
	if len(w.out)+len(p) > wireWrite {
		if err := w.flush(); err != nil {
			return 0, err
		}
	}
	w.out = append(w.out, p...)
	return len(p), nil
}

// collect keeps what is written from now on until release. It returns false if
// nothing may be written any more.
func (w *wire) collect() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hold = !w.last
	return w.hold
}

// quiet says whether nothing is being written, and if so sees to it that it stays
// that way.
func (w *wire) quiet() bool {
	if !w.mu.TryLock() {
		return false
	}
	defer w.mu.Unlock()
	w.last = !w.hold
	return w.last
}

// release writes what was collected.
func (w *wire) release() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hold = false
	return w.flush()
}

func (w *wire) flush() error {
	if len(w.out) == 0 {
		return nil
	}
	_, err := w.send(w.out)
	w.out = w.out[:0]
	return err
}

// send gives p to the kernel; mu is held.
func (w *wire) send(p []byte) (int, error) {
	start := time.Now()
	if err := w.pace.beforeSend(w.open, len(p)); err != nil {
		return 0, err
	}
	if !w.deadline.Load() {
		if err := w.Conn.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
			return 0, err
		}
	}
	n, err := w.Conn.Write(p)
	if n > 0 {
		w.lastOut.Store(now())
	}
	w.pace.sent(n, time.Since(start))
	return n, err
}

// Close ends reads and writes under way.
func (w *wire) Close() error {
	w.close()
	return w.Conn.Close()
}

// SetDeadline is for the handshake; a zero time gives writes back their own limit.
func (w *wire) SetDeadline(t time.Time) error {
	w.deadline.Store(!t.IsZero())
	return w.Conn.SetDeadline(t)
}

// SetWriteDeadline is what TLS calls when it says goodbye, with more patience than
// a goodbye deserves.
func (w *wire) SetWriteDeadline(t time.Time) error {
	w.deadline.Store(!t.IsZero())
	if soon := time.Now().Add(closeTimeout); t.After(soon) {
		t = soon
	}
	return w.Conn.SetWriteDeadline(t)
}
