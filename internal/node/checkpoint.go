package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/replica"
)

// Checkpoints says when checkpoints are made and what they leave out.
type Checkpoints struct {
	// Tick is how often the node looks whether there is something to do; 0 means a minute.
	Tick time.Duration
	// MinOps is how many ops there must be since the last checkpoint, and no fewer than half as many as
	// there are files; 0 means 20,000.
	MinOps uint64
	// ForgetAfter is how long a device must be silent for the others to go on without it; 0 means 90 days.
	// The volume's policy "forget-after" overrides it.
	ForgetAfter time.Duration
	// Keep is how long history goes back; 0 means a year. The volume's policy "keep" overrides it.
	Keep time.Duration
}

const (
	day = 24 * time.Hour
	// checkpointTurn is how many ticks each device waits for the one before it to make a checkpoint.
	checkpointTurn = 3
)

func (c *Checkpoints) setDefaults() {
	c.Tick = cmp.Or(c.Tick, time.Minute)
	c.MinOps = cmp.Or(c.MinOps, 20_000)
	c.ForgetAfter = cmp.Or(c.ForgetAfter, 90*day)
	c.Keep = cmp.Or(c.Keep, 365*day)
}

// checkpointer makes, endorses and settles the checkpoints of this member.
type checkpointer struct {
	n         *Node
	cfg       Checkpoints
	presence  *presence
	due       int                              // ticks since there should be a checkpoint
	differing map[replica.Hash]bool            // made anew here, they came out differently
	vain      map[replica.Hash]bool            // those that do not continue the newest one, or whose export cannot be had
	folded    map[replica.Hash]namespace.Point // what those were folded to that came out the same
	settled   replica.Hash                     // in this run
}

func newCheckpointer(n *Node, p *presence) *checkpointer {
	return &checkpointer{
		n: n, cfg: n.cfg.Checkpoints, presence: p,
		differing: map[replica.Hash]bool{}, vain: map[replica.Hash]bool{}, folded: map[replica.Hash]namespace.Point{},
	}
}

// checkpointLoop does what there is to do about checkpoints until ctx ends.
func (n *Node) checkpointLoop(ctx context.Context) error {
	p, err := loadPresence(n.state)
	if err != nil {
		return err
	}
	c := newCheckpointer(n, p)
	tick := time.NewTicker(c.cfg.Tick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if err := c.step(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("cannot make or check a checkpoint yet; will try again", "error", err)
		}
	}
}

func (c *checkpointer) step(ctx context.Context) error {
	if err := c.n.lookAround(c.presence); err != nil {
		return err
	}
	for a, seq := range c.n.refused.overdue(time.Now()) {
		c.n.repl.Refuse(a, seq)
	}
	list := c.n.repl.Checkpoints()
	last := lastOf(list)
	if c.grown(last) >= c.enough()/2 {
		if err := c.n.vol.Acknowledge(func() []namespace.Device { return devicesOf(c.active()) }, c.retention()); err != nil {
			return err
		}
	}
	return errors.Join(c.endorse(ctx, list, last), c.make(ctx, c.n.repl.Checkpoints()), c.settle(ctx))
}

// lastOf returns the counter of the newest complete checkpoint.
func lastOf(list []replica.Checkpoint) uint64 {
	for _, cp := range list {
		if cp.Complete() {
			return cp.Clock
		}
	}
	return 0
}

// grown returns about how many ops there were since a counter.
func (c *checkpointer) grown(since uint64) uint64 {
	clock := c.n.vol.Clock()
	return clock - min(since, clock)
}

// enough returns how many ops are worth a checkpoint, which costs about as much as the whole tree.
func (c *checkpointer) enough() uint64 {
	files, dirs, _ := c.n.vol.Count()
	return max(c.cfg.MinOps, (files+dirs)/2)
}

// active returns the members that take part: those that were heard of, ascending.
func (c *checkpointer) active() []replica.DeviceID {
	returns := c.n.repl.Returns()
	return slices.DeleteFunc(c.n.members(), func(d replica.DeviceID) bool {
		return c.presence.gone(d, c.n.age("forget-after", c.cfg.ForgetAfter), returns)
	})
}

// retention returns what may be forgotten. The horizon moves once a day: each time every member says so.
func (c *checkpointer) retention() namespace.Retention {
	keep := c.n.age("keep", c.cfg.Keep)
	now := c.presence.Time
	step := min(day, max(keep/4, time.Second))
	return namespace.Retention{
		Horizon: max(0, now.Add(-keep).Truncate(step).UnixNano()), Now: now.Truncate(time.Hour).UnixNano(),
	}
}

// newest returns the newest complete checkpoint that lies nowhere beyond a vector.
func (c *checkpointer) newest(list []replica.Checkpoint, upTo map[replica.AuthorID]uint64) *replica.Checkpoint {
	for i := range list {
		if list[i].Complete() && covered(c.n.repl.CheckpointSeen(list[i].ID), upTo) {
			return &list[i]
		}
	}
	return nil
}

func idOf(cp *replica.Checkpoint) (id replica.Hash) {
	if cp != nil {
		id = cp.ID
	}
	return id
}

// covered reports whether a vector reaches as far as all these logs.
func covered(seen map[replica.AuthorID]replica.LogEnd, upTo map[replica.AuthorID]uint64) bool {
	for a, end := range seen {
		if upTo[a] < end.Seq {
			return false
		}
	}
	return true
}

// seqs returns how far logs reach.
func seqs(ends map[replica.AuthorID]replica.LogEnd) map[replica.AuthorID]uint64 {
	out := make(map[replica.AuthorID]uint64, len(ends))
	for a, end := range ends {
		out[a] = end.Seq
	}
	return out
}

// vector returns which batches the tree has.
func (n *Node) vector() map[replica.AuthorID]uint64 { return vectorOf(n.vol.Vector()) }

// make makes a checkpoint if one is due and it is this device's turn.
func (c *checkpointer) make(ctx context.Context, list []replica.Checkpoint) error {
	if !c.isDue(list) {
		c.due = 0
		return nil
	}
	active := c.active()
	turn := slices.Index(active, c.n.repl.Self())
	if c.due++; turn < 0 || c.due <= turn*checkpointTurn {
		return nil
	}
	c.due = 0
	seen := c.n.vector()
	newest := idOf(c.newest(list, seen))
	began := time.Now()
	tree, err := c.anew(ctx, list, seen, active)
	if err != nil {
		return fmt.Errorf("make a checkpoint: %w", err)
	}
	if now := c.n.repl.Checkpoints(); len(now) != len(list) || idOf(c.newest(now, seen)) != newest {
		return nil // another has been made meanwhile; or one has become complete, which the next is to continue
	}
	id, err := c.n.repl.ProposeCheckpoint(replica.Checkpoint{Active: active, Clock: tree.clock, Version: tree.version, Digest: tree.digest}, tree.base, seen)
	if err != nil {
		return err
	}
	c.folded[id] = tree.folded
	c.n.log.Info("made a checkpoint", "checkpoint", short(id), "bytes", tree.version.Size, "ops", tree.clock, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// stored is a tree made anew whose export is in the store.
type stored struct {
	rebuilt
	base    replica.Hash // what it was made from
	version chunk.Version
}

// anew makes the tree up to a vector anew, and stores its export. It begins with the newest complete checkpoint that can be had:
// while the logs behind an older one are here, nothing is lost with the export of a newer one.
func (c *checkpointer) anew(ctx context.Context, list []replica.Checkpoint, seen map[replica.AuthorID]uint64, active []replica.DeviceID) (out stored, err error) {
	for _, base := range c.bases(list, seen) {
		w := newStreamWriter(ctx, c.n.streams())
		tree, failed := c.n.rebuild(ctx, base, seen, active, w)
		if failed == nil {
			out = stored{rebuilt: tree, base: idOf(base)}
			out.version, err = w.finish()
			return out, err
		}
		err = errors.Join(err, failed)
		if !errors.Is(failed, replica.ErrUnavailable) {
			break
		}
	}
	return out, err
}

// bases returns what the tree up to a vector can be made from, the newest first: complete checkpoints and, as nil, nothing, if
// the logs behind that are here.
func (c *checkpointer) bases(list []replica.Checkpoint, upTo map[replica.AuthorID]uint64) (out []*replica.Checkpoint) {
	floor := c.n.repl.Base()
	begin := c.n.repl.CheckpointSeen(floor)
	for i := range list {
		ends := c.n.repl.CheckpointSeen(list[i].ID)
		if list[i].Complete() && covered(ends, upTo) && covered(begin, seqs(ends)) {
			out = append(out, &list[i])
		}
	}
	if floor == (replica.Hash{}) {
		out = append(out, nil)
	}
	return out
}

// endorse does anew what others say they came to, and signs if it is the same and the export is here: it must not be lost with
// its maker.
func (c *checkpointer) endorse(ctx context.Context, list []replica.Checkpoint, last uint64) error {
	self := c.n.repl.Self()
	var errs []error
	for i := range list {
		cp := &list[i]
		switch {
		case cp.Complete(), cp.Clock <= last, c.differing[cp.ID], !slices.Contains(cp.Active, self), slices.Contains(cp.Endorsed, self):
			continue
		case !c.agrees(cp.Active), len(cp.GaveUp) > 0:
			continue
		}
		ends := c.n.repl.CheckpointSeen(cp.ID)
		if !c.follows(self, ends, list) || !covered(ends, c.n.vector()) {
			continue
		}
		same, err := c.judge(ctx, cp, list, seqs(ends))
		if same && err == nil {
			err = c.sign(ctx, cp)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("check a checkpoint: %w", err))
		}
	}
	return errors.Join(errs...)
}

// judge reports whether this device comes to the same as a checkpoint.
func (c *checkpointer) judge(ctx context.Context, cp *replica.Checkpoint, list []replica.Checkpoint, seen map[replica.AuthorID]uint64) (same bool, err error) {
	if _, same := c.folded[cp.ID]; same {
		return true, nil
	}
	tree, err := c.anew(ctx, list, seen, cp.Active)
	if err != nil {
		return false, err
	}
	if tree.digest == cp.Digest {
		c.folded[cp.ID] = tree.folded
		return true, nil
	}
	c.differing[cp.ID] = true
	if tree.base != cp.Base {
		// What came of the base is folded at least as far as that, so it may show. The logs before this one may be gone.
		c.vain[cp.ID] = true
		c.n.log.Info("did not endorse a checkpoint: it does not continue the newest one", "checkpoint", short(cp.ID), "newest", short(tree.base))
		return false, nil
	}
	c.n.differs.Store(true)
	c.n.log.Error("this device comes to another tree than a checkpoint says; it is not endorsed, nothing is dropped",
		"checkpoint", short(cp.ID), "maker", cp.Maker)
	return false, nil
}

// sign endorses a checkpoint. Sealing the same in the same epoch gives the same chunks, so judging it has stored them, as a rule.
func (c *checkpointer) sign(ctx context.Context, cp *replica.Checkpoint) error {
	err := c.n.bring(ctx, cp.Version)
	if errors.Is(err, replica.ErrUnavailable) { // sealed in another epoch, and lost with the maker, or not here yet
		c.vain[cp.ID] = true
		return nil
	}
	if err != nil {
		return err
	}
	delete(c.vain, cp.ID)
	if err := c.n.repl.Endorse(cp.ID); err != nil {
		return err
	}
	c.n.log.Info("endorsed a checkpoint", "checkpoint", short(cp.ID))
	return nil
}

// settle folds the tree and drops the logs behind the newest checkpoint that all came to, this
// device included, and of which everything is here. The logs behind an older one are needed while the export of a newer one is not here.
func (c *checkpointer) settle(ctx context.Context) error {
	self, base := c.n.repl.Self(), c.n.repl.Base()
	for _, cp := range c.n.repl.Checkpoints() {
		in := slices.Contains(cp.Active, self)
		if cp.ID == base && (cp.ID == c.settled || !in) { // it began from that one; those before are behind it
			return nil
		}
		if !cp.Complete() || !in {
			continue
		}
		if !covered(c.n.repl.CheckpointSeen(cp.ID), c.n.vector()) {
			return nil
		}
		here, err := c.n.isHere(ctx, cp.Version)
		if err != nil {
			return err
		}
		if !here {
			continue
		}
		if err := c.settleAt(ctx, &cp); err != nil {
			return fmt.Errorf("settle a checkpoint: %w", err)
		}
		c.settled = cp.ID
		return nil
	}
	return nil
}

func (c *checkpointer) settleAt(ctx context.Context, cp *replica.Checkpoint) error {
	// As far as the checkpoint and no further, so that who begins from it takes and refuses the same. What a
	// run before this one came to is not known any more; the next checkpoint makes up for it.
	if to, ok := c.folded[cp.ID]; ok {
		if err := repeat(ctx, func() (bool, error) { return c.n.vol.Fold(to) }); err != nil {
			return err
		}
	}
	if err := repeat(ctx, func() (bool, error) { return c.n.repl.DropLogs(cp.ID) }); err != nil {
		return err
	}
	c.n.log.Info("settled a checkpoint: logs before it are dropped", "checkpoint", short(cp.ID))
	return nil
}

// repeat calls fn until it says that all is done.
func repeat(ctx context.Context, fn func() (bool, error)) error {
	for {
		done, err := fn()
		if done || err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

func short(h replica.Hash) string { return fmt.Sprintf("%x", h[:8]) }
