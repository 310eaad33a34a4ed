package namespace

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/foreverfs/forever/internal/kv"
)

// TestNamesStay: who lists a directory and removes what is in it, one after the other, finds all of it: the
// removal of one name takes no other away, and gives none another place.
func TestNamesStay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, 3, func() kv.DB { return kv.NewMem() })
		for range rapid.IntRange(10, 120).Draw(t, "steps") {
			w.step()
		}
		for range 2 {
			for _, d := range w.devices {
				for _, from := range w.devices {
					d.receive(from)
				}
			}
		}
		tree := w.devices[0].tree
		if err := emptyOut(tree, Root, ""); err != nil {
			t.Fatal(err)
		}
		if list, err := tree.List(Root, "", 10); err != nil || len(list) > 0 {
			t.Fatalf("left: %v, %v", list, err)
		}
	})
}

// emptyOut removes what is in a directory as find -delete does.
func emptyOut(t *Tree, dir NodeID, path string) error {
	list, err := t.List(dir, "", 1000)
	if err != nil {
		return err
	}
	for _, e := range list {
		at := path + "/" + e.Name
		now, err := t.Lookup(dir, e.Name)
		if err != nil {
			return fmt.Errorf("%s was there: %w", at, err)
		}
		if now.Kind != e.Kind {
			return fmt.Errorf("%s was a %v and is a %v", at, e.Kind, now.Kind)
		}
		if e.Kind != KindDir {
			_, err = t.Unlink(1, dir, e.Name)
		} else if err = emptyOut(t, now.Node, at); err == nil {
			err = t.Rmdir(1, dir, e.Name)
		}
		if err != nil {
			return fmt.Errorf("remove %s: %w", at, err)
		}
	}
	return nil
}
