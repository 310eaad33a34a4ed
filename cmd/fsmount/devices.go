package main

import (
	"context"
	"encoding/json"
	"io"

	"github.com/spf13/cobra"

	"github.com/foreverfs/forever/internal/control"
)

func newDevicesCmd(g *globals) *cobra.Command {
	cmd := groupCmd("devices", "The devices of the volume")
	var asJSON bool
	list := &cobra.Command{
		Use:   "list",
		Short: "List the devices of the volume",
		Args:  usageArgs(cobra.NoArgs),
		RunE: runner(func(ctx context.Context, _ []string) error {
			return runDevicesList(ctx, g, asJSON)
		}).cobra(),
	}
	list.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	cmd.RunE = list.RunE
	cmd.AddCommand(list)
	return cmd
}

func runDevicesList(ctx context.Context, g *globals, asJSON bool) error {
	return withAnyNode(ctx, g, func(ctx context.Context, c *control.Client) error {
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(g.out).Encode(st.Devices)
		}
		_, err = io.WriteString(g.out, deviceTable(st.Devices))
		return err
	})
}
