package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// loses damages what the machine's packs hold from the 64 KiB on, while no node runs on it.
func (m *machine) loses() {
	m.t.Helper()
	packs, err := filepath.Glob(filepath.Join(m.data, "chunks", "*.pack"))
	if err != nil || len(packs) == 0 {
		m.t.Fatal(packs, err)
	}
	for _, name := range packs {
		raw, err := os.ReadFile(name)
		if err != nil {
			m.t.Fatal(err)
		}
		for i := 64 << 10; i < len(raw); i++ {
			raw[i] ^= 0xff
		}
		if err := os.WriteFile(name, raw, 0o600); err != nil {
			m.t.Fatal(err)
		}
	}
}

// losesAll takes the machine's packs away, while no node runs on it.
func (m *machine) losesAll() {
	m.t.Helper()
	packs, err := filepath.Glob(filepath.Join(m.data, "chunks", "*.pack"))
	if err != nil || len(packs) == 0 {
		m.t.Fatal(packs, err)
	}
	for _, name := range packs {
		if err := os.Remove(name); err != nil {
			m.t.Fatal(err)
		}
	}
}

// random returns bytes that no compressor makes fewer of.
func random(size int) string {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	return string(data)
}

// TestContentNobodyHas: cat and get say that it is the content that is missing, in words for people.
func TestContentNobodyHas(t *testing.T) {
	m := newMachine(t)
	m.must("init")
	m.putFile("file", random(200_000), 0o600)
	m.loses()
	out := filepath.Join(t.TempDir(), "out")
	for _, args := range [][]string{{"cat", "file"}, {"get", "file", out}} {
		r := m.run(nil, args...)
		checkFailure(t, r, 15, "read /file: nobody reachable holds all of its content", args)
		if strings.Contains(r.err, "inode") {
			t.Errorf("%v: %s", args, r.err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(out)); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestScrubOfMuchLost: however much is lost, nobody who might have it is waited for more than once.
func TestScrubOfMuchLost(t *testing.T) {
	m, other := newMachine(t), newMachine(t)
	m.must("init")
	m.serve()
	other.must("join", m.must("invite"))
	for i := range 40 {
		m.putFile(fmt.Sprint(i), random(2000+i), 0o600)
	}
	m.end()
	m.losesAll()
	r := m.run(nil, "scrub")
	checkFailure(t, r, 21, "40 things on this disk damaged", []string{"scrub"})
	if strings.Count(r.out, " is not connected") != 40 || strings.Contains(r.out, "replica:") {
		t.Errorf("scrub said:\n%s", r.out)
	}
}

// TestScrubFindsOthers: a scrub that starts the node waits for a device that is yet to be dialed, and has all from it.
func TestScrubFindsOthers(t *testing.T) {
	m, other := newMachine(t), newMachine(t)
	m.must("init")
	m.serve()
	other.must("join", m.must("invite"))
	other.serve()
	for i := range 20 {
		m.putFile(fmt.Sprint(i), random(20_000+i), 0o600)
	}
	m.must("wait", "--timeout", "30s")
	m.end()
	m.losesAll()
	if out := m.must("scrub"); !strings.Contains(out, "damaged: 20 chunks, of which 20 mended") {
		t.Errorf("scrub said: %s", out)
	}
	other.end()
	if out := m.must("scrub"); !strings.Contains(out, "nothing is damaged") {
		t.Errorf("the next scrub said: %s", out)
	}
	if got := m.must("cat", "7"); got != random(20_007) {
		t.Errorf("a mended file has %d bytes", len(got))
	}
}

// TestScrubRemembers: what is damaged is reported until it is there again, whoever came upon it first.
func TestScrubRemembers(t *testing.T) {
	m := newMachine(t)
	m.must("init")
	m.putFile("file", random(200_000), 0o600)
	m.loses()
	m.fails(15, "nobody reachable holds", "cat", "file")
	for range 2 {
		m.fails(21, "on this disk damaged", "scrub")
	}
	m.putFile("again", random(200_000), 0o600)
	if out := m.must("scrub"); !strings.Contains(out, "nothing is damaged") {
		t.Errorf("with all content there again, scrub said: %s", out)
	}
	m.must("cat", "file")
}
