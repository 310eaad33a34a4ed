package accept

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// race is what two mounts do in one directory without knowing of each other, and
// what both must show once they do. The later side has done more before, so that
// its ops are the greater.
type race struct {
	name   string
	before func(d dir) // on one mount, seen by both
	// split is what both do in a split before, with contents of their own; may be nil.
	split   func(d dir, content string)
	earlier func(d dir)
	later   func(d dir)
	want    map[string]string // as contents returns it
}

// races are the cases of docs/merge.md that a user can bring about.
var races = []race{
	{
		name:    "both edit one file: the later content has the name, the other becomes a conflict file",
		before:  func(d dir) { d.write("f.txt", "base") },
		earlier: func(d dir) { d.write("f.txt", "earlier") },
		later:   func(d dir) { d.write("f.txt", "later") },
		want:    map[string]string{"f.txt": "later", "f (conflict).txt": "earlier"},
	},
	{
		name:    "both create one name: one conflict file",
		earlier: func(d dir) { d.write("f.txt", "earlier") },
		later:   func(d dir) { d.write("f.txt", "later") },
		want:    map[string]string{"f.txt": "later", "f (conflict).txt": "earlier"},
	},
	{
		name:    "both create one name with equal content: no conflict file",
		earlier: func(d dir) { d.write("f.txt", "equal"); d.symlink("target", "l") },
		later:   func(d dir) { d.write("f.txt", "equal"); d.symlink("target", "l") },
		want:    map[string]string{"f.txt": "equal", "l": "-> target"},
	},
	{
		name:    "both write equal content into one file: no conflict file",
		before:  func(d dir) { d.write("f.txt", "base") },
		earlier: func(d dir) { d.write("f.txt", "equal") },
		later:   func(d dir) { d.write("f.txt", "equal") },
		want:    map[string]string{"f.txt": "equal"},
	},
	{
		name:    "both make one directory: one directory with what both put in it",
		earlier: func(d dir) { d.mkdir("d"); d.write("d/x", "earlier"); d.write("d/both", "one"); d.mkdir("d/e") },
		later:   func(d dir) { d.mkdir("d"); d.write("d/y", "later"); d.write("d/both", "two"); d.mkdir("d/e") },
		want: map[string]string{"d/": "", "d/x": "earlier", "d/y": "later", "d/both": "two", "d/both (conflict)": "one",
			"d/e/": ""},
	},
	{
		name:    "x into y against y into x: the later move is left out",
		before:  func(d dir) { d.mkdir("x"); d.mkdir("y"); d.write("x/fx", "fx"); d.write("y/fy", "fy") },
		earlier: func(d dir) { d.rename("x", "y/x"); d.write("y/x/new", "earlier") },
		later:   func(d dir) { d.rename("y", "x/y"); d.write("x/y/new", "later") },
		want: map[string]string{"y/": "", "y/fy": "fy", "y/new": "later", "y/x/": "", "y/x/fx": "fx",
			"y/x/new": "earlier"},
	},
	{
		name:    "edit against delete: the edit survives",
		before:  func(d dir) { d.write("f.txt", "base") },
		earlier: func(d dir) { d.write("f.txt", "earlier") },
		later:   func(d dir) { d.remove("f.txt") },
		want:    map[string]string{"f.txt": "earlier"},
	},
	{
		name:    "delete against edit: the edit survives",
		before:  func(d dir) { d.write("f.txt", "base") },
		earlier: func(d dir) { d.remove("f.txt") },
		later:   func(d dir) { d.write("f.txt", "later") },
		want:    map[string]string{"f.txt": "later"},
	},
	{
		name:    "create inside against rmdir: the directory comes back",
		before:  func(d dir) { d.mkdir("d") },
		earlier: func(d dir) { d.write("d/f.txt", "earlier") },
		later:   func(d dir) { d.remove("d") },
		want:    map[string]string{"d/": "", "d/f.txt": "earlier"},
	},
	{
		name:    "rmdir against create inside: the directory comes back",
		before:  func(d dir) { d.mkdir("d") },
		earlier: func(d dir) { d.remove("d") },
		later:   func(d dir) { d.write("d/f.txt", "later") },
		want:    map[string]string{"d/": "", "d/f.txt": "later"},
	},
	{
		name:    "both save by writing a temporary file and renaming it: one name, one conflict file",
		before:  func(d dir) { d.write("f.txt", "base") },
		earlier: func(d dir) { d.save("f.txt", "earlier") },
		later:   func(d dir) { d.save("f.txt", "later") },
		want:    map[string]string{"f.txt": "later", "f (conflict).txt": "earlier"},
	},
	{
		name:    "one edits in place, the other saves by renaming: one name, one conflict file",
		before:  func(d dir) { d.write("f.txt", "base") },
		earlier: func(d dir) { d.write("f.txt", "earlier") },
		later:   func(d dir) { d.save("f.txt", "later") },
		want:    map[string]string{"f.txt": "later", "f (conflict).txt": "earlier"},
	},
	{
		name:    "one file edited through two names: both show one content, the other is a conflict file",
		before:  func(d dir) { d.write("f.txt", "base"); d.link("f.txt", "g.txt") },
		earlier: func(d dir) { d.write("f.txt", "earlier") },
		later:   func(d dir) { d.write("g.txt", "later") },
		want:    map[string]string{"f.txt": "later (2 names)", "g.txt": "later (2 names)", "f (conflict).txt": "earlier"},
	},
	{
		name:    "exchange against rename: the renamed file has two names",
		before:  func(d dir) { d.write("f", "1"); d.write("g", "2") },
		earlier: func(d dir) { d.exchange("f", "g") },
		later:   func(d dir) { d.rename("f", "h") },
		want:    map[string]string{"f": "2", "g": "1 (2 names)", "h": "1 (2 names)"},
	},
	{
		name:    "rename against exchange: the renamed file has two names",
		before:  func(d dir) { d.write("f", "1"); d.write("g", "2") },
		earlier: func(d dir) { d.rename("f", "h") },
		later:   func(d dir) { d.exchange("f", "g") },
		want:    map[string]string{"f": "2", "g": "1 (2 names)", "h": "1 (2 names)"},
	},
}

// conflictRaces are races about a conflict file, which an earlier split has left
// beside f.txt: that has the content "two", its conflict file "one".
var conflictRaces = []race{
	{
		name:    "both edit a conflict file",
		earlier: func(d dir) { d.write(d.conflict(), "earlier") },
		later:   func(d dir) { d.write(d.conflict(), "later") },
		want:    map[string]string{"f.txt": "two", "f (conflict).txt": "earlier | later"},
	},
	{
		name:    "edit of a conflict file against its removal: the edit survives",
		earlier: func(d dir) { d.write(d.conflict(), "earlier") },
		later:   func(d dir) { d.remove(d.conflict()) },
		want:    map[string]string{"f.txt": "two", "f (conflict).txt": "earlier"},
	},
	{
		name:    "removal of a conflict file against its edit: the edit survives",
		earlier: func(d dir) { d.remove(d.conflict()) },
		later:   func(d dir) { d.write(d.conflict(), "later") },
		want:    map[string]string{"f.txt": "two", "f (conflict).txt": "later"},
	},
	{
		name:    "a conflict file edited in place, and saved by renaming",
		earlier: func(d dir) { d.write(d.conflict(), "earlier") },
		later:   func(d dir) { d.save(d.conflict(), "later") },
		want:    map[string]string{"f.txt": "two", "f (conflict).txt": "earlier | later"},
	},
	{
		name:    "a conflict file saved by renaming, and edited in place",
		earlier: func(d dir) { d.save(d.conflict(), "earlier") },
		later:   func(d dir) { d.write(d.conflict(), "later") },
		want:    map[string]string{"f.txt": "two", "f (conflict).txt": "earlier | later"},
	},
	{
		name:    "removal of the file against an edit of its conflict file: the edit survives, the file goes",
		earlier: func(d dir) { d.remove("f.txt") },
		later:   func(d dir) { d.write(d.conflict(), "later") },
		want:    map[string]string{"f (conflict).txt": "later"},
	},
	{
		name:    "a conflict file renamed over the file, which the other edits: the renamed one has the name, the edit survives",
		earlier: func(d dir) { d.rename(d.conflict(), "f.txt") },
		later:   func(d dir) { d.write("f.txt", "later") },
		want:    map[string]string{"f.txt": "one", "f (conflict).txt": "later"},
	},
}

// allRaces returns the races, those about a conflict file with either kind of it: of
// two contents of one file, and of two files under one name.
func allRaces() []race {
	out := slices.Clone(races)
	for _, r := range conflictRaces {
		name := r.name
		r.split = func(d dir, content string) { d.write("f.txt", content) }
		r.name = "both had created: " + name
		out = append(out, r)
		r.before = func(d dir) { d.write("f.txt", "base") }
		r.name = "both had edited: " + name
		out = append(out, r)
	}
	return out
}

// TestRaces brings the races about on real mounts whose network is cut: once with
// clocks that agree, once with the clock of the earlier side a year ahead. Clocks
// must decide nothing.
func TestRaces(t *testing.T) {
	t.Run("clocks agree", func(t *testing.T) { testRaces(t, fsmount(t), pullOwn, 0) })
	t.Run("a clock is a year ahead", func(t *testing.T) { testRaces(t, skewed(t), pullSilent, year) })
}

const year = 365 * 24 * time.Hour

// skewed builds the command with a clock that is a year ahead.
func skewed(t *testing.T) string {
	t.Helper()
	fsmount(t) // skips where nothing can be mounted
	bin := filepath.Join(t.TempDir(), "fsmount")
	run(t, "", "go", "build", "-o", bin, "-ldflags", "-X main.clockOffset="+year.String(), "github.com/foreverfs/forever/cmd/fsmount")
	return bin
}

func testRaces(t *testing.T, bin string, how pull, ahead time.Duration) {
	l := newLAN(t, 2)
	early := l.newNodeOf(bin, 0, "")
	late := l.newNode(1, strings.TrimSpace(early.command("invite")))
	races := allRaces()
	each := func(n *node, do func(race) func(dir)) {
		for i, r := range races {
			if fn := do(r); fn != nil {
				fn(dir{t, filepath.Join(n.mnt, fmt.Sprint(i))})
			}
		}
	}
	for i := range races {
		dir{t, early.mnt}.mkdir(fmt.Sprint(i))
	}
	each(early, func(r race) func(dir) { return r.before })
	oneTree(t, 10*time.Second, early, late)

	l.cut(0, how)
	grow(t, late)
	each(early, func(r race) func(dir) { return r.first("one") })
	each(late, func(r race) func(dir) { return r.first("two") })
	l.join(0)
	oneTree(t, 10*time.Second, early, late)

	l.cut(0, how)
	grow(t, late)
	each(early, func(r race) func(dir) { return r.earlier })
	each(late, func(r race) func(dir) { return r.later })
	l.join(0)
	_, took := oneTree(t, 10*time.Second, early, late)
	t.Logf("one tree %.2f s after the network was back", took.Seconds())

	clocks := map[string]time.Duration{early.deviceName(): ahead, late.deviceName(): 0}
	for i, r := range races {
		t.Run(r.name, func(t *testing.T) {
			for _, n := range []*node{early, late} {
				got := contents(t, filepath.Join(n.mnt, fmt.Sprint(i)), clocks)
				if diff := cmp.Diff(r.want, got); diff != "" {
					t.Errorf("on %s (-want +got):\n%s", filepath.Base(n.mnt), diff)
				}
			}
		})
	}
}

// first returns what a side does in the split before, if anything.
func (r race) first(content string) func(dir) {
	if r.split == nil {
		return nil
	}
	return func(d dir) { r.split(d, content) }
}

// grow makes the counter of a node's ops greater than another's can get in the
// few steps of a race.
func grow(t *testing.T, n *node) {
	t.Helper()
	for i := range 500 {
		if err := os.Chmod(n.mnt, 0o700+fs.FileMode(i%2)); err != nil {
			t.Fatal(err)
		}
	}
}

// conflictMark is what makes a name a conflict name: device, date and hash.
var conflictMark = regexp.MustCompile(`\(conflict ([^/()]+) (\d{4}-\d{2}-\d{2} \d{6}) [0-9a-f]{8}\)`)

// contents returns what is below a directory, by path: the content of a file, and
// how many names it has if several, "-> target" for a symbolic link, nothing for a
// directory, whose path ends in a slash. Of a conflict name "(conflict)" is left, once,
// and several conflict files of one name have their contents in one string. The dates in
// conflict names must be those of the devices' clocks.
func contents(t *testing.T, root string, clocks map[string]time.Duration) map[string]string {
	t.Helper()
	tree, err := show(root)
	if err != nil {
		t.Fatal(err)
	}
	delete(tree, ".")
	all := map[string][]string{}
	for path, e := range tree {
		for _, m := range conflictMark.FindAllStringSubmatch(path, -1) {
			checkMark(t, path, m[2], clocks[m[1]])
		}
		name := conflictMark.ReplaceAllString(path, "(conflict)")
		name = strings.ReplaceAll(name, "(conflict) (conflict)", "(conflict)")
		if e.mode.IsDir() {
			name += "/"
		}
		all[name] = append(all[name], value(t, filepath.Join(root, path), e))
	}
	out := map[string]string{}
	for name, values := range all {
		slices.Sort(values)
		out[name] = strings.Join(values, " | ")
	}
	return out
}

func value(t *testing.T, path string, e thing) string {
	t.Helper()
	if !e.mode.IsRegular() {
		return e.key
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if e.links > 1 {
		return fmt.Sprintf("%s (%d names)", b, e.links)
	}
	return string(b)
}

// checkMark holds the date in a conflict name against the clock of the device in it.
func checkMark(t *testing.T, path, date string, ahead time.Duration) {
	t.Helper()
	at, err := time.Parse("2006-01-02 150405", date)
	if err != nil {
		t.Errorf("%s: %v", path, err)
	}
	if off := time.Until(at) - ahead; off.Abs() > 10*time.Minute {
		t.Errorf("%s: dated %v off the clock of the device", path, off)
	}
}

// dir is a directory on a mount, worked on as programs do. Whatever fails fails the test.
type dir struct {
	t    testing.TB
	path string
}

func (d dir) at(name string) string { return filepath.Join(d.path, name) }

func (d dir) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d dir) write(name, content string) {
	d.t.Helper()
	d.must(os.WriteFile(d.at(name), []byte(content), 0o644))
}

// conflict returns the name of the one conflict file of f.txt.
func (d dir) conflict() string {
	d.t.Helper()
	names, err := filepath.Glob(d.at("f (conflict*"))
	if err != nil || len(names) != 1 {
		d.t.Fatalf("conflict files in %s: %q, %v", d.path, names, err)
	}
	return filepath.Base(names[0])
}

// save replaces a file as editors do.
func (d dir) save(name, content string) {
	d.t.Helper()
	d.write(name+"~", content)
	d.rename(name+"~", name)
}

func (d dir) mkdir(name string)         { d.t.Helper(); d.must(os.Mkdir(d.at(name), 0o755)) }
func (d dir) remove(name string)        { d.t.Helper(); d.must(os.Remove(d.at(name))) }
func (d dir) rename(from, to string)    { d.t.Helper(); d.must(os.Rename(d.at(from), d.at(to))) }
func (d dir) link(old, new string)      { d.t.Helper(); d.must(os.Link(d.at(old), d.at(new))) }
func (d dir) symlink(target, as string) { d.t.Helper(); d.must(os.Symlink(target, d.at(as))) }

func (d dir) exchange(one, other string) {
	d.t.Helper()
	d.must(unix.Renameat2(unix.AT_FDCWD, d.at(one), unix.AT_FDCWD, d.at(other), unix.RENAME_EXCHANGE))
}
