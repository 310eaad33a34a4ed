package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/foreverfs/forever/internal/fail"
)

func TestCheckMountpointRefuses(t *testing.T) {
	base := t.TempDir()
	full := filepath.Join(base, "full")
	data := filepath.Join(base, "data")
	for _, dir := range []string{full, filepath.Join(data, "in")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(full, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"not empty": full, "no directory": file, "a mount": "/proc", "missing": filepath.Join(base, "no"),
		"inside the data": filepath.Join(data, "in"), "around the data": base,
	} {
		err := checkMountpoint(path, data, false)
		if err == nil || fail.KindOf(err) != fail.Mountpoint || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	empty := filepath.Join(base, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := checkMountpoint(empty, data, false); err != nil && fail.KindOf(err) != fail.FUSE {
		t.Errorf("an empty directory is refused: %v", err)
	}
}
