package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/internal/node"
)

// globals are what every command needs: the streams and which node on this
// machine is meant.
type globals struct {
	*streams
	data   string // --data
	volume string // --volume
}

// dir returns the data directory, absolute.
func (g *globals) dir() (string, error) {
	dir, err := node.DefaultDir()
	if g.data != "" {
		dir, err = filepath.Abs(g.data)
	}
	if err != nil || g.volume == "" {
		return dir, err
	}
	return node.DirOf(dir, g.volume)
}

func newRootCmd(std *streams) *cobra.Command {
	g := &globals{streams: std}
	opts := &nodeOptions{}
	mount := &mountOptions{}
	cmd := &cobra.Command{
		Use:   "fsmount MOUNTPOINT",
		Short: "Mount a directory that lives on several machines at once",
		Long: `Mount a directory that lives on several machines at once.

fsmount MOUNTPOINT mounts the volume of this node's data directory. The first
use creates a volume, shows its recovery phrase once, and mounts it; with --join
it joins the volume of an invite instead.`,
		Example: `  fsmount /mnt/forever                    mount, creating a volume at the first use
  fsmount invite                          print a line for another machine
  fsmount --join forever1-… /mnt/forever  on that machine: join and mount`,
		Args:          usageArgs(cobra.MaximumNArgs(1)),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			if err := notACommand(args[0]); err != nil {
				return err
			}
			mount.point = args[0]
			return runNode(cmd.Context(), g, opts, mount)
		},
	}
	cmd.SetIn(std.in)
	cmd.SetOut(std.out)
	cmd.SetErr(std.err)
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError(err) })
	cmd.PersistentFlags().StringVar(&g.data, "data", "", "this node's `DIR` (default /var/lib/forever as root, else $XDG_DATA_HOME/forever)")
	cmd.PersistentFlags().StringVar(&g.volume, "volume", "", "of several volumes in the data directory, the one whose `ID` begins so")
	opts.addFlags(cmd.Flags())
	cmd.Flags().BoolVar(&mount.allowOther, "allow-other", false, "let other users of this machine use the mount, as the modes of the files allow")
	cmd.Flags().StringArrayVar(&mount.options, "mount-option", nil, "`OPTION` of mount(8) for the mount: noexec, noatime, dev, suid, …; may be repeated")
	cmd.Flags().TextVar(&mount.idlePoll, "idle-poll", mount.idlePoll, "`MODE`: on (idle processors poll while the mount is busy, which takes power), off, or auto (on in small virtual machines where waking one is slow)")
	cmd.AddCommand(
		newServeCmd(g), newInitCmd(g), newInviteCmd(g), newJoinCmd(g),
		newStatusCmd(g), newWaitCmd(g), newDevicesCmd(g), newConfigCmd(g), newQuotaCmd(g), newScrubCmd(g), newKeyCmd(g), newRecoverCmd(g),
		newPutCmd(g), newGetCmd(g), newLsCmd(g), newCatCmd(g), newRmCmd(g), newHistoryCmd(g), newRestoreCmd(g),
		newUmountCmd(g), newVersionCmd(g),
	)
	return cmd
}

// notACommand catches a mistyped command before it is taken for a mount point.
func notACommand(arg string) error {
	if strings.ContainsRune(arg, filepath.Separator) {
		return nil
	}
	if _, err := os.Lstat(arg); err == nil || !os.IsNotExist(err) {
		return nil
	}
	return &fail.Error{Kind: fail.Usage, Op: arg + " is neither a command nor a directory",
		Next: "see fsmount --help, or make the directory first"}
}

// usageArgs makes a failed check of arguments a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &fail.Error{Kind: fail.Usage, Op: cmd.CommandPath(), Err: err, Next: "see " + cmd.CommandPath() + " --help"}
		}
		return nil
	}
}

func usageError(err error) error {
	return &fail.Error{Kind: fail.Usage, Op: err.Error(), Next: "see fsmount --help"}
}

// groupCmd is a command that only holds others.
func groupCmd(use, short string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
}

// runner is the shape of a command's own function.
type runner func(ctx context.Context, args []string) error

func (r runner) cobra() func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error { return r(cmd.Context(), args) }
}
