package casstore

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/go-hclog"

	"github.com/foreverfs/forever/chunk"
)

// openFull opens an index whose tables cannot be written while full says so.
func openFull(t *testing.T, full *atomic.Bool) *index {
	t.Helper()
	disk := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.HasSuffix(op.Path, ".sst") {
			return syscall.ENOSPC
		}
		return nil
	}))
	x, err := openIndex(disk, "index", hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// soon fails the test if fn takes long.
func soon(t *testing.T, what string, fn func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatalf("%s does not return", what)
		return nil
	}
}

// TestFullIndex: nobody waits for an index that cannot be written, and all goes on once it can.
func TestFullIndex(t *testing.T) {
	for name, try := range map[string]func(x *index, n int) error{
		"flush":  func(x *index, _ int) error { return x.flush() },
		"commit": commitFronts,
	} {
		t.Run(name, func(t *testing.T) {
			var full atomic.Bool
			x := openFull(t, &full)
			if err := commitFronts(x, 0); err != nil {
				t.Fatal(err)
			}
			full.Store(true)
			var err error
			for n := range 20 {
				if e := soon(t, fmt.Sprintf("try %d", n), func() error { return try(x, n) }); e != nil {
					err = e
				}
			}
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("on a full disk: %v", err)
			}
			full.Store(false)
			for deadline := time.Now().Add(20 * time.Second); x.failure() != nil; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("nothing goes on when there is space again")
				}
			}
			if err := soon(t, "commit", func() error { return commitFronts(x, 20) }); err != nil {
				t.Error(err)
			}
			if err := soon(t, "flush", x.flush); err != nil {
				t.Error(err)
			}
			if err := soon(t, "close", x.close); err != nil {
				t.Error(err)
			}
		})
	}
}

// commitFronts enters a thousand fronts, in a change each.
func commitFronts(x *index, n int) error {
	for i := range 1000 {
		c := x.begin()
		id := chunk.ID{byte(n), byte(i >> 8), byte(i)}
		if err := errors.Join(c.setFront(id, make(front, 600)), c.commit()); err != nil {
			return err
		}
	}
	return nil
}

// TestFailedWritePauses: pebble tries what failed again without a pause, so whatever fails waits: in here, or as a full disk.
func TestFailedWritePauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for err, want := range map[error]time.Duration{
			nil: 0, os.ErrNotExist: 0, syscall.ENOSPC: 0, syscall.EDQUOT: 0, syscall.EIO: failPause, syscall.EMFILE: failPause,
		} {
			begun := time.Now()
			got := paused(err)
			if took := time.Since(begun); took != want {
				t.Errorf("%v waits %v, want %v", err, took, want)
			}
			if full := errors.Is(got, syscall.ENOSPC); full != (err == syscall.ENOSPC || err == syscall.EDQUOT) || (got == nil) != (err == nil) {
				t.Errorf("%v comes as %v", err, got)
			}
		}
	})
}
