package replica

import (
	"errors"
	"fmt"

	"github.com/foreverfs/forever/internal/kv"
	"github.com/foreverfs/forever/replica/replicapb"
)

// dropCount is how many envelopes one update of the state deletes.
const dropCount = 512

// loadBase reads which checkpoint the stored logs begin at.
func (r *Replica) loadBase() error {
	b, err := r.cfg.KV.Get(baseKey)
	if errors.Is(err, kv.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read where the logs begin: %w", err)
	}
	id, err := fixed32[Hash](b, "checkpoint in the state")
	if err != nil {
		return err
	}
	if r.control.checkpoints[id] == nil {
		return fmt.Errorf("the logs begin at checkpoint %x, which is not known", id[:8])
	}
	r.setBase(id)
	return nil
}

func (r *Replica) setBase(id Hash) {
	r.base = id
	r.floors = map[AuthorID]uint64{}
	for a, end := range r.control.seen(r.control.checkpoints[id]) {
		r.floors[a] = end.Seq
	}
}

// Base returns the checkpoint that the stored logs begin at, zero if they are whole.
func (r *Replica) Base() Hash {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.base
}

// DropLogs deletes the batches up to a checkpoint: from then on a device that needs them
// is told to begin anew. All of them must be here. It deletes some each time it is called
// and reports whether that was all; what a crash left is deleted by the next call. The caller has made sure that
// the checkpoint may be relied on.
func (r *Replica) DropLogs(id Hash) (done bool, err error) {
	r.logMu.Lock()
	defer r.logMu.Unlock()
	if r.Base() != id {
		if err := r.raiseBase(id); err != nil {
			return false, fmt.Errorf("drop logs: %w", err)
		}
	}
	r.mu.Lock()
	floors := r.floors // replaced whole, never changed
	r.mu.Unlock()
	var keys [][]byte
	for a, seq := range floors {
		err := r.cfg.KV.Scan(envelopeKey(a, 0), envelopeKey(a, seq+1), func(k, _ []byte) bool {
			keys = append(keys, append([]byte(nil), k...))
			return len(keys) < dropCount
		})
		if err != nil {
			return false, fmt.Errorf("drop logs: %w", err)
		}
		if len(keys) >= dropCount {
			break
		}
	}
	if len(keys) == 0 {
		return true, nil
	}
	if err := r.cfg.KV.Update(func(tx kv.Tx) error { return deleteAll(tx, keys) }); err != nil {
		return false, fmt.Errorf("drop logs: %w", err)
	}
	return false, nil
}

// raiseBase notes that the logs begin at a checkpoint; logMu is held.
func (r *Replica) raiseBase(id Hash) error {
	seen := r.CheckpointSeen(id)
	if seen == nil {
		return invalid("unknown checkpoint")
	}
	r.mu.Lock()
	var err error
	for a, end := range seen {
		if r.heads[a].seq < end.Seq {
			err = fmt.Errorf("batch %d of %x is not here", end.Seq, a)
		}
	}
	for a, seq := range r.floors {
		if seen[a].Seq < seq {
			err = invalid("checkpoint behind the one that the logs begin at")
		}
	}
	r.mu.Unlock()
	if err != nil {
		return err
	}
	if err := r.cfg.KV.Update(func(tx kv.Tx) error { return tx.Put(baseKey, id[:]) }); err != nil {
		return err
	}
	if err := r.cfg.KV.Sync(); err != nil { // before what it stands for goes
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.setBase(id)
	return nil
}

// BeginAt makes the state that of a device that has the batches up to a checkpoint and none
// beyond: all stored logs go; the zero Hash makes it that of a device that has nothing. It is called before Serve, the replica is then closed and opened anew. After
// a crash in between it must be called again, so the caller notes beforehand that it was about to. Durable on return.
func (r *Replica) BeginAt(id Hash) error {
	seen := r.CheckpointSeen(id)
	if seen == nil && id != (Hash{}) {
		return fmt.Errorf("begin at a checkpoint: %w", invalid("unknown checkpoint"))
	}
	r.logMu.Lock()
	defer r.logMu.Unlock()
	for {
		var keys [][]byte
		err := r.cfg.KV.Scan([]byte{'l'}, kv.PrefixEnd([]byte{'l'}), func(k, _ []byte) bool {
			keys = append(keys, append([]byte(nil), k...))
			return len(keys) < dropCount
		})
		if err != nil {
			return fmt.Errorf("begin at a checkpoint: %w", err)
		}
		if len(keys) == 0 {
			break
		}
		if err := r.cfg.KV.Update(func(tx kv.Tx) error { return deleteAll(tx, keys) }); err != nil {
			return fmt.Errorf("begin at a checkpoint: %w", err)
		}
	}
	err := r.cfg.KV.Update(func(tx kv.Tx) error {
		if id == (Hash{}) {
			return errors.Join(tx.Delete(baseKey), tx.Delete(outrunKey))
		}
		return errors.Join(r.putHeads(tx, seen), tx.Put(baseKey, id[:]), tx.Delete(outrunKey))
	})
	if err == nil {
		err = r.cfg.KV.Sync()
	}
	if err != nil {
		return fmt.Errorf("begin at a checkpoint: %w", err)
	}
	return nil
}

// putHeads writes the heads of logs that end where a checkpoint does.
func (r *Replica) putHeads(tx kv.Tx, seen map[AuthorID]LogEnd) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for a, end := range seen {
		device, ok := r.control.deviceOf(a)
		if !ok {
			return invalid("log of nobody")
		}
		if err := putProto(tx, headKey(a), &replicapb.HeadRecord{Seq: end.Seq, Hash: end.Hash[:], Device: device[:]}); err != nil {
			return err
		}
	}
	return nil
}

// skipTo lets a keyless replica, which only stores and forwards, go on behind a
// complete checkpoint when what is before is gone everywhere. The session that said so must end, so that
// a new one tells what is here.
func (r *Replica) skipTo(id Hash) error {
	seen := r.CheckpointSeen(id)
	r.logMu.Lock()
	defer r.logMu.Unlock()
	ahead := map[AuthorID]LogEnd{}
	r.mu.Lock()
	for a, end := range seen {
		if r.heads[a].seq < end.Seq {
			ahead[a] = end
		}
	}
	r.mu.Unlock()
	if len(ahead) == 0 {
		return nil
	}
	err := r.cfg.KV.Update(func(tx kv.Tx) error {
		return errors.Join(r.putHeads(tx, ahead), tx.Put(baseKey, id[:]))
	})
	if err == nil {
		err = r.cfg.KV.Sync()
	}
	if err != nil {
		return fmt.Errorf("go on behind a checkpoint: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for a, end := range ahead {
		device, _ := r.control.deviceOf(a)
		r.heads[a] = head{end.Seq, end.Hash, device}
		r.delivered[a], r.durable[a] = end.Seq, end.Seq
		delete(r.undone, a)
	}
	r.setBase(id)
	return nil
}

func deleteAll(tx kv.Tx, keys [][]byte) error {
	for _, k := range keys {
		if err := tx.Delete(k); err != nil {
			return err
		}
	}
	return nil
}
