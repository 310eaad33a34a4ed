package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/volume"
)

// TestPassingNames: what has a name only in passing, as a file without one has to other devices, is not in the history of its directory.
func TestPassingNames(t *testing.T) {
	cfg := testConfig(t, filepath.Join(t.TempDir(), "data"))
	if _, err := Create(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	n := mustOpen(t, cfg)
	f := files{v: n.vol}
	for _, content := range []string{"one", "two"} {
		if err := f.Put(t.Context(), "file", control.PutOptions{Mode: 0o600}, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	a, h, err := n.vol.CreateUnnamed(t.Context(), volume.Caller{}, volume.RootIno, 0o600, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	h.Release()
	n.vol.Forget(a.Ino, 1)
	const own = ".unnamed-and-mine" // of a user
	if err := f.Put(t.Context(), own, control.PutOptions{Mode: 0o600}, strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	if err := f.Remove(t.Context(), own, false); err != nil {
		t.Fatal(err)
	}
	past, err := f.History(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range past.Entries {
		if e.Name != "file" && e.Name != own {
			t.Errorf("%s was there: %+v", e.Name, e)
		}
	}
	if len(past.Entries) < 2 {
		t.Errorf("there are only %+v", past.Entries)
	}
}
