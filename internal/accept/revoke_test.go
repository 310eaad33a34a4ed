package accept

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/foreverfs/forever/casstore"
	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/cipher"
	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/replica"
	"github.com/foreverfs/forever/replica/replicapb"
)

// sees returns how a node sees another by its name; nil if it does not.
func (n *node) sees(name string) *control.Device {
	for _, d := range n.status().Devices {
		if d.Name == name {
			return &d
		}
	}
	return nil
}

func (n *node) problems() string { return strings.Join(n.status().Problems, "\n") }

func (n *node) write(name, content string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.mnt, name), []byte(content), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) reads(name, content string) bool {
	b, err := os.ReadFile(filepath.Join(n.mnt, name))
	return err == nil && string(b) == content
}

// fails runs a command that must fail, and returns what it says.
func (n *node) fails(args ...string) string {
	n.t.Helper()
	_, err := n.try(nil, args...)
	if err == nil {
		n.t.Errorf("fsmount %s went well", strings.Join(args, " "))
		return ""
	}
	return err.Error()
}

// TestRevoke throws a member out of a volume of three members and a keyless replica. A thief has its data
// directory and the phrase that it once showed: the others refuse it, and nothing that is written
// later can be opened with that.
func TestRevoke(t *testing.T) {
	d := newNode(t, "d", "") // the founder, which was shown the phrase
	phrase := strings.TrimSpace(lineAfter(d.log.String(), "Recovery phrase:"))
	if _, err := cipher.ParsePhrase(phrase); err != nil {
		t.Fatalf("the founder shows no phrase: %v", err)
	}
	a := newNode(t, "a", d.command("invite"))
	b := newNode(t, "b", d.command("invite"))
	r := newReplica(t, "r", d)
	all := []*node{a, b, r}
	for i, n := range []*node{d, a, b, r} {
		n.until(10*time.Second, "connections", func() bool { return n.connected() == 3 })
		n.command("devices", "rename", n.deviceName(), []string{"dee", "ann", "bob", "rep"}[i])
	}
	old := strings.Repeat("what was readable before\n", 2000)
	d.write("before", old)
	d.write("by d", "by d\n")
	for _, n := range []*node{a, b} {
		n.until(30*time.Second, "the file of d", func() bool { return n.reads("by d", "by d\n") && n.sees("dee") != nil && n.sees("rep") != nil })
	}
	d.command("wait", "--replicas", "3", "--timeout", "30s")
	before := chunksOf(t, r)

	// In force on every connected device within a second.
	began := time.Now()
	a.command("devices", "revoke", "dee", "--reason", "stolen")
	for _, n := range all {
		n.until(10*time.Second, "the revocation", func() bool { return n.sees("dee") == nil })
	}
	d.until(10*time.Second, "no connection of d's", func() bool { return d.connected() == 0 })
	took := time.Since(began)
	t.Logf("in force on every device %v after the command began", took.Round(time.Millisecond))
	if full && took > time.Second {
		t.Errorf("a revocation was in force only after %v", took)
	}
	d.until(10*time.Second, "word of it in d's status", func() bool { return strings.Contains(d.problems(), "revoked") })
	newPhrase := strings.TrimSpace(a.command("key", "export"))

	// What d holds stays readable there, what it writes stays there.
	if !d.reads("before", old) {
		t.Error("what d holds is not readable there any more")
	}
	d.write("late", "by d, late\n")
	for _, args := range [][]string{{"devices", "revoke", "ann"}, {"config", "set", "replicas", "2"}, {"devices", "rename", "ann", "x"}, {"key", "export"}, {"invite"}} {
		if said := d.fails(args...); !strings.Contains(said, "right") {
			t.Errorf("%v: %s", args, said)
		}
	}

	// The others go on, under keys that d does not have.
	secret := strings.Repeat("what d must not read ", 1000)
	a.write("secret", secret)
	b.write("before", "changed by b\n")
	a.until(30*time.Second, "the work of b", func() bool { return a.reads("before", "changed by b\n") })
	b.until(30*time.Second, "the work of a", func() bool { return b.reads("secret", secret) && b.reads("by d", "by d\n") })
	for _, n := range []*node{a, b} {
		n.command("wait", "--replicas", "2", "--timeout", "30s")
		if _, err := os.Stat(filepath.Join(n.mnt, "late")); err == nil {
			t.Error("what d wrote when it was out came through")
		}
	}

	// The thief starts a copy, and tries the phrase.
	d.stop()
	thief := &node{t: t, data: filepath.Join(t.TempDir(), "stolen"), mnt: t.TempDir(), listen: ownAddress()}
	if err := os.CopyFS(thief.data, os.DirFS(d.data)); err != nil {
		t.Fatal(err)
	}
	thief.start()
	thief.until(10*time.Second, "word of it", func() bool { return strings.Contains(thief.problems(), "revoked") })
	for _, n := range []*node{a, b, r} {
		thief.failsToRecover(phrase, n, "retired")
		if n.sees("dee") != nil {
			t.Error("the thief is in")
		}
	}
	if thief.connected() != 0 {
		t.Error("the thief is connected")
	}
	if _, err := os.Stat(filepath.Join(thief.mnt, "secret")); err == nil {
		t.Error("the thief sees what was written later")
	}
	thief.stop()
	r.stop()
	opensNothing(t, thief, phrase, r, before)

	// The new phrase works, by way of b.
	n := &node{t: t, data: filepath.Join(t.TempDir(), "n-data"), mnt: t.TempDir(), listen: ownAddress()}
	if _, err := n.try(strings.NewReader(newPhrase+"\n"), "recover", "--from", b.listen); err != nil {
		t.Fatal(err)
	}
	n.start()
	n.until(10*time.Second, "the tree", func() bool { return n.reads("secret", secret) && n.reads("before", "changed by b\n") })
}

// lineAfter returns the last line of a text behind a mark.
func lineAfter(text, mark string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, mark) && i+2 < len(lines) {
			return lines[i+2]
		}
	}
	return ""
}

// failsToRecover tries to let a machine in with a phrase.
func (n *node) failsToRecover(phrase string, from *node, word string) {
	n.t.Helper()
	m := &node{t: n.t, data: filepath.Join(n.t.TempDir(), "m-data")}
	_, err := m.try(strings.NewReader(phrase+"\n"), "recover", "--from", from.listen)
	if err == nil || !strings.Contains(err.Error(), word) {
		n.t.Errorf("recovery with a phrase that does not count: %v", err)
	}
	if _, err := os.Stat(filepath.Join(m.data, "key")); err == nil {
		n.t.Error("a recovery that failed leaves keys behind")
	}
}

// chunksOf returns the chunks on the disk of a node, from a copy.
func chunksOf(t *testing.T, n *node) map[chunk.ID][]byte {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "chunks")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(n.data, "chunks"))); err != nil {
		t.Fatal(err)
	}
	s, err := casstore.Open(casstore.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	items, err := s.Since(casstore.Position{}, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	out := map[chunk.ID][]byte{}
	for _, item := range items {
		if out[item.ID], err = s.Get(t.Context(), nil, item.ID); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// opensNothing takes every key that a stolen data directory and a phrase give, with what is on the disk of a keyless
// replica, and tries it on every chunk and batch there: those from before open, those from later do not.
func opensNothing(t *testing.T, thief *node, phrase string, r *node, before map[chunk.ID][]byte) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(thief.data, "key"))
	if err != nil {
		t.Fatal(err)
	}
	device, _, err := cipher.ParseKeyFile(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	words, err := cipher.ParsePhrase(phrase)
	if err != nil {
		t.Fatal(err)
	}
	recovery, err := words.Recovery()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(r.data, "state"))); err != nil {
		t.Fatal(err)
	}
	state, err := kv.OpenPebble(kv.PebbleConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	volume := replica.VolumeID(recovery.Volume)
	ring, epochs := &cipher.Keyring{}, map[replica.EpochID]bool{}
	try := func(w *replicapb.Wrap) {
		epochs[replica.EpochID(w.GetEpoch())] = true
		if key, err := device.UnwrapEpoch(w.GetKey(), replica.WrapInfo(volume, replica.DeviceID(device.ID()))); err == nil {
			ring.Add(key)
		}
		if key, err := recovery.UnwrapEpoch(w.GetKey(), replica.WrapInfo(volume, replica.DeviceID{})); err == nil {
			ring.Add(key)
		}
	}
	type batch struct{ sealed, aad []byte }
	batches := map[replica.EpochID][]batch{}
	err = state.Scan(nil, nil, func(key, value []byte) bool {
		var s replicapb.Signed
		switch {
		case key[0] == 'c':
			var e replicapb.ControlEntry
			if proto.Unmarshal(value, &s) == nil && proto.Unmarshal(s.GetBody(), &e) == nil {
				for _, w := range append(e.GetEpoch().GetWraps(), e.GetAdmit().GetWraps()...) {
					try(w)
				}
			}
		case key[0] == 'l' && key[1] == 1:
			var e replicapb.Envelope
			if proto.Unmarshal(value, &s) == nil && proto.Unmarshal(s.GetBody(), &e) == nil {
				epoch := replica.EpochID(e.GetEpoch())
				batches[epoch] = append(batches[epoch], batch{e.GetSealed(), replica.BatchAAD(volume, replica.AuthorID(e.GetAuthor()), e.GetSeq())})
			}
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	held := map[replica.EpochID]bool{}
	for _, e := range ring.Epochs() {
		held[replica.EpochID(e)] = true
	}
	opened, shut := 0, 0
	for epoch, list := range batches {
		for _, b := range list {
			plain, err := ring.OpenBatch(b.sealed, b.aad)
			if held[epoch] != (err == nil) {
				t.Errorf("batch of epoch %x, held %v: %v", epoch[:4], held[epoch], err)
			}
			if err == nil {
				opened++
				if bytes.Contains(plain, []byte("secret")) {
					t.Error("the thief reads a name that was given later")
				}
				continue
			}
			shut++
		}
	}
	if opened == 0 || shut < 2 || len(held) == 0 || len(held) == len(epochs) {
		t.Fatalf("%d batches open, %d do not; the thief has %d of %d epochs: the test tries nothing", opened, shut, len(held), len(epochs))
	}
	old, late := 0, 0
	for id, sealed := range chunksOf(t, r) {
		_, err := ring.Open(nil, sealed)
		switch _, was := before[id]; {
		case was && err == nil:
			old++
		case !was && err == nil:
			t.Errorf("the thief opens chunk %v, which was written later", id)
		case !was:
			late++
		}
	}
	if late == 0 {
		t.Fatal("no chunk was written later")
	}
	t.Logf("with %d of %d epoch keys the thief opens %d batches and %d chunks from before; %d batches and %d chunks from later stay shut",
		len(held), len(epochs), opened, old, shut, late)
}

// TestMutualRevocation has two members throw each other out while they are apart, each in company. Both are
// out once the companions meet, and what each companion had from them stays, on both.
func TestMutualRevocation(t *testing.T) {
	a := newNode(t, "a", "")
	all := []*node{a}
	for _, name := range []string{"b", "c", "d"} {
		all = append(all, newNode(t, name, a.command("invite")))
	}
	b, c, d := all[1], all[2], all[3]
	for _, n := range all {
		n.until(10*time.Second, "connections", func() bool { return n.connected() == 3 })
		n.command("devices", "rename", n.deviceName(), filepath.Base(n.mnt)+"-dev")
	}
	for _, n := range all {
		n.until(30*time.Second, "names", func() bool {
			return !slices.ContainsFunc([]string{"a-dev", "b-dev", "c-dev", "d-dev"}, func(name string) bool { return n.sees(name) == nil })
		})
	}
	b.stop()
	d.stop()
	a.command("devices", "revoke", "b-dev")
	a.write("by a", "a, to c alone\n")
	c.until(30*time.Second, "the work of a", func() bool { return c.sees("b-dev") == nil && c.reads("by a", "a, to c alone\n") })
	a.stop()
	c.stop()
	b.start()
	d.start()
	b.until(10*time.Second, "connection", func() bool { return b.connected() == 1 })
	b.command("devices", "revoke", "a-dev")
	b.write("by b", "b, to d alone\n")
	d.until(30*time.Second, "the work of b", func() bool { return d.sees("a-dev") == nil && d.reads("by b", "b, to d alone\n") })
	c.start()
	for _, n := range []*node{c, d} {
		n.until(20*time.Second, "one mind", func() bool {
			return n.sees("a-dev") == nil && n.sees("b-dev") == nil && n.reads("by a", "a, to c alone\n") && n.reads("by b", "b, to d alone\n")
		})
	}
	b.until(10*time.Second, "word of it at b", func() bool { return b.connected() == 0 && strings.Contains(b.problems(), "revoked") })
	c.write("by c", "c\n")
	d.until(30*time.Second, "the work of c", func() bool { return d.reads("by c", "c\n") })
	if _, err := os.Stat(filepath.Join(b.mnt, "by c")); err == nil {
		t.Error("b sees what is written without it")
	}
	oneTree(t, 10*time.Second, c, d)
}
