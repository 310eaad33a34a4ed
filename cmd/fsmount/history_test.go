package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/foreverfs/forever/internal/control"
)

// TestHistoryAndRestore: what was replaced or removed can be seen and comes back.
func TestHistoryAndRestore(t *testing.T) {
	m := newMachine(t)
	m.must("init")
	put := func(path, content string) {
		t.Helper()
		if r := m.run(strings.NewReader(content), "put", "-", path); r.code != 0 {
			t.Fatal(r.err)
		}
	}
	history := func(path string) (h control.History) {
		t.Helper()
		if err := json.Unmarshal([]byte(m.must("history", "--json", path)), &h); err != nil {
			t.Fatal(err)
		}
		return h
	}
	cat := func(path, want string) {
		t.Helper()
		if got := m.must("cat", path); got != want {
			t.Errorf("%s holds %q, not %q", path, got, want)
		}
	}
	big := strings.Repeat("one ", 100_000)
	put("/f", strings.TrimSpace(big))
	put("/f", "two")
	before := time.Now()
	put("/f", "three")
	// put replaces a file by another, so the older contents had their name taken.
	h := history("/f")
	if len(h.Contents) != 3 || h.Contents[0].State != "current" || h.Contents[1].Size != 3 {
		t.Fatalf("history: %+v", h.Contents)
	}
	m.must("restore", "/f", "--at", h.Contents[2].Version)
	cat("/f", strings.TrimSpace(big))
	m.must("restore", "/f", "--at", before.Format(time.RFC3339Nano), "--to", "/new/dir/g")
	cat("/new/dir/g", "two")

	mid := time.Now()
	m.must("rm", "-r", "/new")
	m.must("rm", "/f")
	m.must("restore", "/new", "--at", mid.Format(time.RFC3339Nano))
	cat("/new/dir/g", "two")
	m.fails(12, "does not exist", "cat", "/f")
	m.must("restore", "/f", "--at", h.Contents[0].Version)
	cat("/f", "three")
	if h := history("/"); len(h.Entries) < 2 {
		t.Errorf("names of the root: %+v", h.Entries)
	}
	if text := m.must("history", "/f"); !strings.Contains(text, "VERSION") || !strings.Contains(text, "current") {
		t.Errorf("history for people:\n%s", text)
	}

	m.fails(2, "no version, time or age", "restore", "/f", "--at", "yesterday")
	m.fails(12, "nothing is known", "history", "/never")
	m.fails(12, "never had a version", "restore", "/f", "--at", "00000000")
	m.fails(12, "the oldest known", "restore", "/f", "--at", "2020-01-01")
	m.fails(2, "is a directory", "restore", "/", "--at", "00000000")
}

func TestParseAt(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 30, 0, 0, time.UTC)
	for at, want := range map[string]time.Time{
		"2h":                   now.Add(-2 * time.Hour),
		"3d":                   now.AddDate(0, 0, -3),
		"2026-11-20":           time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC),
		"2026-11-20 09:15":     time.Date(2026, 11, 20, 9, 15, 0, 0, time.UTC),
		"2026-11-20T09:15:00Z": time.Date(2026, 11, 20, 9, 15, 0, 0, time.UTC),
	} {
		var req control.RestoreRequest
		if err := parseAt(at, now, &req); err != nil || !req.Time.Equal(want) {
			t.Errorf("%s: %v, %v", at, req.Time, err)
		}
	}
	for _, at := range []string{"", "-2h", "soon", "0123abc"} {
		if err := parseAt(at, now, &control.RestoreRequest{}); err == nil {
			t.Errorf("%q is taken", at)
		}
	}
}
