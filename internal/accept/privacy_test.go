package accept

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"

	"github.com/foreverfs/forever/cipher"
)

// planted is what must show up nowhere.
const (
	plantedName    = "PlantedNameOfADocument-7c1f.txt"
	plantedContent = "PlantedContentOfADocument: the quick brown fox is a secret. "
)

// markers returns every form in which planted things could show.
func markers(t *testing.T, content []byte) map[string][]byte {
	t.Helper()
	m := map[string][]byte{"name": []byte(plantedName), "content": []byte(plantedContent)}
	m["name in base64"] = []byte(base64.StdEncoding.EncodeToString([]byte(plantedName))[:30])
	m["name in hex"] = []byte(hex.EncodeToString([]byte(plantedName)))
	for what, p := range map[string][]byte{"name": []byte(plantedName), "content": content} {
		b3, s2, s1, m5 := blake3.Sum256(p), sha256.Sum256(p), sha1.Sum(p), md5.Sum(p)
		for hash, sum := range map[string][]byte{"BLAKE3": b3[:], "SHA-256": s2[:], "SHA-1": s1[:], "MD5": m5[:]} {
			m[hash+" of the "+what] = sum
			m[hash+" of the "+what+" in hex"] = []byte(hex.EncodeToString(sum))
		}
	}
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	_, _ = w.Write(content)
	_ = w.Close()
	m["content in gzip"] = gz.Bytes()[10:42]
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	z := enc.EncodeAll(content, nil)
	m["content in zstd"] = z[12:min(44, len(z)-4)]
	return m
}

// TestNothingShows plants a name and contents and looks for them in both data
// directories and on the wire.
func TestNothingShows(t *testing.T) {
	a := newNode(t, "a", "")
	tap := newTap(t, a.listen)
	b := newNode(t, "b", through(t, a.command("invite"), tap.addr()))

	small := []byte(plantedContent)
	large := bytes.Repeat([]byte(plantedContent), 4000)
	for i, content := range [][]byte{small, large} {
		dir := filepath.Join(a.mnt, fmt.Sprintf("dir%d", i))
		if err := os.Mkdir(dir, 0755); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, plantedName)
		if err := os.WriteFile(name, content, 0644); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte(plantedContent), 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(plantedContent, filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
	}
	a.command("wait", "--timeout", "30s")
	got, err := os.ReadFile(filepath.Join(b.mnt, "dir1", plantedName))
	if err != nil || !bytes.Equal(got, large) {
		t.Fatalf("B reads %d bytes: %v", len(got), err)
	}
	a.stop()
	b.stop()

	wire := tap.bytes()
	if len(wire) < 10_000 {
		t.Fatalf("only %d bytes crossed the tap", len(wire))
	}
	marks := markers(t, large)
	for what, p := range markers(t, small) {
		marks["small "+what] = p
	}
	for what, p := range marks {
		if bytes.Contains(wire, p) {
			t.Errorf("%s is on the wire", what)
		}
	}
	for _, n := range []*node{a, b} {
		eachFile(t, n.data, func(name string, data []byte) {
			for what, p := range marks {
				if bytes.Contains(data, p) {
					t.Errorf("%s is in %s", what, name)
				}
			}
			if strings.Contains(name, plantedName) {
				t.Errorf("the name is a file name: %s", name)
			}
		})
	}
	t.Logf("%d forms of the planted name and contents looked for in %d bytes of traffic and two data directories", len(marks), len(wire))
}

// through returns the invite with another address to reach the device at.
func through(t *testing.T, invite, addr string) string {
	t.Helper()
	i, err := cipher.ParseInvite(strings.TrimSpace(invite))
	if err != nil {
		t.Fatal(err)
	}
	i.Addrs = []string{addr}
	return i.String()
}

// TestVolumesShareNothing gives two volumes equal files and finds no run of bytes in both chunk stores.
func TestVolumesShareNothing(t *testing.T) {
	content := bytes.Repeat([]byte("equal bytes in two volumes. "), 20000)
	const window = 24
	seen := map[[window]byte]bool{}
	for i := range 2 {
		n := newNode(t, fmt.Sprintf("v%d", i), "")
		for _, size := range []int{10, 5000, 100_000, len(content)} {
			if err := os.WriteFile(filepath.Join(n.mnt, fmt.Sprintf("f%d", size)), content[:size], 0644); err != nil {
				t.Fatal(err)
			}
		}
		n.stop()
		shared, windows := 0, 0
		eachFile(t, filepath.Join(n.data, "chunks"), func(_ string, data []byte) {
			if !strings.Contains(string(data[:min(16, len(data))]), "pack") && len(data) < 4096 {
				return
			}
			for off := 0; off+window <= len(data); off++ {
				w := [window]byte(data[off:])
				if i == 0 {
					seen[w] = true
				} else if windows++; seen[w] && !uniform(w[:]) {
					shared++
				}
			}
		})
		if i == 1 {
			t.Logf("%d windows of %d bytes of the second volume's packs, %d of them in the first's", windows, window, shared)
			if shared > 64 { // the files' own headers
				t.Errorf("%d shared windows", shared)
			}
		}
	}
}

func uniform(p []byte) bool {
	for _, b := range p {
		if b != p[0] {
			return false
		}
	}
	return true
}

// eachFile calls fn with every regular file below dir.
func eachFile(t *testing.T, dir string, fn func(name string, data []byte)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil {
			fn(path, data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
