package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/fail"
)

func newInviteCmd(g *globals) *cobra.Command {
	req := control.InviteRequest{}
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Print one line that lets one other device in",
		Args:  usageArgs(cobra.NoArgs),
		RunE: runner(func(ctx context.Context, _ []string) error {
			if req.Expires <= 0 {
				return &fail.Error{Kind: fail.Usage, Op: "--expires must be more than 0"}
			}
			return withNode(ctx, g, func(ctx context.Context, c *control.Client) error {
				line, err := c.Invite(ctx, req)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(g.out, line)
				return err
			})
		}).cobra(),
	}
	cmd.Flags().BoolVar(&req.Replica, "replica", false, "for a device that stores and forwards without keys")
	cmd.Flags().StringArrayVar(&req.Addresses, "addr", nil, "`HOST:PORT` where the newcomer reaches this node, if not at its own addresses (a forwarded port); may be repeated")
	cmd.Flags().DurationVar(&req.Expires, "expires", time.Hour, "how long the invite works")
	return cmd
}
