package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"google.golang.org/protobuf/proto"
)

// ErrTooLarge says that a message is over the receiver's limit.
var ErrTooLarge = errors.New("transport: message too large")

// Codec writes and reads messages on a stream. Implementations are safe for use
// by several goroutines on different streams.
type Codec interface {
	// Write writes m. The receiver must know a limit that fits it.
	Write(w io.Writer, m proto.Message) error
	// Read reads one message into m, whose content is replaced. It fails with
	// io.EOF only between messages, and with ErrTooLarge, before anything is
	// allocated, if the message has more than limit bytes; r is then of no more
	// use. It also fails with ErrTooLarge, before it is decoded, if it would take
	// much more memory than it has bytes.
	Read(r io.Reader, m proto.Message, limit int) error
}

// Protobuf is the Codec of peers: four bytes of length, big endian, and the
// message. It reads no byte beyond the message.
type Protobuf struct{}

var _ Codec = Protobuf{}

const (
	messageHead = 4
	// firstRead is how much of a message is believed to come before any of it
	// has: a length alone allocates no more.
	firstRead = 64 << 10
	// keepBuffer is the largest buffer that is kept for the next message.
	keepBuffer = 2 << 20
)

var buffers = sync.Pool{New: func() any { return new([]byte) }}

func putBuffer(p *[]byte, b []byte) {
	if cap(b) <= keepBuffer {
		*p = b[:0]
	}
	buffers.Put(p)
}

// Write implements Codec with a single write.
func (Protobuf) Write(w io.Writer, m proto.Message) error {
	p := buffers.Get().(*[]byte)
	b := append((*p)[:0], make([]byte, messageHead)...)
	defer func() { putBuffer(p, b) }()
	b, err := proto.MarshalOptions{}.MarshalAppend(b, m)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	n := len(b) - messageHead
	if n > math.MaxInt32 {
		return fmt.Errorf("encode message: %d bytes: %w", n, ErrTooLarge)
	}
	binary.BigEndian.PutUint32(b, uint32(n))
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	return nil
}

// Read implements Codec. The length is checked first, and memory then grows with
// the bytes that come.
func (Protobuf) Read(r io.Reader, m proto.Message, limit int) error {
	var head [messageHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if err == io.EOF { //nolint:errorlint // io.ReadFull returns it bare: nothing was read
			return io.EOF
		}
		return fmt.Errorf("read message: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if uint64(n) > uint64(max(limit, 0)) {
		return fmt.Errorf("read message: %d bytes, at most %d: %w", n, limit, ErrTooLarge)
	}
	p := buffers.Get().(*[]byte)
	b, err := readGrowing(r, (*p)[:0], int(n))
	defer func() { putBuffer(p, b) }()
	if err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	// Unmarshal copies what it keeps, so that b may be used again.
	if err := Unmarshal(b, m); err != nil {
		return fmt.Errorf("decode message: %w", err)
	}
	return nil
}

// readGrowing reads n bytes into b, which at no time is larger than twice what has
// come, or what it was.
func readGrowing(r io.Reader, b []byte, n int) ([]byte, error) {
	for len(b) < n {
		step := min(n-len(b), max(firstRead, len(b), cap(b)-len(b)))
		from := len(b)
		if need := from + step; need > cap(b) {
			b = append(make([]byte, 0, need), b...)
		}
		b = b[:from+step]
		if _, err := io.ReadFull(r, b[from:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return b, err
		}
	}
	return b, nil
}
