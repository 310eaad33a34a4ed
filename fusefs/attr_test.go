package fusefs

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestXattrLimits: names, values and lists up to what Linux takes, and its errors beyond.
func TestXattrLimits(t *testing.T) {
	r := mount(t, nil)
	r.write("f", "")
	f := r.path("f")
	long, most := "user."+strings.Repeat("n", 250), bytes.Repeat([]byte("v"), 64<<10)
	must(t, unix.Setxattr(f, long, most, 0))
	buf := make([]byte, 64<<10)
	if n, err := unix.Getxattr(f, long, buf); err != nil || !bytes.Equal(buf[:n], most) {
		t.Errorf("got %d bytes, %v", n, err)
	}
	wantErr(t, unix.Setxattr(f, long+"n", nil, 0), unix.ERANGE)
	wantErr(t, unix.Setxattr(f, "user.v", append(most, 'v'), 0), unix.E2BIG)
	_, err := unix.Getxattr(f, long, buf[:len(buf)-1])
	wantErr(t, err, unix.ERANGE)
	for _, name := range []string{"trusted.t", "security.s"} {
		must(t, unix.Setxattr(f, name, []byte("1"), 0))
		must(t, unix.Removexattr(f, name))
	}
	for name, path := range map[string]string{"system.posix_acl_access": f, "system.posix_acl_default": r.dir} {
		wantErr(t, unix.Setxattr(path, name, []byte{2, 0, 0, 0}, 0), unix.EOPNOTSUPP)
		_, err := unix.Getxattr(path, name, buf)
		wantErr(t, err, unix.EOPNOTSUPP)
	}
	wantErr(t, unix.Setxattr(f, "nonsense", nil, 0), unix.EOPNOTSUPP)
	for i := 0; ; i++ { // the list grows until it is 64 KiB long: 256 names of 255 bytes
		err := unix.Setxattr(f, fmt.Sprintf("user.%0250d", i), nil, 0)
		if err == unix.ENOSPC && i == 255 {
			break
		}
		if err != nil || i > 255 {
			t.Fatalf("attribute %d: %v", i, err)
		}
	}
	if n, err := unix.Listxattr(f, buf); n != 64<<10 || err != nil {
		t.Errorf("a list of %d bytes, %v", n, err)
	}
	must(t, unix.Setxattr(f, long, nil, unix.XATTR_REPLACE))
}

// TestTimesLast: times of all ages are the same on the next mount, and reading is not recorded.
func TestTimesLast(t *testing.T) {
	r := mount(t, nil)
	want := map[string]unix.Stat_t{}
	for i, sec := range []int64{-1e9, -1, 0, 1<<31 + 7, 1 << 33, math.MaxInt64/1_000_000_000 - 1} {
		name := fmt.Sprint(i)
		r.write(name, "text")
		ts := []unix.Timespec{{Sec: sec, Nsec: 1}, {Sec: sec, Nsec: 123456789}}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, r.path(name), ts, 0))
		var st unix.Stat_t
		must(t, unix.Stat(r.path(name), &st))
		if st.Atim != ts[0] || st.Mtim != ts[1] {
			t.Errorf("second %d: %v, %v", sec, st.Atim, st.Mtim)
		}
		want[name] = st
	}
	for name, sec := range map[string]int64{"late": 1 << 40, "early": -1 << 40} {
		r.write(name, "")
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, r.path(name), []unix.Timespec{{Sec: sec}, {Sec: sec}}, 0))
		var st unix.Stat_t
		must(t, unix.Stat(r.path(name), &st))
		if (st.Mtim.Sec > 0) != (sec > 0) || st.Mtim != st.Atim || max(st.Mtim.Sec, -st.Mtim.Sec) < math.MaxInt64/1_000_000_000 {
			t.Errorf("second %d is %v", sec, st.Mtim)
		}
	}
	must(t, r.vol.SyncAll(t.Context()))
	again := *r
	again.mount(nil)
	clock := r.vol.Clock()
	for name, was := range want {
		_ = again.read(name)
		if list, err := os.ReadDir(again.dir); err != nil || len(list) == 0 {
			t.Error(list, err)
		}
		var st unix.Stat_t
		must(t, unix.Stat(again.path(name), &st))
		if st.Atim != was.Atim || st.Mtim != was.Mtim || st.Ctim != was.Ctim {
			t.Errorf("%s: %v, %v, %v are not %v, %v, %v", name, st.Atim, st.Mtim, st.Ctim, was.Atim, was.Mtim, was.Ctim)
		}
	}
	if now := r.vol.Clock(); now != clock {
		t.Errorf("reading made %d ops", now-clock)
	}
}
