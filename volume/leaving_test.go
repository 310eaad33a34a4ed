package volume

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/foreverfs/forever/namespace"
)

// oneLock is a lock that one handle at a time holds, and other mounts know of.
type oneLock struct {
	mu      sync.Mutex
	holder  uint64
	refused func() // called when somebody was
}

func (*oneLock) Alone() bool { return false }

func (o *oneLock) Acquire(_ context.Context, _ namespace.NodeID, handle uint64, l Lock, _ LockMode, _ uint64) (Lock, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.holder != 0 && o.holder != handle {
		o.refused()
		return l, ErrLocked
	}
	o.holder = handle
	return l, nil
}

func (o *oneLock) Release(namespace.NodeID, Lock, uint64) error { return nil }

func (o *oneLock) ReleaseHandle(_ namespace.NodeID, handle uint64, _ uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.holder == handle {
		o.holder = 0
	}
}

func (*oneLock) Holds(namespace.NodeID, uint64, bool) bool { return false }

// TestClosedHandleLetsGo tries for a lock whose descriptor was closed, while the kernel has not said yet that
// the handle is gone, and has another mount ask for consent at that moment.
func TestClosedHandleLetsGo(t *testing.T) {
	locks := &oneLock{}
	r := newRig(t, 1, func(cfg *Config) { cfg.Locks = locks })
	r.leaving.patience = time.Minute
	all := Lock{Flock: true, Exclusive: true, End: everything}
	a, first, err := r.Create(ctx, Caller{}, RootIno, "f", 0o644, syscall.O_RDWR)
	must(t, err)
	second, err := r.Open(ctx, a.Ino, syscall.O_RDWR)
	must(t, err)
	defer second.Release()
	must(t, first.Lock(ctx, all, LockTry))

	locks.refused = func() {}
	if err := second.Lock(ctx, all, LockTry); !errors.Is(err, ErrLocked) {
		t.Fatalf("the handle is not closed: %v", err)
	}
	must(t, first.Flush(ctx))
	locks.refused = func() { go first.Release() }
	must(t, second.Lock(ctx, all, LockTry))

	must(t, second.Flush(ctx))
	done := make(chan uint64, 1)
	go func() {
		if _, err := r.PublishFile(ctx, second.in.id); err != nil {
			t.Error(err)
		}
		locks.mu.Lock()
		defer locks.mu.Unlock()
		done <- locks.holder
	}()
	second.Release()
	if holder := <-done; holder != 0 {
		t.Errorf("handle %d holds the lock when another mount gets consent", holder)
	}
}

// TestCopyKeepsLock closes one of two descriptors of a handle: who tries for its lock waits for a moment,
// and once only.
func TestCopyKeepsLock(t *testing.T) {
	locks := &oneLock{refused: func() {}}
	r := newRig(t, 1, func(cfg *Config) { cfg.Locks = locks })
	all := Lock{Flock: true, Exclusive: true, End: everything}
	a, first, err := r.Create(ctx, Caller{}, RootIno, "f", 0o644, syscall.O_RDWR)
	must(t, err)
	defer first.Release()
	second, err := r.Open(ctx, a.Ino, syscall.O_RDWR)
	must(t, err)
	defer second.Release()
	for range 2 {
		must(t, first.Lock(ctx, all, LockTry))
		r.leaving.patience = time.Millisecond
		must(t, first.Flush(ctx))
		for range 2 {
			if err := second.Lock(ctx, all, LockTry); !errors.Is(err, ErrLocked) {
				t.Fatal(err)
			}
			r.leaving.patience = time.Hour
		}
		must(t, first.Flush(ctx))
		must(t, first.Lock(ctx, all, LockTry)) // there is a copy
		if err := second.Lock(ctx, all, LockTry); !errors.Is(err, ErrLocked) {
			t.Fatal(err)
		}
	}
}
