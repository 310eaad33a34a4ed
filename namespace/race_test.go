package namespace

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// flush cuts what is pending and remembers the batches for the others.
func (r *rig) flush(to map[logKey][]byte) {
	r.t.Helper()
	for r.Pending() > 0 {
		payload, err := r.Cut()
		r.must(err)
		seq := r.Vector()[r.Author()] + 1
		to[logKey{r.Author(), seq}] = payload
		r.must(r.Committed(seq))
	}
}

// pull merges all batches that are new to a device, in any order that works.
func (r *rig) pull(all map[logKey][]byte) {
	r.t.Helper()
	for more := true; more; {
		more = false
		for k, payload := range all {
			if r.Vector()[k.author]+1 != k.seq || k.author == r.Author() {
				continue
			}
			_, err := r.Merge(k.author, k.seq, payload)
			if more = more || err == nil; !errors.Is(err, ErrNotReady) {
				r.must(err)
			}
		}
	}
}

// meet lets all devices exchange everything, and checks that they agree.
func meet(t *testing.T, rigs ...*rig) {
	t.Helper()
	all := map[logKey][]byte{}
	for _, r := range rigs {
		r.flush(all)
	}
	for _, r := range rigs {
		r.pull(all)
	}
	want, err := rigs[0].Hash()
	rigs[0].must(err)
	for _, r := range rigs {
		got, err := r.Hash()
		r.must(err)
		if got != want {
			t.Fatalf("device %v differs:\n%s\nand:\n%s", r.Author(), dump(r.Tree), dump(rigs[0].Tree))
		}
		mustCheck(t, r.Tree)
	}
}

var conflictMark = regexp.MustCompile(`\(conflict (\S+) 1970-01-01 000000 [0-9a-f]{8}\)`)

// plain shortens conflict names, whose hashes tell a reader nothing.
func plain(paths []string) []string {
	out := slices.Clone(paths)
	for i, p := range out {
		out[i] = conflictMark.ReplaceAllString(p, "($1)")
	}
	return out
}

// TestRaces: what two devices do apart, and what both see once they met.
func TestRaces(t *testing.T) {
	for _, c := range []struct {
		name         string
		before, a, b func(r *rig)
		want         []string
	}{
		{"both edit one file: both contents stay, the greater op shows",
			func(r *rig) { r.must(r.mkfile("f"), r.write("f", "base")) },
			func(r *rig) { r.must(r.write("f", "a")) },
			func(r *rig) { r.must(r.write("f", "b")) },
			[]string{"f=b", "f (dev1)=a"}},
		{"both create one name",
			func(r *rig) {},
			func(r *rig) { r.must(r.mkfile("f.txt"), r.write("f.txt", "a")) },
			func(r *rig) { r.must(r.mkfile("f.txt"), r.write("f.txt", "b")) },
			[]string{"f (dev1).txt=a", "f.txt=b"}},
		{"both make one directory",
			func(r *rig) {},
			func(r *rig) { r.must(r.mkdir("d"), r.mkfile("d/x")) },
			func(r *rig) { r.must(r.mkdir("d"), r.mkfile("d/y")) },
			[]string{"d/", "d/x", "d/y"}},
		{"crossing moves of directories: the later one would make a cycle",
			func(r *rig) { r.must(r.mkdir("x"), r.mkdir("y")) },
			func(r *rig) { r.must(r.mv("x", "y/x", 0)) },
			func(r *rig) { r.must(r.mv("y", "x/y", 0)) },
			[]string{"y/", "y/x/"}},
		{"edit against delete: the edit survives",
			func(r *rig) { r.must(r.mkfile("f"), r.write("f", "base")) },
			func(r *rig) { r.must(r.write("f", "a")) },
			func(r *rig) { r.must(r.rm("f")) },
			[]string{"f=a"}},
		{"edit against replace: the edit survives under a conflict name",
			func(r *rig) { r.must(r.mkfile("f"), r.write("f", "base"), r.mkfile("g"), r.write("g", "new")) },
			func(r *rig) { r.must(r.write("f", "a")) },
			func(r *rig) { r.must(r.mv("g", "f", 0)) },
			[]string{"f=new", "f (dev1)=a"}},
		{"rmdir against create inside: the directory comes back",
			func(r *rig) { r.must(r.mkdir("d")) },
			func(r *rig) { r.must(r.mkfile("d/f")) },
			func(r *rig) { r.must(r.rmdir("d")) },
			[]string{"d/", "d/f"}},
		{"rm -r against an edit far below: it survives with its directories, nothing else",
			func(r *rig) {
				r.must(r.mkdir("d"), r.mkdir("d/e"), r.mkdir("d/x"), r.mkfile("d/e/f"), r.mkfile("d/e/g"), r.mkfile("d/h"))
			},
			func(r *rig) { r.must(r.write("d/e/f", "a")) },
			func(r *rig) {
				r.must(r.rm("d/e/f"), r.rm("d/e/g"), r.rmdir("d/e"), r.rmdir("d/x"), r.rm("d/h"), r.rmdir("d"))
			},
			[]string{"d/", "d/e/", "d/e/f=a"}},
		{"rmdir against moving the directory: the move wins",
			func(r *rig) { r.must(r.mkdir("d")) },
			func(r *rig) { r.must(r.mv("d", "e", 0)) },
			func(r *rig) { r.must(r.rmdir("d")) },
			[]string{"e/"}},
		{"both save the editor's way: one wins the name, neither is lost",
			func(r *rig) { r.must(r.mkfile("f"), r.write("f", "base")) },
			func(r *rig) { r.must(r.mkfile("f~"), r.write("f~", "a"), r.mv("f~", "f", 0)) },
			func(r *rig) { r.must(r.mkfile("f~"), r.write("f~", "b"), r.mv("f~", "f", 0)) },
			[]string{"f=b", "f (dev1)=a"}},
		{"hard links edited through different names: one node, both contents",
			func(r *rig) { r.must(r.mkfile("f"), r.ln("f", "g")) },
			func(r *rig) { r.must(r.write("f", "a")) },
			func(r *rig) { r.must(r.write("g", "b")) },
			[]string{"f=b", "f (dev1)=a", "g=b"}},
		{"exchange against rename: both names of the first end, the file has two",
			func(r *rig) { r.must(r.mkfile("f"), r.write("f", "1"), r.mkfile("g"), r.write("g", "2")) },
			func(r *rig) { r.must(r.mv("f", "g", Exchange)) },
			func(r *rig) { r.must(r.mv("f", "h", 0)) },
			[]string{"f=2", "g=1", "h=1"}},
		{"unlink of a name against unlink of another: the file is gone",
			func(r *rig) { r.must(r.mkfile("f"), r.ln("f", "g")) },
			func(r *rig) { r.must(r.rm("f")) },
			func(r *rig) { r.must(r.rm("g")) },
			nil},
		{"a temporary file that is gone before they meet leaves no conflict",
			func(r *rig) {},
			func(r *rig) { r.must(r.mkfile("lock"), r.write("lock", "a")) },
			func(r *rig) { r.must(r.mkfile("lock"), r.rm("lock")) },
			[]string{"lock=a"}},
		{"modes: the greater op",
			func(r *rig) { r.must(r.mkfile("f")) },
			func(r *rig) {
				_, err := r.SetAttr(r.tick(), r.node("f").ID, AttrChange{Mask: AttrMode, Mode: 1})
				r.must(err)
			},
			func(r *rig) {
				_, err := r.SetAttr(r.tick(), r.node("f").ID, AttrChange{Mask: AttrMode, Mode: 2})
				r.must(err)
			},
			[]string{"f"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newRig(t, 1), newRig(t, 2)
			c.before(a)
			meet(t, a, b)
			c.a(a)
			c.b(b)
			meet(t, a, b)
			if diff := cmp.Diff(c.want, plain(a.ls())); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestConcurrentHeadsAreListed(t *testing.T) {
	a, b := newRig(t, 1), newRig(t, 2)
	a.must(a.mkfile("f"), a.write("f", "base"))
	meet(t, a, b)
	a.must(a.write("f", "from a"))
	b.must(b.write("f", "from b"))
	meet(t, a, b)
	n := a.node("f")
	if len(n.Heads) != 2 || string(n.Heads[0].Inline) != "from b" || string(n.Heads[1].Inline) != "from a" || n.Heads[0].ID != n.Content.ID {
		t.Fatalf("heads: %+v", n.Heads)
	}
	b.must(b.write("f", "knows only the visible one"))
	meet(t, a, b)
	if n := a.node("f"); len(n.Heads) != 2 || string(n.Heads[1].Inline) != "from a" {
		t.Fatalf("heads after a third write: %+v", n.Heads)
	}
}

// TestEqualContents: what is alike is no conflict, and what was hidden goes with what was shown.
func TestEqualContents(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(a, b *rig)
		after  func(a *rig)
		want   []string
	}{
		{"files made under one name", func(a, b *rig) {
			a.must(a.mkfile("f"), a.write("f", "x"))
			b.must(b.mkfile("f"), b.write("f", "x"))
		}, func(*rig) {}, []string{"f=x"}},
		{"edits", func(a, b *rig) {
			a.must(a.mkfile("f"))
			meet(t, a, b)
			a.must(a.write("f", "x"))
			b.must(b.write("f", "x"))
		}, func(*rig) {}, []string{"f=x"}},
		{"files, one is written then", func(a, b *rig) {
			a.must(a.mkfile("f"), a.write("f", "x"))
			b.must(b.mkfile("f"), b.write("f", "x"))
		}, func(a *rig) { a.must(a.write("f", "y")) }, []string{"f=y"}},
		{"files, one is removed then", func(a, b *rig) {
			a.must(a.mkfile("f"), a.write("f", "x"))
			b.must(b.mkfile("f"), b.write("f", "x"))
		}, func(a *rig) { a.must(a.rm("f")) }, nil},
		{"files, one is renamed then", func(a, b *rig) {
			a.must(a.mkfile("f"), a.write("f", "x"))
			b.must(b.mkfile("f"), b.write("f", "x"))
		}, func(a *rig) { a.must(a.mv("f", "g", 0)) }, []string{"g=x"}},
		{"edits, another follows", func(a, b *rig) {
			a.must(a.mkfile("f"))
			meet(t, a, b)
			a.must(a.write("f", "x"))
			b.must(b.write("f", "x"))
		}, func(a *rig) { a.must(a.write("f", "y")) }, []string{"f=y"}},
		{"directories with equal files", func(a, b *rig) {
			a.must(a.mkdir("d"), a.mkfile("d/f"), a.write("d/f", "x"), a.mkfile("d/g"), a.write("d/g", "a"))
			b.must(b.mkdir("d"), b.mkfile("d/f"), b.write("d/f", "x"), b.mkfile("d/g"), b.write("d/g", "b"))
		}, func(*rig) {}, []string{"d/", "d/f=x", "d/g=b", "d/g (dev1)=a"}},
		{"directories, removed then", func(a, b *rig) {
			a.must(a.mkdir("d"), a.mkfile("d/f"), a.write("d/f", "x"))
			b.must(b.mkdir("d"), b.mkfile("d/f"), b.write("d/f", "x"))
		}, func(a *rig) { a.must(a.rm("d/f"), a.rmdir("d")) }, nil},
		{"directories, moved then", func(a, b *rig) {
			a.must(a.mkdir("d"), a.mkfile("d/x"))
			b.must(b.mkdir("d"), b.mkfile("d/y"), b.mkdir("e"))
		}, func(a *rig) { a.must(a.mv("d", "e/d", 0)) }, []string{"e/", "e/d/", "e/d/x", "e/d/y"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newRig(t, 1), newRig(t, 2)
			c.before(a, b)
			meet(t, a, b)
			c.after(a)
			meet(t, a, b)
			for _, r := range []*rig{a, b} {
				if diff := cmp.Diff(c.want, plain(r.ls())); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			}
		})
	}
}

// TestConflictFiles: a content that lost is a file to work with.
func TestConflictFiles(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(a *rig, conflict string)
		want []string
	}{
		{"removed", func(a *rig, c string) { a.must(a.rm(c)) }, []string{"f=b"}},
		{"renamed over the winner", func(a *rig, c string) { a.must(a.mv(c, "f", 0)) }, []string{"f=a"}},
		{"renamed", func(a *rig, c string) { a.must(a.mv(c, "g", 0)) }, []string{"f=b", "g=a"}},
		{"written", func(a *rig, c string) { a.must(a.write(c, "new")) }, []string{"f (dev1)=new", "f=b"}},
		{"linked", func(a *rig, c string) { a.must(a.ln(c, "g")) }, []string{"f (dev1)=a", "f=b", "g=a"}},
		{"replaced by the winner", func(a *rig, c string) { a.must(a.mv("f", c, 0)) }, []string{"f (dev1)=b"}},
		{"exchanged with the winner", func(a *rig, c string) { a.must(a.mv(c, "f", Exchange)) }, []string{"f (dev1)=b", "f=a"}},
		{"replaced", func(a *rig, c string) { a.must(a.mkfile("g"), a.write("g", "n"), a.mv("g", c, 0)) }, []string{"f (dev1)=n", "f=b"}},
		{"the winner removed", func(a *rig, _ string) { a.must(a.rm("f")) }, []string{"f (dev1)=a"}},
		{"the winner renamed", func(a *rig, _ string) { a.must(a.mv("f", "g", 0)) }, []string{"f (dev1)=a", "g=b"}},
		{"the winner replaced", func(a *rig, _ string) { a.must(a.mkfile("g"), a.write("g", "n"), a.mv("g", "f", 0)) }, []string{"f (dev1)=a", "f=n"}},
		{"the winner copied over it", func(a *rig, c string) { a.must(a.write(c, "b")) }, []string{"f (dev1)=b", "f=b"}},
		{"copied over the winner", func(a *rig, _ string) { a.must(a.write("f", "a")) }, []string{"f=a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newRig(t, 1), newRig(t, 2)
			a.must(a.mkfile("f"), a.write("f", "0"))
			meet(t, a, b)
			a.must(a.write("f", "a"))
			b.must(b.write("f", "b"))
			meet(t, a, b)
			conflict := ""
			for _, p := range a.ls() {
				if path, _, _ := strings.Cut(p, "="); path != "f" {
					conflict = path
				}
			}
			n := a.node(conflict)
			if n.Nlink != 1 || string(n.Content.Inline) != "a" || n.ID == a.node("f").ID {
				t.Fatalf("the conflict file is %+v", n)
			}
			c.do(a, conflict)
			meet(t, a, b)
			got := plain(b.ls())
			slices.Sort(got)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestEqualLosersGoTogether: of contents that lost and are alike one shows, and it speaks for all.
func TestEqualLosersGoTogether(t *testing.T) {
	a, b, c := newRig(t, 1), newRig(t, 2), newRig(t, 3)
	a.must(a.mkfile("f"), a.write("f", "0"), a.ln("f", "g"))
	meet(t, a, b, c)
	a.must(a.write("f", "lost"))
	b.must(b.write("f", "lost"))
	c.must(c.write("f", "w"), c.write("f", "won"))
	meet(t, a, b, c)
	want := []string{"f (dev2)=lost", "f=won", "g=won"}
	sorted := func() []string { l := plain(a.ls()); slices.Sort(l); return l }
	if diff := cmp.Diff(want, sorted()); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
	a.must(a.rm("f"))
	if diff := cmp.Diff([]string{"f (dev2)=lost", "g=won"}, sorted()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestHiddenFileHasMore: a file that is hidden, as another is like it, and goes with that, leaves what
// lost its name to it.
func TestHiddenFileHasMore(t *testing.T) {
	a, b, c := newRig(t, 1), newRig(t, 2), newRig(t, 3)
	all := map[logKey][]byte{}
	b.must(b.mkfile("f"), b.write("f", "0"))
	b.flush(all)
	c.pull(all)
	c.must(c.write("f", "lost"))
	b.must(b.write("f", "w"), b.write("f", "x"))
	a.must(a.mkfile("g"), a.write("g", "1"), a.write("g", "2"), a.write("g", "3"), a.mkfile("f"), a.write("f", "x"))
	for _, r := range []*rig{a, b, c} {
		r.flush(all)
	}
	for _, r := range []*rig{a, b, c} {
		r.pull(all)
	}
	want := []string{"f=x", "f (dev3)=lost", "g=3"}
	if diff := cmp.Diff(want, plain(a.ls())); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
	a.must(a.write("f", "y"))
	meet(t, a, b, c)
	want[0] = "f=y"
	if diff := cmp.Diff(want, plain(a.ls())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestConflictFilesTouchedTwice: two devices make the same conflict file a file of its own.
func TestConflictFilesTouchedTwice(t *testing.T) {
	a, b := newRig(t, 1), newRig(t, 2)
	a.must(a.mkfile("f"), a.write("f", "0"))
	meet(t, a, b)
	a.must(a.write("f", "a"))
	b.must(b.write("f", "b"))
	meet(t, a, b)
	conflict, _, _ := strings.Cut(a.ls()[1], "=")
	a.must(a.write(conflict, "new"))
	b.must(b.mv(conflict, "g", 0))
	meet(t, a, b)
	if diff := cmp.Diff([]string{"f=b", "f (dev1)=new", "g=new"}, plain(a.ls())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if a.node("g").ID != a.node(conflict).ID {
		t.Error("they are two files")
	}
}

// TestConflictNameTaken: what is shown under a conflict name is not hidden by a file that takes the name.
func TestConflictNameTaken(t *testing.T) {
	for _, edits := range []bool{false, true} {
		a, b := newRig(t, 1), newRig(t, 2)
		a.must(a.mkfile("f"), a.write("f", "one"))
		if edits {
			meet(t, a, b)
		} else {
			b.must(b.mkfile("f"))
		}
		a.must(a.write("f", "a"))
		b.must(b.write("f", "b"))
		meet(t, a, b)
		c, _, _ := strings.Cut(a.ls()[1], "=")
		a.must(a.write(c, "edited"))
		b.must(b.mkfile("tmp"), b.write("tmp", "saved"), b.mv("tmp", c, 0))
		meet(t, a, b)
		got := strings.Join(plain(a.ls()), ",")
		for _, want := range []string{"f=b", "=edited", "=saved"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s is nowhere to be seen: %v", want, got)
			}
		}
		// Freeing the name again renames nothing else.
		before := slices.DeleteFunc(b.ls(), func(p string) bool { return strings.HasPrefix(p, c+"=") })
		b.must(b.mv(c, "saved", 0))
		meet(t, a, b)
		if diff := cmp.Diff(append(before, "saved=saved"), b.ls()); diff != "" {
			t.Errorf("after the name was freed: -want +got:\n%s", diff)
		}
		if got := strings.Join(plain(a.ls()), ","); !strings.Contains(got, "saved=saved") || !strings.Contains(got, "=edited") {
			t.Errorf("after the name was freed: %v", got)
		}
	}
}

// TestDemotionSticks: whoever removes the winner knowing of the other leaves
// the other its conflict name.
func TestDemotionSticks(t *testing.T) {
	a, b := newRig(t, 1), newRig(t, 2)
	a.must(a.mkfile("f"), a.write("f", "a"))
	b.must(b.mkfile("f"), b.write("f", "b"))
	meet(t, a, b)
	name := a.ls()[1]
	name = name[:strings.Index(name, "=")]
	a.must(a.rm("f"))
	meet(t, a, b)
	b.wantTree(name + "=a")
	b.must(b.mkfile("f"), b.write("f", "new"), b.mv(name, "g", 0))
	meet(t, a, b)
	a.wantTree("f=new", "g=a")
}

// TestCameBackStays: a directory that a removal lost its say over stays until
// somebody removes it knowingly, even once it is empty.
func TestCameBackStays(t *testing.T) {
	a, b := newRig(t, 1), newRig(t, 2)
	a.must(a.mkdir("d"), a.mkdir("d/e"))
	meet(t, a, b)
	a.must(a.mkfile("d/e/f"))
	b.must(b.rmdir("d/e"), b.rmdir("d"))
	meet(t, a, b)
	b.must(b.rm("d/e/f"), b.rmdir("d/e"))
	b.wantTree("d/")
	b.must(b.rmdir("d"))
	meet(t, a, b)
	a.wantTree()
}

func TestConflictNames(t *testing.T) {
	id := EntryID{Op: OpID{Lamport: 7, Author: AuthorID{1}}}
	long := strings.Repeat("ä", 127)
	for _, c := range []struct{ name, device, want string }{
		{"a.txt", "laptop", "a (conflict laptop 2026-11-22 103000 HASH).txt"},
		{".profile", "laptop", ".profile (conflict laptop 2026-11-22 103000 HASH)"},
		{"a.tar.gz", "laptop", "a.tar (conflict laptop 2026-11-22 103000 HASH).gz"},
		{"...", "x", "... (conflict x 2026-11-22 103000 HASH)"},
		{long + "x", "laptop", strings.Repeat("ä", 105) + " (conflict laptop 2026-11-22 103000 HASH)"},
	} {
		got := conflictName(c.name, c.device, id, 1795343400e9, 0)
		got = regexp.MustCompile(`[0-9a-f]{8}\)`).ReplaceAllString(got, "HASH)")
		if got != c.want {
			t.Errorf("%q: got %q, want %q", c.name, got, c.want)
		}
	}
	if got := conflictName(long+".x", strings.Repeat("d", MaxDevice), id, 0, 0); len(got) > MaxName {
		t.Errorf("%d bytes", len(got))
	}
	blank := strings.Repeat("d", MaxDevice-1)
	for in, want := range map[string]string{"a/b\x00": "a_b_", "": "01000000", "\xff": "_", blank + " x": blank, " a ": "a"} {
		got := deviceName(in, AuthorID{1})
		if got != want {
			t.Errorf("device %q: %q", in, got)
		}
		if again := deviceName(got, AuthorID{1}); again != got {
			t.Errorf("device %q becomes %q and then %q", in, got, again)
		}
	}
}

func TestChangesNameWhatChanged(t *testing.T) {
	a, b := newRig(t, 1), newRig(t, 2)
	a.must(a.mkdir("d"), a.mkfile("d/f"))
	meet(t, a, b)
	d, f := a.node("d").ID, a.node("d/f").ID
	a.must(a.write("d/f", "x"), a.mv("d/f", "g", 0))
	payload, err := a.Cut()
	a.must(err, a.Committed(2))
	c, err := b.Merge(a.Author(), 2, payload)
	b.must(err)
	for _, n := range []NodeID{d, f, Root} {
		if !slices.Contains(c.Nodes, n) {
			t.Errorf("node %v is missing", n)
		}
	}
	for _, n := range []Name{{d, "f"}, {Root, "g"}} {
		if !slices.Contains(c.Entries, n) {
			t.Errorf("name %v is missing", n)
		}
	}
	if len(c.Nodes) != 3 || len(c.Entries) != 2 {
		t.Error(fmt.Sprint(c))
	}
}

// What a rename replaces goes, in whichever of the directories lies that are shown as one: nobody worked at the same time as others.
func TestRenameOverInMergedDirectory(t *testing.T) {
	a, b := newRig(t, 1), newRig(t, 2)
	a.must(a.mkdir("d"), a.mkfile("d/of a"), a.write("d/of a", "old"))
	b.must(b.mkdir("d"), b.mkfile("d/of b"), b.write("d/of b", "old"))
	meet(t, a, b)
	for _, r := range []*rig{a, b} { // as editors, rsync and git do
		for _, name := range []string{"d/of a", "d/of b"} {
			r.must(r.mkfile("d/new"), r.write("d/new", "new"), r.mv("d/new", name, 0))
			if n := r.node(name); n.Nlink != 1 {
				t.Errorf("%s has %d links", name, n.Nlink)
			}
			meet(t, a, b)
			if _, total, err := r.Conflicts(10); err != nil || total != 0 {
				t.Fatalf("%d conflicts (%v): %q", total, err, r.ls())
			}
		}
	}
	a.wantTree("d/", "d/of a=new", "d/of b=new")
	b.wantTree("d/", "d/of a=new", "d/of b=new")
}
