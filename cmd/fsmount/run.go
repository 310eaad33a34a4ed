package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/foreverfs/forever/internal/control"
	"github.com/foreverfs/forever/internal/fail"
	"github.com/foreverfs/forever/internal/node"
)

// runNode runs a node until it is told to end: with a mount if mount.point is
// set. With --daemon it starts another process for that and returns when that
// one is usable.
func runNode(ctx context.Context, g *globals, opts *nodeOptions, mount *mountOptions) error {
	dir, err := g.dir()
	if err != nil {
		return err
	}
	if err := errors.Join(opts.check(), mount.check()); err != nil {
		return err
	}
	log, err := opts.logger(g.err)
	if err != nil {
		return err
	}
	if opts.readyFD > 0 {
		return runChild(ctx, opts, mount, opts.config(dir, log))
	}
	if err := checkBefore(ctx, dir, mount); err != nil {
		return err
	}
	if err := prepare(ctx, g, opts.config(dir, log), opts.join, mount.point != ""); err != nil {
		return err
	}
	if opts.daemon {
		return startDaemon(ctx, g, dir, opts, mount)
	}
	return serveNode(ctx, opts.config(dir, log), mount, func() error { return nil })
}

// checkBefore refuses what cannot work before anything is created.
func checkBefore(ctx context.Context, dir string, mount *mountOptions) error {
	if !awaitEnding(ctx, dir) {
		return &fail.Error{Kind: fail.InUse, Op: "data directory " + dir + " is in use by a running node",
			Next: "talk to that node (fsmount status), end it, or choose another directory with --data"}
	}
	if mount.point == "" {
		return nil
	}
	var err error
	mount.point, err = node.PrepareMountpoint(mount.point, dir, mount.allowOther)
	return err
}

// awaitEnding reports whether the data directory is free, and waits for a node there
// that is about to end: one whose mount somebody has just taken away, or that another command has started for the moment.
func awaitEnding(ctx context.Context, dir string) bool {
	for deadline := time.Now().Add(otherPatience); node.Running(dir); {
		if time.Now().After(deadline) || !ending(ctx, dir) || !sleep(ctx, 20*time.Millisecond) {
			return false
		}
	}
	return true
}

// ending reports whether the node in dir does not answer any more, has lost its mount, or is there for another
// command only.
func ending(ctx context.Context, dir string) bool {
	ctx, cancel := context.WithTimeout(ctx, otherPatience/4)
	defer cancel()
	c := control.NewClient(dir)
	defer c.Close()
	st, err := c.Status(ctx)
	if err != nil { // of a killed node the last threads go a moment after its connections
		return errors.Is(err, control.ErrNoNode) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
			errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	}
	if st.Mountpoint == "" {
		return st.Listen == "" // a node for the moment
	}
	at, err := mountOf(st.DataDir)
	return err == nil && at == ""
}

// prepare makes the data directory hold a volume: it creates one, or joins that
// of an invite, unless there is one already. Nothing is created, nor an invite used up, for a node that could not run then.
func prepare(ctx context.Context, g *globals, cfg node.Config, invite string, mounts bool) error {
	ready, err := node.Initialised(cfg.Dir)
	switch {
	case err != nil:
		return err
	case ready && invite != "":
		return node.CheckJoined(cfg.Dir, invite)
	case ready:
		return nil
	}
	if err := node.CheckFirst(cfg, invite, mounts); err != nil {
		return err
	}
	if invite != "" {
		return node.Join(ctx, cfg, invite)
	}
	return createVolume(ctx, g, cfg)
}

// createVolume creates a volume and shows its recovery phrase, this once.
func createVolume(ctx context.Context, g *globals, cfg node.Config) error {
	phrase, err := node.Create(ctx, cfg)
	if err != nil {
		return err
	}
	return showPhrase(g, phrase)
}

func showPhrase(g *globals, phrase string) error {
	fmt.Fprintln(g.err, "Recovery phrase: write it down and keep it off this machine. With it and one surviving")
	fmt.Fprintln(g.err, "device everything can be recovered; it is shown this once and stored nowhere.")
	if _, err := fmt.Fprintln(g.out, phrase); err != nil {
		return &fail.Error{Kind: fail.KindOf(err), Op: "the recovery phrase cannot be shown", Next: "mint a new one with fsmount key export"}
	}
	return nil
}

// serveNode runs the node in this process until ctx is done or its mount goes.
// ready is called once it is usable.
func serveNode(ctx context.Context, cfg node.Config, mount *mountOptions, ready func() error) (err error) {
	serveProfiles(cfg.Logger)
	h, err := openHost(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	if n := h.Main(); mount.point != "" && n != nil {
		err := n.Mount(node.MountConfig{
			Mountpoint: mount.point, AllowOther: mount.allowOther, Options: mount.options, IdlePoll: mount.idlePoll,
		})
		if err != nil {
			return err
		}
	}
	if err := ready(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		cfg.Logger.Info("ending: told to by a signal")
		return nil
	case err := <-h.Done():
		return err
	}
}

// openHost is node.OpenHost that waits for nodes which other commands start for the moment, as ownNode does.
func openHost(ctx context.Context, cfg node.Config) (*node.Host, error) {
	for deadline := time.Now().Add(otherPatience); ; {
		h, err := node.OpenHost(ctx, cfg)
		if fail.KindOf(err) != fail.InUse || time.Now().After(deadline) || !awaitEnding(ctx, cfg.Dir) {
			return h, err
		}
	}
}

// absolute makes the paths a child is given independent of its directory.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// logFile opens the file a daemon logs to.
func logFile(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, node.LogName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}
