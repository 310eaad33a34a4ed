package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/foreverfs/forever/chunk"
	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/internal/kv"
)

// quotaKey is where the node keeps how much of the disk it may use: 8 bytes, big endian.
var quotaKey = []byte("mQ")

const (
	// usageFor is how long a look at the disk is believed.
	usageFor = time.Second
	// fullFor is how long a store is taken for full after a write that found no space.
	fullFor = 10 * time.Second
)

// errQuota says that a chunk would go beyond the quota.
var errQuota = fmt.Errorf("the quota of this volume is reached: %w", syscall.EDQUOT)

// budget is how much of the disk this volume may use, and uses. Chunks are refused beyond it; logs, which
// are small and without which chunks are worth nothing, are not.
type budget struct {
	limit atomic.Int64 // bytes; 0: none
	usage func() (int64, error)

	mu     sync.Mutex
	looked time.Time
	used   int64 // then, and what was put since
	failed time.Time
}

// loadBudget reads the quota.
func (n *Node) loadBudget() error {
	n.budget.usage = n.used
	v, err := n.state.Get(quotaKey)
	if errors.Is(err, kv.ErrNotFound) {
		return nil
	}
	if err == nil && len(v) != 8 {
		err = errors.New("it is no number")
	}
	if err != nil {
		return fmt.Errorf("read quota: %w", err)
	}
	n.budget.limit.Store(int64(binary.BigEndian.Uint64(v)))
	return nil
}

func putQuota(tx kv.Tx, bytes int64) error {
	if bytes == 0 {
		return tx.Delete(quotaKey)
	}
	return tx.Put(quotaKey, binary.BigEndian.AppendUint64(nil, uint64(bytes)))
}

// used returns the bytes on the disk: packs, their index, and the state.
func (n *Node) used() (int64, error) {
	st, err := n.store.Stats()
	if err != nil {
		return 0, err
	}
	return int64(st.PackBytes + n.state.DiskUsage()), nil
}

// take accounts for a chunk, or refuses it.
func (b *budget) take(size int) error {
	limit := b.limit.Load()
	if limit == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.look(); err != nil {
		return err
	}
	if b.used+int64(size) > limit {
		b.failed = time.Now()
		return errQuota
	}
	b.used += int64(size)
	return nil
}

// look reads the usage if it was long ago; mu is held.
func (b *budget) look() error {
	if time.Since(b.looked) < usageFor {
		return nil
	}
	used, err := b.usage()
	if err != nil {
		return err
	}
	b.used, b.looked = used, time.Now()
	return nil
}

// note remembers a write that found no space.
func (b *budget) note(err error) {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		b.mu.Lock()
		b.failed = time.Now()
		b.mu.Unlock()
	}
}

// full reports whether there is no room for another chunk of any size, or was none a moment ago.
func (b *budget) full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.failed) < fullFor {
		return true
	}
	limit := b.limit.Load()
	return limit != 0 && b.look() == nil && b.used+chunk.MaxSealed > limit
}

// forget has the next chunk find out anew.
func (b *budget) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed, b.looked = time.Time{}, time.Time{}
}

// Quota implements control.Node.
func (c controlNode) Quota(context.Context) (control.Quota, error) {
	used, err := c.n.used()
	return control.Quota{Limit: c.n.budget.limit.Load(), Used: used}, err
}

// SetQuota implements control.Node.
func (c controlNode) SetQuota(_ context.Context, bytes int64) error {
	if bytes < 0 {
		return &fail.Error{Kind: fail.Usage, Op: "a quota cannot be negative"}
	}
	err := c.n.state.Update(func(tx kv.Tx) error { return putQuota(tx, bytes) })
	if err = errors.Join(err, c.n.state.Sync()); err != nil {
		return fmt.Errorf("store quota: %w", err)
	}
	c.n.budget.limit.Store(bytes)
	c.n.budget.forget()
	return nil
}
