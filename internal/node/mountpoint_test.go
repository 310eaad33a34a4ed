package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/foreverfs/forever/internal/fail"
)

func TestParseMountInfo(t *testing.T) {
	const text = `22 28 0:21 / /sys rw,nosuid - sysfs sysfs rw
90 28 0:50 / /mnt/for\040ever rw,nosuid,nodev shared:3 - fuse.forever /var/lib/for\134ever rw,user_id=0
91 28 0:51 / /mnt/other rw - fuse.sshfs host: rw
broken line
`
	got, err := parseMountInfo(strings.NewReader(text))
	want := []anyMount{
		{MountInfo{Mountpoint: "/sys", DataDir: "sysfs"}, "sysfs"},
		{MountInfo{Mountpoint: "/mnt/for ever", DataDir: `/var/lib/for\ever`}, fuseType},
		{MountInfo{Mountpoint: "/mnt/other", DataDir: "host:"}, "fuse.sshfs"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(anyMount{})); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

func TestCheckMountpointRefuses(t *testing.T) {
	base := t.TempDir()
	full := filepath.Join(base, "full")
	data := filepath.Join(base, "data")
	for _, dir := range []string{full, filepath.Join(data, "in")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(full, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"not empty": full, "no directory": file, "a mount": "/proc", "missing": filepath.Join(base, "no"),
		"inside the data": filepath.Join(data, "in"), "around the data": base,
	} {
		err := checkMountpoint(path, data, false)
		if err == nil || fail.KindOf(err) != fail.Mountpoint || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	empty := filepath.Join(base, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := checkMountpoint(empty, data, false); err != nil && fail.KindOf(err) != fail.FUSE {
		t.Errorf("an empty directory is refused: %v", err)
	}
}
