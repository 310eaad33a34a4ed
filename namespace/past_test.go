package namespace

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// past tells the history of a path in a few words.
func (r *rig) past(path ...string) (out []string) {
	r.t.Helper()
	list, err := r.History(path)
	if err != nil {
		return []string{err.Error()}
	}
	for _, p := range list {
		line := p.State.String() + " " + string(p.Content.Inline) + " by " + p.Device
		if p.RemovedBy != "" {
			line += ", removed by " + p.RemovedBy
		}
		out = append(out, line)
	}
	return out
}

func (r *rig) wantPast(want []string, path ...string) {
	r.t.Helper()
	if diff := cmp.Diff(want, r.past(path...)); diff != "" {
		r.t.Errorf("history of %v: -want +got:\n%s", path, diff)
	}
}

// TestHistory: what a path had can be found, wherever it went.
func TestHistory(t *testing.T) {
	a, b := newRig(t, 1), newRig(t, 2)
	a.must(a.mkdir("d"), a.mkfile("d/f"), a.write("d/f", "1"), a.write("d/f", "2"))
	meet(t, a, b)
	b.must(b.write("d/f", "3"))
	meet(t, a, b)
	a.wantPast([]string{"current 3 by dev2", "replaced 2 by dev1", "replaced 1 by dev1"}, "d", "f")

	// The editor's way: another file has the name now.
	a.must(a.mkfile("d/t"), a.write("d/t", "4"), a.mv("d/t", "d/f", 0))
	meet(t, a, b)
	want := []string{"current 4 by dev1", "removed 3 by dev2, removed by dev1", "replaced 2 by dev1, removed by dev1", "replaced 1 by dev1, removed by dev1"}
	b.wantPast(want, "d", "f")

	// Below a directory that is gone.
	b.must(b.rm("d/f"), b.rmdir("d"))
	meet(t, a, b)
	want[0] = "removed 4 by dev1, removed by dev2"
	a.wantPast(want, "d", "f")
	list, err := a.ListPast([]string{"d"})
	a.must(err)
	if len(list) != 2 || list[0].Name != "f" || list[0].To == 0 {
		t.Errorf("names of the removed directory: %+v", list)
	}
	if _, err := a.History([]string{"d"}); !errors.Is(err, ErrIsDir) {
		t.Errorf("history of a directory: %v", err)
	}
	if _, err := a.History([]string{"d", "nothing"}); !errors.Is(err, ErrNotExist) {
		t.Errorf("history of nothing: %v", err)
	}
}

// TestHistoryOfConflicts: contents that lost are told from those that were replaced.
func TestHistoryOfConflicts(t *testing.T) {
	a, b := newRig(t, 1), newRig(t, 2)
	a.must(a.mkfile("f"), a.write("f", "0"))
	meet(t, a, b)
	a.must(a.write("f", "a"))
	b.must(b.write("f", "b"))
	meet(t, a, b)
	a.wantPast([]string{"current b by dev2", "conflict a by dev1", "replaced 0 by dev1"}, "f")
	list, total, err := a.Conflicts(10)
	a.must(err)
	if total != 1 || len(list) != 1 || list[0].Dir != Root {
		t.Fatalf("%d conflicts: %v", total, list)
	}
	a.wantPast([]string{"current a by dev1"}, list[0].Name)
	a.must(a.rm(list[0].Name))
	meet(t, a, b)
	b.wantPast([]string{"current b by dev2", "replaced a by dev1", "replaced 0 by dev1"}, "f")
	if _, total, _ := b.Conflicts(10); total != 0 {
		t.Errorf("%d conflicts left", total)
	}
}

func TestPath(t *testing.T) {
	a, b := newRig(t, 1), newRig(t, 2)
	a.must(a.mkdir("d"), a.mkdir("d/e"))
	b.must(b.mkdir("d"), b.mkdir("d/e"), b.mkdir("d/e/f"))
	meet(t, a, b)
	got, err := a.Path(a.node("d/e/f").ID)
	a.must(err)
	if diff := cmp.Diff([]string{"d", "e", "f"}, got); diff != "" {
		t.Error(diff)
	}
}
