package accept

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestNeverTogether has two members that are never up at the same time work through a keyless replica: all of the
// work of one reaches the other and back, and nothing of it shows on the replica's disk.
func TestNeverTogether(t *testing.T) {
	a := newNode(t, "a", "")
	r := newReplica(t, "r", a)
	b := newNode(t, "b", a.command("invite"))
	a.until(10*time.Second, "connections", func() bool { return a.connected() == 2 && r.connected() == 2 })
	b.stop()
	up, down := a, b
	large := bytes.Repeat([]byte(plantedContent), 4000)
	a.write("story", plantedContent)
	for round := range scale(4, 20) {
		dir := filepath.Join(up.mnt, fmt.Sprintf("%s %d", plantedName, round))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string][]byte{"large": append(large, fmt.Sprint(round)...), "small": []byte(plantedContent), "gone": large} {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Remove(filepath.Join(dir, "gone")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(plantedContent, filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		if err := unix.Setxattr(filepath.Join(dir, "small"), "user."+plantedName, []byte(plantedContent), 0); err != nil {
			t.Fatal(err)
		}
		if round > 0 { // on what the other left
			before := filepath.Join(up.mnt, fmt.Sprintf("%s %d", plantedName, round-1))
			if err := os.Rename(filepath.Join(before, "small"), filepath.Join(dir, "moved")); err != nil {
				t.Fatal(err)
			}
		}
		f, err := os.OpenFile(filepath.Join(up.mnt, "story"), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(f, "%s in round %d\n", plantedContent, round)
		if cerr := f.Close(); err != nil || cerr != nil {
			t.Fatal(err, cerr)
		}
		up.command("wait", "--timeout", "60s")
		want, err := show(up.mnt)
		if err != nil {
			t.Fatal(err)
		}
		up.stop()
		up, down = down, up
		up.start()
		var diff string
		up.until(20*time.Second, "the tree of the other", func() bool {
			got, err := show(up.mnt)
			diff = differences(want, got)
			return err == nil && diff == ""
		})
	}
	if h := up.command("history", "story"); len(historyRef.FindAllString(h, -1)) < 4 {
		t.Errorf("history through the replica:\n%s", h)
	}
	up.stop()
	_ = down
	r.stop()
	marks := markers(t, large)
	for what, p := range markers(t, []byte(plantedContent)) {
		marks["small "+what] = p
	}
	bytesRead := 0
	eachFile(t, r.data, func(name string, data []byte) {
		bytesRead += len(data)
		for what, p := range marks {
			if bytes.Contains(data, p) {
				t.Errorf("%s is in %s", what, name)
			}
		}
	})
	t.Logf("%d forms of the planted names and contents looked for in %d bytes of the replica's", len(marks), bytesRead)
}

// TestSeveralVolumes has one process serve two volumes of different owners behind one port, each with a quota:
// nothing of one is in the other's part, and what befalls one leaves the other alone.
func TestSeveralVolumes(t *testing.T) {
	one := newNode(t, "one", "")
	two := newNode(t, "two", "")
	r := newReplica(t, "r", one)
	r.command("join", strings.TrimSpace(two.command("invite", "--replica")), "--quota", "8MiB")
	var sub string
	r.until(10*time.Second, "the second volume", func() bool {
		st := r.status()
		if len(st.Volumes) == 1 {
			sub = st.Volumes[0].DataDir
		}
		return sub != "" && st.Volumes[0].Problem == "" && two.connected() == 1
	})
	second := two.status().Volume
	for _, n := range []*node{one, two} {
		n.write("file", strings.Repeat(filepath.Base(n.mnt)+" has this\n", 20000))
		n.command("wait", "--timeout", "30s")
	}
	inFirst, inSecond := chunksOf(t, r), chunksOf(t, &node{t: t, data: sub})
	if len(inFirst) == 0 || len(inSecond) == 0 {
		t.Fatalf("%d and %d chunks", len(inFirst), len(inSecond))
	}
	for id := range inFirst {
		if inSecond[id] != nil {
			t.Errorf("chunk %v is in both volumes", id)
		}
	}
	// Another member joins by way of the replica's port alone: it must get to the right volume.
	if said := r.fails("join", strings.TrimSpace(two.command("invite"))); !strings.Contains(said, "keyless") {
		t.Errorf("a member in the directory of a keyless replica: %s", said)
	}
	if out := r.command("quota", "--volume", second[:8]); !strings.HasPrefix(out, "8.0 MiB, ") {
		t.Errorf("quota: %q", out)
	}

	// The second is over its quota: both sides say so, and so does wait; the first goes on.
	noise := make([]byte, 16<<20)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(noise)
	for _, n := range []*node{two, one} {
		if err := os.WriteFile(filepath.Join(n.mnt, "noise"), noise, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	one.command("wait", "--timeout", "60s")
	if said := two.fails("wait", "--timeout", "30s"); !strings.Contains(said, "takes no more") {
		t.Errorf("wait for a device that is full: %s", said)
	}
	if d := two.status().Devices[1]; !d.Full {
		t.Errorf("the member does not see that the replica is full: %+v", d)
	}
	if out := r.command("status", "--volume", second[:8]); !strings.Contains(out, "no room") || !strings.Contains(out, "of 8.0 MiB used") {
		t.Errorf("status of the full volume:\n%s", out)
	}
	size := int64(0)
	eachFile(t, sub, func(_ string, data []byte) { size += int64(len(data)) })
	if size > 9<<20 {
		t.Errorf("%d bytes on the disk with a quota of 8 MiB", size)
	}
	r.command("quota", "100MiB", "--volume", second[:8])
	two.command("wait", "--timeout", "30s")

	// After a restart both are there; then the second one's directory is damaged, and the first goes on.
	r.stop()
	r.start()
	for _, n := range []*node{one, two} {
		n.until(20*time.Second, "the replica", func() bool { return n.connected() == 1 })
	}
	r.stop()
	if err := os.WriteFile(filepath.Join(sub, "format"), []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	one.until(20*time.Second, "the replica", func() bool { return one.connected() == 1 })
	one.write("later", "later\n")
	one.command("wait", "--timeout", "30s")
	if st := r.status(); len(st.Volumes) != 1 || st.Volumes[0].Problem == "" {
		t.Errorf("a volume that cannot be served: %+v", st.Volumes)
	}
	if out := r.command("status"); !strings.Contains(out, "also serves") {
		t.Errorf("status:\n%s", out)
	}
}

// TestScrubNotices flips one bit in each file of a keyless replica that is down, in turn: fsmount scrub, or the
// start that it needs, notices. With a member that is up, damaged chunks are mended.
func TestScrubNotices(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	a := newNode(t, "a", "")
	r := newReplica(t, "r", a)
	noise := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(noise)
	if err := os.WriteFile(filepath.Join(a.mnt, "noise"), noise, 0o644); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		a.write(fmt.Sprint("file ", i), strings.Repeat(fmt.Sprintln("content", i), 10*i))
	}
	a.command("wait", "--timeout", "30s")
	r.stop()
	r.start() // so that tables are on the disk
	r.until(10*time.Second, "the member", func() bool { return r.connected() == 1 })
	r.stop()
	if out := r.command("scrub"); !strings.Contains(out, "nothing is damaged") {
		t.Fatalf("an undamaged directory: %s", out)
	}
	var files []string
	err := filepath.WalkDir(r.data, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(r.data, path)
		if err == nil && e.Type().IsRegular() && !strings.EqualFold(filepath.Base(name), "lock") {
			if info, err := e.Info(); err == nil && info.Size() > 0 {
				files = append(files, name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, name := range files {
		times := scale(3, 30)
		for range times {
			data := filepath.Join(t.TempDir(), "copy")
			if err := os.CopyFS(data, os.DirFS(r.data)); err != nil {
				t.Fatal(err)
			}
			where := flipIn(t, rng, filepath.Join(data, name))
			c := &node{t: t, data: data}
			out, err := c.try(nil, "scrub")
			if err == nil && strings.Contains(out, "nothing is damaged") {
				t.Errorf("%s: %s flipped, and nothing noticed: %s", name, where, out)
			}
			tried++
			_ = os.RemoveAll(data)
		}
	}
	t.Logf("%d bits in %d files: %v", tried, len(files), files)

	// Damaged packs are mended from the member.
	packs, err := filepath.Glob(filepath.Join(r.data, "chunks", "*.pack"))
	if err != nil || len(packs) == 0 {
		t.Fatal(err, packs)
	}
	for range 5 {
		flipIn(t, rng, packs[rng.IntN(len(packs))])
	}
	r.start()
	r.until(10*time.Second, "the member", func() bool { return r.connected() == 1 })
	out := r.command("scrub")
	if !strings.Contains(out, "mended") && !strings.Contains(out, "anew") {
		t.Errorf("scrub with a member that has all: %s", out)
	}
	if out := r.command("scrub"); !strings.Contains(out, "nothing is damaged") {
		t.Errorf("after mending: %s", out)
	}
	// All is there: a newcomer reads it with the member down.
	b := newNode(t, "b", a.command("invite"))
	b.until(10*time.Second, "connections", func() bool { return b.connected() == 2 })
	want, err := show(a.mnt)
	if err != nil {
		t.Fatal(err)
	}
	a.stop()
	got, err := show(b.mnt)
	if err != nil {
		t.Fatal(err)
	}
	if diff := differences(want, got); diff != "" {
		t.Error(diff)
	}
}

// flipIn flips a bit of a file and says which.
func flipIn(t *testing.T, rng *rand.Rand, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at, bit := rng.IntN(len(b)), rng.IntN(8)
	b[at] ^= 1 << bit
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("bit %d of byte %d of %d", bit, at, len(b))
}
