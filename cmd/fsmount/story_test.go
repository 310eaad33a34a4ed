package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/foreverfs/forever/internal/control"
)

// newNoise returns endless incompressible data in which no block repeats.
func newNoise() io.Reader { return rand.NewChaCha8([32]byte{1}) }

func TestPutGetWithoutANode(t *testing.T) {
	m := newMachine(t)
	words := strings.Fields(m.must("init"))
	if len(words) != 24 {
		t.Errorf("the recovery phrase has %d words", len(words))
	}
	content := make([]byte, 5<<20+17)
	if _, err := io.ReadFull(newNoise(), content); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(file, content, 0o640); err != nil {
		t.Fatal(err)
	}
	m.must("put", file, "/file")
	out := filepath.Join(t.TempDir(), "out")
	m.must("get", "file", out)
	got, err := os.ReadFile(out)
	if err != nil || sha256.Sum256(got) != sha256.Sum256(content) {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	if r := m.run(nil, "get", "file", "-"); !bytes.Equal([]byte(r.out), content) {
		t.Errorf("get -: %d bytes, %s", len(r.out), r.err)
	}
	if line := m.must("ls", "-l"); !strings.HasPrefix(line, "-rw-r-----") || !strings.HasSuffix(line, " file") {
		t.Errorf("ls -l: %q", line)
	}
	if r := m.run(strings.NewReader("new"), "put", "-", "file"); r.code != 0 {
		t.Fatal(r.err)
	}
	if got := m.must("cat", "/file"); got != "new" {
		t.Errorf("after put: %q", got)
	}
	m.must("rm", "file")
	if names := m.must("ls", "/"); names != "" {
		t.Errorf("after rm: %q", names)
	}
	if len(strings.Fields(m.must("key", "export"))) != 24 {
		t.Error("key export does not print a phrase")
	}
}

// Commands that start a node for the moment wait for each other.
func TestCommandsAtOnceWithoutANode(t *testing.T) {
	m := newMachine(t)
	m.must("init")
	codes := make(chan result)
	const n = 6
	for i := range n {
		go func() {
			codes <- m.run(strings.NewReader("x"), "put", "-", fmt.Sprintf("file%d", i))
		}()
	}
	for range n {
		if r := <-codes; r.code != 0 {
			t.Errorf("put: exit code %d, %s", r.code, r.err)
		}
	}
	if names := strings.Fields(m.must("ls")); len(names) != n {
		t.Errorf("ls: %q", names)
	}
}

func TestTwoMachinesWithoutMounts(t *testing.T) {
	a, b := newMachine(t), newMachine(t)
	a.must("init")
	a.serve()
	b.must("join", a.must("invite"))
	b.serve()
	if r := a.run(strings.NewReader("hello"), "put", "-", "greeting"); r.code != 0 {
		t.Fatal(r.err)
	}
	a.must("wait", "--replicas", "1", "--timeout", "30s")
	if got := b.must("cat", "greeting"); got != "hello" {
		t.Errorf("on b: %q", got)
	}
	var st control.Status
	if err := json.Unmarshal([]byte(a.must("status", "--json")), &st); err != nil {
		t.Fatal(err)
	}
	if len(st.Devices) != 2 || !st.Devices[0].Self || !st.Devices[1].Connected {
		t.Errorf("status: %+v", st)
	}
	if out := b.must("devices", "list"); strings.Count(out, "\n") != 2 {
		t.Errorf("devices list:\n%s", out)
	}
	a.fails(11, "not replicated", "wait", "--replicas", "2", "--timeout", "300ms")
}

func TestDaemonMountAndUmount(t *testing.T) {
	needMount(t)
	m := newMachine(t)
	m.must("--daemon", "--listen", "127.0.0.1:0", m.mount)
	t.Cleanup(func() { m.run(nil, "umount", m.mount) })
	// No waiting: --daemon returns when the mount is usable.
	file := filepath.Join(m.mount, "file")
	if err := os.WriteFile(file, []byte("through the mount"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := m.must("cat", "file"); got != "through the mount" {
		t.Errorf("cat: %q", got)
	}
	if !strings.Contains(m.must("status"), m.mount) {
		t.Error("status does not name the mount point")
	}
	m.must("umount", m.mount)
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("after umount: %v", err)
	}
	if got := m.must("cat", "file"); got != "through the mount" {
		t.Errorf("cat after umount: %q", got)
	}
	m.must("--daemon", "--read-only", "--listen", "127.0.0.1:0", m.mount)
	if err := os.WriteFile(filepath.Join(m.mount, "no"), nil, 0o600); err == nil {
		t.Error("a read-only mount takes a file")
	}
	r := m.run(strings.NewReader("x"), "put", "-", "no")
	checkFailure(t, r, 18, "--read-only", []string{"put"})
	if b, err := os.ReadFile(file); err != nil || string(b) != "through the mount" {
		t.Errorf("read-only: %q, %v", b, err)
	}
}

func TestSignalEndsDaemonCleanly(t *testing.T) {
	needMount(t)
	m := newMachine(t)
	m.must("--daemon", "--listen", "127.0.0.1:0", m.mount)
	t.Cleanup(func() { m.run(nil, "umount", m.mount) })
	open, err := os.Create(filepath.Join(m.mount, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if _, err := open.WriteString("not closed"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	m.end() // although a file is open
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("ending took %v", took)
	}
	if b, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(b), m.mount) {
		t.Errorf("the mount is still there: %v", err)
	}
	if got := m.must("cat", "open"); got != "not closed" {
		t.Errorf("what was written before the signal: %q", got)
	}
}

func TestVersionAndCompletion(t *testing.T) {
	m := newMachine(t)
	if out := m.must("version"); !strings.HasPrefix(out, "fsmount ") {
		t.Errorf("version: %q", out)
	}
	if out := m.must("completion", "bash"); !strings.Contains(out, "fsmount") {
		t.Error("no completion")
	}
}
