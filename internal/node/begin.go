package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/replica"
)

// A device that has just joined takes a checkpoint instead of replaying all logs, and one
// without which the others went on begins anew from one and carries its own work over.
// Both happen before the volume is opened, so that nobody sees half of it.

const (
	// contactPatience is how long a node that begins waits for another device to answer,
	// and then for each further sign of progress.
	contactPatience = 10 * time.Second
	contactPoll     = 20 * time.Millisecond
	// nextTree is the key prefix of a tree that is to take the place of the old one.
	nextTree = 'T'
)

// beginningKey is where the node keeps how far a beginning from a checkpoint is.
var beginningKey = []byte("mb")

// beginning is a beginning from a checkpoint that may be broken off.
type beginning struct {
	Checkpoint replica.Hash
	Return     replica.Hash // what says that this device is back
	Phase      phase
}

type phase int

const (
	building phase = iota // the checkpoint is being imported; nothing else changed
	joining               // the logs begin at it, and the work of the old tree is being carried over
	clearing              // the next tree is whole; the old one goes
	moving                // it takes the old one's place
)

func (n *Node) loadBeginning() (*beginning, error) {
	v, err := n.state.Get(beginningKey)
	if errors.Is(err, kv.ErrNotFound) {
		return nil, nil
	}
	b := &beginning{}
	if err == nil {
		err = json.Unmarshal(v, b)
	}
	return b, err
}

// note stores how far a beginning is, durably; nil when it is over.
func (n *Node) note(b *beginning) error {
	err := n.state.Update(func(tx kv.Tx) error {
		if b == nil {
			return tx.Delete(beginningKey)
		}
		v, err := json.Marshal(b)
		if err != nil {
			return err
		}
		return tx.Put(beginningKey, v)
	})
	return errors.Join(err, n.state.Sync())
}

// begin brings the state of a member to where its volume can be opened.
func (n *Node) begin() error {
	if err := os.RemoveAll(n.dir.join(scratchName)); err != nil { // of a node that was killed
		n.log.Warn("cannot take away what is left of a tree made anew", "error", err)
	}
	left, err := n.loadBeginning()
	if err != nil {
		return fmt.Errorf("begin from a checkpoint: %w", err)
	}
	if left != nil {
		if err := n.resume(left); err != nil || left.Phase > building {
			return err
		}
	}
	fresh, err := namespace.IsEmpty(n.state)
	if err != nil {
		return err
	}
	if fresh {
		if len(n.repl.Devices()) == 1 {
			return nil
		}
		return n.beginFresh()
	}
	outrun, err := n.repl.Outrun()
	if err != nil {
		return err
	}
	if !outrun && n.longAlone() {
		err := n.meet(func(ctx context.Context) error { return n.catchUp(ctx, n.repl.Admission()) })
		if err != nil && !errors.Is(err, errNobody) {
			return err
		}
		outrun = n.behind.Load() || n.leftOut()
	}
	if !outrun {
		return nil
	}
	b, err := n.prepare()
	if err != nil { // nothing changed: the old tree serves until the next start
		n.behind.Store(true)
		n.log.Warn("the others went on without this device; its work cannot be carried over yet", "error", err)
		return nil
	}
	return n.rejoin(b)
}

// meet exchanges with other devices, without a tree to deliver to, while fn runs.
func (n *Node) meet(fn func(context.Context) error) error {
	if err := errors.Join(n.repl.Close(), n.openReplica(nil)); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(n.ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- n.repl.Serve(ctx) }()
	err := fn(ctx)
	cancel()
	return errors.Join(err, <-served, n.repl.Close(), n.openReplica(n.deliver))
}

// errNobody says that nobody answered in time.
var errNobody = errors.New("no member of the volume answers")

// catchUp waits until a member that answers has nothing that is not here, or says that it has no more of what this
// device needs. That member must know an entry of the control log: that this device was let in, or is back. From then on nobody
// goes on without this device, so what comes later it need not know. It
// fails with errNobody if there is no sign of life for too long.
func (n *Node) catchUp(ctx context.Context, knowing replica.Hash) error {
	before, since := uint64(0), time.Now()
	for !n.behind.Load() {
		done, have := n.repl.CaughtUp(knowing)
		if done {
			return nil
		}
		if have != before {
			before, since = have, time.Now()
		}
		if time.Since(since) > contactPatience {
			return errNobody
		}
		select {
		case <-time.After(contactPoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// longAlone reports whether this device was alone for so long that the others may
// have gone on without it.
func (n *Node) longAlone() bool {
	st, err := n.repl.Status()
	if err != nil {
		return false
	}
	var last time.Time
	for _, d := range st.Devices {
		if !d.Self && d.LastSeen.After(last) {
			last = d.LastSeen
		}
	}
	return !last.IsZero() && n.now().Sub(last) > n.age("forget-after", n.cfg.Checkpoints.ForgetAfter)/2
}

// beginFresh gives a device that has just joined the tree: from a checkpoint if there is one, and the
// rest from the logs. What it writes later then knows what the others promised to take for known.
func (n *Node) beginFresh() error {
	for tried := (replica.Hash{}); ; {
		list := n.complete()
		if len(list) == 0 {
			err := n.meet(func(ctx context.Context) error { return n.catchUp(ctx, n.repl.Admission()) })
			if errors.Is(err, errNobody) {
				return nil // it may begin empty: the logs are whole
			}
			if err != nil || !n.behind.Swap(false) {
				return err
			}
			if n.newestComplete() == nil {
				return nil
			}
			continue
		}
		if list[0].ID == tried {
			return nil
		}
		tried = list[0].ID
		err := n.beginWith(&list[0], false)
		if errors.Is(err, replica.ErrUnavailable) && n.beginOlder(list[1:]) {
			err = nil
		}
		if err != nil {
			return &fail.Error{Kind: fail.Peer, Op: "this device has joined but has nothing of the volume yet", Err: words(err),
				Next: "start it again when another device can be reached"}
		}
		if !n.behind.Swap(false) {
			return nil
		} // else there is a newer one
	}
}

// beginOlder begins from an older checkpoint or from nothing, as the newest one cannot be had: somebody may have all logs behind that.
func (n *Node) beginOlder(older []replica.Checkpoint) bool {
	for i := range older {
		n.behind.Store(false)
		if n.beginWith(&older[i], true) == nil {
			return true
		}
	}
	if left, err := n.loadBeginning(); left != nil || err != nil { // not undone
		return false
	}
	n.behind.Store(false)
	err := n.meet(func(ctx context.Context) error { return n.catchUp(ctx, n.repl.Admission()) })
	return err == nil && !n.behind.Load()
}

// beginWith imports a checkpoint into a state that is empty, or has an older one that the others went on
// from meanwhile. If it is not the newest one, somebody must have all that came since.
func (n *Node) beginWith(cp *replica.Checkpoint, older bool) error {
	began := time.Now()
	if err := n.note(&beginning{Checkpoint: cp.ID}); err != nil {
		return err
	}
	if err := n.repl.BeginAt(cp.ID); err != nil {
		return err
	}
	err := n.meet(func(ctx context.Context) error {
		if err := kv.Clear(n.state, 't'); err != nil {
			return err
		}
		if err := n.importTree(ctx, n.state, cp); err != nil {
			return err
		}
		n.log.Info("began from a checkpoint", "checkpoint", short(cp.ID), "bytes", cp.Version.Size, "took", time.Since(began).Round(time.Millisecond))
		err := n.catchUp(ctx, n.repl.Admission())
		switch {
		case older && n.behind.Load():
			return errors.New("the logs behind it are gone")
		case !older && errors.Is(err, errNobody):
			return nil
		}
		return err
	})
	if err != nil {
		return errors.Join(err, kv.Clear(n.state, 't'), n.repl.BeginAt(replica.Hash{}), n.note(nil))
	}
	return n.note(nil)
}

// prepare imports a checkpoint beside the old tree, to begin anew from it; from then on the
// network is not needed any more.
func (n *Node) prepare() (*beginning, error) {
	if err := n.settleOld(); err != nil {
		return nil, err
	}
	b := &beginning{}
	n.behind.Store(false)
	err := n.meet(func(ctx context.Context) (err error) {
		if err := n.catchUp(ctx, n.repl.Admission()); err != nil {
			return err
		}
		cp := n.newestComplete()
		if cp == nil {
			return errors.New("there is no checkpoint")
		}
		b.Checkpoint = cp.ID
		if err := n.note(b); err != nil {
			return err
		}
		if b.Return, err = n.repl.Return(); err != nil {
			return err
		}
		if err := n.bring(ctx, cp.Version); err != nil { // a crash later on may have it imported again
			return err
		}
		return n.importTree(ctx, kv.Moved(n.state, 't', nextTree), cp)
	})
	if err != nil {
		return nil, errors.Join(err, kv.Clear(n.state, nextTree), n.note(nil))
	}
	return b, nil
}

// resume goes on with a beginning that was broken off: the old tree is whole, the next one may be anything.
func (n *Node) resume(b *beginning) error {
	if b.Phase > joining {
		return n.swap(b)
	}
	if err := kv.Clear(n.state, nextTree); err != nil {
		return err
	}
	if b.Phase == building {
		return n.note(nil)
	}
	cp := n.checkpoint(b.Checkpoint)
	if cp == nil {
		return fmt.Errorf("begin anew: checkpoint %s is not known", short(b.Checkpoint))
	}
	err := n.repl.BeginAt(b.Checkpoint) // may have been broken off
	if err == nil {
		err = n.meet(func(ctx context.Context) error { return n.importAgain(ctx, b, cp) })
	}
	if err != nil {
		return fmt.Errorf("begin anew: %w", err)
	}
	return n.rejoin(b)
}

// importAgain imports a checkpoint that was here; what was lost of it since is fetched.
func (n *Node) importAgain(ctx context.Context, b *beginning, cp *replica.Checkpoint) error {
	next := kv.Moved(n.state, 't', nextTree)
	err := n.importTree(ctx, next, cp)
	if !errors.Is(err, replica.ErrUnavailable) {
		return err
	}
	if err := errors.Join(n.catchUp(ctx, b.Return), kv.Clear(n.state, nextTree)); err != nil {
		return err
	}
	return n.importTree(ctx, next, cp)
}

func (n *Node) checkpoint(id replica.Hash) *replica.Checkpoint {
	for _, cp := range n.repl.Checkpoints() {
		if cp.ID == id {
			return &cp
		}
	}
	return nil
}

// rejoin takes the logs behind the checkpoint in the place of the old ones, so that what is then
// carried over knows what the others know; and puts the next tree in the old one's place. If it fails the node must
// not go on: the next start does.
func (n *Node) rejoin(b *beginning) error {
	b.Phase = joining
	if err := n.note(b); err != nil {
		return err
	}
	if err := n.repl.BeginAt(b.Checkpoint); err != nil {
		return err
	}
	for range 3 { // a member may have let this device in again before it knew
		n.behind.Store(false)
		err := n.meet(func(ctx context.Context) error { return n.catchUp(ctx, b.Return) })
		if err == nil {
			break
		}
		if !errors.Is(err, errNobody) {
			return err
		}
	}
	if err := n.carryOver(b.Checkpoint); err != nil {
		return fmt.Errorf("carry work over: %w", err)
	}
	b.Phase = clearing
	if err := n.note(b); err != nil {
		return err
	}
	return n.swap(b)
}

// settleOld brings what the journal has into the old tree.
func (n *Node) settleOld() error {
	if err := n.openVolume(); err != nil {
		return err
	}
	err := n.vol.Close()
	n.vol = nil
	return err
}

// carryOver brings what only the old tree has into the next one, after what the others did since the checkpoint.
func (n *Node) carryOver(id replica.Hash) error {
	device := n.keys.device.ID()
	old, err := namespace.Open(n.state, newAuthor(device), namespace.WithDevice(n.deviceName()))
	if err != nil {
		return err
	}
	into, err := namespace.Open(kv.Moved(n.state, 't', nextTree), newAuthor(device), namespace.WithDevice(n.deviceName()))
	if err != nil {
		return err
	}
	if err := n.mergeStored(into, n.checkpoint(id)); err != nil {
		return err
	}
	report, err := namespace.Rebase(old, into, n.now().UnixNano())
	if err != nil {
		return err
	}
	n.log.Info("carried the work of this device over", "contents", report.Contents, "files", report.Files, "directories", report.Dirs,
		"names", report.Names, "conflicts", len(report.Conflicts))
	return nil
}

// mergeStored merges the stored logs behind a checkpoint: first those of the members that it is made of, so
// that the tree knows what they refuse before it sees the others'; none of this device's own.
func (n *Node) mergeStored(into *namespace.Tree, cp *replica.Checkpoint) error {
	have := map[replica.AuthorID]uint64{}
	for a, end := range n.repl.CheckpointSeen(cp.ID) {
		have[a] = end.Seq
	}
	first, all := map[replica.AuthorID]uint64{}, n.repl.Vector()
	for a, seq := range all {
		if replica.MadeBy(a, n.repl.Self()) {
			delete(all, a)
		} else if slices.ContainsFunc(cp.Active, func(d replica.DeviceID) bool { return replica.MadeBy(a, d) }) {
			first[a] = seq
		}
	}
	return errors.Join(n.mergeSome(n.ctx, into, have, first), n.mergeSome(n.ctx, into, have, all))
}

// swap puts the next tree in the place of the old one; whatever breaks it off, it is gone on with at the next start.
func (n *Node) swap(b *beginning) error {
	if b.Phase == clearing {
		if err := kv.Clear(n.state, 't'); err != nil {
			return fmt.Errorf("begin anew: %w", err)
		}
		b.Phase = moving
		if err := n.note(b); err != nil {
			return err
		}
	}
	for _, step := range []func() error{
		func() error { return kv.Move(n.state, nextTree, 't') },
		func() error { return n.note(nil) },
		n.repl.Close,
		func() error { return n.openReplica(n.deliver) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("begin anew: %w", err)
		}
	}
	n.behind.Store(false)
	return nil
}
