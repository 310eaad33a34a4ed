package main

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/foreverfs/forever/internal/control"
)

func newConfigCmd(g *globals) *cobra.Command {
	cmd := groupCmd("config", "The volume's policy, which holds for all its devices")
	var asJSON bool
	show := &cobra.Command{
		Use:   "show",
		Short: "Show the settings",
		Args:  usageArgs(cobra.NoArgs),
		RunE: runner(func(ctx context.Context, _ []string) error {
			return runConfigShow(ctx, g, asJSON)
		}).cobra(),
	}
	show.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	cmd.Flags().AddFlagSet(show.Flags())
	set := &cobra.Command{
		Use:     "set KEY VALUE",
		Short:   "Change a setting on all devices",
		Example: "  fsmount config set replicas 2",
		Args:    usageArgs(cobra.ExactArgs(2)),
		RunE: runner(func(ctx context.Context, args []string) error {
			return withAnyNode(ctx, g, func(ctx context.Context, c *control.Client) error { return c.SetPolicy(ctx, args[0], args[1]) })
		}).cobra(),
	}
	cmd.RunE = show.RunE
	cmd.AddCommand(show, set)
	return cmd
}

func runConfigShow(ctx context.Context, g *globals, asJSON bool) error {
	return withAnyNode(ctx, g, func(ctx context.Context, c *control.Client) error {
		list, err := c.Policy(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(g.out).Encode(list)
		}
		w := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
		for _, s := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\n", s.Key, s.Value, s.About)
		}
		return w.Flush()
	})
}
