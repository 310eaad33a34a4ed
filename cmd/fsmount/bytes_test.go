package main

import (
	"strings"
	"testing"
	"time"
)

// TestNamesAreBytes: names that are not UTF-8 are as good as others, also that of the data directory.
func TestNamesAreBytes(t *testing.T) {
	needMount(t)
	m := newMachine(t)
	m.data += "-\xff"
	m.must("init")
	const name = "caf\xe9"
	m.putFile(name, "content", 0o600)
	if got := m.must("ls"); got != name {
		t.Errorf("ls: %q", got)
	}
	m.must("rm", name)
	version := strings.Fields(strings.Split(m.must("history", name), "\n")[1])[0]
	m.must("--daemon", "--listen", "127.0.0.1:0", "--lan=false", m.mount)
	t.Cleanup(func() { m.run(nil, "umount", m.mount) })
	began := time.Now()
	m.fails(5, "in use", "serve", "--listen", "127.0.0.1:0")
	if took := time.Since(began); took > otherPatience/2 {
		t.Errorf("that the directory is in use took %v", took)
	}
	m.must("restore", name, "--at", version, "--to", "new-\xe9")
	if got := m.must("history", "/"); !strings.Contains(got, name+"\n") || !strings.HasSuffix(got, "new-\xe9") {
		t.Errorf("history: %q", got)
	}
}
