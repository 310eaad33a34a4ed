package transport

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestMessagesArrive(t *testing.T) {
	var codec Codec = Protobuf{}
	var b bytes.Buffer
	sizes := []int{0, 1, 100, firstRead - 10, firstRead, 3*firstRead + 1, keepBuffer + 1, 17 << 20}
	for _, size := range sizes {
		check(t, codec.Write(&b, wrapperspb.Bytes(make([]byte, size))))
	}
	for _, size := range sizes {
		m := wrapperspb.Bytes([]byte("what was there before"))
		check(t, codec.Read(&b, m, 18<<20))
		if len(m.Value) != size {
			t.Errorf("%d bytes of %d", len(m.Value), size)
		}
	}
	if err := codec.Read(&b, &wrapperspb.BytesValue{}, 1); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// A message that was read does not change when the next one is.
func TestMessagesAreCopies(t *testing.T) {
	var b bytes.Buffer
	first, second := &wrapperspb.BytesValue{}, &wrapperspb.BytesValue{}
	check(t, Protobuf{}.Write(&b, wrapperspb.Bytes([]byte("first"))))
	check(t, Protobuf{}.Write(&b, wrapperspb.Bytes([]byte("other"))))
	check(t, Protobuf{}.Read(&b, first, 100))
	check(t, Protobuf{}.Read(&b, second, 100))
	if string(first.Value) != "first" {
		t.Errorf("became %q", first.Value)
	}
}

func TestBadMessages(t *testing.T) {
	cases := map[string]struct {
		r    io.Reader
		want error
	}{
		"too large":  {bytes.NewReader([]byte{0, 0, 0, 101}), ErrTooLarge},
		"huge":       {bytes.NewReader([]byte{255, 255, 255, 255}), ErrTooLarge},
		"cut length": {bytes.NewReader([]byte{0, 0}), io.ErrUnexpectedEOF},
		"cut":        {bytes.NewReader([]byte{0, 0, 0, 2, 10}), io.ErrUnexpectedEOF},
		"missing":    {bytes.NewReader([]byte{0, 0, 0, 2}), io.ErrUnexpectedEOF},
		"late":       {iotest.TimeoutReader(bytes.NewReader([]byte{0, 0, 0, 2})), iotest.ErrTimeout},
		"garbage":    {bytes.NewReader([]byte{0, 0, 0, 2, 255, 255}), proto.Error},
		"deadline":   {iotest.ErrReader(os.ErrDeadlineExceeded), os.ErrDeadlineExceeded},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if err := (Protobuf{}).Read(c.r, &wrapperspb.BytesValue{}, 100); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// A length alone makes nobody allocate what it says.
func TestLengthAllocatesNothing(t *testing.T) {
	head := []byte{0x3f, 255, 255, 255}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 20 {
		err := Protobuf{}.Read(bytes.NewReader(head), &wrapperspb.BytesValue{}, math.MaxInt32)
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
		t.Errorf("%d bytes allocated", got)
	}
}

// A message of nothing but empty elements, which would take fifty times its size, is refused before
// it is decoded, also if they lie deeper in it.
func TestEmptyElementsAllocateNothing(t *testing.T) {
	empty := bytes.Repeat([]byte{0x0a, 0}, 2<<20)
	nested := protowire.AppendBytes(protowire.AppendTag(nil, 6, protowire.BytesType), empty) // a Value with a list
	for name, c := range map[string]struct {
		body []byte
		m    proto.Message
	}{
		"messages": {empty, &structpb.ListValue{}},
		"strings":  {empty, &fieldmaskpb.FieldMask{}},
		"nested":   {nested, &structpb.Value{}},
	} {
		t.Run(name, func(t *testing.T) {
			framed := append(binary.BigEndian.AppendUint32(nil, uint32(len(c.body))), c.body...)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := (Protobuf{}).Read(bytes.NewReader(framed), c.m, 20<<20); !errors.Is(err, ErrTooLarge) {
				t.Error(err)
			}
			runtime.ReadMemStats(&after)
			if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
				t.Errorf("%d bytes allocated", got)
			}
		})
	}
}

// A list may be as long as the message, as long as its elements are of some size, and a short
// one of any.
func TestLongListsArrive(t *testing.T) {
	for size, count := range map[int]int{0: freeElements, elementBytes: 1 << 20} {
		var b bytes.Buffer
		sent := &fieldmaskpb.FieldMask{Paths: make([]string, count)}
		for i := range sent.Paths {
			sent.Paths[i] = strings.Repeat("x", size)
		}
		check(t, Protobuf{}.Write(&b, sent))
		got := &fieldmaskpb.FieldMask{}
		check(t, Protobuf{}.Read(&b, got, 20<<20))
		if len(got.Paths) != count {
			t.Errorf("%d elements of %d bytes of %d", len(got.Paths), size, count)
		}
	}
}

func TestGoldenMessage(t *testing.T) {
	var b bytes.Buffer
	check(t, Protobuf{}.Write(&b, wrapperspb.String("forever")))
	if got := hex.EncodeToString(b.Bytes()); got != "000000090a07666f7265766572" {
		t.Errorf("got %s", got)
	}
}

func FuzzMessage(f *testing.F) {
	for _, s := range []string{"", "\x00\x00\x00\x00", "\x00\x00\x00\x02\x0a\x00", "\xff\xff\xff\xff", "\x00\x01\x00\x00abc"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 16
		m := &wrapperspb.BytesValue{}
		r := bytes.NewReader(b)
		if err := (Protobuf{}).Read(r, m, limit); err != nil {
			return
		}
		if len(m.Value) > limit || len(b)-r.Len() > limit+messageHead {
			t.Errorf("a message of %d bytes", len(b)-r.Len())
		}
	})
}
