package node

import (
	"errors"
	"fmt"
	"sync"
	"time"

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
	for {
		aad := replica.BatchAAD(l.epochs.volume, replica.AuthorID(l.author), l.repl.NextSeq(replica.AuthorID(l.author)))
		sealed, epoch, err := l.epochs.sealBatch(payload, aad)
		if err != nil {
			return 0, fmt.Errorf("seal batch: %w", err)
		}
		seq, err := l.repl.Append(replica.AuthorID(l.author), epoch, sealed)
		if errors.Is(err, replica.ErrEpochLeft) {
			if err = l.nextEpoch(epoch); err == nil {
				continue
			}
		}
		if err != nil {
			return 0, fmt.Errorf("append batch: %w", err)
		}
		return seq, nil
	}
}

// nextEpoch goes on to an epoch that nobody can open who is out.
func (l *opLog) nextEpoch(left replica.EpochID) error {
	if err := l.repl.EnsureEpoch(); err != nil {
		return err
	}
	err := l.epochs.update(l.repl.Epochs())
	if l.epochs.ring.Current() == left {
		return errors.Join(errors.New("the key of the new epoch has not come yet"), err)
	}
	return nil
}

// deliver opens an envelope and merges its batch into the tree. What waits for
// other batches or for a key is asked for again later; what the tree will never take is passed over.
func (n *Node) deliver(env replica.Envelope) error {
	payload, err := n.openBatch(env)
	if errors.Is(err, cipher.ErrUnknownEpoch) {
		return fmt.Errorf("%w: %w", replica.ErrLater, err)
	}
	if err != nil {
		return err
	}
	err = n.vol.Deliver(namespace.AuthorID(env.Author), env.Seq, payload)
	switch {
	case errors.Is(err, namespace.ErrFolded):
		n.refused.drop(env.Author)
		n.repl.Refuse(env.Author, env.Seq)
		return nil
	case errors.Is(err, namespace.ErrUnknowing):
		n.refused.hold(env.Author, env.Seq, time.Now())
	case err == nil:
		n.refused.drop(env.Author)
		if n.step != nil {
			n.step.applied(env.Author, env.Seq)
		}
		if n.locks != nil {
			n.locks.applied(env.Author, env.Seq)
		}
	}
	if errors.Is(err, namespace.ErrNotReady) {
		return fmt.Errorf("%w: %w", replica.ErrLater, err)
	}
	return err
}

// openBatch opens the batch in an envelope.
func (n *Node) openBatch(env replica.Envelope) ([]byte, error) {
	aad := replica.BatchAAD(n.format.Volume, env.Author, env.Seq)
	payload, err := n.epochs.ring.OpenBatch(env.Sealed, aad)
	if errors.Is(err, cipher.ErrUnknownEpoch) {
		n.refreshEpochs()
		payload, err = n.epochs.ring.OpenBatch(env.Sealed, aad)
	}
	if err != nil {
		return nil, fmt.Errorf("open batch: %w", err)
	}
	return payload, nil
}

// refreshEpochs takes what the control log has of keys for this device.
func (n *Node) refreshEpochs() {
	if err := n.epochs.update(n.repl.Epochs()); err != nil {
		n.log.Error("cannot take an epoch key", "error", err)
	}
}
