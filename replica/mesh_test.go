package replica

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/foreverfs/forever/transport"
)

// Many devices: each keeps few connections, all of them together hang together, whoever comes and goes, and a
// change reaches everybody within a few rounds.
func TestManyDevices(t *testing.T) {
	count := 40
	if os.Getenv("FOREVER_ACCEPT") == "full" {
		count = 200
	}
	network := transport.NewMemory()
	began := time.Now()
	nodes := []*testNode{newTestNode(t, "0", network.Transport).found().start()}
	for i := 1; i < count; i++ {
		role := RoleMember
		if i%50 == 7 {
			role = RoleReplica
		}
		by := nodes[i/2]
		if by.isReplica() {
			by = nodes[0]
		}
		eventually(t, "word of the one before", func() bool { return len(by.Devices()) == i })
		nodes = append(nodes, newTestNode(t, fmt.Sprint(i), network.Transport).joinBy(by, role).start())
	}
	calm := func(of []*testNode) {
		t.Helper()
		last, since := -1, time.Now()
		eventually(t, "calm", func() bool {
			connections := 0
			for _, n := range of {
				connections += n.status(t).Connected
			}
			if connections != last {
				if os.Getenv("MESH_LOG") != "" {
					t.Logf("%v: %d connections, %d rounds", time.Since(began), connections, rounds(of, 0))
				}
				last, since = connections, time.Now()
			}
			return time.Since(since) > time.Second && rounds(of, 0) >= 0
		})
		most, least := 0, count
		for _, n := range of {
			c := n.status(t).Connected
			most, least = max(most, c), min(least, c)
		}
		t.Logf("%d devices after %v: %d to %d connections each, %.1f on average", len(of), time.Since(began).Round(time.Millisecond), least, most, float64(last)/float64(len(of)))
		if most > meshLimit+4 || least < 2 {
			t.Errorf("%d to %d connections", least, most)
		}
	}
	calm(nodes)
	spread := func(of []*testNode) {
		t.Helper()
		for range 3 {
			from := rand.IntN(len(of))
			for of[from].isReplica() {
				from = rand.IntN(len(of))
			}
			before, start := network.Carried(), time.Now()
			seq := of[from].write("x")
			author := of[from].author
			eventually(t, "the change everywhere", func() bool {
				for _, n := range of {
					if n.Vector()[author] < seq {
						return false
					}
				}
				return true
			})
			took := time.Since(start)
			bytes := network.Carried() - before
			t.Logf("a change of 1 byte: all %d have it after %d rounds at most (the graph), %v, %d bytes in all, %d for each device",
				len(of), rounds(of, from), took.Round(time.Millisecond), bytes, bytes/uint64(len(of)))
			if r := rounds(of, from); r < 0 || r > 5 {
				t.Errorf("%d rounds", r)
			}
		}
	}
	spread(nodes)

	// A third goes; the others close the gaps.
	began = time.Now()
	var left []*testNode
	for i, n := range nodes {
		if i%3 == 1 {
			n.stop()
		} else {
			left = append(left, n)
		}
	}
	calm(left)
	spread(left)
}

// A device with more connections than it wants gives up one, but not that of a newcomer that it is letting in.
func TestPruneSparesNewcomers(t *testing.T) {
	network := transport.NewMemory()
	hub := newTestNode(t, "hub", network.Transport).found().start()
	for i := range fullMesh + 1 {
		newTestNode(t, fmt.Sprint(i), network.Transport).joinBy(hub, RoleMember)
	}
	r := hub.Replica
	r.mu.Lock()
	defer r.mu.Unlock()
	real := r.sessions
	defer func() { r.sessions = real }()
	r.sessions = map[DeviceID]*session{}
	for i := range meshLimit + 1 {
		s := &session{r: r, peer: newTestNode(t, fmt.Sprint("peer", i), nil).id(), hello: &peerHello{joining: true}}
		s.ctx, s.cancel = context.WithCancelCause(t.Context())
		r.sessions[s.peer] = s
	}
	ended := func() (out []DeviceID) {
		r.prune()
		for id, s := range r.sessions {
			if s.ctx.Err() != nil {
				out = append(out, id)
			}
		}
		return out
	}
	if got := ended(); len(got) > 0 {
		t.Errorf("%d of the newcomers were sent away", len(got))
	}
	for id, s := range r.sessions {
		if !r.neighbours(id) { // else it stays in any case
			s.hello.joining = false
			if got := ended(); len(got) != 1 || got[0] != id {
				t.Errorf("ended: %v, not %v", got, id)
			}
			return
		}
	}
}

func (n *testNode) isReplica() bool {
	return n.status(n.t).Role == RoleReplica
}

// rounds returns how many links the farthest of some nodes is from one of them; negative if not all can be reached.
func rounds(of []*testNode, from int) int {
	index := map[DeviceID]int{}
	for i, n := range of {
		index[n.id()] = i
	}
	far, seen := 0, map[int]int{from: 0}
	for next := []int{from}; len(next) > 0; next = next[1:] {
		of[next[0]].Replica.mu.Lock()
		var peers []DeviceID
		for id := range of[next[0]].sessions {
			peers = append(peers, id)
		}
		of[next[0]].Replica.mu.Unlock()
		for _, id := range peers {
			i, ok := index[id]
			if _, known := seen[i]; !ok || known {
				continue
			}
			seen[i] = seen[next[0]] + 1
			far = max(far, seen[i])
			next = append(next, i)
		}
	}
	if len(seen) < len(of) {
		return -1
	}
	return far
}
