package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/foreverfs/forever/internal/fail"
)

// twoVolumes makes a data directory with a further volume in it.
func twoVolumes(t *testing.T) (cfg, further Config) {
	t.Helper()
	cfg = testConfig(t, filepath.Join(t.TempDir(), "data"))
	further = cfg
	further.Dir = filepath.Join(cfg.Dir, volumesName, strings.Repeat("0a", 16))
	for _, c := range []Config{cfg, further} {
		if _, err := Create(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	return cfg, further
}

// TestVolumeInUseForTheMoment: a volume that a command has to itself is served as soon as that has ended.
func TestVolumeInUseForTheMoment(t *testing.T) {
	cfg, further := twoVolumes(t)
	command, err := lockDir(further.Dir)
	if err != nil {
		t.Fatal(err)
	}
	h, err := OpenHost(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	if f := h.failed[further.Dir]; fail.KindOf(f.err) != fail.InUse {
		t.Fatalf("in use: %v", f.err)
	}
	if err := command.Close(); err != nil {
		t.Fatal(err)
	}
	h.scan(t.Context())
	if h.nodes[further.Dir] == nil {
		t.Errorf("still not served: %v", h.failed[further.Dir].err)
	}
}

// TestUnwritableStateEndsHost: a volume whose state could not be written ends the whole host, as its files stay locked in this process.
func TestUnwritableStateEndsHost(t *testing.T) {
	cfg, further := twoVolumes(t)
	h, err := OpenHost(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	state := filepath.Join(further.Dir, stateName)
	if err := errors.Join(os.Rename(state, state+".away"), os.WriteFile(state, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := h.nodes[further.Dir].state.Flush(); err == nil {
		t.Fatal("the state was written")
	}
	select {
	case err := <-h.Done():
		if err == nil {
			t.Error("ended without a reason")
		}
	case <-time.After(10 * time.Second):
		t.Error("the host goes on")
	}
}
