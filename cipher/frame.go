package cipher

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/foreverfs/forever/chunk"
)

// A frame is what gets encrypted: how the payload is compressed (1 byte), the
// length of the plaintext and of the payload (4 each, big endian), the payload,
// and zeros up to the padded length.
const (
	prefixSize = 9

	asIs     = 0
	withZstd = 1

	// minPadded is the least length of a padded payload: what is small looks alike.
	minPadded = 256
)

// padded returns the length to which a payload of n bytes is padded: Padmé, which
// costs at most 12 % and leaves of a length only its magnitude and a few bits. A
// power of two stays what it is, so a full block that does not compress costs
// nothing.
func padded(n int) int {
	if n <= minPadded {
		return minPadded
	}
	e := bits.Len(uint(n)) - 1
	s := bits.Len(uint(e))
	mask := 1<<(e-s) - 1
	return (n + mask) &^ mask
}

// appendFrame appends the frame of plain to dst, in dst's capacity if that has room
// for plain as it is.
func appendFrame(dst, plain []byte) []byte {
	start := len(dst)
	dst = slices.Grow(dst, prefixSize+padded(len(plain)))
	out, how := compress(dst[:start+prefixSize], plain), byte(withZstd)
	if out == nil {
		out, how = append(dst[:start+prefixSize], plain...), asIs
	}
	payload := len(out) - start - prefixSize
	prefix := out[start:]
	prefix[0] = how
	binary.BigEndian.PutUint32(prefix[1:], uint32(len(plain)))
	binary.BigEndian.PutUint32(prefix[5:], uint32(payload))
	end := len(out)
	out = slices.Grow(out, padded(payload)-payload)[:start+prefixSize+padded(payload)]
	clear(out[end:])
	return out
}

// appendPlain appends the plaintext of a frame to dst. The frame was made by
// somebody with the key, who need not be honest: at most limit bytes come out.
func appendPlain(dst, frame []byte, limit int) ([]byte, error) {
	rest := frame[prefixSize:]
	p, err := parsePrefix(frame, len(rest), limit)
	if err != nil {
		return nil, err
	}
	if !isZero(rest[p.payload:]) {
		return nil, fmt.Errorf("%w: padding is not zero", ErrDamaged)
	}
	if p.how == asIs {
		return append(dst, rest[:p.payload]...), nil
	}
	return decompress(dst, rest[:p.payload], p.plain)
}

// prefix is what a frame says about what follows.
type prefix struct {
	how            byte
	plain, payload int // bytes
}

// parsePrefix checks the prefix of a frame that has rest bytes behind it and at most limit bytes of plaintext.
func parsePrefix(b []byte, rest, limit int) (prefix, error) {
	p := prefix{b[0], int(binary.BigEndian.Uint32(b[1:])), int(binary.BigEndian.Uint32(b[5:]))}
	if p.plain > limit || p.payload > p.plain || rest != padded(p.payload) {
		return prefix{}, fmt.Errorf("%w: %d bytes as %d in %d", ErrDamaged, p.plain, p.payload, rest)
	}
	if p.how == asIs && p.payload == p.plain || p.how == withZstd && p.payload < p.plain {
		return p, nil
	}
	return prefix{}, fmt.Errorf("%w: compression %d", ErrDamaged, p.how)
}

var zeros [4096]byte

func isZero(b []byte) bool {
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

// bufferPool keeps buffers for frames.
type bufferPool struct{ pool sync.Pool }

var framePool bufferPool

// get returns an empty buffer of at least the given capacity.
func (p *bufferPool) get(size int) *[]byte {
	b, _ := p.pool.Get().(*[]byte)
	if b == nil {
		b = new([]byte)
	}
	*b = slices.Grow((*b)[:0], size)
	return b
}

// put gives a buffer back. That of a large batch is not kept.
func (p *bufferPool) put(b *[]byte) {
	if cap(*b) <= 2*chunk.MaxSealed {
		p.pool.Put(b)
	}
}

var (
	encoders = sync.Pool{New: func() any { return newEncoder() }}
	decoders = sync.Pool{New: func() any { return newDecoder() }}
)

func newEncoder() *zstd.Encoder {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithAllLitEntropyCompression(true), zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<20),
		zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // only for impossible options
	}
	return enc
}

func newDecoder() *zstd.Decoder {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxBatch),
		zstd.WithDecodeAllCapLimit(true), zstd.IgnoreChecksum(true))
	if err != nil {
		panic(err) // only for impossible options
	}
	return dec
}

// compress appends plain to dst, compressed, or returns nil if that does not pay.
func compress(dst, plain []byte) []byte {
	if !maybeCompressible(plain) {
		return nil
	}
	enc := encoders.Get().(*zstd.Encoder)
	out := enc.EncodeAll(plain, dst)
	encoders.Put(enc)
	if padded(len(out)-len(dst)) >= padded(len(plain)) {
		return nil
	}
	return out
}

// decompress appends the n bytes that payload holds to dst.
func decompress(dst, payload []byte, n int) ([]byte, error) {
	start := len(dst)
	dst = slices.Grow(dst, n)
	dec := decoders.Get().(*zstd.Decoder)
	out, err := dec.DecodeAll(payload, dst[:start:start+n])
	decoders.Put(dec)
	if err != nil || len(out) != start+n {
		return nil, fmt.Errorf("%w: does not decompress to %d bytes", ErrDamaged, n)
	}
	return dst[:start+n], nil
}

const (
	sampleRun  = 128
	sampleRuns = 32
)

// maybeCompressible reports whether plain is worth trying: small things are padded
// anyway, and what looks random in a sample of 4 KiB costs much to try and yields
// nothing. Repeats of random bytes are missed; equal blocks are one chunk without
// that.
func maybeCompressible(plain []byte) bool {
	if len(plain) <= minPadded {
		return false
	}
	var counts [256]uint32
	n := len(plain)
	if n <= sampleRun*sampleRuns {
		count(&counts, plain)
	} else {
		step := (n - sampleRun) / (sampleRuns - 1)
		for at := range sampleRuns {
			count(&counts, plain[at*step:at*step+sampleRun])
		}
		n = sampleRun * sampleRuns
	}
	// For random bytes the squares add up to n + n²/256, give or take 1 %; for bytes
	// of about 7.7 bits, to a fifth more.
	squares := 0
	for _, c := range counts {
		squares += int(c) * int(c)
	}
	return squares > n+n*n/256*6/5
}

func count(counts *[256]uint32, p []byte) {
	for _, b := range p {
		counts[b]++
	}
}
