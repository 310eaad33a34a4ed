package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/fail"
)

type waitOptions struct {
	replicas int
	timeout  time.Duration
}

func newWaitCmd(g *globals) *cobra.Command {
	var opts waitOptions
	cmd := &cobra.Command{
		Use:   "wait",
		Short: "Wait until everything published so far is held by other devices",
		Args:  usageArgs(cobra.NoArgs),
		RunE: runner(func(ctx context.Context, _ []string) error {
			if opts.replicas < 0 || opts.timeout < 0 {
				return usageError(errors.New("--replicas and --timeout cannot be negative"))
			}
			return withAnyNode(ctx, g, func(ctx context.Context, c *control.Client) error {
				return runWait(ctx, g, c, opts)
			})
		}).cobra(),
	}
	cmd.Flags().IntVar(&opts.replicas, "replicas", 0, "how many other devices; 0 means what the policy asks")
	cmd.Flags().DurationVar(&opts.timeout, "timeout", 0, "give up after this long; 0 means never")
	return cmd
}

func runWait(ctx context.Context, g *globals, c *control.Client, opts waitOptions) error {
	outer := ctx
	if opts.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, opts.timeout)
		defer cancel()
	}
	bar := newProgressLine(g.err)
	defer bar.done()
	var last control.Progress
	err := c.Wait(ctx, control.WaitRequest{Replicas: opts.replicas}, func(p control.Progress) {
		last = p
		bar.show(p)
	})
	if errors.Is(err, context.DeadlineExceeded) && outer.Err() == nil {
		return timeoutError(opts.timeout, last)
	}
	return err
}

// timeoutError says what is still missing, and where to look.
func timeoutError(after time.Duration, p control.Progress) error {
	lacks := "no other device is on its way"
	if p.MissingBatches > 0 || p.MissingChunks > 0 {
		lacks = fmt.Sprintf("the next lacks %d changes and %d chunks (%s)",
			p.MissingBatches, p.MissingChunks, humanize.IBytes(p.MissingBytes))
	}
	return &fail.Error{
		Kind: fail.Timeout,
		Op:   fmt.Sprintf("not replicated within %s: %d of %d devices hold everything, %d connected, %s", after, p.Have, p.Want, p.Connected, lacks),
		Next: "see fsmount status",
	}
}
