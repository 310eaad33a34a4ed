package fusefs

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"unsafe"

	"bazil.org/fuse"
)

// errHatch says that bazil.org/fuse is not laid out as the pinned version is.
var errHatch = errors.New("fusefs: bazil.org/fuse has another layout than the version this was written for")

// hatch reaches the few things that bazil.org/fuse keeps to itself: the
// connection's file, the buffer a request was read into, and the flags of INIT. It
// holds offsets into bazil's structures, all checked by newHatch. bazil.org/fuse is
// dormant and pinned, so they stand still.
type hatch struct {
	dev uintptr // of the *os.File in fuse.Conn
	msg uintptr // of the *message in fuse.Header
	buf uintptr // of the []byte in message
	off uintptr // of the int in message: where the request's body begins
}

// newHatch finds and checks the fields; it fails with errHatch if one is not what it should be.
func newHatch() (hatch, error) {
	var h hatch
	var err error
	header := reflect.TypeFor[fuse.Header]()
	if h.dev, err = fieldOf(reflect.TypeFor[fuse.Conn](), "dev", reflect.TypeFor[*os.File]()); err != nil {
		return h, err
	}
	msg, ok := header.FieldByName("msg")
	if !ok || msg.Type.Kind() != reflect.Pointer || msg.Type.Elem().Kind() != reflect.Struct {
		return h, fmt.Errorf("%w: Header.msg", errHatch)
	}
	h.msg = msg.Offset
	if h.buf, err = fieldOf(msg.Type.Elem(), "buf", reflect.TypeFor[[]byte]()); err != nil {
		return h, err
	}
	if h.off, err = fieldOf(msg.Type.Elem(), "off", reflect.TypeFor[int]()); err != nil {
		return h, err
	}
	return h, checkInitOption()
}

// fieldOf returns the offset of a field that must have the given type.
func fieldOf(in reflect.Type, name string, want reflect.Type) (uintptr, error) {
	f, ok := in.FieldByName(name)
	if !ok || f.Type != want {
		return 0, fmt.Errorf("%w: %s.%s", errHatch, in.Name(), name)
	}
	return f.Offset, nil
}

// fd returns the file descriptor of the connection. It belongs to the connection.
func (h hatch) fd(c *fuse.Conn) int {
	dev := *(**os.File)(unsafe.Add(unsafe.Pointer(c), h.dev))
	return int(dev.Fd())
}

func (h hatch) message(hdr *fuse.Header) unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Add(unsafe.Pointer(hdr), h.msg))
}

// body returns what follows the header of a request that bazil did not
// recognise. It is valid until the request is answered.
func (h hatch) body(hdr *fuse.Header) []byte {
	m := h.message(hdr)
	return (*(*[]byte)(unsafe.Add(m, h.buf)))[*(*int)(unsafe.Add(m, h.off)):]
}

// buffer returns the whole buffer that a request was read into. It may be
// written to once nothing of the request is needed any more, and is valid until the
// request is answered.
func (h hatch) buffer(hdr *fuse.Header) []byte {
	b := *(*[]byte)(unsafe.Add(h.message(hdr), h.buf))
	return b[:cap(b)]
}

// done gives the buffer of a request back to bazil that was answered without it.
func (h hatch) done(hdr *fuse.Header) {
	(&fuse.ForgetRequest{Header: *hdr}).Respond() // a forget is never answered: this frees the buffer only
}

func checkInitOption() error {
	t := reflect.TypeFor[fuse.MountOption]()
	if t.Kind() != reflect.Func || t.NumIn() != 1 || t.NumOut() != 1 || t.In(0).Kind() != reflect.Pointer {
		return fmt.Errorf("%w: MountOption", errHatch)
	}
	if _, err := fieldOf(t.In(0).Elem(), "options", reflect.TypeFor[map[string]string]()); err != nil {
		return err
	}
	_, err := fieldOf(t.In(0).Elem(), "initFlags", reflect.TypeFor[fuse.InitFlags]())
	return err
}

// mountOption makes a MountOption of what is to happen to a field of bazil's configuration.
func mountOption(name string, change func(field unsafe.Pointer)) fuse.MountOption {
	t := reflect.TypeFor[fuse.MountOption]()
	set := reflect.MakeFunc(t, func(args []reflect.Value) []reflect.Value {
		change(unsafe.Pointer(args[0].Elem().FieldByName(name).UnsafeAddr()))
		return []reflect.Value{reflect.Zero(t.Out(0))}
	})
	return set.Interface().(fuse.MountOption)
}

// option gives the mount an option that bazil has no word for.
func (h hatch) option(name string) fuse.MountOption {
	return mountOption("options", func(field unsafe.Pointer) { (*(*map[string]string)(field))[name] = "" })
}

// initOption asks the kernel for flags of INIT that bazil has no option for, and
// does without others that bazil always asks for.
func (h hatch) initOption(with, without fuse.InitFlags) fuse.MountOption {
	return mountOption("initFlags", func(field unsafe.Pointer) {
		flags := (*fuse.InitFlags)(field)
		*flags = *flags&^without | with
	})
}
