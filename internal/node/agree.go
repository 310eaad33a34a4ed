package node

import (
	"slices"

	"github.com/foreverfs/forever/replica"
)

// isDue reports whether there should be another checkpoint: there was much work since the last complete one. One that
// others have not endorsed yet is waited for, or there would be more and more of them while somebody is
// away; unless it is hopeless. However that is, this device makes no second one of the same members before there was as much work again.
func (c *checkpointer) isDue(list []replica.Checkpoint) bool {
	last, active := lastOf(list), c.active()
	if c.grown(last) < c.enough() {
		return false
	}
	for i := range list {
		cp := &list[i]
		if cp.Complete() || cp.Clock <= last {
			continue
		}
		again := cp.Maker == c.n.repl.Self() && len(cp.GaveUp) == 0 && slices.Equal(cp.Active, active)
		if again && c.grown(cp.Clock) < c.enough() || !c.hopeless(cp, list, active) {
			return false
		}
	}
	return true
}

// hopeless reports whether a checkpoint that is not complete cannot be expected to become so.
func (c *checkpointer) hopeless(cp *replica.Checkpoint, list []replica.Checkpoint, active []replica.DeviceID) bool {
	// It does not continue the newest one, of which its maker had not heard, or its export cannot be had. Or somebody has come, and nobody who knows of that endorses it.
	// Or who made or endorsed it began anew since, without what it may be made of.
	if c.vain[cp.ID] || !c.agrees(cp.Active) || len(cp.GaveUp) > 0 {
		return true
	}
	ends := c.n.repl.CheckpointSeen(cp.ID)
	for _, d := range cp.Active {
		if slices.Contains(cp.Endorsed, d) {
			continue
		}
		// Who is gone does not, nor who endorsed one that this lies behind: two were made at once, and neither continues the other.
		if !slices.Contains(active, d) || !c.follows(d, ends, list) {
			return true
		}
	}
	// What it is made of may be lost with a device before it was anywhere else.
	have := c.n.vector()
	for a, end := range ends {
		if have[a] < end.Seq && !slices.ContainsFunc(active, func(d replica.DeviceID) bool { return replica.MadeBy(a, d) }) {
			return true
		}
	}
	return false
}

// follows reports whether a vector lies nowhere behind the checkpoints that a device endorsed. No device
// endorses one that does not: so of two complete ones, which some device endorsed both, one continues the other.
//
// What a device endorsed before it began anew does not count: it may name batches that the device gave up, so nothing would
// ever follow. In its place is the complete one that the device began from, and it endorses nothing that lies behind that. An earlier
// one that others endorsed too lies behind that one, or continues it and is followed by them; and nobody endorses one any more that somebody gave up.
func (c *checkpointer) follows(d replica.DeviceID, ends map[replica.AuthorID]replica.LogEnd, list []replica.Checkpoint) bool {
	reach := seqs(ends)
	for i := range list {
		counts := slices.Contains(list[i].Endorsed, d) && !slices.Contains(list[i].GaveUp, d)
		if counts && !covered(c.n.repl.CheckpointSeen(list[i].ID), reach) {
			return false
		}
	}
	// This device began from one, or dropped the logs before it.
	return d != c.n.repl.Self() || covered(c.n.repl.CheckpointSeen(c.n.repl.Base()), reach)
}

// agrees reports whether everybody that a checkpoint leaves out is gone from here as well.
func (c *checkpointer) agrees(active []replica.DeviceID) bool {
	for _, d := range c.active() {
		if !slices.Contains(active, d) {
			return false
		}
	}
	return true
}
