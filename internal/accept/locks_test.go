package accept

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLocksCount has several processes on two mounts add to one number under a lock:
// none gets lost.
func TestLocksCount(t *testing.T) {
	a, b := pair(t)
	inStep(t, a, b)
	for _, kind := range []string{"flock", "fcntl", "ofd"} {
		t.Run(kind, func(t *testing.T) { testCount(t, kind, a, b) })
	}
}

func testCount(t *testing.T, kind string, nodes ...*node) {
	since := inStep(t, nodes[0], nodes[1])
	name := "counter-" + kind
	must(t, os.WriteFile(filepath.Join(nodes[0].mnt, name), []byte("0"), 0o644))
	const total, each = 2000, 2
	begin := time.Now()
	var lockers []*locker
	for _, n := range nodes {
		for range each {
			l := newLocker(t)
			l.begin("count %s %s %d", kind, filepath.Join(n.mnt, name), total/(each*len(nodes)))
			lockers = append(lockers, l)
		}
	}
	for _, l := range lockers {
		if got := l.answer(4 * time.Minute); got != "ok" {
			t.Fatalf("a process: %s", got)
		}
	}
	t.Logf("%d times in %v", total, time.Since(begin).Round(time.Millisecond))
	for _, n := range nodes {
		got, err := os.ReadFile(filepath.Join(n.mnt, name))
		must(t, err)
		if strings.TrimSpace(string(got)) != fmt.Sprint(total) {
			if now := inStep(t, nodes[0], nodes[1]); !now.Equal(since) {
				t.Skipf("%s: the mounts lost each other, which nobody promises anything for", got)
			}
			t.Errorf("%s counts %s, not %d", filepath.Base(n.mnt), got, total)
		}
	}
}
