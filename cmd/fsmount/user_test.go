package main

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// TestMountOfAUser has somebody who is not root make a volume and use it: it is his.
func TestMountOfAUser(t *testing.T) {
	needMount(t)
	for _, program := range []string{"unshare", "setpriv", "fusermount3"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	// fusermount3 serves only who has a name. In a mount namespace of its own, in which everybody may mount, and the program is where he can get at it.
	script := leaveMounts("") + fmt.Sprintf(`set -e
		mount -t tmpfs -o mode=1777 none /mnt
		cp %q /mnt/fsmount
		mknod -m 666 /mnt/fuse c 10 229
		mount --bind /mnt/fuse /dev/fuse
		cd /mnt
		exec setpriv --reuid nobody --regid 12345 --clear-groups env HOME=/mnt/home sh -ec '
			mkdir home m
			node="./fsmount --data /mnt/home/data"
			$node --daemon --listen 127.0.0.1:0 --lan=false m
			trap "$node umount m" EXIT
			stat -c %%U:%%g:%%a m
			mkdir m/dir
			echo hello > m/dir/file
			cat m/dir/file
			chmod 700 m'`, fsmount(t))
	r := outcomeOf(t, "unshare", "-m", "--propagation", "private", "sh", "-c", script)
	if r.code != 0 && (strings.Contains(r.err, "unshare failed") || strings.Contains(r.err, "mknod")) {
		t.Skip(r.err)
	}
	if want := "nobody:12345:755\nhello\n"; r.code != 0 || !strings.HasSuffix(r.out, want) {
		t.Errorf("exit code %d: %s%s", r.code, r.out, r.err)
	}
}
