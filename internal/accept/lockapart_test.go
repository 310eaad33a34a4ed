package accept

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestLocksAcross has processes on two mounts exclude each other, and see what the one before wrote.
func TestLocksAcross(t *testing.T) {
	a, b := pair(t)
	inStep(t, a, b)
	path := func(n *node, name string) string { return filepath.Join(n.mnt, name) }

	t.Run("ranges", func(t *testing.T) {
		p, q := opened(t, path(a, "r"), 1)[0], opened(t, path(b, "r"), 1)[0]
		p.do("ok", "set f w 0 100")
		q.do("EAGAIN", "set f r 50 1")
		q.do("w 0 100", "get f r 50 1")
		q.do("ok", "set f w 100 100")
		p.do("w 100 100", "get f w 150 1")
		p.do("ok", "set f r 0 100") // weaker
		q.do("ok", "set f r 50 1")
		p.do("EAGAIN", "set f w 50 1")
		p.begin("wait f w 40 20")
		if !p.waits(shortly) {
			t.Fatal("did not wait")
		}
		q.do("ok", "set f u 50 1")
		if got := p.answer(20 * time.Second); got != "ok" {
			t.Fatal(got)
		}
	})
	t.Run("shared", func(t *testing.T) {
		p, q := opened(t, path(a, "s"), 1)[0], opened(t, path(b, "s"), 1)[0]
		p.do("ok", "flock f sh")
		q.do("ok", "flock f sh nb")
		p.do("EAGAIN", "flock f ex nb")
		q.do("ok", "flock f un")
		p.do("ok", "flock f ex nb")
		q.do("EAGAIN", "flock f sh nb")
	})
	t.Run("close gives up at once", func(t *testing.T) {
		testCloseGivesUpAtOnce(t, path(a, "c"), path(a, "c"))
		testCloseGivesUpAtOnce(t, path(a, "c"), path(b, "c"))
	})
	t.Run("unlock shows", func(t *testing.T) {
		p, q := opened(t, path(a, "u"), 1)[0], opened(t, path(b, "u"), 1)[0]
		for i := range 50 {
			by, at := p, q
			if i%2 == 1 {
				by, at = q, p
			}
			at.do("ok", "flock f un")
			by.do("ok", "flock f ex")
			at.begin("flock f sh")
			by.do("ok", "write f 0 round-%06d", i)
			by.do("ok", "flock f un")
			if got := at.answer(20 * time.Second); got != "ok" {
				t.Fatal(got)
			}
			at.do(fmt.Sprintf("round-%06d", i), "read f 0 12")
		}
	})
	t.Run("killed holder", func(t *testing.T) {
		p, q := opened(t, path(a, "k"), 1)[0], opened(t, path(b, "k"), 1)[0]
		p.do("ok", "flock f ex")
		p.do("ok", "set f w 0 10")
		p.do("ok", "oset f w 20 10")
		q.begin("flock f ex")
		if !q.waits(shortly) {
			t.Fatal("did not wait")
		}
		p.kill()
		took := timed(func() {
			if got := q.answer(20 * time.Second); got != "ok" {
				t.Fatal(got)
			}
			q.do("ok", "wait f w 0 0")
		})
		if took > scale(10*time.Second, 2*time.Second) {
			t.Errorf("the next got its locks after %v", took)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		p, q := opened(t, path(a, "i"), 1)[0], opened(t, path(b, "i"), 1)[0]
		p.do("ok", "flock f ex")
		q.begin("flock f ex")
		if !q.waits(shortly) {
			t.Fatal("did not wait")
		}
		if took := timed(func() {
			must(t, q.cmd.Process.Signal(syscall.SIGINT))
			_ = q.cmd.Wait()
		}); took > scale(10*time.Second, 2*time.Second) {
			t.Errorf("ended %v after the user wanted it", took)
		}
		p.do("ok", "flock f un")
		p.do("ok", "flock f ex nb")
	})
}

// TestLocksOfFrozenMount freezes the node whose mount holds a lock: the other side gets it
// when the lease is over. Back again, the node minds the new holder.
func TestLocksOfFrozenMount(t *testing.T) {
	a, b := pair(t)
	inStep(t, a, b)
	p, q := opened(t, filepath.Join(a.mnt, "f"), 1)[0], opened(t, filepath.Join(b.mnt, "f"), 1)[0]
	for _, lock := range []string{"flock f ex", "wait f w 0 0"} {
		p.do("ok", "%s", lock)
		q.begin("%s", lock)
		if !q.waits(shortly) {
			t.Fatal("did not wait")
		}
		must(t, a.cmd.Process.Signal(syscall.SIGSTOP))
		thaw := sync.OnceFunc(func() { _ = a.cmd.Process.Signal(syscall.SIGCONT) })
		t.Cleanup(thaw)
		took := timed(func() {
			if got := q.answer(20 * time.Second); got != "ok" {
				t.Fatal(got)
			}
		})
		t.Logf("%s: had by the other side after %v", lock, took)
		if took > scale(10*time.Second, 3*time.Second) {
			t.Errorf("%s: had after %v", lock, took)
		}
		thaw()
		inStep(t, a, b)
		r := opened(t, filepath.Join(a.mnt, "f"), 1)[0]
		r.begin("%s", lock)
		if !r.waits(shortly) {
			t.Errorf("%s: had twice", lock)
		}
		r.kill()
		q.do("ok", "flock f un")
		q.do("ok", "set f u 0 0")
		p.do("ok", "flock f un")
		p.do("ok", "set f u 0 0")
	}
}

// TestLocksOfKilledMount ends a node that holds locks as a crash would.
func TestLocksOfKilledMount(t *testing.T) {
	a, b := pair(t)
	inStep(t, a, b)
	p, q := opened(t, filepath.Join(a.mnt, "f"), 1)[0], opened(t, filepath.Join(b.mnt, "f"), 1)[0]
	p.do("ok", "flock f ex")
	q.begin("flock f ex")
	if !q.waits(shortly) {
		t.Fatal("did not wait")
	}
	a.kill()
	took := timed(func() {
		if got := q.answer(20 * time.Second); got != "ok" {
			t.Fatal(got)
		}
	})
	t.Logf("had after %v", took)
	if took > scale(10*time.Second, 3*time.Second) {
		t.Errorf("had after %v", took)
	}
	a.start()
	inStep(t, a, b)
	r := opened(t, filepath.Join(a.mnt, "f"), 1)[0]
	r.do("EAGAIN", "flock f ex nb")
	q.do("ok", "flock f un")
	r.do("ok", "flock f ex nb")
}

// TestLocksSQLite has sqlite3 write one database from two connected mounts, in turn
// and at once.
func TestLocksSQLite(t *testing.T) {
	a, b := pair(t)
	since := inStep(t, a, b)
	nodes := []*node{a, b}
	db := func(n *node) string { return filepath.Join(n.mnt, "data.db") }
	sql := func(n *node, text string) string {
		t.Helper()
		out, err := tryRun("", "sqlite3", "-batch", "-cmd", ".timeout 60000", db(n), text)
		if err != nil {
			skipIfParted(t, a, b, since)
			t.Fatalf("%s on %s: %v\n%s", text, filepath.Base(n.mnt), err, tail(out))
		}
		return strings.TrimSpace(out)
	}
	expect := func(n *node, want any, text, what string) {
		t.Helper()
		if got := sql(n, text); got != fmt.Sprint(want) {
			skipIfParted(t, a, b, since)
			t.Errorf("%s: %s: %s, want %v", filepath.Base(n.mnt), what, got, want)
		}
	}
	sql(a, "create table t(id integer primary key, who text, n integer); create index i on t(who, n);")
	rows := 0
	for i := range scale(20, 100) {
		sql(nodes[i%2], fmt.Sprintf("insert into t(who, n) values('turn', %d);", i))
		rows++
		expect(nodes[(i+1)%2], rows, "select count(*) from t;", "rows that show after each")
	}
	each := scale(25, 150)
	var wg sync.WaitGroup
	failed := make(chan string, 4)
	for i, n := range nodes {
		for proc := range 2 {
			wg.Go(func() {
				var script strings.Builder
				script.WriteString(".timeout 60000\n")
				for k := range each {
					fmt.Fprintf(&script, "begin immediate; insert into t(who, n) values('p%d-%d', %d); insert into t(who, n) select 'sum', count(*) from t; commit;\n", i, proc, k)
				}
				name := filepath.Join(t.TempDir(), fmt.Sprintf("script%d-%d", i, proc))
				if err := os.WriteFile(name, []byte(script.String()), 0o644); err != nil {
					t.Error(err)
					return
				}
				if out, err := tryRun("", "sqlite3", "-batch", "-bail", db(n), ".read "+name); err != nil {
					failed <- fmt.Sprintf("process %d on %s: %v\n%s", proc, filepath.Base(n.mnt), err, tail(out))
				}
			})
		}
	}
	took := timed(wg.Wait)
	for close(failed); len(failed) > 0; {
		skipIfParted(t, a, b, since)
		t.Error(<-failed)
	}
	rows += 4 * each * 2
	t.Logf("%d transactions at once in %v", 4*each, took.Round(time.Millisecond))
	for _, n := range nodes {
		expect(n, "ok", "pragma integrity_check;", "its integrity")
		expect(n, rows, "select count(*) from t;", "rows")
		expect(n, 0, "select count(*) from t where who='sum' and n != id-1;", "transactions that did not see all before them")
	}
	if parted(t, a, b, since) {
		t.Logf("the mounts lost each other meanwhile")
	}
}
