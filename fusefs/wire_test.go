package fusefs

import (
	"bytes"
	"math"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"bazil.org/fuse"

	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/volume"
)

// TestHatch fails if bazil.org/fuse was changed to another version than the hatch knows.
func TestHatch(t *testing.T) {
	h, err := newHatch()
	if err != nil {
		t.Fatal(err)
	}
	var hdr fuse.Header
	if h.message(&hdr) != nil {
		t.Error("an empty header has a message")
	}
	conf := reflect.New(reflect.TypeFor[fuse.MountOption]().In(0).Elem())
	flags := (*fuse.InitFlags)(unsafe.Pointer(conf.Elem().FieldByName("initFlags").UnsafeAddr()))
	*flags = fuse.InitAsyncRead | fuse.InitBigWrites
	out := reflect.ValueOf(h.initOption(fuse.InitAtomicTrunc, fuse.InitAsyncRead)).Call([]reflect.Value{conf})
	if !out[0].IsNil() || *flags != fuse.InitAtomicTrunc|fuse.InitBigWrites {
		t.Errorf("option returned %v and set %v", out[0], *flags)
	}
}

func TestHatchRefusesOtherLayout(t *testing.T) {
	other := reflect.StructOf([]reflect.StructField{{Name: "Dev", Type: reflect.TypeFor[int]()}})
	_, err := fieldOf(other, "Dev", reflect.TypeFor[*os.File]())
	wantErr(t, err, errHatch)
	_, err = fieldOf(other, "File", reflect.TypeFor[int]())
	wantErr(t, err, errHatch)
}

func TestSplitTime(t *testing.T) {
	for _, c := range []struct {
		ns, sec int64
		nsec    uint32
	}{
		{0, 0, 0}, {1, 0, 1}, {-1, -1, 999999999}, {-1e9, -1, 0}, {-1e9 - 1, -2, 999999999},
		{1e9, 1, 0}, {math.MaxInt64, 9223372036, 854775807}, {math.MinInt64, -9223372037, 145224192},
	} {
		if sec, nsec := splitTime(c.ns); sec != c.sec || nsec != c.nsec {
			t.Errorf("%d ns are %d s and %d ns", c.ns, sec, nsec)
		}
	}
}

func TestDirentIsPadded(t *testing.T) {
	for n := range 40 {
		e := volume.DirEntry{Name: strings.Repeat("x", n), Ino: 7, Kind: namespace.KindSymlink, Cookie: 9}
		b := bytes.Repeat([]byte{0xff}, direntLen(n))
		putDirent(b, &e)
		if len(b)%8 != 0 || len(b) < direntSize+n || len(b) > direntSize+n+7 {
			t.Errorf("entry with %d bytes of name takes %d", n, len(b))
		}
		if string(b[direntSize:direntSize+n]) != e.Name || bytes.Contains(b[direntSize+n:], []byte{0xff}) {
			t.Errorf("entry is %q", b)
		}
		if native.Uint64(b) != 7 || native.Uint64(b[8:]) != 9 || native.Uint32(b[20:]) != syscall.DT_LNK {
			t.Errorf("entry is %x", b)
		}
	}
}

func TestModeBits(t *testing.T) {
	for bits, mode := range map[uint32]os.FileMode{
		0o7777:                    0o777 | os.ModeSetuid | os.ModeSetgid | os.ModeSticky,
		syscall.S_IFCHR | 0o20:    0o20 | os.ModeDevice | os.ModeCharDevice,
		syscall.S_IFBLK | 0o1:     0o1 | os.ModeDevice,
		syscall.S_IFIFO | 0o4000:  os.ModeNamedPipe | os.ModeSetuid,
		syscall.S_IFSOCK | 0o1000: os.ModeSocket | os.ModeSticky,
	} {
		want := bits
		if bits&syscall.S_IFMT == 0 {
			want |= syscall.S_IFREG
		}
		if got := nodeBits(mode); got != want {
			t.Errorf("%v is %o, want %o", mode, got, want)
		}
		if got := permBits(mode); got != bits&0o7777 {
			t.Errorf("permissions of %v are %o", mode, got)
		}
	}
}

func TestParseRename2(t *testing.T) {
	body := append(make([]byte, 16), "old\x00new\x00"...)
	native.PutUint64(body, 5)
	native.PutUint32(body[8:], 2)
	dir, flags, from, to, ok := parseRename2(body)
	if dir != 5 || flags != 2 || from != "old" || to != "new" || !ok {
		t.Error(dir, flags, from, to, ok)
	}
	for n := range len(body) {
		if _, _, _, _, ok := parseRename2(body[:n]); ok {
			t.Errorf("%d bytes are taken for a request", n)
		}
	}
}

func TestTable(t *testing.T) {
	var tab table[int]
	a, b := new(int), new(int)
	ia, ib := tab.add(a), tab.add(b)
	if ia == 0 || ia == ib || tab.get(ia) != a || tab.get(ib) != b {
		t.Fatal(ia, ib)
	}
	if tab.remove(ia) != a || tab.remove(ia) != nil || tab.get(ia) != nil {
		t.Error("removed things stay")
	}
	for _, id := range []fuse.HandleID{0, 3, math.MaxUint64} {
		if tab.get(id) != nil || tab.remove(id) != nil {
			t.Errorf("%d names something", id)
		}
	}
	if c := tab.add(a); c != ia {
		t.Errorf("number %d was not used again", ia)
	}
	if got := tab.clear(); len(got) != 2 || tab.get(ib) != nil {
		t.Errorf("cleared %d", len(got))
	}
}
