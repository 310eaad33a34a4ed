package accept

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestUploadLimit copies a file from a device that sends no more than so much: it takes as long as that says, and what
// keeps mounts in step is not held up by it.
func TestUploadLimit(t *testing.T) {
	const limit, size = 1_000_000, 4 << 20
	a := newNode(t, "a", "", "--upload-limit", fmt.Sprint(limit))
	b := newNode(t, "b", a.command("invite"))
	a.until(10*time.Second, "connection", func() bool { return a.connected() == 1 && b.connected() == 1 })
	a.write("turn", "first\n")
	b.until(30*time.Second, "the first file", func() bool { return b.reads("turn", "first\n") })
	since := inStep(t, a, b)
	content := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{4}).Read(content)
	began := time.Now()
	if err := os.WriteFile(filepath.Join(a.mnt, "large"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	var longest time.Duration
	rounds := 0
	for done := make(chan struct{}); ; rounds++ {
		if rounds == 0 {
			go func() {
				defer close(done)
				_, _ = a.try(nil, "wait", "--timeout", "60s")
			}()
		}
		there := false
		longest = max(longest, timed(func() {
			text := fmt.Sprintln("round", rounds)
			a.write("turn", text)
			there = b.reads("turn", text)
		}))
		if !there {
			was := since
			if since = inStep(t, a, b); since.Equal(was) {
				t.Errorf("round %d is not on the other mount", rounds)
			}
		}
		select {
		case <-done:
		default:
			continue
		}
		break
	}
	took := time.Since(began)
	least := time.Duration(float64(size) / limit * float64(time.Second))
	t.Logf("%d bytes at %d a second: on the other disk after %v; %d rounds of write, close, read meanwhile, the longest %v",
		size, limit, took.Round(time.Millisecond), rounds, longest.Round(time.Millisecond))
	if took < least*9/10 || full && took > 3*least {
		t.Errorf("not in keeping with the limit, which makes it %v", least)
	}
	if full && longest > time.Second {
		t.Errorf("a change was held up for %v", longest)
	}
}
