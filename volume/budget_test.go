package volume

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestWriteDoesNotSpinWhileAnotherFileCannotBeSealed(t *testing.T) {
	ctx := context.Background()
	change := func(c *Config) { smallBlocks(c); c.DirtyMax = 1 << 10 }
	a := newRig(t, 1, change)
	h := a.create("f")
	a.write(h, strings.Repeat("x", 16384), 0)
	other := a.create("g")
	a.sync()
	b := startRig(t, 1, a.state, a.chunks, change)
	h, other = b.open("f", syscall.O_RDWR), b.open("g", syscall.O_RDWR)
	away := errors.New("nobody has the chunk")
	b.chunks.fail(nil, away)
	b.write(h, strings.Repeat("y", 2000), 7)
	done := make(chan error, 1)
	go func() {
		_, err := other.Write(ctx, []byte("z"), 0)
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, away) {
			t.Errorf("write while memory is full of what cannot be sealed: %v", err)
		}
	case <-time.After(3 * time.Second):
		t.Error("a write spins without end")
		b.chunks.fail(nil, nil)
		<-done
	}
	b.chunks.fail(nil, nil)
}
