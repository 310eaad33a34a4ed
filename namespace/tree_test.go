package namespace

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
)

// rig is a tree with helpers that take paths and fail the test.
type rig struct {
	*Tree
	t   *testing.T
	db  kv.DB
	now int64
}

func newRig(t *testing.T, device byte) *rig {
	t.Helper()
	r := &rig{t: t, db: kv.NewMem()}
	r.reopen(AuthorID{0: device, 15: 1})
	return r
}

func (r *rig) reopen(a AuthorID) {
	r.t.Helper()
	tree, err := Open(r.db, a, WithDevice(fmt.Sprintf("dev%d", a[0])))
	if err != nil {
		r.t.Fatal(err)
	}
	r.Tree = tree
}

func (r *rig) tick() int64 { r.now++; return r.now }

// at returns the directory and the last name of a path.
func (r *rig) at(path string) (NodeID, string) {
	r.t.Helper()
	parts := strings.Split(path, "/")
	dir := Root
	for _, p := range parts[:len(parts)-1] {
		e, err := r.Lookup(dir, p)
		if err != nil {
			r.t.Fatalf("look up %s of %s: %v", p, path, err)
		}
		dir = e.Node
	}
	return dir, parts[len(parts)-1]
}

func (r *rig) node(path string) Node {
	r.t.Helper()
	dir, name := r.at(path)
	e, err := r.Lookup(dir, name)
	if err != nil {
		r.t.Fatalf("look up %s: %v", path, err)
	}
	n, err := r.Node(e.Node)
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

func (r *rig) make(kind Kind, path string) error {
	dir, name := r.at(path)
	spec := CreateSpec{Kind: kind, Mode: 0o644}
	if kind == KindSymlink {
		spec.Target = "target"
	}
	_, err := r.Create(r.tick(), dir, name, spec)
	return err
}

func (r *rig) mkdir(path string) error  { return r.make(KindDir, path) }
func (r *rig) mkfile(path string) error { return r.make(KindFile, path) }

func (r *rig) rm(path string) error {
	dir, name := r.at(path)
	_, err := r.Unlink(r.tick(), dir, name)
	return err
}

func (r *rig) rmdir(path string) error {
	dir, name := r.at(path)
	return r.Rmdir(r.tick(), dir, name)
}

func (r *rig) mv(from, to string, flags RenameFlags) error {
	od, on := r.at(from)
	nd, nn := r.at(to)
	_, _, err := r.Rename(r.tick(), od, on, nd, nn, flags)
	return err
}

func (r *rig) ln(from, to string) error {
	dir, name := r.at(to)
	_, err := r.Link(r.tick(), r.node(from).ID, dir, name)
	return err
}

func (r *rig) write(path, content string) error {
	n := r.node(path)
	_, err := r.SetContent(r.tick(), n.ID, chunk.Version{Size: int64(len(content)), Inline: []byte(content)}, r.now, []OpID{n.Content.ID}, nil)
	return err
}

// ls returns all paths below dir, directories with a slash, files with their content.
func (r *rig) ls() []string {
	r.t.Helper()
	var out []string
	var list func(dir NodeID, prefix string)
	list = func(dir NodeID, prefix string) {
		entries, err := r.List(dir, "", 1000)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, e := range entries {
			n, err := r.Node(e.Node)
			if err != nil {
				r.t.Fatal(err)
			}
			if e.Kind == KindDir {
				out = append(out, prefix+e.Name+"/")
				list(e.Node, prefix+e.Name+"/")
				continue
			}
			line := prefix + e.Name
			if len(n.Content.Inline) > 0 {
				line += "=" + string(n.Content.Inline)
			}
			out = append(out, line)
		}
	}
	list(Root, "")
	return out
}

func (r *rig) wantTree(want ...string) {
	r.t.Helper()
	if diff := cmp.Diff(want, r.ls()); diff != "" {
		r.t.Errorf("tree of %v (-want +got):\n%s", r.Author(), diff)
	}
	mustCheck(r.t, r.Tree)
}

func (r *rig) must(errs ...error) {
	r.t.Helper()
	for i, err := range errs {
		if err != nil {
			r.t.Fatalf("step %d: %v", i, err)
		}
	}
}

// TestPOSIX: what each operation refuses, and that refusing leaves no trace.
func TestPOSIX(t *testing.T) {
	long := strings.Repeat("n", MaxName+1)
	for _, c := range []struct {
		name string
		do   func(r *rig) error
		want error
	}{
		{"create over file", func(r *rig) error { return r.mkfile("f") }, ErrExist},
		{"create over dir", func(r *rig) error { return r.mkfile("d") }, ErrExist},
		{"mkdir over file", func(r *rig) error { return r.mkdir("f") }, ErrExist},
		{"create in file", func(r *rig) error { _, err := r.Create(1, r.node("f").ID, "x", CreateSpec{Kind: KindFile}); return err }, ErrNotDir},
		{"create in nothing", func(r *rig) error { _, err := r.Create(1, NodeID{9}, "x", CreateSpec{Kind: KindFile}); return err }, ErrNotExist},
		{"name empty", func(r *rig) error { return r.mkfile("") }, ErrInvalidName},
		{"name dot", func(r *rig) error { return r.mkfile(".") }, ErrInvalidName},
		{"name dotdot", func(r *rig) error { return r.mkdir("..") }, ErrInvalidName},
		{"name with NUL", func(r *rig) error { return r.mkfile("a\x00b") }, ErrInvalidName},
		{"name with slash", func(r *rig) error { _, err := r.Create(1, Root, "a/b", CreateSpec{Kind: KindFile}); return err }, ErrInvalidName},
		{"name too long", func(r *rig) error { return r.mkfile(long) }, ErrNameTooLong},
		{"longest name", func(r *rig) error { return r.mkfile(long[1:]) }, nil},
		{"name of any bytes", func(r *rig) error { return r.mkfile("\xff\n\x01") }, nil},
		{"kind unknown", func(r *rig) error { return r.make(99, "x") }, ErrInvalidArgument},
		{"symlink to nothing", func(r *rig) error { _, err := r.Create(1, Root, "x", CreateSpec{Kind: KindSymlink}); return err }, ErrInvalidArgument},
		{"symlink too long", func(r *rig) error {
			_, err := r.Create(1, Root, "x", CreateSpec{Kind: KindSymlink, Target: strings.Repeat("t", MaxTarget+1)})
			return err
		}, ErrNameTooLong},
		{"unlink nothing", func(r *rig) error { return r.rm("x") }, ErrNotExist},
		{"unlink dir", func(r *rig) error { return r.rm("d") }, ErrIsDir},
		{"rmdir file", func(r *rig) error { return r.rmdir("f") }, ErrNotDir},
		{"rmdir full", func(r *rig) error { return r.rmdir("d") }, ErrNotEmpty},
		{"rmdir nothing", func(r *rig) error { return r.rmdir("x") }, ErrNotExist},
		{"rmdir empty", func(r *rig) error { return r.rmdir("e") }, nil},
		{"link dir", func(r *rig) error { return r.ln("d", "x") }, ErrIsDir},
		{"link over", func(r *rig) error { return r.ln("f", "g") }, ErrExist},
		{"rename nothing", func(r *rig) error { return r.mv("x", "y", 0) }, ErrNotExist},
		{"rename into itself", func(r *rig) error { return r.mv("d", "d/sub/x", 0) }, ErrInvalidMove},
		{"rename onto itself below", func(r *rig) error { return r.mv("d", "d/x", 0) }, ErrInvalidMove},
		{"rename onto own parent", func(r *rig) error { return r.mv("d/sub", "d", 0) }, ErrNotEmpty},
		{"rename file over dir", func(r *rig) error { return r.mv("f", "e", 0) }, ErrIsDir},
		{"rename dir over file", func(r *rig) error { return r.mv("e", "f", 0) }, ErrNotDir},
		{"rename dir over full", func(r *rig) error { return r.mv("e", "d", 0) }, ErrNotEmpty},
		{"rename dir over empty", func(r *rig) error { return r.mv("d", "e", 0) }, nil},
		{"rename file over file", func(r *rig) error { return r.mv("f", "g", 0) }, nil},
		{"rename same name", func(r *rig) error { return r.mv("f", "f", 0) }, nil},
		{"no-replace onto taken", func(r *rig) error { return r.mv("f", "g", NoReplace) }, ErrExist},
		{"no-replace onto free", func(r *rig) error { return r.mv("f", "x", NoReplace) }, nil},
		{"exchange with nothing", func(r *rig) error { return r.mv("f", "x", Exchange) }, ErrNotExist},
		{"exchange file and dir", func(r *rig) error { return r.mv("f", "d", Exchange) }, nil},
		{"exchange with own parent", func(r *rig) error { return r.mv("d", "d/sub", Exchange) }, ErrInvalidMove},
		{"exchange with own child", func(r *rig) error { return r.mv("d/sub", "d", Exchange) }, ErrInvalidMove},
		{"both flags", func(r *rig) error { return r.mv("f", "g", NoReplace|Exchange) }, ErrInvalidArgument},
		{"attributes of nothing", func(r *rig) error { _, err := r.SetAttr(1, NodeID{9}, AttrChange{Mask: AttrMode}); return err }, ErrNotExist},
		{"no attributes", func(r *rig) error { _, err := r.SetAttr(1, Root, AttrChange{}); return err }, ErrInvalidArgument},
		{"remove no xattr", func(r *rig) error { return r.RemoveXattr(1, Root, "user.x") }, ErrNoXattr},
		{"xattr name too long", func(r *rig) error { return r.SetXattr(1, Root, long+"n", nil) }, ErrNameTooLong},
		{"xattr value too large", func(r *rig) error { return r.SetXattr(1, Root, "user.x", make([]byte, MaxXattrValue+1)) }, ErrTooLarge},
		{"content of a dir", func(r *rig) error { return r.write("d", "x") }, ErrInvalidArgument},
		{"inline too large", func(r *rig) error { return r.write("f", strings.Repeat("x", MaxInline+1)) }, ErrTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, 1)
			r.must(r.mkdir("d"), r.mkdir("d/sub"), r.mkdir("e"), r.mkfile("f"), r.mkfile("g"))
			before, err := r.Hash()
			pending := r.Pending()
			r.must(err)
			if err := c.do(r); !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			mustCheck(t, r.Tree)
			after, err := r.Hash()
			r.must(err)
			if c.want != nil && (after != before || r.Pending() != pending) {
				t.Error("a refused operation changed the tree")
			}
		})
	}
}

func TestWorkInTree(t *testing.T) {
	r := newRig(t, 1)
	r.must(r.mkdir("d"), r.mkfile("d/f"), r.write("d/f", "one"), r.ln("d/f", "g"))
	if n := r.node("g"); n.Nlink != 2 || n.Kind != KindFile {
		t.Errorf("linked file: %+v", n)
	}
	if n := r.node("d"); n.Nlink != 2 || n.Parent != Root {
		t.Errorf("directory: %+v", n)
	}
	r.must(r.mkdir("d/e"))
	if n := r.node("d"); n.Nlink != 3 {
		t.Errorf("directory with one inside has %d links", n.Nlink)
	}
	r.must(r.mv("d", "h", 0), r.rm("g"))
	r.wantTree("h/", "h/e/", "h/f=one")
	files, dirs, size := r.Count()
	if files != 1 || dirs != 3 || size != 3 {
		t.Errorf("counted %d files, %d directories, %d bytes", files, dirs, size)
	}
	id := r.node("h/f").ID
	r.must(r.rm("h/f"))
	n, err := r.Node(id)
	if err != nil || n.Nlink != 0 || string(n.Content.Inline) != "one" {
		t.Errorf("unlinked file: %+v, %v", n, err)
	}
	if _, err := r.Link(r.tick(), id, Root, "again"); !errors.Is(err, ErrNotExist) {
		t.Errorf("linking an unlinked file: %v", err)
	}
	dead := r.node("h/e").ID
	r.must(r.rmdir("h/e"))
	if _, err := r.Create(r.tick(), dead, "x", CreateSpec{Kind: KindFile}); !errors.Is(err, ErrNotExist) {
		t.Errorf("create in a removed directory: %v", err)
	}
	if n, err := r.Node(dead); err != nil || n.Nlink != 0 {
		t.Errorf("removed directory: %+v, %v", n, err)
	}
	r.wantTree("h/")
}

func TestRenameReturnsBothNodes(t *testing.T) {
	r := newRig(t, 1)
	r.must(r.mkfile("a"), r.mkfile("b"), r.mkfile("c"), r.ln("c", "c2"))
	a, b := r.node("a").ID, r.node("b").ID
	moved, replaced, err := r.Rename(r.tick(), Root, "a", Root, "b", 0)
	if err != nil || moved.ID != a || moved.Nlink != 1 || replaced == nil || replaced.ID != b || replaced.Nlink != 0 {
		t.Fatalf("moved %+v, replaced %+v, %v", moved, replaced, err)
	}
	moved, replaced, err = r.Rename(r.tick(), Root, "c", Root, "c2", 0)
	if err != nil || moved.Nlink != 2 || replaced != nil {
		t.Fatalf("rename between names of one file: moved %+v, replaced %+v, %v", moved, replaced, err)
	}
	moved, replaced, err = r.Rename(r.tick(), Root, "b", Root, "c", Exchange)
	if err != nil || moved.ID != a || replaced == nil || replaced.Nlink != 2 {
		t.Fatalf("exchange: moved %+v, other %+v, %v", moved, replaced, err)
	}
	r.wantTree("b", "c", "c2")
}

// TestRenameLeaving: the old name has the new node, whatever was moved and replaced; names of one file stay as they are.
func TestRenameLeaving(t *testing.T) {
	r := newRig(t, 1)
	r.must(r.mkfile("a"), r.mkfile("b"), r.mkfile("c"), r.ln("c", "c2"), r.mkdir("d"), r.mkdir("d/e"))
	left := CreateSpec{Kind: KindChar, UID: 5}
	leaving := func(from, to string, flags RenameFlags) error {
		fd, fn := r.at(from)
		td, tn := r.at(to)
		_, _, err := r.RenameLeaving(r.tick(), fd, fn, td, tn, flags, left)
		return err
	}
	r.must(leaving("a", "b", 0), leaving("d/e", "e", NoReplace), leaving("c", "c2", 0))
	for err, want := range map[error]error{leaving("b", "c", NoReplace): ErrExist, leaving("b", "c", Exchange): ErrInvalidArgument, leaving("none", "x", 0): ErrNotExist} {
		if !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	for _, name := range []string{"a", "d/e"} {
		if n := r.node(name); n.Kind != KindChar || n.Mode != 0 || n.UID != 5 {
			t.Errorf("left at %s: %+v", name, n)
		}
	}
	r.wantTree("a", "b", "c", "c2", "d/", "d/e", "e/")
}

func TestAttributes(t *testing.T) {
	r := newRig(t, 1)
	spec := CreateSpec{Kind: KindChar, Mode: 0o4755, UID: 7, GID: 8, Rdev: 0x501, Xattrs: map[string][]byte{"user.b": []byte("2"), "user.a": []byte("1")}}
	n, err := r.Create(100, Root, "c", spec)
	r.must(err)
	want := Node{ID: n.ID, Kind: KindChar, Mode: 0o4755, UID: 7, GID: 8, Rdev: 0x501, Nlink: 1, Atime: 100, Mtime: 100, Ctime: 100, Btime: 100}
	if diff := cmp.Diff(want, r.node("c")); diff != "" {
		t.Error(diff)
	}
	got, err := r.SetAttr(200, n.ID, AttrChange{Mask: AttrMode | AttrUID | AttrAtime, Mode: 0o1, UID: 9, GID: 99, Atime: -5, Mtime: 99})
	r.must(err)
	want.Mode, want.UID, want.Atime, want.Ctime = 0o1, 9, -5, 200
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	r.must(r.SetXattr(300, n.ID, "user.c", nil), r.RemoveXattr(301, n.ID, "user.a"))
	names, err := r.Xattrs(n.ID)
	if diff := cmp.Diff([]string{"user.b", "user.c"}, names); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if v, err := r.Xattr(n.ID, "user.b"); string(v) != "2" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	if _, err := r.Xattr(n.ID, "user.a"); !errors.Is(err, ErrNoXattr) {
		t.Error(err)
	}
	root, err := r.SetAttr(400, Root, AttrChange{Mask: AttrMode | AttrGID, Mode: 0o1777, GID: 3})
	if err != nil || root.Mode != 0o1777 || root.GID != 3 || root.Mtime != 100 {
		t.Errorf("root: %+v, %v", root, err)
	}
}

func TestList(t *testing.T) {
	r := newRig(t, 1)
	for _, name := range []string{"b", "a", "ab", "\xff", "\x01"} {
		r.must(r.mkfile(name))
	}
	var got []string
	after := ""
	for {
		page, err := r.List(Root, after, 2)
		r.must(err)
		for _, e := range page {
			got = append(got, e.Name)
			after = e.Name
		}
		if len(page) < 2 {
			break
		}
	}
	if diff := cmp.Diff([]string{"\x01", "a", "ab", "b", "\xff"}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := r.List(r.node("a").ID, "", 2); !errors.Is(err, ErrNotDir) {
		t.Error(err)
	}
	if _, err := r.Lookup(r.node("a").ID, "x"); !errors.Is(err, ErrNotDir) {
		t.Error(err)
	}
}

func TestNodeByIno(t *testing.T) {
	r := newRig(t, 1)
	r.must(r.mkfile("f"))
	want := r.node("f")
	got, err := r.NodeByIno(want.ID.Ino())
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if n, err := r.NodeByIno(1); err != nil || n.ID != Root || n.Mode != 0o755 {
		t.Errorf("%+v, %v", n, err)
	}
	if _, err := r.NodeByIno(2); !errors.Is(err, ErrNotExist) {
		t.Error(err)
	}
}

func TestSetContentAlso(t *testing.T) {
	r := newRig(t, 1)
	r.must(r.mkfile("f"))
	id := r.node("f").ID
	boom := errors.New("boom")
	_, err := r.SetContent(1, id, chunk.Version{Size: 1, Inline: []byte("x")}, 1, nil, func(kv.Tx) error { return boom })
	if !errors.Is(err, boom) || r.Pending() != 1 {
		t.Fatalf("%v, %d pending", err, r.Pending())
	}
	c, err := r.SetContent(1, id, chunk.Version{Size: 1, Inline: []byte("x")}, 1, nil, func(tx kv.Tx) error { return tx.Put([]byte("jx"), []byte("y")) })
	r.must(err)
	if v, err := r.db.Get([]byte("jx")); string(v) != "y" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	if got := r.node("f").Content; got.ID != c.ID || r.node("f").Heads != nil {
		t.Errorf("%+v", got)
	}
	if r.MaxLamport() != 2 {
		t.Errorf("counter at %d after a failed op", r.MaxLamport())
	}
}

// TestLinkUnnamed: a node that lost its last name gets another only if that is asked for, here and elsewhere.
func TestLinkUnnamed(t *testing.T) {
	r := newRig(t, 1)
	n, err := r.Create(r.tick(), Root, "f", CreateSpec{Kind: KindFile})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Unlink(r.tick(), Root, "f"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Link(r.tick(), n.ID, Root, "g"); !errors.Is(err, ErrNotExist) {
		t.Errorf("link: %v", err)
	}
	if n, err = r.LinkUnnamed(r.tick(), n.ID, Root, "g"); err != nil || n.Nlink != 1 {
		t.Errorf("link of an unnamed node: %d links, %v", n.Nlink, err)
	}
}
