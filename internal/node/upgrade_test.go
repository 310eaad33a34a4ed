package node

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/volume"
)

// TestUpgrade: a data directory of an older version keeps its tree.
func TestUpgrade(t *testing.T) {
	cfg := testConfig(t, filepath.Join(t.TempDir(), "data"))
	if _, err := Create(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	n := mustOpen(t, cfg)
	if _, err := n.vol.Mkdir(t.Context(), volume.Caller{}, volume.RootIno, "d", 0o750); err != nil {
		t.Fatal(err)
	}
	old := n.format
	old.Version = 1
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(cfg.Dir, sumsName)); err != nil { // there were none then
		t.Fatal(err)
	}
	if err := writeFormat(cfg.Dir, old); err != nil {
		t.Fatal(err)
	}

	n = mustOpen(t, cfg)
	a, err := n.vol.Lookup(t.Context(), volume.RootIno, "d")
	if err != nil || a.Mode&0o777 != 0o750 {
		t.Fatalf("after the upgrade: %+v, %v", a, err)
	}
	if n.format.Version != FormatVersion {
		t.Errorf("version %d", n.format.Version)
	}
	// With something unpublished it must not.
	db := kv.NewMem()
	if err := db.Update(func(tx kv.Tx) error { return tx.Put([]byte("tp12345678"), []byte("op")) }); err != nil {
		t.Fatal(err)
	}
	if err := forgetTree(db); !errors.Is(err, errUnpublished) {
		t.Fatalf("with pending ops: %v", err)
	}
}
