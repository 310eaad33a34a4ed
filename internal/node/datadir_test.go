package node

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/foreverfs/forever/internal/fail"
)

func wantKind(t *testing.T, err error, want fail.Kind) {
	t.Helper()
	if err == nil || fail.KindOf(err) != want {
		t.Fatalf("error %v has kind %q, want %q", err, fail.KindOf(err), want)
	}
}

func TestCreateDataDirOnceOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	if ok, err := Initialised(dir); ok || err != nil {
		t.Fatalf("Initialised(missing) = %v, %v", ok, err)
	}
	d, err := createDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !Running(dir) {
		t.Error("a locked directory does not count as running")
	}
	_, err = createDataDir(dir)
	wantKind(t, err, fail.InUse)
	if err := d.finish(goldenVolume(), RoleMember); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if Running(dir) {
		t.Error("a closed directory counts as running")
	}
	_, err = createDataDir(dir)
	wantKind(t, err, fail.Exists)
	d, f, err := openDataDir(dir)
	if err != nil || f.Volume != goldenVolume() {
		t.Fatalf("openDataDir = %+v, %v", f, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCreationCutShortStartsOver(t *testing.T) {
	dir := t.TempDir()
	d, err := createDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(d.join(chunksName), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, err = openDataDir(dir)
	wantKind(t, err, fail.NoVolume)
	if d, err = createDataDir(dir); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := os.Stat(d.join(chunksName)); !os.IsNotExist(err) {
		t.Errorf("the rest of the unfinished creation is still there: %v", err)
	}
}

func TestForeignDirectoriesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "thesis.tex")
	if err := os.WriteFile(file, []byte("years of work"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := createDataDir(dir)
	wantKind(t, err, fail.Format)
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestNewerFormatIsRefusedUntouched(t *testing.T) {
	dir := t.TempDir()
	text := []byte("forever data directory\nversion 7\nfuture yes\n")
	if err := os.WriteFile(filepath.Join(dir, formatName), text, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := openDataDir(dir)
	wantKind(t, err, fail.Format)
	_, err = createDataDir(dir)
	wantKind(t, err, fail.Format)
	if got, err := os.ReadFile(filepath.Join(dir, formatName)); err != nil || string(got) != string(text) {
		t.Errorf("format file now %q, %v", got, err)
	}
}

// TestMakeDirs makes what leads to a directory, takes one that is there, and says what is in the way.
func TestMakeDirs(t *testing.T) {
	deep := filepath.Join(t.TempDir(), "a", "b", "c")
	for range 2 {
		if err := makeDirs(deep); err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(deep); err != nil || fi.Mode() != os.ModeDir|0o700 {
			t.Fatalf("%v, %v", fi, err)
		}
	}
	file := filepath.Join(deep, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "d")} {
		if err := makeDirs(path); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
