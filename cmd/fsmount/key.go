package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/foreverfs/forever/internal/control"
)

func newKeyCmd(g *globals) *cobra.Command {
	cmd := groupCmd("key", "The recovery phrase")
	cmd.AddCommand(&cobra.Command{
		Use:   "export",
		Short: "Mint a new recovery phrase and retire the one before",
		Args:  usageArgs(cobra.NoArgs),
		RunE: runner(func(ctx context.Context, _ []string) error {
			return withAnyNode(ctx, g, func(ctx context.Context, c *control.Client) error {
				phrase, err := c.ExportKey(ctx)
				if err != nil {
					return err
				}
				return showPhrase(g, phrase)
			})
		}).cobra(),
	})
	return cmd
}
