package accept

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSplit lets three mounts work at random while their network is cut and put
// back at random. Whenever it is whole again there must be one identical tree within
// 10 s, with every content in it that nobody replaced or removed knowing it.
//
// What a worker knows is what its mount shows, so it replaces and removes only while
// nothing can arrive there; see calm. In between, when things do arrive, it does what
// replaces nothing; see rough.
//
// Then it does so with nodes that make a checkpoint, fold their trees and drop their logs every few hundred ops.
func TestSplit(t *testing.T) {
	t.Run("as shipped", func(t *testing.T) { testSplit(t, fsmount(t), scale(4, 100)) })
	t.Run("with many checkpoints", func(t *testing.T) { testSplit(t, eager(t, 200, time.Hour, year), scale(4, 100)) })
}

func testSplit(t *testing.T, bin string, rounds int) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := newSplit(t, bin, seed)
	for s.round = range rounds {
		s.rough()
		s.heal()
		s.calm()
		s.heal()
		if s.round%10 == 9 {
			s.clear()
		}
	}
	written, dropped := s.books.count()
	t.Logf("%d rounds: of %d contents %d were replaced or removed knowingly, the others are there; slowest heal %.2f s",
		s.round+1, written, dropped, s.slowest.Seconds())
	for _, n := range s.nodes {
		st := n.status()
		if len(st.Problems) > 0 {
			t.Errorf("problems: %v", st.Problems)
		}
		if st.Checkpoint != nil {
			t.Logf("the last checkpoint is of about %d ops", st.Checkpoint.Ops)
		}
	}
}

// TestOutages takes the network away again and again, without a word, for less than a connection takes to
// be given up. TCP alone waits the longer before it tries again the more often that happens.
func TestOutages(t *testing.T) {
	l := newLAN(t, 2)
	nodes := l.mounts(fsmount(t))
	if !shortWaits(t) {
		t.Skip("this kernel cannot bound how long TCP waits (Linux 6.15)")
	}
	for round := range 3 {
		for host := range nodes {
			l.cut(host, pullSilent)
			must(t, os.WriteFile(filepath.Join(nodes[host].mnt, fmt.Sprintf("%d of %d", round, host)), nil, 0o644))
		}
		time.Sleep(3300 * time.Millisecond) // the length of an outage, no synchronisation
		for host := range nodes {
			l.join(host)
		}
		_, took := oneTree(t, 10*time.Second, nodes...)
		if t.Logf("outage %d: one tree %v after it", round+1, took); took > 2800*time.Millisecond { // without a bound on the waits it is 3 s
			t.Error("that is too long")
		}
	}
}

// shortWaits reports whether the kernel knows TCP_RTO_MAX_MS.
func shortWaits(t *testing.T) bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS, 1000) == nil
}

// split is a network of three mounts with a worker on each.
type split struct {
	t       *testing.T
	rng     *rand.Rand
	lan     *lan
	nodes   []*node
	workers []*worker
	books   *books
	round   int
	slowest time.Duration
}

func newSplit(t *testing.T, bin string, seed uint64) *split {
	const hosts = 3
	s := &split{t: t, rng: rand.New(rand.NewPCG(seed, 0)), lan: newLAN(t, hosts), books: newBooks()}
	s.nodes = s.lan.mounts(bin)
	for i, n := range s.nodes {
		s.workers = append(s.workers, &worker{n: n, books: s.books, rng: rand.New(rand.NewPCG(seed, uint64(i+1)))})
	}
	t.Cleanup(s.tell)
	return s
}

// tell shows what the workers did last, if the test failed.
func (s *split) tell() {
	if !s.t.Failed() {
		return
	}
	for _, w := range s.workers {
		s.t.Logf("the last that %s did:\n%s", w.who(), strings.Join(w.did[max(0, len(w.did)-1000):], "\n"))
	}
}

// rough has all mounts do what replaces nothing, while cables are pulled and put back.
func (s *split) rough() {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, w := range s.workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 60 {
				select {
				case <-stop:
					return
				default:
					w.step(false)
				}
			}
		}()
	}
	for range 2 + s.rng.IntN(3) {
		host := s.rng.IntN(len(s.nodes))
		s.cut(host)
		s.hold(150 * time.Millisecond)
		s.lan.join(s.rng.IntN(len(s.nodes)))
	}
	close(stop)
	wg.Wait()
}

// cut cuts a host off in one way or another, or only from one of the others.
func (s *split) cut(host int) {
	if how := pull(s.rng.IntN(int(pullKinds) + 1)); how < pullKinds {
		s.lan.cut(host, how)
		return
	}
	s.lan.sever(host, (host+1)%len(s.nodes))
}

// hold leaves the network as it is for a while; at full size sometimes for longer
// than connections live without a sign of life.
func (s *split) hold(most time.Duration) {
	if full && s.rng.IntN(8) == 0 {
		most = 15 * time.Second
	}
	time.Sleep(time.Duration(s.rng.Int64N(int64(most)))) // the length of an outage, no synchronisation
}

// heal puts everything back and expects one tree in which nothing is lost.
func (s *split) heal() {
	s.t.Helper()
	for host := range s.nodes {
		s.lan.join(host)
	}
	tree, took := oneTree(s.t, 10*time.Second, s.nodes...)
	s.slowest = max(s.slowest, took)
	if lost := s.books.missing(tree); len(lost) > 0 {
		s.t.Fatalf("round %d: lost although nobody knowingly replaced or removed it:\n%s", s.round, strings.Join(lost, "\n"))
	}
}

// calm cuts the network, and has the mounts do anything: those that are alone all at
// once, those that still reach each other in turn, each seeing what the other did.
func (s *split) calm() {
	groups := s.groups()
	for range 1 + s.rng.IntN(2) {
		var wg sync.WaitGroup
		for _, group := range groups {
			turns := s.rng.Perm(len(group))
			wg.Add(1)
			go func() {
				defer wg.Done()
				s.work(group, turns)
			}()
		}
		wg.Wait()
		s.hold(200 * time.Millisecond)
		if s.t.Failed() {
			s.t.FailNow()
		}
		groups = s.meet(groups)
	}
}

// groups pulls cables and returns who still reaches whom.
func (s *split) groups() [][]int {
	order := s.rng.Perm(len(s.nodes))
	alone := 1 + s.rng.IntN(len(order)) // the last one alone is not reached by anybody either
	var groups [][]int
	for _, host := range order[:alone] {
		s.lan.cut(host, pull(s.rng.IntN(int(pullKinds))))
		groups = append(groups, []int{host})
	}
	if alone < len(order) {
		groups = append(groups, order[alone:])
	}
	return groups
}

// meet sometimes joins two groups while another stays away.
func (s *split) meet(groups [][]int) [][]int {
	if len(groups) < 3 || s.rng.IntN(2) == 0 {
		return groups
	}
	both := slices.Concat(groups[0], groups[1])
	for _, host := range groups[2] { // which may be alone only because the other two are cut off
		s.lan.cut(host, pull(s.rng.IntN(int(pullKinds))))
	}
	for _, host := range both {
		s.lan.join(host)
	}
	oneTree(s.t, 10*time.Second, s.members(both)...)
	return append([][]int{both}, groups[2:]...)
}

func (s *split) members(group []int) (nodes []*node) {
	for _, host := range group {
		nodes = append(nodes, s.nodes[host])
	}
	return nodes
}

// work lets the members of a group work in turn. It runs beside the other groups.
func (s *split) work(group, turns []int) {
	for _, i := range turns {
		w := s.workers[group[i]]
		for range 40 {
			w.step(true)
		}
		if _, why := settle(s.members(group), 10*time.Second); why != "" {
			s.t.Errorf("round %d: no one tree on the mounts that reach each other: %s", s.round, tail(why))
			return
		}
	}
}

// clear empties the tree, so that conflict files don't fill it, while everybody knows everything.
func (s *split) clear() {
	root := s.nodes[0].mnt
	run(s.t, root, "find", ".", "-mindepth", "1", "-delete")
	s.books.dropAll()
	oneTree(s.t, 10*time.Second, s.nodes...)
}

// books keep which contents and link targets were written, and which of them
// somebody replaced or removed who had seen them.
type books struct {
	mu      sync.Mutex
	written map[string]string // key of the content: who wrote it where
	dropped map[string]bool
}

func newBooks() *books { return &books{written: map[string]string{}, dropped: map[string]bool{}} }

func (b *books) wrote(key, where string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.written[key] = where
}

// drop notes that a content was replaced or removed by somebody who saw it; "" is none.
func (b *books) drop(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropped[key] = true
}

func (b *books) dropAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key := range b.written {
		b.dropped[key] = true
	}
}

// missing returns what must be in a tree and is not.
func (b *books) missing(tree shown) (lost []string) {
	there := map[string]bool{}
	for _, e := range tree {
		there[e.key] = true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, where := range b.written {
		if !b.dropped[key] && !there[key] {
			lost = append(lost, fmt.Sprintf("%.16s: %s", key, where))
		}
	}
	slices.Sort(lost)
	return lost
}

func (b *books) count() (written, dropped int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key := range b.written {
		if b.dropped[key] {
			dropped++
		}
	}
	return len(b.written), dropped
}
