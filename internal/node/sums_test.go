package node

import (
	"path/filepath"
	"testing"

	"github.com/foreverfs/forever/internal/fail"
)

// TestSumsOutliveAFailedStart: a start that does not come to open the state, as with a wrong passphrase, leaves the checksums for the next.
func TestSumsOutliveAFailedStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	cfg := testConfig(t, dir)
	cfg.Passphrase = func(bool) ([]byte, error) { return []byte("right"), nil }
	if _, err := Create(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := mustOpen(t, cfg).Close(); err != nil {
		t.Fatal(err)
	}
	wrong := cfg
	wrong.Passphrase = func(bool) ([]byte, error) { return []byte("wrong"), nil }
	if _, err := Open(t.Context(), wrong); fail.KindOf(err) != fail.Key {
		t.Fatalf("with the wrong passphrase: %v", err)
	}
	flip(t, filepath.Join(dir, stateName, "*.log"))
	n, err := Open(t.Context(), cfg)
	if err == nil {
		_ = n.Close()
	}
	if fail.KindOf(err) != fail.Damaged {
		t.Errorf("with a damaged log: %v", err)
	}
}
