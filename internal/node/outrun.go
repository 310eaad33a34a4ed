package node

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/replica"
)

// outrun hears from another member that this device cannot go on from what it has,
// and notes it if it is so.
func (n *Node) outrun(author replica.AuthorID, seq uint64) {
	select {
	case <-n.begun:
	default: // begin is just finding out
		n.behind.Store(true)
		return
	}
	if author != (replica.AuthorID{}) && n.vol.Vector()[namespace.AuthorID(author)] < seq {
		return // it began anew since
	}
	if author == (replica.AuthorID{}) && n.lacksNothing() || n.behind.Swap(true) {
		return
	}
	n.log.Warn("the others went on without this device while it was away; start the node again, and its work is carried over")
	if err := n.repl.MarkOutrun(); err != nil {
		n.log.Error("cannot note that the others went on", "error", err)
	}
}

// lacksNothing reports whether the tree has all that is before the newest complete checkpoint.
func (n *Node) lacksNothing() bool {
	cp := n.newestComplete()
	return cp == nil || covered(n.repl.CheckpointSeen(cp.ID), n.vector())
}

// complete returns the complete checkpoints, the newest first.
func (n *Node) complete() []replica.Checkpoint {
	return slices.DeleteFunc(n.repl.Checkpoints(), func(cp replica.Checkpoint) bool { return !cp.Complete() })
}

func (n *Node) newestComplete() *replica.Checkpoint {
	if list := n.complete(); len(list) > 0 {
		return &list[0]
	}
	return nil
}

// leftOut reports whether the others made the newest complete checkpoint without this device.
func (n *Node) leftOut() bool {
	cp := n.newestComplete()
	return cp != nil && !slices.Contains(cp.Active, n.repl.Self()) && n.repl.Base() != cp.ID
}

// parseAge reads a length of time as people write it: 90d, 12h, 30m.
func parseAge(s string) (time.Duration, error) {
	if d, ok := strings.CutSuffix(s, "d"); ok {
		days, err := strconv.ParseUint(d, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("read a length of time: %w", err)
		}
		return time.Duration(days) * day, nil
	}
	d, err := time.ParseDuration(s)
	if err == nil && d < 0 {
		err = fmt.Errorf("negative length of time %s", s)
	}
	return d, err
}
