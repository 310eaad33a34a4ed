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
	cmd.Flags().AddFlagSet(list.Flags())
	cmd.RunE = list.RunE
	rename := &cobra.Command{
		Use:   "rename NAME NEW",
		Short: "Give a device another name",
		Args:  usageArgs(cobra.ExactArgs(2)),
		RunE: runner(func(ctx context.Context, args []string) error {
			return withAnyNode(ctx, g, func(ctx context.Context, c *control.Client) error {
				return c.RenameDevice(ctx, control.DeviceRequest{Name: args[0], NewName: args[1]})
			})
		}).cobra(),
	}
	cmd.AddCommand(list, rename, newRevokeCmd(g))
	return cmd
}

func newRevokeCmd(g *globals) *cobra.Command {
	req := control.DeviceRequest{}
	cmd := &cobra.Command{
		Use:   "revoke NAME",
		Short: "Throw a device out: it is refused everywhere and cannot read what is written from now on",
		Long: `Throw a device out, for good. Every device that learns of it refuses it at once, and
what is written from then on is sealed under keys that it does not have. What it could
read before it may have copied; what it wrote before stays. If the recovery phrase may
be in the same hands, mint a new one: fsmount key export.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: runner(func(ctx context.Context, args []string) error {
			req.Name = args[0]
			return withAnyNode(ctx, g, func(ctx context.Context, c *control.Client) error { return c.RevokeDevice(ctx, req) })
		}).cobra(),
	}
	cmd.Flags().StringVar(&req.Reason, "reason", "", "`TEXT` for the record, in the clear")
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
