package main

import (
	"context"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

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
	return &cobra.Command{
		Use:   "join INVITE",
		Short: "Join the volume of an invite without mounting it",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: runner(func(ctx context.Context, args []string) error {
			cfg, err := quietConfig(g)
			if err != nil {
				return err
			}
			return node.Join(ctx, cfg, args[0])
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
