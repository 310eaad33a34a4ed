package volume

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/foreverfs/forever/internal/kv"
)

// scanCounter counts the records that are scanned.
type scanCounter struct {
	kv.DB
	scanned atomic.Int64
}

func (s *scanCounter) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	return s.DB.Scan(lo, hi, func(k, v []byte) bool {
		s.scanned.Add(1)
		return fn(k, v)
	})
}

// TestManyXattrs: names are counted now and then, not with every one; and as many as fit can be set.
func TestManyXattrs(t *testing.T) {
	db := &scanCounter{DB: kv.NewMem()}
	r := startRig(t, 1, db, newMemChunks(), nil)
	h := r.create("f")
	defer h.Release()
	name := func(i int) string { return fmt.Sprintf("user.%s%04d", strings.Repeat("n", 54), i) }
	const fit = maxXattrList / 64
	set := func(i int) error { return r.Setxattr(ctx, h.Ino(), name(i), []byte("v"), 0) }
	for range 2 {
		for i := range fit {
			must(t, set(i))
		}
	}
	if n := db.scanned.Load(); n > 4*fit {
		t.Errorf("%d names were counted for %d that were set twice", n, fit)
	}
	wantFull := func(err error) {
		t.Helper()
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%v, want ENOSPC", err)
		}
	}
	wantFull(set(fit))
	must(t, set(0))
	must(t, r.Removexattr(ctx, h.Ino(), name(0)))
	must(t, set(fit))
	wantFull(set(0))

	// What another mount adds takes room here.
	must(t, r.Removexattr(ctx, h.Ino(), name(1)))
	must(t, r.Removexattr(ctx, h.Ino(), name(2)))
	must(t, set(0))
	other := newRig(t, 2, nil)
	exchange(r, other)
	a, err := other.Lookup(ctx, RootIno, "f")
	must(t, err)
	must(t, other.Setxattr(ctx, a.Ino, name(fit+1), nil, 0))
	exchange(r, other)
	wantFull(set(1))
}
