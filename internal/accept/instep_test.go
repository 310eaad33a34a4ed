package accept

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/foreverfs/forever/internal/control"
)

// mountOf returns what n says of the mount of another node.
func (n *node) mountOf(name string) control.Device {
	n.t.Helper()
	for _, d := range n.status().Devices {
		if d.Name == name {
			return d
		}
	}
	n.t.Fatalf("the status of %s does not name %s", filepath.Base(n.mnt), name)
	return control.Device{}
}

// inStep waits until two mounts are connected, as both see it, and returns since when.
func inStep(t testing.TB, a, b *node) time.Time {
	t.Helper()
	nameA, nameB := a.deviceName(), b.deviceName()
	var since time.Time
	until(t, 20*time.Second, "mounts in step", func() bool {
		of, back := a.mountOf(nameB), b.mountOf(nameA)
		since = of.MountSince
		if back.MountSince.After(since) {
			since = back.MountSince
		}
		return of.Mount == "connected" && back.Mount == "connected"
	})
	return since
}

// allInStep waits until every two of some mounts are connected.
func allInStep(t testing.TB, nodes ...*node) {
	t.Helper()
	for i, n := range nodes {
		for _, o := range nodes[:i] {
			inStep(t, n, o)
		}
	}
}

// parted reports whether two mounts have lost each other since they were in step, which may happen when a node gets no processor
// for as long as its lease lasts. Nobody promises anything for that.
func parted(t testing.TB, a, b *node, since time.Time) bool {
	t.Helper()
	return !inStep(t, a, b).Equal(since)
}

// skipIfParted is for before something fails that holds of mounts in step.
func skipIfParted(t testing.TB, a, b *node, since time.Time) {
	t.Helper()
	if parted(t, a, b, since) {
		t.Skip("the mounts lost each other, which nobody promises anything for")
	}
}

// steps runs rounds that must never see anything old, a changing and b looking, and
// the other way round. A round that does is excused only if the mounts were cut off
// from each other meanwhile, which may happen when nodes get no processor; not often.
func steps(t *testing.T, a, b *node, what string, rounds int, round func(i int, by, at *node) error) {
	t.Helper()
	since := inStep(t, a, b)
	lost := 0
	var longest time.Duration
	begin := time.Now()
	for i := range rounds {
		by, at := a, b
		if i%2 == 1 {
			by, at = b, a
		}
		start := time.Now()
		err := round(i, by, at)
		longest = max(longest, time.Since(start))
		if err == nil {
			continue
		}
		now := inStep(t, a, b)
		if now.Equal(since) {
			t.Fatalf("%s, round %d: %v, with the mounts in step since %v", what, i, err, since)
		}
		since = now
		if lost++; lost > 3 {
			t.Fatalf("%s, round %d: the mounts lose each other all the time", what, i)
		}
	}
	t.Logf("%s: %d rounds, %v each, longest %v, connection lost %d times", what, rounds,
		(time.Since(begin) / time.Duration(rounds)).Round(time.Microsecond), longest.Round(time.Millisecond), lost)
}

// TestCloseToOpen closes, makes, renames and removes on one mount and looks from the other at
// once: with warm caches, never anything old.
func TestCloseToOpen(t *testing.T) {
	a, b := pair(t)
	must(t, os.Mkdir(filepath.Join(a.mnt, "d"), 0o755))
	inStep(t, a, b)
	t.Run("write", func(t *testing.T) { testWrites(t, a, b) })
	t.Run("mkdir", func(t *testing.T) { testMkdirs(t, a, b) })
	t.Run("rename", func(t *testing.T) { testRenames(t, a, b) })
	t.Run("unlink", func(t *testing.T) { testUnlinks(t, a, b) })
	t.Run("chmod", func(t *testing.T) { testChmods(t, a, b) })
	t.Run("setxattr", func(t *testing.T) { testXattrs(t, a, b) })
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (n *node) in(names ...string) string {
	return filepath.Join(append([]string{n.mnt, "d"}, names...)...)
}

func testWrites(t *testing.T, a, b *node) {
	steps(t, a, b, "write, close, read", scale(500, 2000), func(i int, by, at *node) error {
		want := bytes.Repeat(fmt.Appendf(nil, "round %d ", i), 1+i%700)
		if err := os.WriteFile(by.in("f"), want, 0o644); err != nil {
			return err
		}
		got, err := os.ReadFile(at.in("f"))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("read %d bytes %.20q, want %d bytes %.20q", len(got), got, len(want), want)
		}
		info, err := os.Stat(at.in("f"))
		if err == nil && info.Size() != int64(len(want)) {
			err = fmt.Errorf("stat says %d bytes, want %d", info.Size(), len(want))
		}
		return err
	})
}

// listed reports whether reading a directory shows a name.
func listed(dir, name string) (bool, error) {
	list, err := os.ReadDir(dir)
	for _, e := range list {
		if e.Name() == name {
			return true, err
		}
	}
	return false, err
}

// seen checks that a name is there, or is not, for stat and for those who list.
func seen(n *node, name string, want bool) error {
	_, err := os.Lstat(n.in(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if (err == nil) != want {
		return fmt.Errorf("stat of %s: %v, want there: %v", name, err, want)
	}
	got, err := listed(n.in(), name)
	if err == nil && got != want {
		err = fmt.Errorf("%s listed: %v, want %v", name, got, want)
	}
	return err
}

func testMkdirs(t *testing.T, a, b *node) {
	steps(t, a, b, "mkdir", scale(200, 500), func(i int, by, at *node) error {
		name := fmt.Sprintf("dir%d", i)
		if err := seen(at, name, false); err != nil { // and the kernel remembers it
			return err
		}
		if err := os.Mkdir(by.in(name), 0o755); err != nil {
			return err
		}
		if err := seen(at, name, true); err != nil {
			return err
		}
		if err := os.Mkdir(at.in(name, "inner"), 0o755); err != nil {
			return err
		}
		if ok, err := listed(by.in(name), "inner"); err != nil || !ok {
			return fmt.Errorf("inner directory: %v %v", ok, err)
		}
		return nil
	})
}

func testRenames(t *testing.T, a, b *node) {
	must(t, os.WriteFile(a.in("r0"), []byte("renamed"), 0o644))
	must(t, seen(b, "r0", true))
	last := "r0" // a round that is excused may not have come to rename it
	steps(t, a, b, "rename", scale(200, 500), func(i int, by, at *node) error {
		from, to := last, fmt.Sprintf("r%d", i+1)
		if err := errors.Join(seen(at, from, true), seen(at, to, false)); err != nil {
			return err
		}
		if err := os.Rename(by.in(from), by.in(to)); err != nil {
			return err
		}
		last = to
		return errors.Join(seen(at, from, false), seen(at, to, true))
	})
}

func testUnlinks(t *testing.T, a, b *node) {
	steps(t, a, b, "unlink", scale(200, 500), func(i int, by, at *node) error {
		if err := os.WriteFile(by.in("u"), []byte{byte(i)}, 0o644); err != nil {
			return err
		}
		if err := seen(at, "u", true); err != nil {
			return err
		}
		if err := os.Remove(by.in("u")); err != nil {
			return err
		}
		return seen(at, "u", false)
	})
}

func testChmods(t *testing.T, a, b *node) {
	must(t, os.WriteFile(a.in("m"), nil, 0o600))
	steps(t, a, b, "chmod", scale(200, 500), func(i int, by, at *node) error {
		if _, err := os.Stat(at.in("m")); err != nil {
			return err
		}
		mode := fs.FileMode(0o400 + i%0o400)
		if err := os.Chmod(by.in("m"), mode); err != nil {
			return err
		}
		info, err := os.Stat(at.in("m"))
		if err == nil && info.Mode() != mode {
			err = fmt.Errorf("mode %v, want %v", info.Mode(), mode)
		}
		return err
	})
}

func testXattrs(t *testing.T, a, b *node) {
	must(t, os.WriteFile(a.in("x"), nil, 0o600))
	steps(t, a, b, "setxattr", scale(200, 500), func(i int, by, at *node) error {
		want := fmt.Appendf(nil, "value %d", i)
		if err := syscall.Setxattr(by.in("x"), "user.step", want, 0); err != nil {
			return err
		}
		buf := make([]byte, 100)
		n, err := syscall.Getxattr(at.in("x"), "user.step", buf)
		if err == nil && !bytes.Equal(buf[:n], want) {
			err = fmt.Errorf("value %q, want %q", buf[:n], want)
		}
		return err
	})
}

// TestCrossing renames and makes files in one directory from two mounts at once.
// Neither may stand still, and in the end both show the same.
func TestCrossing(t *testing.T) {
	a, b := pair(t)
	must(t, os.Mkdir(filepath.Join(a.mnt, "d"), 0o755))
	inStep(t, a, b)
	const files = 8
	for i := range files {
		must(t, os.WriteFile(a.in(fmt.Sprintf("f%d", i)), []byte("x"), 0o644))
	}
	rounds := scale(2500, 50000)
	var wg sync.WaitGroup
	for w, n := range []*node{a, b, a, b} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			longest, err := cross(n, w, rounds/2, files)
			if err != nil {
				t.Errorf("worker %d: %v", w, err)
			}
			t.Logf("worker %d: longest call %v", w, longest.Round(time.Millisecond))
			if longest > scale(10*time.Second, time.Second) {
				t.Errorf("worker %d: a call took %v", w, longest)
			}
		}()
	}
	wg.Wait()
	sameTree(t, a, b)
}

// cross is one worker of TestCrossing: in turn it moves a file that others move too,
// and makes and removes one of its own.
func cross(n *node, worker, rounds, files int) (longest time.Duration, err error) {
	call := func(fn func() error, allowed ...error) error {
		start := time.Now()
		err := fn()
		longest = max(longest, time.Since(start))
		for _, a := range allowed {
			if errors.Is(err, a) {
				return nil
			}
		}
		return err
	}
	for i := range rounds {
		from, to := fmt.Sprintf("f%d", (i+worker)%files), fmt.Sprintf("f%d", (i*5+worker*3+1)%files)
		if err := call(func() error { return os.Rename(n.in(from), n.in(to)) }, fs.ErrNotExist); err != nil {
			return longest, err
		}
		own := n.in(fmt.Sprintf("w%d-%d", worker, i%100))
		if err := call(func() error { return os.WriteFile(own, []byte("y"), 0o644) }); err != nil {
			return longest, err
		}
		if i%3 == 0 {
			if err := call(func() error { return os.Remove(own) }); err != nil {
				return longest, err
			}
		}
	}
	return longest, nil
}

// sameTree waits until both mounts show the same names and contents.
func sameTree(t *testing.T, a, b *node) {
	t.Helper()
	var one, other string
	until(t, 20*time.Second, "the same on both mounts", func() bool {
		one, other = content(t, a.in()), content(t, b.in())
		return one == other
	})
}

func content(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	must(t, err)
	var out strings.Builder
	for _, e := range list {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil && !errors.Is(err, syscall.EISDIR) {
			data = []byte(err.Error())
		}
		fmt.Fprintf(&out, "%s %q\n", e.Name(), data)
	}
	return out.String()
}

// heldUp writes again and again while the other mount does not answer, which is waited for once. The machine may take its time
// now and then, but not with each write.
func heldUp(t *testing.T, n *node, what string, writes int) {
	t.Helper()
	var stalls []time.Duration
	var sum time.Duration
	for i := range writes {
		d := timed(func() { must(t, os.WriteFile(n.in("f"), fmt.Appendf(nil, "%s %d", what, i), 0o644)) })
		if d > scale(300*time.Millisecond, 100*time.Millisecond) {
			stalls, sum = append(stalls, d.Round(time.Millisecond)), sum+d
		}
	}
	t.Logf("%s: calls that took long: %v", what, stalls)
	if len(stalls) > scale(2, 1) || sum > scale(5*time.Second, time.Second) {
		t.Errorf("a peer that does not answer held up the writer: %v", stalls)
	}
}

// readsInStep expects of a file on b what was written on a, as both are in step.
func readsInStep(t *testing.T, a, b *node, since time.Time, want string) {
	t.Helper()
	if got, err := os.ReadFile(b.in("f")); (err != nil || string(got) != want) && !parted(t, a, b, since) {
		t.Errorf("in step since %v: %q %v, want %q", since, got, err, want)
	}
}

// TestFrozenPeer stops one node's process. The other waits for it once, and both say
// that they were cut off from each other.
func TestFrozenPeer(t *testing.T) {
	a, b := pair(t)
	must(t, os.Mkdir(filepath.Join(a.mnt, "d"), 0o755))
	before := inStep(t, a, b)
	must(t, os.WriteFile(b.in("f"), []byte("before"), 0o644))
	_, err := os.ReadFile(a.in("f"))
	must(t, err)
	nameA, nameB := a.deviceName(), b.deviceName()

	must(t, b.cmd.Process.Signal(syscall.SIGSTOP))
	thaw := sync.OnceFunc(func() { _ = b.cmd.Process.Signal(syscall.SIGCONT) })
	t.Cleanup(thaw)
	heldUp(t, a, "frozen", 200)
	if got := a.mountOf(nameB); got.Mount != "disconnected" {
		t.Errorf("with the peer frozen its mount is %q", got.Mount)
	}
	thaw()
	after := inStep(t, a, b)
	if back := b.mountOf(nameA); !after.After(before) || !back.MountSince.After(before) {
		t.Errorf("the frozen side never knew: in step since %v, before since %v", back.MountSince, before)
	}
	readsInStep(t, a, b, after, "frozen 199")
	must(t, os.WriteFile(a.in("f"), []byte("after"), 0o644))
	readsInStep(t, a, b, after, "after")
}

// TestCutOff pulls the cable between two mounts in a way that nobody is told of. A writer waits
// once, and each side comes to know that it is cut off.
func TestCutOff(t *testing.T) {
	fsmount(t)
	l := newLAN(t, 2)
	a := l.newNode(0, "")
	b := l.newNode(1, strings.TrimSpace(a.command("invite")))
	must(t, os.Mkdir(filepath.Join(a.mnt, "d"), 0o755))
	inStep(t, a, b)
	nameA, nameB := a.deviceName(), b.deviceName()
	must(t, os.WriteFile(a.in("f"), []byte("before"), 0o644))
	_, err := os.ReadFile(b.in("f"))
	must(t, err)

	l.cut(1, pullSilent)
	heldUp(t, a, "cut off", 100)
	for n, peer := range map[*node]string{a: nameB, b: nameA} {
		if got := n.mountOf(peer); got.Mount != "disconnected" {
			t.Errorf("cut off, %s says that the mount of %s is %q", filepath.Base(n.mnt), peer, got.Mount)
		}
	}
	l.join(1)
	since := inStep(t, a, b)
	must(t, os.WriteFile(a.in("f"), []byte("after"), 0o644))
	readsInStep(t, a, b, since, "after")
}

// TestThreeInStep has three mounts take turns: what one does, both others see at once.
func TestThreeInStep(t *testing.T) {
	a, b := pair(t)
	c := newNode(t, "c", strings.TrimSpace(a.command("invite")))
	nodes := []*node{a, b, c}
	must(t, os.Mkdir(filepath.Join(a.mnt, "d"), 0o755))
	all := func() (since [3]time.Time) {
		return [3]time.Time{inStep(t, a, b), inStep(t, b, c), inStep(t, a, c)}
	}
	last := "start"
	must(t, os.WriteFile(a.in(last), nil, 0o644))
	before := all()
	for i := range scale(150, 2000) {
		by := nodes[i%3]
		err := threeRound(nodes, by, i, &last)
		if err == nil {
			continue
		}
		if now := all(); now != before {
			before = now // cut off meanwhile, which has a test of its own
			continue
		}
		t.Fatalf("round %d by %s: %v", i, filepath.Base(by.mnt), err)
	}
}

// threeRound has one node change things, and all look. It notes the new name of the file, since not every round gets that far.
func threeRound(nodes []*node, by *node, i int, last *string) error {
	old, name, want := *last, fmt.Sprintf("f%d", i), fmt.Appendf(nil, "round %d", i)
	if err := os.Rename(by.in(old), by.in(name)); err != nil {
		return err
	}
	*last = name
	if err := os.WriteFile(by.in(name), want, 0o644); err != nil {
		return err
	}
	for _, n := range nodes {
		got, err := os.ReadFile(n.in(name))
		if err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("%s reads %q, %w", filepath.Base(n.mnt), got, err)
		}
		if err := errors.Join(seen(n, old, false), seen(n, name, true)); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(n.mnt), err)
		}
	}
	return nil
}

// TestEventual has one of two mounts wait for nobody: changes arrive, nothing waits
// for them, and the other one counts it as disconnected.
func TestEventual(t *testing.T) {
	a := newNode(t, "a", "", "--consistency", "eventual")
	b := newNode(t, "b", strings.TrimSpace(a.command("invite")))
	must(t, os.Mkdir(filepath.Join(a.mnt, "d"), 0o755))
	until(t, 10*time.Second, "the directory on the other mount", func() bool {
		_, err := os.Stat(b.in())
		return err == nil
	})
	for i := range 50 {
		name := fmt.Sprintf("f%d", i)
		if d := timed(func() { must(t, os.WriteFile(b.in(name), nil, 0o644)) }); d > time.Second {
			t.Errorf("a write waited %v", d)
		}
		until(t, 10*time.Second, "the file on the other mount", func() bool { return seen(a, name, true) == nil })
	}
	if got := b.mountOf(a.deviceName()); !got.Connected || got.Mount == "connected" {
		t.Errorf("connected %v, its mount %q", got.Connected, got.Mount)
	}
	if got := a.mountOf(b.deviceName()); got.Mount != "" {
		t.Errorf("a node that keeps no leases says of a mount that it is %q", got.Mount)
	}
}
