package main

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/internal/node"
)

// umountPatience is how long umount waits for the node to flush and leave.
const umountPatience = time.Minute

func newUmountCmd(*globals) *cobra.Command {
	return &cobra.Command{
		Use:   "umount MOUNTPOINT",
		Short: "Unmount, and end the node behind the mount",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: runner(func(ctx context.Context, args []string) error {
			return runUmount(ctx, args[0])
		}).cobra(),
	}
}

func runUmount(ctx context.Context, point string) error {
	m, err := findMount(point)
	if err != nil {
		return err
	}
	dead := node.Dead(m.Mountpoint)
	err = node.Unmount(m.Mountpoint, dead) // who is in a dead mount has lost it already
	if errors.Is(err, syscall.EBUSY) {
		return &fail.Error{Kind: fail.Mountpoint, Op: "mount point " + m.Mountpoint + " is in use by a program",
			Next: "leave it and close its files (fuser -vm " + m.Mountpoint + " shows who)"}
	}
	if err != nil {
		return err
	}
	return awaitEnd(ctx, m.DataDir, dead)
}

// awaitEnd waits until the node of a mount that was taken away has ended. Who has the directory of a dead mount may be
// another node, which has nothing to do with it.
func awaitEnd(ctx context.Context, dir string, dead bool) error {
	for deadline := time.Now().Add(umountPatience); node.Running(dir) && (!dead || ending(ctx, dir)); {
		if time.Now().After(deadline) {
			if dead {
				return nil
			}
			return &fail.Error{Kind: fail.Timeout, Op: "unmounted, but the node in " + dir + " has not ended yet",
				Next: "see its log"}
		}
		if !sleep(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
	if !dead && !node.EndedInOrder(dir) {
		return &fail.Error{Kind: fail.Internal, Op: "unmounted, but the node in " + dir + " could not flush everything",
			Next: "see its log"}
	}
	return nil
}

// findMount finds one of our mounts by its path. It does not touch the mount,
// which may be dead.
func findMount(point string) (node.MountInfo, error) {
	abs, err := filepath.Abs(point)
	if err != nil {
		return node.MountInfo{}, err
	}
	place := node.PlaceOf(abs)
	mounts, err := node.Mounts()
	if err != nil {
		return node.MountInfo{}, err
	}
	for _, m := range slices.Backward(mounts) { // the last lies on top
		if m.Mountpoint == place {
			return m, nil
		}
	}
	return node.MountInfo{}, &fail.Error{Kind: fail.Mountpoint, Op: abs + " is not a mount of fsmount", Next: "findmnt -t fuse.forever lists them"}
}
