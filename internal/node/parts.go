package node

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/replica"
	"github.com/foreverfs/forever/volume"
)

// openReplica opens the logs and takes the epoch keys wrapped for this device. It
// comes before anything is put into the store. deliver is given the batches of a member; nil while there is no tree.
func (n *Node) openReplica(deliver func(replica.Envelope) error) (err error) {
	cfg := replica.Config{
		Volume: n.format.Volume, Identity: n.keys.device.Private(), KV: n.state, Store: replicaStore{n.store, &n.recent, &n.budget},
		Transport: tcp(n.keys, n.cfg, n.format.Volume), Listen: n.cfg.Listen, Logger: n.log.Named("replica"),
		Now: n.cfg.Now, Bootstrap: n.cfg.Peers,
	}
	if n.format.Role == RoleMember {
		n.epochs = newEpochs(n.keys.device, n.format.Volume)
		cfg.Admit = n.epochs.wrap
		cfg.NewEpoch = n.epochs.open
		cfg.Rewrap = n.epochs.rewrap
		cfg.Deliver = deliver
		cfg.Outrun = n.outrun
		cfg.ControlChanged = n.refreshEpochs
	}
	if n.repl, err = replica.Open(cfg); err != nil {
		return err
	}
	if n.epochs == nil {
		return nil
	}
	n.refreshEpochs()
	return nil
}

// openVolume opens the tree as a new incarnation, brings it to what the logs
// hold, and puts the volume on top.
func (n *Node) openVolume() error {
	author := newAuthor(n.keys.device.ID())
	tree, err := namespace.Open(n.state, author, namespace.WithDevice(n.deviceName()))
	if err != nil {
		return fmt.Errorf("open tree: %w", err)
	}
	fresh := tree.MaxLamport() == 0 && len(n.repl.Devices()) == 1
	var peers volume.Peers
	if !n.cfg.Eventual {
		n.step = keepInStep(n.repl, author, tree)
		peers = n.step
	}
	var locks volume.Locks
	if !n.cfg.LocalLocks {
		n.locks = shareLocks(n.repl, author, tree)
		locks = n.locks
	}
	n.vol, err = volume.Open(volume.Config{
		Peers:     peers,
		Locks:     locks,
		Tree:      tree,
		State:     n.state,
		Chunks:    &chunks{store: n.store, peers: n.repl, recent: &n.recent, log: n.log},
		Sealer:    n.epochs.ring,
		Parts:     chunkParts{store: n.store, ring: n.epochs.ring},
		Log:       &opLog{repl: n.repl, epochs: n.epochs, author: author},
		Logger:    n.log.Named("volume"),
		ReadOnly:  n.cfg.ReadOnly,
		DiskUsage: n.diskUsage,
		DirtyMax:  dirtyMax(),
		Elsewhere: n.elsewhere(),
		Now:       n.cfg.Now,
	})
	if err != nil {
		return fmt.Errorf("open volume: %w", err)
	}
	if n.step != nil {
		n.step.vol = n.vol
	}
	if n.locks != nil {
		n.locks.vol = n.vol
	}
	if err := n.repl.Replay(n.vector(), n.deliver); err != nil {
		// The rest of the tree is good; delivering goes on trying.
		n.log.Error("cannot apply stored batches", "error", err)
	}
	if fresh && !n.cfg.ReadOnly {
		return n.giveRoot()
	}
	return nil
}

// giveRoot gives the root directory of a new volume to whoever makes it, and the time of its making. A mount of somebody who is not
// root has permissions checked: in a root directory of root's he could make nothing.
func (n *Node) giveRoot() error {
	_, err := n.vol.Setattr(n.ctx, volume.RootIno, volume.SetAttr{
		Valid: volume.SetAtimeNow | volume.SetMtimeNow | volume.SetUID | volume.SetGID,
		UID:   uint32(os.Geteuid()), GID: uint32(os.Getegid()),
	})
	if err != nil {
		return fmt.Errorf("give the root directory to who makes it: %w", err)
	}
	return nil
}

// deviceName returns the name that the volume has for this device.
func (n *Node) deviceName() string {
	self := n.repl.Self()
	for _, d := range n.repl.Devices() {
		if d.ID == self {
			return d.Name
		}
	}
	return n.cfg.name()
}

// serveReplica listens, and exchanges with other devices until Close.
func (n *Node) serveReplica() error {
	addr, err := n.repl.Listen()
	if err != nil {
		return listenError(n.cfg.Listen, err)
	}
	if addr != "" {
		n.log.Info("listening", "address", addr)
	}
	n.spawn("exchange with other devices", func(ctx context.Context) error { return n.repl.Serve(ctx) })
	return nil
}

// dirtyMax returns how many bytes written to files may wait in memory for being sealed: a sixty-fourth of the
// machine's, within bounds.
func dirtyMax() int64 {
	const least, most = 64 << 20, 256 << 20
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return least
	}
	return min(most, max(least, int64(uint64(info.Totalram)*uint64(info.Unit)/64)))
}
