package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func samples(rates ...float64) (all []sample) {
	for _, r := range rates {
		all = append(all, sample{Units: 2 * r, Seconds: 2})
	}
	return all
}

// TestRatios compares round by round, not median by median.
func TestRatios(t *testing.T) {
	for _, c := range []struct {
		name     string
		of, base []sample
		want     *summary
	}{
		{"three rounds", samples(10, 30, 8), samples(100, 100, 10), &summary{0.3, 0.1, 0.8}},
		{"two rounds", samples(10, 30), samples(100, 100), &summary{0.2, 0.1, 0.3}},
		{"one is missing", samples(10, 30, 8), samples(100), &summary{0.1, 0.1, 0.1}},
		{"no base", samples(10), nil, nil},
		{"base failed", samples(10, 20), samples(0, 10), &summary{2, 2, 2}},
	} {
		if diff := cmp.Diff(c.want, ratios(c.of, c.base)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
	}
}

func TestJudge(t *testing.T) {
	s := func(median float64) *summary { return &summary{Median: median} }
	for _, c := range []struct {
		name                                         string
		native, ceiling, gocryptfs, ceilingGocryptfs *summary
		want                                         string
	}{
		{"all met", s(0.6), s(0.7), s(1.5), s(3), ""},
		{"all missed", s(0.59), s(0.69), s(1.49), s(1.5), "native ceiling gocryptfs"},
		{"no room above gocryptfs", s(0.6), s(0.7), s(1), s(1.49), ""},
		{"nothing to compare with", nil, nil, nil, nil, ""},
	} {
		if got := strings.Join(judge(0.6, c.native, c.ceiling, c.gocryptfs, c.ceilingGocryptfs), " "); got != c.want {
			t.Errorf("%s: missed %q, want %q", c.name, got, c.want)
		}
	}
}

// TestMarkdown holds the shape of a row: rates where more is better, times where less is.
func TestMarkdown(t *testing.T) {
	r := report{Rounds: 2, Scale: fullScale()}
	r.addRow(row{key: "a", title: "A", unit: "s", target: 0.5})
	for _, took := range []float64{1, 2} {
		r.add("a", native, sample{Units: 1, Seconds: took})
		r.add("a", ours, sample{Units: 1, Seconds: 4, CPU: 2, PeakRSS: 5 * mib})
		r.add("a", ceiling, sample{Units: 1, Seconds: 2 * took})
	}
	r.add("not asked for", ours, sample{Units: 1, Seconds: 1})
	r.check(check{Title: "B", Value: 3, Limit: 2, Unit: "MiB"})
	var out bytes.Buffer
	r.markdown(&out)
	for _, line := range []string{
		"| A | s | 1.50 | 4.00 |  | 3.00 | 0.38 (0.25–0.50) | 0.50 | 0.75 (0.50–1.00) |  | 0.50 | **no**: native |",
		"| A | 2.00 | 5 |  |  | 0.00 | 0 |",
		"| B | 3.00 MiB | 2.00 MiB | **no** |",
	} {
		if !strings.Contains(out.String(), line+"\n") {
			t.Errorf("not there: %s\nin\n%s", line, out.String())
		}
	}
}

// TestWanted leaves out what neither is asked for nor needed.
func TestWanted(t *testing.T) {
	for pattern, want := range map[string]string{
		"":        "untar grep-cold cp-r git",
		"^cp-r$":  "untar cp-r",
		"^grep":   "untar grep-cold",
		"nowhere": "",
	} {
		opts, err := parse([]string{"--rows", pattern}, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range (&bench{options: opts}).wanted(treeGroup().rows) {
			got = append(got, r.key)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %v, want %s", pattern, got, want)
		}
	}
}

// TestData holds that no block comes twice.
func TestData(t *testing.T) {
	s, seen := newSource(), map[[block]byte]bool{}
	for range 3 {
		for b := s.bytes(8 * block); len(b) > 0; b = b[block:] {
			seen[[block]byte(b)] = true
		}
	}
	if len(seen) != 24 {
		t.Errorf("%d different blocks, not 24", len(seen))
	}
	at := map[int64]bool{}
	for _, off := range s.offsets(100, 100*block) {
		at[off] = true
	}
	if len(at) != 100 || !at[0] || !at[99*block] {
		t.Errorf("%d different offsets, not 100", len(at))
	}
}

// TestRun measures two rows on every system that is here.
func TestRun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip(err)
	}
	file := filepath.Join(t.TempDir(), "results")
	opts, err := parse([]string{"--quick", "--files", "50", "--rows", "create-empty|stat", "--json", file, "--dir", t.TempDir(), "rows"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var out, log bytes.Buffer
	if err := run(context.Background(), opts, &out, &log); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	if n := strings.Count(out.String(), "\n| stat of 50, nothing cached |"); n != 2 {
		t.Errorf("%d lines of a row, not 2:\n%s", n, out.String())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Rows) != 2 || got.Rows[1].ToCeiling == nil || got.Rows[1].Samples[ours][0].PeakRSS == 0 {
		t.Errorf("results: %s", text)
	}
	if left, _ := os.ReadDir(opts.dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
