package node

import (
	"errors"
	"fmt"
	"sync"

	"github.com/foreverfs/forever/cipher"
	"github.com/foreverfs/forever/namespace"
	"github.com/foreverfs/forever/replica"
	"github.com/foreverfs/forever/volume"
)

// opLog is the log of this start of the device: it seals batches and hands them
// to the replica.
type opLog struct {
	repl   *replica.Replica
	epochs *epochs
	author namespace.AuthorID

	mu sync.Mutex // one batch at a time: its place is sealed into it
}

var _ volume.Log = (*opLog)(nil)

// Append implements volume.Log.
func (l *opLog) Append(payload []byte) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	aad := replica.BatchAAD(l.epochs.volume, replica.AuthorID(l.author), l.repl.NextSeq(replica.AuthorID(l.author)))
	sealed, epoch, err := l.epochs.sealBatch(payload, aad)
	if err != nil {
		return 0, fmt.Errorf("seal batch: %w", err)
	}
	seq, err := l.repl.Append(replica.AuthorID(l.author), epoch, sealed)
	if err != nil {
		return 0, fmt.Errorf("append batch: %w", err)
	}
	return seq, nil
}

// deliver opens an envelope and merges its batch into the tree. What waits for
// other batches or for a key is asked for again later.
func (n *Node) deliver(env replica.Envelope) error {
	aad := replica.BatchAAD(n.format.Volume, env.Author, env.Seq)
	payload, err := n.epochs.ring.OpenBatch(env.Sealed, aad)
	if errors.Is(err, cipher.ErrUnknownEpoch) {
		n.refreshEpochs()
		payload, err = n.epochs.ring.OpenBatch(env.Sealed, aad)
	}
	if errors.Is(err, cipher.ErrUnknownEpoch) {
		return fmt.Errorf("%w: %w", replica.ErrLater, err)
	}
	if err != nil {
		return fmt.Errorf("open batch: %w", err)
	}
	err = n.vol.Deliver(namespace.AuthorID(env.Author), env.Seq, payload)
	if errors.Is(err, namespace.ErrNotReady) {
		return fmt.Errorf("%w: %w", replica.ErrLater, err)
	}
	return err
}

// refreshEpochs takes what the control log has of keys for this device.
func (n *Node) refreshEpochs() {
	if err := n.epochs.update(n.repl.Epochs()); err != nil {
		n.log.Error("cannot take an epoch key", "error", err)
	}
}
