package transport

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// An empty element of a list takes two bytes of a message and a hundred of memory. So a
// message may have as many elements as freeElements, and one more for every elementBytes of its
// length: less than any that means something takes.
const (
	freeElements = 64 << 10
	elementBytes = 16
)

// Unmarshal decodes b, which is foreign, into m like proto.Unmarshal. It fails with ErrTooLarge,
// before anything is allocated, if m would take much more memory than b does.
func Unmarshal(b []byte, m proto.Message) error {
	most := freeElements + len(b)/elementBytes
	if len(b)/2 > freeElements { // else there cannot be too many
		if elements(b, m.ProtoReflect().Descriptor(), most, protowire.DefaultRecursionLimit) > most {
			return fmt.Errorf("more than %d elements in %d bytes: %w", most, len(b), ErrTooLarge)
		}
	}
	return proto.Unmarshal(b, m)
}

// elements counts the elements of all lists of messages, strings and bytes in b, and gives up above
// most. It leaves to proto.Unmarshal to complain of what is malformed, or nests deeper than depth.
func elements(b []byte, md protoreflect.MessageDescriptor, most, depth int) (n int) {
	for len(b) > 0 && n <= most && depth > 0 {
		num, kind, head := protowire.ConsumeTag(b)
		if head < 0 {
			return n
		}
		size := protowire.ConsumeFieldValue(num, kind, b[head:])
		if size < 0 {
			return n
		}
		value := b[head : head+size]
		b = b[head+size:]
		field := md.Fields().ByNumber(num)
		if field == nil || kind != protowire.BytesType {
			continue
		}
		if field.Cardinality() == protoreflect.Repeated {
			n++
		}
		if inner := field.Message(); inner != nil {
			nested, _ := protowire.ConsumeBytes(value)
			n += elements(nested, inner, most-n, depth-1)
		}
	}
	return n
}
