package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/internal/node"
)

// umountPatience is how long umount waits for the node to flush and leave.
const umountPatience = time.Minute

// letGoPatience is how long the kernel takes to let go of a mount that is nowhere else. A mount namespace made meanwhile, such as a
// container's, has a copy of it.
const letGoPatience = 2 * time.Second

func newUmountCmd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "umount MOUNTPOINT",
		Short: "Unmount, and end the node behind the mount",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: runner(func(ctx context.Context, args []string) error {
			return runUmount(ctx, g, args[0])
		}).cobra(),
	}
}

func runUmount(ctx context.Context, g *globals, point string) error {
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
	if other, _ := mountOf(m.DataDir); other != "" && !dead { // what cannot be read shows none
		fmt.Fprintf(g.err, "fsmount: the node goes on, as it is also mounted on %s\n", other)
		return nil
	}
	return awaitEnd(ctx, m.DataDir, dead)
}

// mountOf returns where a node is mounted in this mount namespace, or "".
func mountOf(dir string) (at string, err error) {
	mounts, err := node.Mounts()
	for _, m := range mounts {
		if m.DataDir == dir {
			return m.Mountpoint, err
		}
	}
	return "", err
}

// awaitEnd waits until the node of a mount that was taken away has ended, and tells it to if the mount lives on elsewhere. Who has the
// directory of a dead mount may be another node, which has nothing to do with it.
func awaitEnd(ctx context.Context, dir string, dead bool) error {
	began, told := time.Now(), false
	for node.Running(dir) && (!dead || ending(ctx, dir)) {
		if !dead && !told && time.Since(began) > letGoPatience {
			told = true
			tellToEnd(ctx, dir)
		}
		if time.Since(began) > umountPatience {
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

// tellToEnd has the running node of a data directory end as it does on a signal, if it answers.
func tellToEnd(ctx context.Context, dir string) {
	c := control.NewClient(dir)
	defer c.Close()
	if st, err := c.Status(ctx); err == nil {
		_ = syscall.Kill(st.PID, syscall.SIGTERM) // else awaitEnd says that it goes on
	}
}

// findMount finds one of our mounts by its path. It does not touch the mount,
// which may be dead.
func findMount(point string) (node.MountInfo, error) {
	abs, err := filepath.Abs(point)
	if err != nil {
		return node.MountInfo{}, err
	}
	place := node.PlaceOf(abs)
	m, ours := node.MountAt(place)
	if ours {
		return m, nil
	}
	mounts, err := node.Mounts()
	if err != nil {
		return node.MountInfo{}, err
	}
	if slices.ContainsFunc(mounts, func(m node.MountInfo) bool { return m.Mountpoint == place }) {
		return node.MountInfo{}, &fail.Error{Kind: fail.Mountpoint, Op: abs + " has something of others mounted on top", Next: "unmount that first: umount " + abs}
	}
	return node.MountInfo{}, &fail.Error{Kind: fail.Mountpoint, Op: abs + " is not a mount of fsmount", Next: "findmnt -t fuse.forever lists them"}
}
