package node

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/replica"
)

// presenceKey is where the node keeps for how long it heard nothing of each device.
var presenceKey = []byte("mq")

// maxElapsed is the most that one look at the clock counts for: a clock that jumps a year ahead, or a
// year in a drawer, makes nobody look gone, and expires nothing.
const maxElapsed = 24 * time.Hour

// presence is how long the others have been silent, and what time it is, by this
// node's clock as far as it can be believed: time counts in steps of at most maxElapsed.
type presence struct {
	Looked time.Time                // by the clock on the wall
	Time   time.Time                // by steps
	Silent map[string]time.Duration // by device, in hexadecimal
	// Returned has how often devices had said that they are back.
	Returned map[string]int
	heard    map[replica.DeviceID]uint64
}

func loadPresence(state kv.Reader) (*presence, error) {
	p := &presence{Silent: map[string]time.Duration{}, Returned: map[string]int{}, heard: map[replica.DeviceID]uint64{}}
	b, err := state.Get(presenceKey)
	if errors.Is(err, kv.ErrNotFound) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(b, p)
	}
	if err != nil {
		return nil, fmt.Errorf("read how long devices were silent: %w", err)
	}
	if p.Silent == nil || p.Returned == nil {
		p.Silent, p.Returned = map[string]time.Duration{}, map[string]int{}
	}
	return p, nil
}

// look counts the time since the last look as silence of all devices but those that are connected or
// whose batches came. wrote has how many batches of each device were merged.
func (p *presence) look(now time.Time, members []replica.DeviceID, connected map[replica.DeviceID]bool, wrote map[replica.DeviceID]uint64, returns map[replica.DeviceID]int) {
	elapsed := min(max(now.Sub(p.Looked), 0), maxElapsed)
	if p.Looked.IsZero() {
		elapsed, p.Time = 0, now
	}
	p.Looked = now
	p.Time = p.Time.Add(elapsed)
	if p.Time.After(now) {
		p.Time = now
	}
	for _, d := range members {
		name := hex.EncodeToString(d[:])
		p.Silent[name] += elapsed
		was, known := p.heard[d]
		if connected[d] || known && wrote[d] > was || returns[d] > p.Returned[name] {
			p.Silent[name] = 0
		}
		p.heard[d] = wrote[d]
		p.Returned[name] = returns[d]
	}
}

// gone reports whether a device was silent for longer than a time, and did not say since that it is back.
func (p *presence) gone(d replica.DeviceID, after time.Duration, returns map[replica.DeviceID]int) bool {
	name := hex.EncodeToString(d[:])
	return p.Silent[name] > after && returns[d] <= p.Returned[name]
}

func (p *presence) save(state kv.DB) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return state.Update(func(tx kv.Tx) error { return tx.Put(presenceKey, b) })
}

// members returns the devices that hold keys, ascending.
func (n *Node) members() (out []replica.DeviceID) {
	for _, d := range n.repl.Devices() {
		if d.Role == replica.RoleMember {
			out = append(out, d.ID)
		}
	}
	slices.SortFunc(out, func(a, b replica.DeviceID) int { return slices.Compare(a[:], b[:]) })
	return out
}

// lookAround updates who is silent and stores it.
func (n *Node) lookAround(p *presence) error {
	st, err := n.repl.Status()
	if err != nil {
		return err
	}
	connected := map[replica.DeviceID]bool{st.Self: true}
	for _, d := range st.Devices {
		if d.Connected {
			connected[d.ID] = true
		}
	}
	members := n.members()
	wrote := map[replica.DeviceID]uint64{}
	for a, seq := range n.vector() {
		for _, d := range members {
			if replica.MadeBy(a, d) {
				wrote[d] += seq
			}
		}
	}
	p.look(n.now(), members, connected, wrote, n.repl.Returns())
	return p.save(n.state)
}

func (n *Node) now() time.Time {
	if n.cfg.Now != nil {
		return n.cfg.Now()
	}
	return time.Now()
}
