package volume

import (
	"context"
	"fmt"
)

// A content op may enter the tree before the chunks that it names are durable, so that closing or renaming a
// file does not wait for the disk. It must not be anywhere that outlives a crash before they are: the state calls
// flushNamed before it writes updates to its log, and cutLocked does before ops go to other devices.

// flushNamed makes durable the chunks that the tree's ops name, if some may not be. Many share one flush.
func (v *Volume) flushNamed() error {
	want := v.named.Load()
	if v.flushed.Load() >= want {
		return nil
	}
	if err := v.cfg.Chunks.Sync(context.Background()); err != nil {
		return fmt.Errorf("flush the store: %w", err)
	}
	v.flushed.Store(want) // over a greater one it costs a flush too many, which has nothing to do
	return nil
}
