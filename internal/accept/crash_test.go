package accept

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestPeerReturns stops B while A works, and finds the same tree on B soon after its start.
func TestPeerReturns(t *testing.T) {
	a, b := pair(t)
	b.stop()
	made, removed := scale(300, 2000), scale(80, 500)
	for i := range made {
		if err := os.WriteFile(filepath.Join(a.mnt, fmt.Sprintf("f%04d", i)), fmt.Appendf(nil, "content %d", i), 0644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range removed {
		if err := os.Remove(filepath.Join(a.mnt, fmt.Sprintf("f%04d", i*3))); err != nil {
			t.Fatal(err)
		}
	}
	b.start()
	took := until(t, scale(30*time.Second, 5*time.Second), "A's tree on B", func() bool {
		_, err := tryRun("", "diff", "-r", a.mnt, b.mnt)
		return err == nil
	})
	t.Logf("%d files made and %d removed while B was away: same tree %.2f s after B's mount", made, removed, took.Seconds())
}

// TestKilledUnderLoad kills both nodes again and again while files are written
// and fsynced on both; whatever fsync acknowledged must be there afterwards.
func TestKilledUnderLoad(t *testing.T) {
	a, b := pair(t)
	acked := &ledger{want: map[string]string{}}
	rounds := scale(3, 20)
	for round := range rounds {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for _, n := range []*node{a, b} {
			for w := range 2 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					load(n, acked, fmt.Sprintf("r%d-%s-%d", round, filepath.Base(n.mnt), w), stop)
				}()
			}
		}
		before := acked.len()
		until(t, 20*time.Second, "acknowledged writes", func() bool { return acked.len() >= before+40 })
		_ = a.cmd.Process.Kill()
		_ = b.cmd.Process.Kill()
		close(stop)
		wg.Wait() // while the dead mounts are there: nobody may write below them
		a.kill()
		b.kill()
		a.start()
		b.start()
		for _, n := range []*node{a, b} {
			acked.check(t, n)
		}
	}
	t.Logf("%d rounds of kill -9 on both nodes: all %d acknowledged contents are there, on both", rounds, acked.len())
}

// TestKillLosesSecondsAtMost writes without fsync, waits as long as may be lost, and kills the node.
func TestKillLosesSecondsAtMost(t *testing.T) {
	n := newNode(t, "a", "")
	want := map[string]string{}
	for i := range 60 {
		name := fmt.Sprintf("f%d", i)
		want[name] = strings.Repeat(name+" ", 1+i*200)
		if err := os.WriteFile(filepath.Join(n.mnt, name), []byte(want[name]), 0644); err != nil {
			t.Fatal(err)
		}
	}
	open, err := os.Create(filepath.Join(n.mnt, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	want["open"] = strings.Repeat("not closed ", 20_000)
	if _, err := open.WriteString(want["open"]); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(n.mnt, "f0"), filepath.Join(n.mnt, "moved")); err != nil {
		t.Fatal(err)
	}
	want["moved"] = want["f0"]
	delete(want, "f0")
	time.Sleep(scale(10*time.Second, 5*time.Second)) // what the contract allows to be lost
	n.kill()
	n.start()
	for name, content := range want {
		got, err := os.ReadFile(filepath.Join(n.mnt, name))
		if err != nil || string(got) != content {
			t.Errorf("%s: %v, %d bytes, want %d", name, err, len(got), len(content))
		}
	}
	if _, err := os.Stat(filepath.Join(n.mnt, "f0")); !os.IsNotExist(err) {
		t.Errorf("the old name is back: %v", err)
	}
}

// ledger keeps what fsync acknowledged: for each file the contents it may have. A file is
// written by one goroutine only, whose next content may have arrived without its acknowledgement.
type ledger struct {
	mu   sync.Mutex
	want map[string]string // last acknowledged
	next map[string]string // being written
}

func (l *ledger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.want)
}

// load creates files, fsyncs them, and overwrites some in place, until stopped or until the mount is gone: it never writes to what
// is below the mount.
func load(n *node, l *ledger, prefix string, stop chan struct{}) {
	root, err := os.OpenRoot(n.mnt)
	if err != nil {
		return
	}
	defer root.Close()
	if !mounted(n.mnt) { // already
		return
	}
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		name := fmt.Sprintf("%s-%d", prefix, i)
		content := fmt.Sprintf("%s|%0*d", name, 10+(i%5)*5000, i)
		if i%3 == 2 { // overwrite the one before, same length or not
			name = fmt.Sprintf("%s-%d", prefix, i-1)
		}
		if err := writeSynced(root, name, content, l); err != nil {
			return
		}
	}
}

func writeSynced(dir *os.Root, name, content string, l *ledger) error {
	l.mu.Lock()
	if l.next == nil {
		l.next = map[string]string{}
	}
	l.next[name] = content
	l.mu.Unlock()
	f, err := dir.OpenFile(name, os.O_RDWR|os.O_CREATE, 0644)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(content), 0); err != nil {
		return err
	}
	if err := f.Truncate(int64(len(content))); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	l.mu.Lock()
	l.want[name] = content
	delete(l.next, name)
	l.mu.Unlock()
	return nil
}

// check finds every acknowledged content on a node; what came from the other may take a moment.
func (l *ledger) check(t *testing.T, n *node) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, want := range l.want {
		var got []byte
		var err error
		deadline := time.Now().Add(10 * time.Second)
		for {
			got, err = os.ReadFile(filepath.Join(n.mnt, name))
			if next, ok := l.next[name]; err == nil && (string(got) == want || ok && partly(string(got), want, next)) || time.Now().After(deadline) {
				break
			}
			time.Sleep(10 * time.Millisecond) // paces the polling only
		}
		if next := l.next[name]; err != nil || string(got) != want && !partly(string(got), want, next) {
			t.Fatalf("%s on %s: %v, %d bytes %.60q, want %d bytes %.60q", name, filepath.Base(n.mnt), err, len(got), got, len(want), want)
		}
	}
}

// partly reports whether got is a state between two contents: write, then truncate.
func partly(got, old, next string) bool {
	if next == "" {
		return false
	}
	mid := next
	if len(old) > len(next) {
		mid = next + old[len(next):]
	}
	return got == next || got == mid || got == old
}

// TestRestoredIsDurable: what fsmount restore reports to be back a crash at that moment does not take, as with put and rm.
func TestRestoredIsDurable(t *testing.T) {
	n := newNode(t, "n", "")
	if _, err := n.try(strings.NewReader("what was there\n"), "put", "-", "f"); err != nil {
		t.Fatal(err)
	}
	version := historyRef.FindString(n.command("history", "f"))
	n.command("rm", "f")
	n.command("restore", "f", "--at", version)
	n.kill()
	n.start()
	if got := n.command("cat", "f"); got != "what was there\n" {
		t.Errorf("restored before the crash: %q", got)
	}
}
