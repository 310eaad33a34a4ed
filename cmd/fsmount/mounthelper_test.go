package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/foreverfs/forever/internal/fail"
)

func TestHelperCalls(t *testing.T) {
	for _, c := range []struct {
		argv string
		want string // the command line of fsmount; empty: it is no call as a helper
	}{
		{"/sbin/mount.fsmount /d /m -o rw", "--daemon --data /d -- /m"},
		{"mount.fuse.fsmount /d /m -n -v -s -o rw,no_such_thing,x-systemd.automount", "--daemon --data /d -- /m"},
		{"mount.fsmount forever /m -o ro,data=/e,allow_other,listen=:5000,peer=a:1,peer=b:2", "--daemon --data /e --read-only --allow-other --listen=:5000 --peer=a:1 --peer=b:2 -- /m"},
		{"mount.fsmount /d /m -o ro,rw,noexec,noatime,nofail,_netdev,user,defaults,lan=false -t fsmount", "--daemon --data /d --mount-option=noexec --mount-option=noatime --lan=false -- /m"},
		{"mount.fsmount /d /m -r -o sync_replicas=2,upload-limit=2MB,log-json", "--daemon --data /d --sync-replicas=2 --upload-limit=2MB --log-json --read-only -- /m"},
		{`mount.fsmount /d /m -o rw,data="/with,comma",comment=x,X-mount.mkdir`, "--daemon --data /with,comma -- /m"},
		{"/usr/bin/fsmount /d /m -o rw,dev,suid", "--daemon --data /d -- /m"},
		{"mount.fsmount /d /m -o rw,allow_dev,allow_suid,nodiratime", "--daemon --data /d --mount-option=dev --mount-option=suid -- /m"},
		{"fsmount /m", ""},
		{"fsmount put file path", ""},
		{"fsmount get path -", ""},
	} {
		args, ok := helperArgs(strings.Fields(c.argv))
		if !ok {
			if c.want != "" {
				t.Errorf("%s: not taken for a call as a helper", c.argv)
			}
			continue
		}
		call, err := parseHelper(args)
		if err != nil {
			t.Errorf("%s: %v", c.argv, err)
			continue
		}
		if diff := cmp.Diff(c.want, strings.Join(call.command(), " ")); diff != "" {
			t.Errorf("%s: %s", c.argv, diff)
		}
	}
}

func TestHelperRefuses(t *testing.T) {
	for options, words := range map[string]string{
		"no_such_thing": "no_such_thing", "listen": "lacks a value", "daemon": "unknown", "join=x": "unknown",
		"ready-fd=3": "unknown", "data=rel/ative": "absolute",
	} {
		_, err := parseHelper([]string{"/d", "/m", "-o", "rw," + options})
		if fail.KindOf(err) != fail.Usage || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", options, err)
		}
	}
	for _, args := range [][]string{{}, {"/d"}, {"/d", "/m", "/n"}, {"/d", "/m", "-o"}, {"/d", "/m", "-z"}} {
		if _, err := parseHelper(args); fail.KindOf(err) != fail.Usage {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// helperDir makes a directory that stands for /sbin: with this program as helper
// under the given names, and under its own.
func helperDir(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range append(names, "fsmount") {
		if err := os.Symlink(fsmount(t), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// outcomeOf runs a command of a machine.
func outcomeOf(t *testing.T, name string, args ...string) result {
	t.Helper()
	cmd := exec.Command(name, args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return result{code: cmd.ProcessState.ExitCode(), out: out.String(), err: errs.String()}
}

// TestHelperMounts calls the helper as mount(8) does.
func TestHelperMounts(t *testing.T) {
	needMount(t)
	m := newMachine(t)
	helper := filepath.Join(helperDir(t, "mount.fsmount"), "mount.fsmount")
	args := []string{m.data, m.mount, "-n", "-o", "rw,noexec,nosuid,nodev,noatime,listen=127.0.0.1:0,lan=false,nofail"}
	checkFailure(t, outcomeOf(t, helper, args...), mountFailure, "fsmount init", args)
	m.must("init")
	bad := []string{m.data, m.mount, "-o", "rw,colour=blue"}
	checkFailure(t, outcomeOf(t, helper, bad...), mountUsage, "colour=blue", bad)
	if r := outcomeOf(t, helper, append([]string{"-f"}, args...)...); r.code != 0 || m.running() {
		t.Errorf("-f: exit code %d, running %v", r.code, m.running())
	}
	t.Cleanup(m.end)
	if r := outcomeOf(t, helper, args...); r.code != 0 || r.out+r.err != "" {
		t.Fatalf("exit code %d: %s%s", r.code, r.out, r.err)
	}
	script := filepath.Join(m.mount, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(script).Run(); err == nil {
		t.Error("a program runs from a mount with noexec")
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(m.mount, &st); err != nil {
		t.Fatal(err)
	}
	const want = 0x2 | 0x4 | 0x8 | 0x400 // ST_NOSUID, ST_NODEV, ST_NOEXEC, ST_NOATIME
	if st.Flags&want != want {
		t.Errorf("flags of the mount: %#x", st.Flags)
	}
	checkFailure(t, outcomeOf(t, helper, args...), mountFailure, "in use", args)
	// What umount(8) takes away can be mounted again at once.
	for range 3 {
		if err := syscall.Unmount(m.mount, 0); err != nil {
			t.Fatal(err)
		}
		if r := outcomeOf(t, helper, args...); r.code != 0 {
			t.Fatalf("mounting again: exit code %d: %s", r.code, r.err)
		}
	}
	// Nor is a mount in the way whose node was killed.
	m.kill()
	if r := outcomeOf(t, helper, args...); r.code != 0 {
		t.Fatalf("after kill -9: exit code %d: %s", r.code, r.err)
	}
	if _, err := os.Stat(script); err != nil {
		t.Error(err)
	}
	m.must("umount", m.mount)
}

// TestMountCommand has mount(8) itself find the helper, by type and in a table of mounts.
func TestMountCommand(t *testing.T) {
	needMount(t)
	fuse, err := filepath.EvalSymlinks("/sbin/mount.fuse")
	if err != nil {
		fuse = ""
	}
	sbin, err := filepath.EvalSymlinks("/sbin")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ helpers, how string }{
		"type fsmount": {"mount.fsmount", `mount -t fsmount "$data" "$mnt" -o ro,"$opts"; ! touch "$mnt/f" 2>&- && umount "$mnt" && mount -t fsmount "$data" "$mnt" -o "$opts"`},
		"remount": {"mount.fsmount mount.fuse.forever", `mount -t fsmount "$data" "$mnt" -o noexec,"$opts"
				mount -o remount,ro "$mnt"; ! touch "$mnt/f" 2>&-; findmnt -no OPTIONS "$mnt" | grep -E '^ro,nosuid,nodev,noexec'
				mount -o remount,rw,exec "$mnt"; touch "$mnt/f"; findmnt -no OPTIONS "$mnt" | grep -E '^rw,nosuid,nodev,noatime'
				mount -o remount,allow_suid "$mnt"; findmnt -no OPTIONS "$mnt" | grep -E '^rw,nodev,noatime'
				mount -o remount,ro "$mnt"; findmnt -no OPTIONS "$mnt" | grep -E '^ro,nodev,noatime'; mount -o remount,rw "$mnt"`},
		"remount of what only reads": {"mount.fsmount mount.fuse.forever", `mount -t fsmount "$data" "$mnt" -o ro,"$opts"
				! mount -o remount,rw "$mnt" 2>"$data.said"; grep read-only "$data.said"; findmnt -no OPTIONS "$mnt" | grep ^ro
				mount -o remount,ro,noexec "$mnt"; umount "$mnt"; mount -t fsmount "$data" "$mnt" -o "$opts"`},
		"type fuse.fsmount": {"mount.fuse.fsmount", `mount -t fuse.fsmount forever "$mnt" -o data="$data","$opts"`},
		"by mount.fuse":     {"mount.fuse", `mount -t fuse.fsmount "$data" "$mnt" -o "$opts"`},
		"table":             {"mount.fsmount", `echo "$data $mnt fsmount defaults,noauto,nofail,x-systemd.automount,$opts 0 0" > "$data.tab"; mount -T "$data.tab" "$mnt"`},
		"table, all":        {"mount.fuse.fsmount", `echo "$data $mnt fuse.fsmount _netdev,$opts 0 0" > "$data.tab"; mount -T "$data.tab" -a && mount -T "$data.tab" -a`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := helperDir(t, strings.Fields(c.helpers)...)
			if c.helpers == "mount.fuse" {
				if fuse == "" {
					t.Skip("no /sbin/mount.fuse here")
				}
				dir = helperDir(t)
				copyFile(t, fuse, filepath.Join(dir, "mount.fuse"))
			}
			m := newMachine(t)
			m.must("init")
			t.Cleanup(m.end)
			// In a mount namespace of its own, in which /sbin has these helpers only.
			script := leaveMounts("") + fmt.Sprintf(`set -e
				mnt=%q data=%q opts=listen=127.0.0.1:0,lan=false,noatime
				mount --bind %q %q
				export PATH=/bin:/usr/bin:%[4]s
				%[5]s
				mountpoint -q "$mnt"
				echo hello > "$mnt/file"
				umount "$mnt"
				! mountpoint -q "$mnt"`, m.mount, m.data, dir, sbin, c.how)
			r := outcomeOf(t, "unshare", "-m", "--propagation", "private", "sh", "-c", script)
			if r.code != 0 && strings.Contains(r.err, "unshare failed") {
				t.Skip(r.err)
			}
			if r.code != 0 {
				log, _ := os.ReadFile(filepath.Join(m.data, "log"))
				t.Fatalf("exit code %d: %s%s\n%s", r.code, r.out, r.err, log)
			}
			m.until("its end", func() bool { return !m.running() })
			if got := m.must("cat", "file"); got != "hello" {
				t.Errorf("read %q", got)
			}
		})
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

// kill ends the machine's node as a crash does.
func (m *machine) kill() {
	m.t.Helper()
	pid := 0
	b, err := os.ReadFile(filepath.Join(m.data, "lock"))
	if _, serr := fmt.Sscan(string(b), &pid); err != nil || serr != nil || pid <= 1 {
		m.t.Fatalf("who runs? %v %v", err, serr)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		m.t.Fatal(err)
	}
	// It is a daemon: nobody here waits for it, and until the last of its threads has gone its socket may still be there.
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") && len(threads) <= 1 {
			return
		}
	}
	m.t.Fatal("what was killed is still there")
}

// TestMountAfterKill finds that a killed node's dead mount is in nobody's way.
func TestMountAfterKill(t *testing.T) {
	needMount(t)
	m := newMachine(t)
	m.must("--daemon", "--listen", "127.0.0.1:0", m.mount)
	t.Cleanup(func() { m.run(nil, "umount", m.mount) })
	file := filepath.Join(m.mount, "file")
	link := m.mount + "-link"
	if err := os.Symlink(m.mount, link); err != nil {
		t.Fatal(err)
	}
	for i, point := range []string{m.mount, link, filepath.Join(filepath.Dir(m.mount), "dir", "..", "mnt")} {
		text := fmt.Sprintf("round %d", i)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		open, err := os.Open(file) // a program that goes on using the dead mount
		if err != nil {
			t.Fatal(err)
		}
		defer open.Close()
		if err := syncFile(file); err != nil {
			t.Fatal(err)
		}
		m.kill()
		m.must("--daemon", "--listen", "127.0.0.1:0", point)
		if b, err := os.ReadFile(file); err != nil || string(b) != text {
			t.Errorf("%s after kill -9: %q, %v", point, b, err)
		}
		if mounts := mountsAt(t, m.mount); len(mounts) != 1 {
			t.Errorf("mounted there: %q", mounts)
		}
	}
	// Nor in that of another node, if it was one of ours.
	m.kill()
	m.until("its end", func() bool { return !m.running() })
	other := newMachine(t)
	other.must("--daemon", "--listen", "127.0.0.1:0", m.mount)
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the other node's mount has the file: %v", err)
	}
	m.fails(7, "already a mount of the node in "+other.data, "--daemon", "--listen", "127.0.0.1:0", m.mount)
	if mounts := mountsAt(t, m.mount); len(mounts) != 1 || !strings.Contains(mounts[0], other.data) {
		t.Errorf("mounted there: %q", mounts)
	}
	other.kill()
	other.must("umount", m.mount) // also without a node
	if mounts := mountsAt(t, m.mount); len(mounts) != 0 {
		t.Errorf("still mounted: %q", mounts)
	}
}

func syncFile(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func mountsAt(t *testing.T, point string) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(strings.Split(string(b), "\n"), func(line string) bool {
		return !strings.Contains(line, " "+point+" ")
	})
}
