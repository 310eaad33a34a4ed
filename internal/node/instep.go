package node

import (
	"context"

	"github.com/foreverfs/forever/internal/lease"
	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/replica"
	"github.com/foreverfs/forever/volume"
)

// inStep keeps this node's mount in step with those of connected devices: it brings
// the volume, which knows directories, and the leases, which know peers, together.
type inStep struct {
	leases *replica.Leases
	vol    *volume.Volume // set before anything is served
}

var (
	_ volume.Peers  = (*inStep)(nil)
	_ replica.Mount = (*inStep)(nil)
)

// keepInStep makes the leases of a mount that begins with what a tree holds.
func keepInStep(repl *replica.Replica, author namespace.AuthorID, tree *namespace.Tree) *inStep {
	s := &inStep{}
	s.leases = repl.Keep(replica.LeaseConfig{
		Author: replica.AuthorID(author), Mount: s, Applied: vectorOf(tree.Vector()),
	})
	return s
}

// vectorOf names the logs of a vector as the replica does.
func vectorOf(v map[namespace.AuthorID]uint64) map[replica.AuthorID]uint64 {
	out := make(map[replica.AuthorID]uint64, len(v))
	for a, seq := range v {
		out[replica.AuthorID(a)] = seq
	}
	return out
}

// applied says that a batch is in the tree; peers hear of it once the kernel has, too.
func (s *inStep) applied(author replica.AuthorID, seq uint64) {
	s.vol.Settled(func() { s.leases.Applied(author, seq) })
}

// Alone implements volume.Peers.
func (s *inStep) Alone() bool { return s.leases.Alone() }

// Observe implements volume.Peers.
func (s *inStep) Observe(ctx context.Context, dirs []namespace.Watched, before func()) {
	s.leases.Observe(ctx, leaseDirs(dirs), before)
}

// Covered implements volume.Peers.
func (s *inStep) Covered(dirs []namespace.Watched) bool { return s.leases.Covered(leaseDirs(dirs)) }

// Watched implements volume.Peers.
func (s *inStep) Watched(dirs []namespace.Watched) bool { return s.leases.Watched(leaseDirs(dirs)) }

// Await implements volume.Peers.
func (s *inStep) Await(ctx context.Context, seq uint64, dirs []namespace.Watched, before func()) {
	s.leases.Await(ctx, seq, leaseDirs(dirs), before)
}

func leaseDirs(list []namespace.Watched) []lease.Dir {
	out := make([]lease.Dir, len(list))
	for i, w := range list {
		out[i] = lease.Dir{ID: w.Dir, Maker: lease.Log(w.Made.Author), At: w.Made.Lamport}
	}
	return out
}

// Publish implements replica.Mount.
func (s *inStep) Publish(ctx context.Context, vector bool) (uint64, map[replica.AuthorID]uint64, error) {
	seq, applied, err := s.vol.Publish(ctx, vector)
	return seq, vectorOf(applied), err
}

// Forget implements replica.Mount.
func (s *inStep) Forget(done func()) { s.vol.ForgetAll(done) }

// ForgetDirs implements replica.Mount.
func (s *inStep) ForgetDirs(dirs [][16]byte, force bool, done func(kept [][16]byte)) {
	ids := make([]namespace.NodeID, len(dirs))
	for i, id := range dirs {
		ids[i] = id
	}
	s.vol.ForgetDirs(ids, force, func(kept []namespace.NodeID) {
		out := make([][16]byte, len(kept))
		for i, id := range kept {
			out[i] = id
		}
		done(out)
	})
}
