package namespace

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/kv"
)

// logKey names a batch.
type logKey struct {
	author AuthorID
	seq    uint64
}

// world is a few devices and all batches that left any of them.
type world struct {
	t       *rapid.T
	batches map[logKey][]byte
	devices []*device
	starts  byte
	clock   int64
	newDB   func() kv.DB
	folds   bool    // devices fold, each beside a twin that does not
	forgets bool    // folding forgets what was removed
	thins   bool    // say what time it is, so that old contents are thinned
	moves   bool    // devices do nothing but move directories
	loser   *device // falls back to old states
	away    *device // is not active

	// writes has what each content op wrote, ended which of them an op replaced
	// or removed that knew them.
	writes map[OpID]string
	ended  map[OpID][]OpID
	gone   []NodeID // files that lost their last name on some device
	// absorbed has groups of writes of equal content that one device took for one.
	absorbed map[OpID][][]OpID
}

// device is one device: its state, what it holds of logs, and a state it may fall back to.
type device struct {
	w      *world
	index  int
	db     kv.DB
	tree   *Tree
	holds  map[logKey]bool
	saved  kv.DB
	author AuthorID

	twin      *Tree // has merged the same, and never folds; nil unless the world folds
	savedTwin kv.DB
	refused   map[logKey]bool // came too late
}

// GoString keeps what rapid prints readable.
func (d *device) GoString() string { return fmt.Sprintf("dev%d", d.index) }

func newWorld(t *rapid.T, devices int, newDB func() kv.DB) *world {
	w := &world{t: t, batches: map[logKey][]byte{}, newDB: newDB, writes: map[OpID]string{}, ended: map[OpID][]OpID{}, absorbed: map[OpID][][]OpID{}}
	for i := range devices {
		d := &device{w: w, index: i, db: newDB(), holds: map[logKey]bool{}}
		w.devices = append(w.devices, d)
		d.start()
		d.saved = clone(t, d.db)
	}
	return w
}

func (d *device) start() {
	d.w.starts++
	d.author = AuthorID{0: byte(d.index + 1), 15: d.w.starts}
	tree, err := Open(d.db, d.author, WithDevice(fmt.Sprintf("dev%d", d.index)))
	if err != nil {
		d.w.t.Fatalf("open: %v", err)
	}
	if d.tree = tree; d.writing() {
		tree.KeepWritten(func(id NodeID) bool { return id[15]%2 == 0 })
	}
}

func clone(t *rapid.T, db kv.DB) kv.DB {
	out := kv.NewMem()
	err := out.Update(func(tx kv.Tx) error {
		return db.Scan(nil, nil, func(k, v []byte) bool { return tx.Put(k, v) == nil })
	})
	if err != nil {
		t.Fatalf("clone: %v", err)
	}
	return out
}

// publish cuts all that is pending. If crash is set the device dies after the
// log has it, before the tree knows.
func (d *device) publish(crash bool) {
	for d.tree.Pending() > 0 {
		payload, err := d.tree.Cut()
		if err != nil {
			d.w.t.Fatalf("cut: %v", err)
		}
		k := logKey{d.author, d.tree.Vector()[d.author] + 1}
		d.w.batches[k], d.holds[k] = payload, true
		if crash {
			d.start()
			return
		}
		if err := d.tree.Committed(k.seq); err != nil {
			d.w.t.Fatalf("committed: %v", err)
		}
		d.tell(k)
	}
}

// lose lets a device fall back to an older state, as a power cut may. What others hold stays.
func (d *device) lose() {
	d.db = clone(d.w.t, d.saved)
	d.holds = map[logKey]bool{}
	d.start()
	for a, n := range d.tree.Vector() {
		for seq := uint64(1); seq <= n; seq++ {
			d.holds[logKey{a, seq}] = true
		}
	}
}

// receive gives a device everything another holds, in any order that works, some of it twice.
func (d *device) receive(from *device) {
	d.publish(false)
	var todo []logKey
	for k := range from.holds {
		todo = append(todo, k)
	}
	slices.SortFunc(todo, func(a, b logKey) int {
		if c := bytes.Compare(a.author[:], b.author[:]); c != 0 {
			return c
		}
		return int(a.seq) - int(b.seq)
	})
	todo = rapid.Permutation(todo).Draw(d.w.t, "order")
	for len(todo) > 0 {
		var later []logKey
		for _, k := range todo {
			switch _, err := d.tree.Merge(k.author, k.seq, d.w.batches[k]); {
			case errors.Is(err, ErrNotReady):
				later = append(later, k)
			case errors.Is(err, ErrFolded) && d.w.folds:
				d.refused[k] = true
			case err != nil:
				d.w.t.Fatalf("device %d merges %v/%d: %v", d.index, k.author, k.seq, err)
			default:
				d.holds[k] = true
				d.tell(k)
			}
		}
		if len(later) == len(todo) && d.w.folds {
			break // they wait for somebody who took them before promising not to
		}
		if len(later) == len(todo) {
			d.w.t.Fatalf("device %d cannot merge any of %v", d.index, later)
		}
		todo = later
	}
	if err := check(d.tree); err != nil {
		d.w.t.Fatalf("device %d after a merge: %v", d.index, err)
	}
	d.compareTwin()
}

// place is an entry somewhere in the tree.
type treePlace struct {
	dir NodeID
	Entry
}

func walk(t *Tree) (dirs []NodeID, places []treePlace, err error) {
	dirs = []NodeID{Root}
	for i := 0; i < len(dirs); i++ {
		list, err := t.List(dirs[i], "", 1000)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range list {
			places = append(places, treePlace{dirs[i], e})
			if e.Kind == KindDir {
				dirs = append(dirs, e.Node)
			}
		}
	}
	return dirs, places, nil
}

// refusals are what a random local operation may meet.
var refusals = []error{ErrNotExist, ErrExist, ErrNotEmpty, ErrNotDir, ErrIsDir, ErrInvalidMove, ErrNoXattr}

// act does one random local operation.
func (d *device) act() {
	t := d.w.t
	dirs, places, err := walk(d.tree)
	if err != nil {
		t.Fatalf("walk: %v", err)
	}
	d.w.clock++
	now := d.w.clock + int64(d.index)*1e17 // clocks are off by years
	dir := rapid.SampledFrom(dirs).Draw(t, "dir")
	name := rapid.SampledFrom([]string{"a", "b", "c.txt"}).Draw(t, "name")
	if len(places) > 0 && rapid.IntRange(0, 7).Draw(t, "taken") == 0 { // a conflict name, perhaps
		name = rapid.SampledFrom(places).Draw(t, "like").Name
	}
	if len(places) == 0 || rapid.IntRange(0, 3).Draw(t, "make") == 0 {
		kind := rapid.SampledFrom([]Kind{KindFile, KindDir, KindDir, KindSymlink}).Draw(t, "kind")
		spec := CreateSpec{Kind: kind, Mode: 0o644}
		if kind == KindSymlink {
			spec.Target = "x"
		}
		_, err = d.tree.Create(now, dir, name, spec)
	} else if len(d.w.gone) > 0 && rapid.IntRange(0, 15).Draw(t, "revive") == 0 {
		err = d.write(now, rapid.SampledFrom(d.w.gone).Draw(t, "gone"), d.tree.Revive)
	} else {
		p := rapid.SampledFrom(places).Draw(t, "place")
		err = d.change(now, p, dir, name)
	}
	if err != nil && !slices.ContainsFunc(refusals, func(r error) bool { return errors.Is(err, r) }) {
		t.Fatalf("device %d: %v", d.index, err)
	}
}

func (d *device) change(now int64, p treePlace, dir NodeID, name string) (err error) {
	if n, err := d.tree.Node(p.Node); err == nil && n.Kind == KindFile {
		defer func() { d.absorb(n) }()
	}
	switch rapid.IntRange(0, 9).Draw(d.w.t, "change") {
	case 0, 1:
		var replaced *Node
		_, replaced, err = d.tree.Rename(now, p.dir, p.Name, dir, name, 0)
		if err == nil && replaced != nil {
			d.removed(*replaced)
		}
	case 2:
		_, _, err = d.tree.Rename(now, p.dir, p.Name, dir, name, Exchange)
	case 3:
		_, err = d.tree.Link(now, p.Node, dir, name)
	case 4, 5:
		before := d.names(p.dir)
		if p.Kind == KindDir {
			err = d.tree.Rmdir(now, p.dir, p.Name)
		} else {
			var n Node
			if n, err = d.tree.Unlink(now, p.dir, p.Name); err == nil {
				d.removed(n)
			}
		}
		if err == nil {
			// Nothing else comes or goes: whoever lists and then removes finds every name.
			before = slices.DeleteFunc(before, func(name string) bool { return name == p.Name })
			if after := d.names(p.dir); !slices.Equal(before, after) && !d.writing() {
				d.w.t.Fatalf("removing %q from %v: before\n%q\nafter\n%q\n%s", p.Name, p.dir, before, after, dump(d.tree))
			}
		}
	case 6:
		_, err = d.tree.SetAttr(now, p.Node, AttrChange{Mask: AttrMode | AttrMtime, Mode: uint32(now) & 0o777, Mtime: now})
	case 7:
		if now%3 == 0 {
			return d.tree.RemoveXattr(now, p.Node, "user.x")
		}
		err = d.tree.SetXattr(now, p.Node, "user.x", []byte{byte(now)})
	default:
		err = d.write(now, p.Node, d.tree.SetContent)
	}
	return err
}

// writing reports whether the device has unpublished writes to some of all files, so that it shows them when those are gone that hid them.
func (d *device) writing() bool { return d.index == 2 }

// names lists a directory.
func (d *device) names(dir NodeID) (names []string) {
	list, err := d.tree.List(dir, "", 1000)
	if err != nil && !errors.Is(err, ErrNotExist) {
		d.w.t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name)
	}
	return names
}

// write gives a file a content; most are like no other.
func (d *device) write(now int64, id NodeID, set func(int64, NodeID, chunk.Version, int64, []OpID, func(kv.Tx) error) (Content, error)) error {
	n, err := d.tree.Node(id)
	if err != nil || n.Kind != KindFile {
		return err
	}
	defer func() { d.absorb(n) }()
	bytes := fmt.Sprint(now)
	if now%2 == 0 {
		bytes = fmt.Sprint("same", now%3)
	}
	ended := d.like(n)
	v := chunk.Version{Size: int64(len(bytes)), Inline: []byte(bytes)}
	c, err := set(now, id, v, now, []OpID{n.Content.ID}, nil)
	if err == nil {
		d.w.writes[c.ID] = bytes
		d.w.ended[c.ID] = ended
	}
	return err
}

// like returns the writes a device knows whose content is the one that a file shows.
func (d *device) like(n Node) (ops []OpID) {
	for o, bytes := range d.w.writes {
		if o == n.Content.ID || bytes == string(n.Content.Inline) && d.applied(o) {
			ops = append(ops, o)
		}
	}
	return ops
}

func (d *device) applied(o OpID) bool {
	return o.Lamport <= d.tree.authors[o.Author].applied || o.Author == d.author
}

// removed notes what was known of a file when the last op took a name from it.
func (d *device) removed(n Node) {
	if n.Nlink == 0 && !slices.Contains(d.w.gone, n.ID) {
		d.w.gone = append(d.w.gone, n.ID)
	}
	op := OpID{d.tree.MaxLamport(), d.author}
	d.w.ended[op] = append(d.w.ended[op], d.like(n)...)
}

// absorb notes that contents which a device knew to be equal may be one from now on: of files
// that are alike, one goes with the other, and speaks for both.
func (d *device) absorb(n Node) {
	op := OpID{d.tree.MaxLamport(), d.author}
	for _, c := range append([]Content{n.Content}, n.Heads...) {
		if like := d.like(Node{Content: c}); len(like) > 1 {
			d.w.absorbed[op] = append(d.w.absorbed[op], like)
		}
	}
}

// endedIn returns the writes that were replaced or removed knowingly, or were
// absorbed by one that was.
func (w *world) endedIn(all *device) map[OpID]bool {
	ended := map[OpID]bool{}
	for o, list := range w.ended {
		if all.applied(o) {
			for _, e := range list {
				ended[e] = true
			}
		}
	}
	for more := true; more; {
		more = false
		for o, groups := range w.absorbed {
			for _, g := range groups {
				if !all.applied(o) || !slices.ContainsFunc(g, func(e OpID) bool { return ended[e] }) {
					continue
				}
				for _, e := range g {
					more = more || !ended[e]
					ended[e] = true
				}
			}
		}
	}
	return ended
}

// checkKept fails if a content is nowhere to be seen that nobody replaced or removed knowingly.
func (w *world) checkKept(all *device) {
	ended := w.endedIn(all)
	_, places, err := walk(all.tree)
	if err != nil {
		w.t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, p := range places {
		if p.Kind == KindFile {
			n, err := all.tree.Node(p.Node)
			if err != nil {
				w.t.Fatal(err)
			}
			seen[string(n.Content.Inline)] = true
		}
	}
	for o, bytes := range w.writes {
		if all.applied(o) && !ended[o] && !seen[bytes] {
			w.t.Fatalf("content %q of %v is nowhere to be seen:\n%s", bytes, o, dump(all.tree))
		}
	}
}

// step is one random event of the world.
func (w *world) step() {
	d := rapid.SampledFrom(w.devices).Draw(w.t, "device")
	switch rapid.IntRange(0, 19).Draw(w.t, "event") {
	case 0:
		d.publish(false)
	case 1:
		d.publish(true)
	case 2:
		d.start()
	case 3:
		d.saved = clone(w.t, d.db)
	case 4:
		d.lose()
	case 5, 6, 7:
		d.receive(rapid.SampledFrom(w.devices).Draw(w.t, "from"))
	default:
		d.act()
	}
}

// settle brings everything everywhere and compares the trees.
func (w *world) settle() {
	all := &device{w: w, index: len(w.devices), db: w.newDB(), holds: map[logKey]bool{}}
	for range 2 { // what lost tails made pending comes out with the first exchange
		for _, d := range w.devices {
			d.publish(false)
			maps.Copy(all.holds, d.holds)
		}
		for _, d := range w.devices {
			d.receive(all)
		}
	}
	all.start()
	all.receive(all)
	w.checkKept(all)
	want, err := all.tree.Hash()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, d := range w.devices {
		got, err := d.tree.Hash()
		if err != nil {
			w.t.Fatal(err)
		}
		if got != want {
			w.t.Fatalf("device %d differs from one that got everything at once:\n%s\nand:\n%s", d.index, dump(d.tree), dump(all.tree))
		}
	}
}

// dump lists the records that Hash covers.
func dump(t *Tree) string {
	var b bytes.Buffer
	for _, kind := range treeKeys {
		prefix := key(kind)
		_ = t.db.Scan(prefix, kv.PrefixEnd(prefix), func(k, v []byte) bool {
			fmt.Fprintf(&b, "%c %q = %x\n", kind, k[2:], v)
			return true
		})
	}
	return b.String()
}

// TestConvergence: devices that work, part, meet, crash and lose their tails
// all come to one tree, and no content is lost on the way.
func TestConvergence(t *testing.T) {
	const parts = 2
	checks := flag.Lookup("rapid.checks").Value
	was := checks.String()
	if was == "100" { // the library's default: nobody asked for another number
		if err := checks.Set(fmt.Sprint(scaled(10_000, 1_000_000) / parts)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = checks.Set(was) })
	}
	for i := range parts {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				w := newWorld(t, rapid.IntRange(2, 6).Draw(t, "devices"), func() kv.DB { return kv.NewMem() })
				for range rapid.IntRange(20, 150).Draw(t, "steps") {
					w.step()
				}
				w.settle()
			})
		})
	}
}

func TestConvergenceOnPebble(t *testing.T) {
	var open []kv.DB
	newDB := func() kv.DB {
		db, err := kv.OpenPebble(kv.PebbleConfig{Dir: "state", FS: vfs.NewMem(), MemTableSize: 256 << 10, CacheSize: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, db)
		return db
	}
	rounds := 0
	rapid.Check(t, func(t *rapid.T) {
		if rounds++; rounds > 10 {
			return
		}
		w := newWorld(t, 3, newDB)
		for range 60 {
			w.step()
		}
		w.settle()
		for _, db := range open {
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
		open = nil
	})
}
