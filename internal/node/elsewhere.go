package node

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

// syncPatience is how long an fsync waits for other devices.
const syncPatience = 30 * time.Second

// elsewhere returns what an fsync waits for; nil if that is nobody.
func (n *Node) elsewhere() func(context.Context) error {
	want := n.cfg.SyncReplicas
	if want == 0 {
		return nil
	}
	return func(ctx context.Context) error {
		waiting, cancel := context.WithTimeout(ctx, syncPatience)
		defer cancel()
		defer context.AfterFunc(n.waiting, cancel)()
		err := n.repl.Wait(waiting, want, nil)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil: // the program was interrupted
			return ctx.Err()
		}
		n.log.Warn("an fsync fails: the data is durable here, but not held by as many devices as --sync-replicas says", "want", want, "error", err)
		return fmt.Errorf("%d other devices do not hold it: %w: %w", want, syscall.EIO, err)
	}
}
