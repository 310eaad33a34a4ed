package fusefs

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMountTable(t *testing.T) {
	const text = `22 28 0:21 / /sys rw,nosuid - sysfs sysfs rw
90 28 0:50 / /mnt/for\040ever rw,nosuid,nodev shared:3 - fuse.forever /var/lib/for\134ever rw,user_id=0
91 28 0:51 / /mnt/other rw - fuse.sshfs host: rw
92 28 8:1 / /mnt/disk rw - ext4 /dev/sda1 rw
broken line
`
	want := []Mounted{
		{"/sys", "sysfs", "sysfs", 21},
		{"/mnt/for ever", "fuse.forever", `/var/lib/for\ever`, 50},
		{"/mnt/other", "fuse.sshfs", "host:", 51},
		{"/mnt/disk", "ext4", "/dev/sda1", 0},
	}
	if diff := cmp.Diff(want, parseMountTable(text), cmp.AllowUnexported(Mounted{})); diff != "" {
		t.Error(diff)
	}
}

func TestPlaceOf(t *testing.T) {
	at := func(minor uint32, path string) Mounted { return Mounted{Path: path, minor: minor} }
	disk, ours, other := at(0, "/"), at(7, "/m"), at(8, "/m")
	for _, c := range []struct {
		name    string
		table   []Mounted
		path    string
		covered bool
	}{
		{"as it was mounted", []Mounted{disk, ours}, "/m", false},
		{"gone", []Mounted{disk, other}, "", false},
		{"moved", []Mounted{disk, at(7, "/elsewhere"), other}, "/elsewhere", false},
		{"on top", []Mounted{disk, other, ours}, "/m", false},
		{"covered", []Mounted{disk, ours, other}, "/m", true},
		{"covered by a disk", []Mounted{disk, ours, at(0, "/m")}, "/m", true},
		{"covered, and bound to another place", []Mounted{disk, ours, other, at(7, "/b")}, "/b", false},
		{"bound to another place", []Mounted{disk, ours, at(7, "/b")}, "/m", false},
	} {
		if path, covered := placeOf(7, c.table); path != c.path || covered != c.covered {
			t.Errorf("%s: %q, %v", c.name, path, covered)
		}
	}
}
