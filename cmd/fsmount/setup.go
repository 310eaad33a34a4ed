package main

import (
	"context"
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/node"
)

func newServeCmd(g *globals) *cobra.Command {
	opts := &nodeOptions{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run this node without a mount",
		Args:  usageArgs(cobra.NoArgs),
		RunE: runner(func(ctx context.Context, _ []string) error {
			return runNode(ctx, g, opts, &mountOptions{})
		}).cobra(),
	}
	opts.addFlags(cmd.Flags())
	return cmd
}

func newInitCmd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "Create a volume without mounting it; prints the recovery phrase",
		Args:  usageArgs(cobra.NoArgs),
		RunE: runner(func(ctx context.Context, _ []string) error {
			cfg, err := quietConfig(g)
			if err != nil {
				return err
			}
			return createVolume(ctx, g, cfg)
		}).cobra(),
	}
}

func newJoinCmd(g *globals) *cobra.Command {
	var quota sizeValue
	cmd := &cobra.Command{
		Use:   "join INVITE",
		Short: "Join the volume of an invite without mounting it",
		Long: `Join the volume of an invite without mounting it. A data directory that belongs to a
keyless replica can serve further volumes as one: join them with the same --data; a node
that runs there serves them at once, on its port.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: runner(func(ctx context.Context, args []string) error {
			cfg, err := quietConfig(g)
			if err != nil {
				return err
			}
			if cfg.Dir, err = node.DirToJoin(cfg.Dir, args[0]); err != nil {
				return err
			}
			cfg.Quota = int64(quota)
			return node.Join(ctx, cfg, args[0])
		}).cobra(),
	}
	cmd.Flags().Var(&quota, "quota", "take no more of the disk than `SIZE` for this volume: 100GB, 50GiB (default no limit)")
	return cmd
}

func newQuotaCmd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "quota [SIZE | none]",
		Short: "Show or set how much of this disk the volume may take",
		Args:  usageArgs(cobra.MaximumNArgs(1)),
		RunE: runner(func(ctx context.Context, args []string) error {
			var quota sizeValue
			if len(args) > 0 && args[0] != "none" {
				if err := quota.Set(args[0]); err != nil {
					return usageError(err)
				}
			}
			return withAnyNode(ctx, g, func(ctx context.Context, c *control.Client) error {
				if len(args) > 0 {
					return c.SetQuota(ctx, int64(quota))
				}
				q, err := c.Quota(ctx)
				if err != nil {
					return err
				}
				limit := "none"
				if q.Limit > 0 {
					limit = humanize.IBytes(uint64(q.Limit))
				}
				_, err = fmt.Fprintf(g.out, "%s, %s used\n", limit, humanize.IBytes(uint64(q.Used)))
				return err
			})
		}).cobra(),
	}
}

// quietConfig is for a node that lives no longer than a command: it logs
// nothing, dials other devices, and leaves the port to the real one.
func quietConfig(g *globals) (node.Config, error) {
	dir, err := g.dir()
	return node.Config{
		Dir: dir, Logger: hclog.NewNullLogger(), Passphrase: passphrase, Version: versionString(), Now: wallClock(),
	}, err
}
